"""Folds a scale by one number, such as attention's 1/√d, into weights further up."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from webkiln.passes.graph import (
    array,
    constant,
    factor_of,
    is_constant,
    is_op,
    nodes_of,
    only_consumer,
    remove,
    replace,
)

__all__ = ["fold_scale"]

# What a factor commutes with: operators that only move numbers.
_MOVES = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten")


def fold_scale(model: ir.Model) -> ir.Model:
    """Mul or Div by one constant number: gone, if a matrix of weights above can carry the factor.

    The way up goes through values that nothing else reads: moves of numbers, an Add of a constant
    (which is scaled with it), and a MatMul of two activations (through its first operand).
    """
    for node in nodes_of(model, "Mul", "Div"):
        found = factor_of(node)
        if found is None:
            continue
        value, factor = found
        path = _path_to_weights(value)
        if path is None or not replace(node.outputs[0], value):
            continue
        for carrier, index in path:
            weights = carrier.inputs[index]
            assert weights is not None
            numbers = array(weights)
            assert numbers is not None
            name = f"{carrier.name or carrier.outputs[0].name}/scaled"
            scaled = constant(model, numbers * np.float64(factor), name, like=weights.const_value)
            carrier.replace_input_with(index, scaled)
        remove(model, [node])
    return model


def _path_to_weights(value: ir.Value) -> list[tuple[ir.Node, int]] | None:
    """The nodes and input indices whose constants must be scaled for `value` to be."""
    carriers: list[tuple[ir.Node, int]] = []
    while True:
        node = value.producer()
        if node is None or node.inputs[0] is None:
            return None
        if is_op(node, *_MOVES):
            value = node.inputs[0]
        elif is_op(node, "Add"):
            index = next((i for i in (0, 1) if is_constant(node.inputs[i])), None)
            above = None if index is None else node.inputs[1 - index]
            if index is None or above is None:
                return None
            carriers.append((node, index))
            value = above
        elif is_op(node, "MatMul"):
            if is_constant(node.inputs[1]):
                return [*carriers, (node, 1)]
            value = node.inputs[0]
        elif is_op(node, "Gemm", "Conv") and is_constant(node.inputs[1]):
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            if bias is not None and not is_constant(bias):
                return None
            return [*carriers, (node, 1), *([(node, 2)] if bias is not None else [])]
        else:
            return None
        if only_consumer(value) is not node:
            return None
