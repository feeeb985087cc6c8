"""Cancels and merges transposes, and turns those that move no number into reshapes."""

from __future__ import annotations

import onnx_ir as ir

from webkiln.passes.graph import (
    attribute,
    constant,
    dims,
    is_op,
    nodes_of,
    only_consumer,
    remove,
    replace,
    scalar,
)
from webkiln.passes.merge_reshapes import reshape_target

__all__ = ["simplify_transposes"]

_UNARY = (
    "Abs", "Cast", "Ceil", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu",
    "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Equal", "Greater", "Less", "Where")


def simplify_transposes(model: ir.Model) -> ir.Model:
    """Each Transpose moves down through element-wise nodes to the next one, and merges with it.

    A permutation that only moves axes of extent 1 becomes a Reshape, the identity goes away.
    """
    for node in nodes_of(model, "Transpose"):
        _merge_with_above(model, node)
    for node in nodes_of(model, "Transpose"):
        _sink(model, node)
    for node in nodes_of(model, "Transpose"):
        _merge_with_above(model, node)
    for node in nodes_of(model, "Transpose"):
        _drop_if_still(model, node)
    return model


def _perm(node: ir.Node) -> list[int] | None:
    perm = attribute(node, "perm")
    if perm is None:
        shape = dims(node.inputs[0])
        return None if shape is None else list(range(len(shape)))[::-1]
    return [int(axis) for axis in perm]


def _merge_with_above(model: ir.Model, node: ir.Node) -> None:
    """Transpose ∘ Transpose → one."""
    above = node.inputs[0].producer() if node.inputs[0] is not None else None
    if above is None or not is_op(above, "Transpose"):
        return
    first, second = _perm(above), _perm(node)
    if first is None or second is None:
        return
    node.replace_input_with(0, above.inputs[0])
    node.attributes["perm"] = ir.AttrInt64s("perm", [first[axis] for axis in second])
    if not above.outputs[0].uses() and not above.outputs[0].is_graph_output():
        remove(model, [above])


def _drop_if_still(model: ir.Model, node: ir.Node) -> None:
    """No axis moves: gone. Only axes of extent 1 move: a Reshape, which moves no number."""
    perm, shape, x = _perm(node), dims(node.inputs[0]), node.inputs[0]
    if perm is None or x is None:
        return
    if perm == sorted(perm):
        if replace(node.outputs[0], x):
            remove(model, [node])
        return
    if shape is None:
        return
    moved = [axis for axis in perm if shape[axis] != 1]
    output = node.outputs[0]
    output.shape = ir.Shape([shape[axis] for axis in perm])
    target = reshape_target(output)
    if moved != sorted(moved) or target is None:
        return
    name = node.name or str(output.name)
    reshape = ir.node("Reshape", [x, constant(model, target, f"{name}/shape")], name=name)
    reshape.outputs[0].name = f"{name}/reshaped"
    reshape.outputs[0].type, reshape.outputs[0].shape = output.type, output.shape
    node.append(reshape)
    replace(output, reshape.outputs[0])
    remove(model, [node])


def _sink(model: ir.Model, node: ir.Node) -> None:
    """Swaps the Transpose with the element-wise nodes below it, if another one waits there."""
    perm = _perm(node)
    if perm is None:
        return
    chain: list[ir.Node] = []
    below = only_consumer(node.outputs[0])
    while below is not None and _element_wise_in_one(below):
        chain.append(below)
        below = only_consumer(below.outputs[0])
    if not chain or below is None or not is_op(below, "Transpose"):
        return
    x, first, last = node.inputs[0], chain[0], chain[-1].outputs[0]
    assert x is not None
    for index, value in enumerate(first.inputs):
        if value is node.outputs[0]:
            first.replace_input_with(index, x)
    for element in chain:
        element.outputs[0].shape = x.shape
    inner = _perm(below)
    if inner is None:
        return
    below.attributes["perm"] = ir.AttrInt64s("perm", [perm[axis] for axis in inner])
    remove(model, [node])
    assert last is below.inputs[0]


def _element_wise_in_one(node: ir.Node) -> bool:
    """Whether the node works on each element of one tensor; other inputs are single numbers."""
    if is_op(node, *_UNARY):
        return all(value is None or scalar(value) is not None for value in node.inputs[1:])
    if is_op(node, *_BINARY):
        tensors = [value for value in node.inputs if value is not None and not _number(value)]
        return len(tensors) == 1
    return False


def _number(value: ir.Value) -> bool:
    return scalar(value) is not None and (value.shape is None or len(value.shape) <= 1)
