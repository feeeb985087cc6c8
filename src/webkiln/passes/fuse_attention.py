"""Recognises attention in the small nodes that exporters write, and makes it one operator.

As nodes of their own the scores, [heads, queries, keys] of them, go through memory three times; the
schedules of attention keep those of a few queries in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from webkiln.passes.graph import (
    attribute,
    constant,
    dims,
    factor_of,
    is_constant,
    is_op,
    nodes_of,
    only_consumer,
    remove,
    replace,
    require_opset,
)

__all__ = ["fuse_attention"]

_OPSET, _IR_VERSION = 23, 11  # the first with Attention
_LANES = 4  # the schedules want heads whose sizes are multiples of this


@dataclass(frozen=True)
class _Scores:
    """scale · product + Σ biases, made by `nodes`: the last one first, the product last."""

    nodes: tuple[ir.Node, ...]
    scale: float = 1.0
    biases: tuple[ir.Value, ...] = ()


def fuse_attention(model: ir.Model) -> ir.Model:
    """MatMul(Softmax(MatMul(q, kᵀ) · scale + bias …), v) → Attention(q, k, v, bias).

    q is float32 [batch, heads, queries, size] or [heads, queries, size], kᵀ and v have the same
    leading axes, and heads have sizes that are known and multiples of four.
    """
    for softmax in nodes_of(model, "Softmax"):
        weights = softmax.outputs[0]
        shape, mix = dims(weights), only_consumer(weights)
        if shape is None or mix is None or not is_op(mix, "MatMul"):
            continue
        if weights.dtype != ir.DataType.FLOAT or mix.inputs[0] is not weights:
            continue
        if attribute(softmax, "axis", -1) not in (-1, len(shape) - 1):
            continue
        scores = _scores(softmax.inputs[0], shape)
        if scores is None:
            continue
        operands = [*scores.nodes[-1].inputs, mix.inputs[1]]
        if _fits(shape, operands):
            _fuse(model, mix, operands, scores)
            remove(model, [mix, softmax, *scores.nodes])
    return model


def _scores(value: ir.Value | None, shape: list[int | str | None]) -> _Scores | None:
    """How `value`, of this shape, is made of a product; None if it isn't, or others read it."""
    node = value.producer() if value is not None and only_consumer(value) is not None else None
    if node is None or dims(value) != shape:
        return None
    if is_op(node, "MatMul"):
        return _Scores((node,))
    if is_op(node, "Mul", "Div"):
        value, factor = factor_of(node) or (None, 0.0)
        below = _scores(value, shape)
        if factor <= 0 or below is None or below.biases:
            return None  # the operator takes a root of its scale
        return _Scores((node, *below.nodes), below.scale * factor)
    for index in (0, 1) if is_op(node, "Add") else ():
        below, bias = _scores(node.inputs[index], shape), node.inputs[1 - index]
        # The operator pads a bias that is narrower than the scores, instead of broadcasting it.
        if below is not None and bias is not None and (dims(bias) or [None])[-1] == shape[-1]:
            return _Scores((node, *below.nodes), below.scale, (*below.biases, bias))
    return None


def _fits(shape: list[int | str | None], operands: list[ir.Value | None]) -> bool:
    """Whether queries, keys and values are what a schedule of attention takes."""
    if len(shape) not in (3, 4) or None in shape or any(map(is_constant, operands)):
        return False
    query, keys, values = (dims(x) or [None] for x in operands)
    if any(x[:-2] != shape[:-2] for x in (query, keys, values)):
        return False
    return all(isinstance(n, int) and n % _LANES == 0 for n in (query[-1], values[-1]))


def _fuse(model: ir.Model, mix: ir.Node, operands: list[ir.Value | None], scores: _Scores) -> None:
    """Puts Attention in the place of `mix`."""
    name, output = mix.name or str(mix.outputs[0].name), mix.outputs[0]
    query, keys, values = operands
    assert query is not None and keys is not None and values is not None
    made: list[ir.Node] = []

    def node(op: str, place: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
        made.append(ir.node(op, inputs, attributes, name=f"{name}{place}"))
        made[-1].outputs[0].name = made[-1].name
        made[-1].outputs[0].dtype = ir.DataType.FLOAT
        return made[-1].outputs[0]

    shape = dims(keys) or []
    axes = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    keys = node("Transpose", "/keys", [keys], perm=axes)
    keys.shape = ir.Shape([shape[i] for i in axes])
    given = [query, keys, values]
    alone = constant(model, np.array([0]), f"{name}/batch") if len(shape) == 3 else None
    if alone is not None:  # heads of one batch; a bias broadcasts to that
        places = ("/query", "/key", "/value")
        given = [node("Unsqueeze", p, [x, alone]) for p, x in zip(places, given, strict=True)]
    biases = list(scores.biases)
    while len(biases) > 1:
        biases[:2] = [node("Add", f"/bias{len(biases)}", biases[:2])]
    result = node("Attention", "/attention", [*given, *biases], scale=scores.scale)
    if alone is not None:
        result = node("Squeeze", "/heads", [result, alone])
    result.shape = output.shape
    mix.prepend(made)
    require_opset(model, _OPSET, _IR_VERSION)
    replace(output, result)
