"""Merges products of one input with several quantised matrices: query, key and value become one."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln.passes.graph import array, attribute, constant, dims, is_op
from webkiln.passes.merge_parallel_matmuls import merge_products

__all__ = ["merge_quantised_products"]

_SAME = ("K", "bits", "block_size", "accuracy_level", "weight_prepacked")
_REACH = 3  # element-wise nodes from a product to where it meets another: x · Sigmoid(x) · y
_ELEMENT_WISE = ("Sigmoid", "Swish", "Mul", "Gelu", "Tanh", "Relu", "Silu")


def merge_quantised_products(model: ir.Model) -> ir.Model:
    """MatMulNBits(x, W₁), MatMulNBits(x, W₂), … → Split(MatMulNBits(x, [W₁ W₂ …])).

    Of matrices in blocks of one form. A gate and what it lets through stay apart: kernels compute
    both at once, with their product.
    """
    groups: dict[tuple[Any, ...], list[ir.Node]] = defaultdict(list)
    for node in list(model.graph):
        form = _form(node)
        if form is not None:
            groups[form].append(node)
    for nodes in groups.values():
        apart = _not_gated(nodes)
        if len(apart) > 1:
            _merge(model, apart)
    return model


def _form(node: ir.Node) -> tuple[Any, ...] | None:
    """What products that may become one have in common; None for other nodes."""
    if node.domain != "com.microsoft" or node.op_type != "MatMulNBits":
        return None
    x, data, scales, *more = node.inputs
    zeros = more[0] if more else None
    if x is None or x.const_value is not None or dims(x) is None or any(more[1:]):
        return None
    numbers = [array(v) for v in (data, scales)]
    if any(a is None for a in numbers) or (zeros is not None and array(zeros) is None):
        return None
    kinds = tuple(_kind(array(v)) for v in (data, scales, zeros))
    return (x, kinds, *(attribute(node, name, 0) for name in _SAME))


def _kind(numbers: npt.NDArray[Any] | None) -> tuple[Any, ...]:
    return () if numbers is None else (str(numbers.dtype), *numbers.shape[1:])


def _not_gated(nodes: list[ir.Node]) -> list[ir.Node]:
    """Those of `nodes` whose results don't meet another's element by element."""
    reached = [_reached(node.outputs[0], _REACH) for node in nodes]
    return [
        node
        for i, node in enumerate(nodes)
        if not any(reached[i] & other for j, other in enumerate(reached) if j != i)
    ]


def _reached(value: ir.Value, steps: int) -> set[ir.Node]:
    """Element-wise nodes within `steps` of `value`."""
    if steps == 0:
        return set()
    nodes = {use.node for use in value.uses() if is_op(use.node, *_ELEMENT_WISE)}
    return nodes.union(*(_reached(n.outputs[0], steps - 1) for n in nodes))


def _merge(model: ir.Model, nodes: list[ir.Node]) -> None:
    x = nodes[0].inputs[0]
    assert x is not None
    columns = [int(attribute(node, "N")) for node in nodes]

    def product(name: str) -> ir.Node:
        parts: list[ir.Value | None] = [x]
        for i, what in enumerate(("weight", "scales", "zeros"), 1):
            numbers = [array(node.inputs[i]) if i < len(node.inputs) else None for node in nodes]
            given = [a for a in numbers if a is not None]
            if given:
                parts.append(constant(model, np.concatenate(given), f"{name}/{what}"))
        attributes = {n: attribute(nodes[0], n) for n in _SAME if n in nodes[0].attributes}
        attributes["N"] = sum(columns)
        return ir.node("MatMulNBits", parts, attributes, domain="com.microsoft", name=name)

    merge_products(model, x, nodes, columns, product)
