"""Folds a Pad into the convolution or pool that follows, and makes automatic padding explicit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from webkiln.passes.graph import array, attribute, dims, is_op, nodes_of, only_consumer, remove
from webkiln.passes.graph import scalar as number

__all__ = ["explicit_pads", "fold_pad"]

_WINDOWED = ("Conv", "MaxPool", "AveragePool", "LpPool")


def explicit_pads(model: ir.Model) -> ir.Model:
    """auto_pad of convolutions and pools → pads, where the input's extents are known."""
    for node in nodes_of(model, *_WINDOWED):
        mode = attribute(node, "auto_pad", "NOTSET")
        shape, kernel = dims(node.inputs[0]), _kernel(node)
        if mode == "NOTSET" or shape is None or kernel is None:
            continue
        if mode == "VALID":
            begin = end = [0] * len(kernel)
        else:
            found = _same(node, shape[2:], kernel, mode == "SAME_UPPER")
            if found is None:
                continue
            begin, end = found
        node.attributes.pop("auto_pad")
        node.attributes["pads"] = ir.AttrInt64s("pads", [*begin, *end])
    return model


def fold_pad(model: ir.Model) -> ir.Model:
    """Pad with zeros, of spatial axes, then Conv or AveragePool → pads of that operator.

    AveragePool then counts the zeros in, as it did. MaxPool takes a padding of -∞.
    """
    for pad in nodes_of(model, "Pad"):
        after = only_consumer(pad.outputs[0])
        if after is None or not is_op(after, "Conv", "AveragePool", "MaxPool"):
            continue
        if (
            after.inputs[0] is not pad.outputs[0]
            or attribute(pad, "mode", "constant") != "constant"
        ):
            continue
        amounts = _amounts(pad)
        if amounts is None or min(amounts) < 0:
            continue
        rank = len(amounts) // 2
        if any(amounts[axis] for axis in (0, 1, rank, rank + 1)) or not _value_fits(pad, after):
            continue
        if attribute(after, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            continue
        if attribute(after, "ceil_mode", 0):
            continue
        own = attribute(after, "pads", [0] * (2 * (rank - 2)))
        spatial = [*amounts[2:rank], *amounts[rank + 2 :]]
        total = [a + b for a, b in zip(own, spatial, strict=True)]
        if not is_op(after, "Conv") and any(
            pad >= window for pad, window in zip(total, 2 * (_kernel(after) or []), strict=True)
        ):
            continue  # a pool's window must touch the tensor
        if is_op(after, "AveragePool"):
            if any(own) and not attribute(after, "count_include_pad", 0):
                continue
            after.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        after.attributes.pop("auto_pad", None)
        after.attributes["pads"] = ir.AttrInt64s("pads", total)
        after.replace_input_with(0, pad.inputs[0])
        remove(model, [pad])
    return model


def _amounts(pad: ir.Node) -> list[int] | None:
    """Begins of all axes, then ends, whether or not the node names its axes."""
    pads, shape = array(pad.inputs[1]), dims(pad.inputs[0])
    if pads is None or shape is None:
        return None
    given = pad.inputs[3] if len(pad.inputs) > 3 else None
    axes = array(given) if given is not None else np.arange(len(shape))
    if axes is None:
        return None
    amounts = [0] * (2 * len(shape))
    for position, axis in enumerate(int(a) % len(shape) for a in axes):
        amounts[axis] = int(pads[position])
        amounts[axis + len(shape)] = int(pads[position + len(axes)])
    return amounts


def _value_fits(pad: ir.Node, after: ir.Node) -> bool:
    given = pad.inputs[2] if len(pad.inputs) > 2 else None
    value = 0.0 if given is None else number(given)
    if is_op(after, "MaxPool"):
        return value is not None and value <= float(np.finfo(np.float32).min)
    return value == 0


def _kernel(node: ir.Node) -> list[int] | None:
    kernel = attribute(node, "kernel_shape")
    if kernel is None and is_op(node, "Conv"):
        shape = dims(node.inputs[1])
        kernel = None if shape is None else shape[2:]
    if kernel is None or not all(isinstance(size, int) for size in kernel):
        return None
    return [int(size) for size in kernel]


def _same(
    node: ir.Node, extents: Sequence[int | str | None], kernel: list[int], upper: bool
) -> tuple[list[int], list[int]] | None:
    """Pads that make the output ceil(input / stride) long; the odd one at the end if `upper`."""
    strides = attribute(node, "strides", [1] * len(kernel))
    dilations = attribute(node, "dilations", [1] * len(kernel))
    small, large = [], []
    for extent, size, stride, dilation in zip(extents, kernel, strides, dilations, strict=True):
        span = (size - 1) * dilation + 1
        if isinstance(extent, int):
            total = max((-(-extent // stride) - 1) * stride + span - extent, 0)
        elif stride == 1:  # then it doesn't depend on the extent
            total = span - 1
        else:
            return None
        small.append(total // 2)
        large.append(total - total // 2)
    return (small, large) if upper else (large, small)
