"""Merges products of one input with several weight matrices: query, key and value become one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln.passes.graph import array, constant, dims, is_op, nodes_of, only_consumer, replace

__all__ = ["merge_parallel_matmuls", "merge_products"]


def merge_parallel_matmuls(model: ir.Model) -> ir.Model:
    """MatMul(x, W₁), MatMul(x, W₂), … → Split(MatMul(x, [W₁ W₂ …])), with their biases.

    The weights are constant [K, Nᵢ]; the numbers stay the same to the last bit, in one product
    that reads x once.
    """
    groups: dict[ir.Value, list[ir.Node]] = defaultdict(list)
    for node in nodes_of(model, "MatMul"):
        x, weight = node.inputs[0], node.inputs[1]
        numbers = array(weight) if _is_matrix(weight) else None
        if x is not None and numbers is not None and dims(x) is not None and x.const_value is None:
            groups[x].append(node)
    for x, nodes in groups.items():
        dtypes = {node.inputs[1].dtype for node in nodes if node.inputs[1] is not None}
        if len(nodes) > 1 and len(dtypes) == 1:
            _merge(model, x, nodes)
    return model


def _is_matrix(value: ir.Value | None) -> bool:
    shape = dims(value)
    return shape is not None and len(shape) == 2


def _merge(model: ir.Model, x: ir.Value, nodes: list[ir.Node]) -> None:
    weights = [_array(node.inputs[1]) for node in nodes]

    def product(name: str) -> ir.Node:
        weight = constant(model, np.concatenate(weights, axis=1), f"{name}/weight")
        return ir.node("MatMul", [x, weight], name=name)

    merge_products(model, x, nodes, [w.shape[1] for w in weights], product)


def merge_products(
    model: ir.Model,
    x: ir.Value,
    nodes: list[ir.Node],
    columns: list[int],
    product: Callable[[str], ir.Node],
) -> None:
    """`nodes`, products of `x` with matrices of `columns`, become the one that `product` makes.

    It is given its name, and returns the node that has all columns side by side.
    """
    adds = [_bias(node, n) for node, n in zip(nodes, columns, strict=True)]
    ends = nodes if any(add is None for add in adds) else [add for add, _ in adds]  # type: ignore[misc]
    name = f"{nodes[0].name or nodes[0].outputs[0].name}/merged"
    lead = (dims(x) or [])[:-1]
    made = [product(name)]
    if ends is not nodes:
        bias = np.concatenate([add[1] for add in adds if add is not None])
        made.append(
            ir.node(
                "Add",
                [made[0].outputs[0], constant(model, bias, f"{name}/bias")],
                name=f"{name}/Add",
            )
        )
    sizes = constant(model, np.array(columns, np.int64), f"{name}/columns")
    split = ir.node(
        "Split",
        [made[-1].outputs[0], sizes],
        {"axis": len(lead)},
        num_outputs=len(nodes),
        name=f"{name}/Split",
    )
    made.append(split)
    for node in made[:-1]:
        node.outputs[0].name = node.name
        _describe(node.outputs[0], x, [*lead, sum(columns)])
    for index, (output, width) in enumerate(zip(split.outputs, columns, strict=True)):
        output.name = f"{split.name}_{index}"
        _describe(output, x, [*lead, width])
    _insert(model, x, made)
    for end, output in zip(ends, split.outputs, strict=True):
        replace(end.outputs[0], output)


def _array(value: ir.Value | None) -> npt.NDArray[Any]:
    numbers = array(value)
    assert numbers is not None
    return numbers


def _bias(node: ir.Node, columns: int) -> tuple[ir.Node, npt.NDArray[Any]] | None:
    """The Add of one constant a column that follows, and that constant."""
    add = only_consumer(node.outputs[0])
    if add is None or not is_op(add, "Add"):
        return None
    other = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
    shape = dims(other)
    if shape is None or [dim for dim in shape if dim != 1] != [columns] or shape[-1] != columns:
        return None
    numbers = array(other)
    rank = dims(node.outputs[0])
    if numbers is None or rank is None or numbers.ndim > len(rank):
        return None
    return add, numbers.reshape(-1)


def _describe(value: ir.Value, like: ir.Value, shape: list[int | str | None]) -> None:
    value.type, value.shape = like.type, ir.Shape(shape)


def _insert(model: ir.Model, x: ir.Value, nodes: list[ir.Node]) -> None:
    """Right behind what makes `x`, before everything that reads it."""
    producer = x.producer()
    if producer is not None:
        producer.append(nodes)
    elif len(model.graph):
        model.graph.insert_before(model.graph[0], nodes)
