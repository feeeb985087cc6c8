"""Folds parts of a shape that are numbers, where other parts of it aren't known."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from webkiln.passes.graph import array, attribute, constant, dims, is_op, nodes_of, remove, replace

__all__ = ["fold_shapes"]

_TO_THE_END = np.iinfo(np.int64).max


def fold_shapes(model: ir.Model) -> bool:
    """Gather and Slice of a Shape → constants, if the extents they take are numbers.

    `model` is changed; whether anything was found.
    """
    found = False
    for node in nodes_of(model, "Shape", "Gather", "Slice"):
        extents = _extents(node)
        if extents is None or not all(isinstance(dim, int) for dim in extents):
            continue
        numbers = np.array(extents, np.int64)
        if is_op(node, "Gather") and not (node.inputs[1] and dims(node.inputs[1])):
            numbers = numbers.reshape(())
        known = constant(model, numbers, f"{node.name or node.outputs[0].name}/known")
        known.dtype, known.shape = ir.DataType.INT64, ir.Shape(numbers.shape)
        if replace(node.outputs[0], known):
            remove(model, [node])
            found = True
    return found


def _extents(node: ir.Node) -> list[int | str | None] | None:
    """The extents that the node takes from a shape; None if it is no such node."""
    if is_op(node, "Shape"):
        whole = dims(node.inputs[0])
        start, end = attribute(node, "start", 0), attribute(node, "end", _TO_THE_END)
        return None if whole is None else whole[start:end]
    shape = node.inputs[0].producer() if node.inputs[0] is not None else None
    if shape is None or not is_op(shape, "Shape"):
        return None
    whole = _extents(shape)
    indices = [array(value) for value in node.inputs[1:]]
    if whole is None or any(index is None for index in indices):
        return None
    numbers = [int(i.reshape(-1)[0]) for i in indices if i is not None and i.size == 1]
    if len(numbers) != len(indices):
        return None
    if is_op(node, "Gather"):
        return [whole[numbers[0]]] if -len(whole) <= numbers[0] < len(whole) else None
    step = numbers[3] if len(numbers) > 3 else 1
    return whole[numbers[0] : numbers[1] : step]
