"""Folds batch norm and other per-channel scaling and shifting into the weights before it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln.passes.graph import (
    array,
    attribute,
    constant,
    dims,
    is_op,
    nodes_of,
    only_consumer,
    remove,
    replace,
)

__all__ = ["fold_affine"]

Array = npt.NDArray[Any]


class _Affine(NamedTuple):
    """y = x * scale + shift, each of one number or one a channel."""

    scale: Array
    shift: Array


def fold_affine(model: ir.Model) -> ir.Model:
    """Scaling and shifting after Conv, ConvTranspose, Gemm or MatMul → other weights.

    That is BatchNormalization, Neg, and Mul, Div, Add or Sub by constants of one number a channel.
    A shift after MatMul stays, since MatMul has no bias. Weights are computed in float64.
    """
    folders = {
        "Conv": _fold_conv,
        "ConvTranspose": _fold_conv,
        "Gemm": _fold_gemm,
        "MatMul": _fold_matmul,
    }
    for node in nodes_of(model, *folders):
        while (after := only_consumer(node.outputs[0])) is not None:
            affine = _affine(after, node)
            if affine is None or not folders[node.op_type](model, node, affine):
                break
            if not replace(after.outputs[0], node.outputs[0]):
                break
            remove(model, [after])
    return model


def _channel_axis(node: ir.Node, rank: int) -> int:
    return 1 if node.op_type.startswith("Conv") else rank - 1


def _affine(node: ir.Node, before: ir.Node) -> _Affine | None:
    """What `node` does to the output of `before`, if that is scaling and shifting."""
    value = before.outputs[0]
    shape = dims(value)
    if shape is None or (value.dtype is not None and not value.dtype.is_floating_point()):
        return None
    axis = _channel_axis(before, len(shape))
    channels = shape[axis]
    if not isinstance(channels, int):
        return None
    if is_op(node, "BatchNormalization"):
        return _batch_norm(node, value) if axis == 1 else None
    if is_op(node, "Neg"):
        return _Affine(-np.ones(1), np.zeros(1))
    if not is_op(node, "Mul", "Div", "Add", "Sub") or len(node.inputs) != 2:
        return None
    first = node.inputs[0] is value
    numbers = array(node.inputs[1 if first else 0])
    if numbers is None or numbers.ndim > len(shape):
        return None
    wanted = [1] * len(shape)
    padded = (1,) * (len(shape) - numbers.ndim) + numbers.shape
    wanted[axis] = padded[axis]
    if padded != tuple(wanted) or padded[axis] not in (1, channels):
        return None
    c = numbers.astype(np.float64).reshape(-1)
    one, zero = np.ones(1), np.zeros(1)
    match node.op_type:
        case "Mul":
            return _Affine(c, zero)
        case "Div":
            return _Affine(1 / c, zero) if first and c.all() else None
        case "Add":
            return _Affine(one, c)
        case _:
            return _Affine(one, -c) if first else _Affine(-one, c)


def _batch_norm(node: ir.Node, value: ir.Value) -> _Affine | None:
    if node.inputs[0] is not value or attribute(node, "training_mode", 0):
        return None
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return None
    parameters = [array(parameter) for parameter in node.inputs[1:5]]
    if any(parameter is None for parameter in parameters):
        return None
    gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return _Affine(scale, beta - mean * scale)


def _fold_conv(model: ir.Model, node: ir.Node, affine: _Affine) -> bool:
    weight = array(node.inputs[1])
    bias = array(_input(node, 2))
    if weight is None or (_input(node, 2) is not None and bias is None):
        return False
    if node.op_type == "Conv":  # [out, in / group, …]
        filters = weight.shape[0]
        scale = np.broadcast_to(affine.scale, filters)
        scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    else:  # [in, out / group, …]: each group has its own part of the outputs
        group = attribute(node, "group", 1)
        filters = weight.shape[1] * group
        scale = np.broadcast_to(affine.scale, filters)
        grouped = weight.reshape(group, -1, *weight.shape[1:])
        tail = [1] * (weight.ndim - 2)
        scaled = (grouped * scale.reshape(group, 1, -1, *tail)).reshape(weight.shape)
    shifted = (0.0 if bias is None else bias) * scale + np.broadcast_to(affine.shift, filters)
    _set(model, node, 1, scaled, "weight")
    _set(model, node, 2, shifted, "bias")
    return True


def _fold_gemm(model: ir.Model, node: ir.Node, affine: _Affine) -> bool:
    weight, bias = array(node.inputs[1]), array(_input(node, 2))
    beta = attribute(node, "beta", 1.0)
    if weight is None or (_input(node, 2) is not None and bias is None) or beta == 0:
        return False
    columns = weight.shape[0 if attribute(node, "transB", 0) else 1]
    if bias is not None and bias.size not in (1, columns):
        return False
    scale = np.broadcast_to(affine.scale, columns)
    bias = np.broadcast_to(np.zeros(1) if bias is None else bias.reshape(-1), columns)
    shifted = bias * scale + np.broadcast_to(affine.shift, columns) / beta
    _set(model, node, 1, weight * (scale[:, None] if attribute(node, "transB", 0) else scale), "B")
    _set(model, node, 2, shifted, "C")
    return True


def _fold_matmul(model: ir.Model, node: ir.Node, affine: _Affine) -> bool:
    weight = array(node.inputs[1])
    if weight is None or weight.ndim != 2 or affine.shift.any():
        return False
    _set(model, node, 1, weight * affine.scale, "weight")
    return True


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _set(model: ir.Model, node: ir.Node, index: int, numbers: Array, name: str) -> None:
    like = node.inputs[1].const_value if node.inputs[1] is not None else None
    value = constant(model, numbers, f"{node.name or node.outputs[0].name}/{name}", like=like)
    if index == len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
