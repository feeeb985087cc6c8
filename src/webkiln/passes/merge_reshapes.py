"""Makes one Reshape of a chain of nodes that only rename a tensor's axes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from webkiln.passes.graph import constant, dims, is_op, nodes_of, remove, replace

__all__ = ["merge_reshapes", "reshape_target"]

_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def merge_reshapes(model: ir.Model) -> ir.Model:
    """Reshape, Flatten, Squeeze, Unsqueeze in a row → one Reshape, or none.

    Done where the last shape has at most one symbolic extent: that one is -1 in the Reshape.
    """
    for node in nodes_of(model, *_VIEWS):
        source = node.inputs[0]
        assert source is not None
        producer = source.producer()
        if producer is None or not is_op(producer, *_VIEWS):
            continue
        while producer is not None and is_op(producer, *_VIEWS):
            source = producer.inputs[0]
            assert source is not None
            producer = source.producer()
        target = reshape_target(node.outputs[0])
        if target is None:
            continue
        output = node.outputs[0]
        shape = dims(output)
        if shape == dims(source) and None not in (shape or [None]) and replace(output, source):
            remove(model, [node])
            continue
        name = node.name or str(output.name)
        reshape = ir.node("Reshape", [source, constant(model, target, f"{name}/shape")], name=name)
        reshape.outputs[0].name = f"{name}/merged"
        reshape.outputs[0].type, reshape.outputs[0].shape = output.type, output.shape
        node.append(reshape)
        replace(output, reshape.outputs[0])
        remove(model, [node])
    return model


def reshape_target(value: ir.Value) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """The second input of a Reshape to the value's shape; None if it can't be a constant."""
    shape = dims(value)
    if shape is None or sum(not isinstance(dim, int) for dim in shape) > 1 or 0 in shape:
        return None
    return np.array([dim if isinstance(dim, int) else -1 for dim in shape], np.int64)
