"""Takes out nodes that change nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from webkiln.passes.graph import array, attribute, dims, is_op, nodes_of, remove, replace, scalar

__all__ = ["remove_no_ops"]

_Check = Callable[[ir.Node, int], bool]

_NEVER = 2**31  # ends of slices at or past this mean "to the end"


def remove_no_ops(model: ir.Model) -> ir.Model:
    """Identity, Dropout, casts to the same type, moves that move nothing, + 0, × 1, …"""
    for node in list(nodes_of(model, *_CHECKS)):
        x = node.inputs[0]
        kept = 0
        if is_op(node, "Add", "Mul") and x is not None and x.const_value is not None:
            kept, x = 1, node.inputs[1]
        if x is None or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
            continue
        if _CHECKS[node.op_type](node, kept) and replace(node.outputs[0], x):
            remove(model, [node])
    return model


def _same_shape(node: ir.Node, kept: int = 0) -> bool:
    """Whether output and input have equal shapes, every extent known by number or name."""
    before, after = dims(node.inputs[kept]), dims(node.outputs[0])
    return before is not None and before == after and None not in before


def _dropout(node: ir.Node, kept: int) -> bool:
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    return mode is None or scalar(mode) == 0


def _cast(node: ir.Node, kept: int) -> bool:
    x = node.inputs[0]
    return x is not None and x.dtype is not None and x.dtype == attribute(node, "to")


def _transpose(node: ir.Node, kept: int) -> bool:
    perm = attribute(node, "perm")
    return perm is not None and perm == list(range(len(perm)))


def _neutral(number: float, only_second: bool) -> _Check:
    def check(node: ir.Node, kept: int) -> bool:
        other = array(node.inputs[1 - kept])
        neutral = other is not None and other.size == 1 and bool(np.all(other == number))
        return neutral and not (only_second and kept) and _same_shape(node, kept)

    return check


def _slice(node: ir.Node, kept: int) -> bool:
    if _same_shape(node) and all(isinstance(d, int) for d in dims(node.outputs[0]) or [None]):
        steps = array(node.inputs[4]) if len(node.inputs) > 4 else np.ones(1)
        return steps is not None and bool(np.all(steps > 0))
    starts, ends = array(node.inputs[1]), array(node.inputs[2])
    steps = array(node.inputs[4]) if len(node.inputs) > 4 else np.ones(1)
    if starts is None or ends is None or steps is None:
        return False
    return bool(np.all(starts == 0) and np.all(ends >= _NEVER - 1) and np.all(steps == 1))


def _pad(node: ir.Node, kept: int) -> bool:
    pads = array(node.inputs[1])
    return pads is not None and not pads.any()


def _single(node: ir.Node, kept: int) -> bool:
    return len(node.inputs) == 1


_CHECKS: dict[str, _Check] = {
    "Identity": lambda node, kept: True,
    "Dropout": _dropout,
    "Cast": _cast,
    "Transpose": _transpose,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Slice": _slice,
    "Pad": _pad,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
    "Add": _neutral(0, False),
    "Sub": _neutral(0, True),
    "Mul": _neutral(1, False),
    "Div": _neutral(1, True),
    "Pow": _neutral(1, True),
}
