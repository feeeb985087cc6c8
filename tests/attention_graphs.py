"""Attention over a cache that is written in place, as language models use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir
from numpy.typing import NDArray

from webkiln.ir.program import Program
from webkiln.lower.graph import lower_graph

__all__ = ["cached", "feeds", "lower_cached"]

Array = NDArray[Any]
STATES = {"key_cache": "keys", "value_cache": "values"}


def cached(
    rows: int | str,
    *,
    heads: int = 4,
    kv_heads: int = 2,
    size: int = 8,
    context: int = 40,
    window: int = 0,
    softcap: float = 0.0,
) -> onnx.ModelProto:
    """`rows` new tokens (a number or a dimension) from `position` on, over `context` places."""
    more = f", softcap={softcap}" if softcap else ""
    near = "inside = Greater(entries, before)\n mask = And(causal, inside)"
    body = f"""
        keys = TensorScatter<axis=2>(key_cache, k, position)
        values = TensorScatter<axis=2>(value_cache, v, position)
        length = Shape<start=2, end=3>(q)
        flat = Squeeze(length, first)
        steps = Range(zero, flat, one)
        places = Add(position, steps)
        rows = Unsqueeze(places, second)
        causal = LessOrEqual(entries, rows)
        before = Sub(rows, window)
        {near if window else "mask = Identity(causal)"}
        y = Attention<scale=0.3{more}>(q, keys, values, mask)
    """
    cache = f"float[1,{kv_heads},{context},{size}]"
    new = f"float[1,{kv_heads},{rows},{size}]"
    queries = f"float[1,{heads},{rows},{size}]"
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 24]> cached (
            int64[1] position, {queries} q, {new} k, {new} v, {cache} key_cache, {cache} value_cache
        ) => ({queries} y, {cache} keys, {cache} values) {{ {body} }}"""
    )
    constants = {
        "first": [0],
        "second": [1],
        "zero": 0,
        "one": 1,
        "window": window,
        "entries": [list(range(context))],
    }
    for name, value in constants.items():
        tensor = onnx.numpy_helper.from_array(np.array(value, np.int64), name)
        model.graph.initializer.append(tensor)
    return model


def feeds(model: onnx.ModelProto, position: int, rows: int, seed: int = 0) -> dict[str, Array]:
    """Random inputs; the cache holds `position` tokens and zeros behind them."""
    rng = np.random.default_rng(seed)
    inputs: dict[str, Array] = {"position": np.array([position], np.int64)}
    for value in model.graph.input[1:]:
        shape = [d.dim_value or rows for d in value.type.tensor_type.shape.dim]
        inputs[value.name] = (rng.random(shape) * 4 - 2).astype(np.float32)
        if value.name in STATES:
            inputs[value.name][:, :, position:] = 0
    return inputs


def lower_cached(model: onnx.ModelProto, bounds: Mapping[str, int] | None = None) -> Program:
    """The model's computations, the caches being state."""
    return lower_graph(onnx_ir.from_proto(model), bounds or {}, STATES)[0]
