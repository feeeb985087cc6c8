"""Brings tables of ONNX's 4-bit integers to bytes of two, which is what operators here read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln.passes.graph import constant, is_constant

__all__ = ["pack_nibbles"]

_SIGNED, _UNSIGNED = ir.DataType.INT4, ir.DataType.UINT4


def pack_nibbles(model: ir.Model) -> ir.Model:
    """GatherBlockQuantized of int4 or uint4 → of uint8 with ``bits = 4``.

    Signed integers are moved up by 8. Zero points, of which bytes have 8 where none are given and
    4-bit integers 0, are always given afterwards: float32, one a block. `model` is changed.
    """
    for node in list(model.graph):
        if node.op_type == "GatherBlockQuantized" and node.domain == "com.microsoft":
            _pack(model, node)
    return model


def _pack(model: ir.Model, node: ir.Node) -> None:
    data, _, scales, *rest = node.inputs
    points = rest[0] if rest else None
    if data is None or data.const_value is None or not is_constant(data):
        return
    if data.const_value.dtype not in (_SIGNED, _UNSIGNED) or len(data.const_value.shape) != 2:
        return
    if scales is None or scales.const_value is None or points and not is_constant(points):
        return
    numbers = _unsigned(data.const_value)
    if numbers.shape[1] % 2:
        return
    packed = numbers[:, 0::2] | numbers[:, 1::2] << np.uint8(4)
    if points is None or points.const_value is None:
        centre = 8 if data.const_value.dtype == _SIGNED else 0
        zeros = np.full(scales.const_value.shape.numpy(), centre, np.float32)
    else:
        zeros = _unsigned(points.const_value).astype(np.float32)
    kept = constant(model, packed, f"{data.name}/packed")
    given = constant(model, zeros, f"{data.name}/zero_points")
    for value, array in ((kept, packed), (given, zeros)):
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    node.attributes["bits"] = ir.AttrInt64("bits", 4)
    node.replace_input_with(0, kept)
    if len(node.inputs) < 4:
        node.resize_inputs(4)
    node.replace_input_with(3, given)


def _unsigned(tensor: ir.TensorProtocol) -> npt.NDArray[np.uint8]:
    """0 … 15 for each integer; the signed ones moved up by 8."""
    move = 8 if tensor.dtype == _SIGNED else 0
    return (tensor.numpy().astype(np.int8) + np.int8(move)).astype(np.uint8)
