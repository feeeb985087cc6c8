"""Makes a half-precision graph one of float32, in which everything here computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["widen_floats"]

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def widen_floats(model: ir.Model) -> ir.Model:
    """float16 and bfloat16 become float32: inputs, outputs, constants, casts and what is between.

    `model` is changed. Constants are converted when they are read.
    """
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype in _NARROW:
                value.const_value = _widened(value.const_value)
        for value in [*graph.inputs, *graph.initializers.values()]:
            _retype(value)
    for node in model.graph.all_nodes():
        for value in node.outputs:
            _retype(value)
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in _NARROW:
                node.attributes[name] = ir.AttrTensor(name, _widened(attribute.value))
            if name in ("to", "dtype") and attribute.value in map(int, _NARROW):
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    return model


def _retype(value: ir.Value) -> None:
    if value.dtype in _NARROW:
        value.dtype = ir.DataType.FLOAT


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.LazyTensor(
        lambda: ir.tensor(np.asarray(tensor.numpy()).astype(np.float32)),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape([int(dim) for dim in tensor.shape.numpy()]),
        name=tensor.name,
    )
