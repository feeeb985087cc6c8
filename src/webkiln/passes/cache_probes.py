"""Learns from numbers what a decoder's masks, positions and attentions mean.

A probe is a made-up call: so many tokens in the past, so many new ones, nothing masked out. Parts
of the graph are evaluated on it and compared with what they are taken for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln.passes.attention_sites import Site, unsupported
from webkiln.passes.cache_graph import CacheGraph, head_size
from webkiln.passes.evaluate import evaluate
from webkiln.passes.graph import array, dims, is_constant, is_op

__all__ = ["Probe", "check_site", "find_window", "replace_positions"]

Array = npt.NDArray[Any]

_FORBIDS = -1e4  # added to a score; exporters write -10000, the lowest float, or -∞
_TOLERANCE = 1e-3  # relative, between two orders of summation in float32


class Probe:
    """Values of the model's inputs for `new` tokens behind `past` ones."""

    def __init__(self, model: ir.Model, past: int, new: int) -> None:
        self.past, self.new = past, new
        self.controls: dict[ir.Value, Array] = {}
        self.feeds: dict[ir.Value, Array] = {}
        for value in model.graph.inputs:
            found = self._feed(value)
            if found is not None:
                self.feeds[value] = found

    def _feed(self, value: ir.Value) -> Array | None:
        shape, dtype = dims(value), value.dtype
        if shape is None or dtype is None:
            return None
        places = np.arange(self.past, self.past + self.new)
        total = self.past + self.new
        rank = [1] * len(shape)
        match str(value.name):
            case "attention_mask":
                numbers = np.ones((1, total))
            case "position_ids" | "cache_position":
                numbers = np.broadcast_to(places, [*rank[:-1], self.new])
            case "seqlens_k":
                numbers = np.full(rank, total - 1)
            case "total_sequence_length":
                numbers = np.full(rank, total)
            case "past_sequence_length":
                numbers = np.full(rank, self.past)
            case _ if len(shape) == 4:  # past keys or values
                numbers = np.zeros([d if isinstance(d, int) else self.past for d in shape])
            case _ if len(shape) == 2:  # tokens
                numbers = np.zeros((1, self.new))
            case _:
                return None
        return np.ascontiguousarray(numbers).astype(dtype.numpy())

    @property
    def places(self) -> Array:
        """The position of each new token."""
        return np.arange(self.past, self.past + self.new)

    def allowed(self, window: int | None) -> Array:
        """bool [new, past + new]: which keys each new token should see."""
        keys, here = np.arange(self.past + self.new), self.places[:, None]
        return (keys <= here) & (keys > here - (window or self.past + self.new + 1))


# --- masks ----------------------------------------------------------------------------------------


def find_window(
    model: ir.Model, sites: Sequence[Site], probes: Sequence[Probe], context: int
) -> None:
    """Fills each site's `window` from its masks, and each probe's values of masks and controls.

    The last of `probes` has `context` tokens in all. Raises `UnsupportedModelError` for a mask that
    is more than causal with a window.
    """
    masks = [m for site in sites for m, _ in site.masks]
    wanted = list(dict.fromkeys([*masks, *(c for site in sites for c in site.controls)]))
    for probe in probes:
        results = evaluate(model, wanted, probe.feeds)
        probe.controls = dict(zip(wanted, results, strict=True))
    last = probes[-1]
    for site in sites:
        for mask, mode in site.masks:
            row = _allows(last.controls[mask], mode, site)[..., -1, :]
            seen = int(row.reshape(-1, row.shape[-1])[0].sum())
            if row.shape[-1] == context and 0 < seen < context:
                site.window = min(seen, site.window or seen)
        if site.window is not None and site.window >= context:
            site.window = None


def _allows(mask: Array, mode: str, site: Site) -> Array:
    if mode == "keep":
        return mask.astype(bool)
    if mode == "drop":
        return ~mask.astype(bool)
    if not ((mask == 0) | (mask <= _FORBIDS)).all():
        raise unsupported(site.node, "adds biases to the scores, which is not supported")
    kept: Array = mask == 0
    return kept


# --- attention ------------------------------------------------------------------------------------


def check_site(model: ir.Model, site: Site, probes: Sequence[Probe]) -> None:
    """Compares the attention with what it is taken for, on random numbers.

    Raises `UnsupportedModelError` where they differ.
    """
    for seed, probe in enumerate(probes):
        given = _numbers(model, site, probe, np.random.default_rng(seed))
        feeds = {**probe.feeds, **probe.controls, **given}
        got = evaluate(model, [site.output], feeds)[0]
        expected = _attention(site, probe, given)
        size = np.abs(expected).max()
        if got.shape != expected.shape or np.abs(got - expected).max() > _TOLERANCE * size:
            raise unsupported(
                site.node,
                f"with {probe.new} tokens behind {probe.past} does not compute what it looks like",
            )


def _numbers(
    model: ir.Model, site: Site, probe: Probe, rng: np.random.Generator
) -> dict[ir.Value, Array]:
    """Random queries, keys and values, old and new."""
    layer, new, past = site.layer, probe.new, probe.past
    kv_heads, size = head_size(layer.past_key)
    _, value_size = head_size(layer.past_value)

    def random(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    given = {
        layer.past_key: random(1, kv_heads, past, size),
        layer.past_value: random(1, kv_heads, past, value_size),
    }
    heads = site.heads or _query_heads(model, site, probe, given)
    if site.packed:
        width = heads * size + kv_heads * (size + value_size)
        return {**given, site.query: random(1, new, width)}
    for x, count, width in (
        (site.query, heads, size),
        (site.key, kv_heads, size),
        (site.value, kv_heads, value_size),
    ):
        flat = site.heads is not None and len(x.shape or ()) != 4
        given[x] = random(1, new, count * width) if flat else random(1, count, new, width)
    return given


def _query_heads(model: ir.Model, site: Site, probe: Probe, given: dict[ir.Value, Array]) -> int:
    """As the query's shape says, or that of the keys that it is multiplied with."""
    shape = dims(site.query)
    if shape is not None and len(shape) == 4 and isinstance(shape[1], int):
        return shape[1]
    if site.operand is None:
        raise unsupported(site.node, f"has queries of an unknown number of heads, {shape}")
    kv_heads, size = head_size(site.layer.past_key)
    key = np.zeros((1, kv_heads, probe.new, size), np.float32)
    feeds = {**probe.feeds, **probe.controls, **given, site.key: key}
    keys = evaluate(model, [site.operand], feeds)[0]
    if keys.ndim != 4 or keys.shape[1] % kv_heads:
        raise unsupported(site.node, f"has keys of shape {list(keys.shape)}")
    return int(keys.shape[1])


def _attention(site: Site, probe: Probe, given: dict[ir.Value, Array]) -> Array:
    """What `CacheGraph.rewrite` writes down, in NumPy."""
    layer = site.layer
    past_key, past_value = given[layer.past_key], given[layer.past_value]
    kv_heads, size = past_key.shape[1], past_key.shape[3]
    query, key, value = _parts(site, given, kv_heads, size, past_value.shape[3])
    if site.rotary is not None:
        query, key = (_turned(x, site, probe.places) for x in (query, key))
    keys = np.concatenate([past_key, key], axis=2)
    values = np.concatenate([past_value, value], axis=2)
    group = query.shape[1] // kv_heads
    scale = size**-0.5 if site.scale is None else site.scale
    scores = scale * query @ np.repeat(keys, group, axis=1).swapaxes(2, 3)
    if site.softcap:
        scores = site.softcap * np.tanh(scores / site.softcap)
    scores = np.where(probe.allowed(site.window), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed: Array = weights @ np.repeat(values, group, axis=1)
    mixed = mixed / weights.sum(axis=-1, keepdims=True)
    if site.heads is None:
        return mixed
    return mixed.swapaxes(1, 2).reshape(1, probe.new, -1)


def _parts(
    site: Site, given: dict[ir.Value, Array], kv_heads: int, size: int, value_size: int
) -> list[Array]:
    """Queries, keys and values [1, heads, new, size]."""
    widths = [(site.heads or 0) * size, kv_heads * size, kv_heads * value_size]
    ends = np.cumsum(widths)[:-1]
    if site.packed:
        parts = np.split(given[site.query], ends, axis=2)
    else:
        parts = [given[x] for x in (site.query, site.key, site.value)]
    if site.biases is not None:
        biases = array(site.biases)
        if biases is None:
            raise unsupported(site.node, "has biases that are no constants")
        parts = [x + b for x, b in zip(parts, np.split(biases, ends), strict=True)]
    counts = [site.heads or 0, kv_heads, kv_heads]
    return [
        x if x.ndim == 4 else x.reshape(1, x.shape[1], count, -1).swapaxes(1, 2)
        for x, count in zip(parts, counts, strict=True)
    ]


def _turned(x: Array, site: Site, places: Array) -> Array:
    """Rotary embedding (arXiv 2104.09864) of [1, heads, new, size]."""
    assert site.rotary is not None
    tables = [array(table) for table in site.rotary]
    cos, sin = (table[places] for table in tables if table is not None)
    half = cos.shape[1]
    result = x.copy()
    turned = x[..., : 2 * half]
    if site.interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        result[..., 0 : 2 * half : 2] = a * cos - b * sin
        result[..., 1 : 2 * half : 2] = a * sin + b * cos
    else:
        a, b = turned[..., :half], turned[..., half:]
        result[..., : 2 * half] = np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return result


# --- positions ------------------------------------------------------------------------------------


def replace_positions(model: ir.Model, graph: CacheGraph, probes: Sequence[Probe]) -> None:
    """Lets what evaluates to positions read them from `position` instead of the old inputs.

    These are integers that depend on the past's length or on the attention mask: the positions of
    the new tokens, how many tokens the past has, how many there are in all.
    """
    kept = {graph.ids, graph.position, *graph.caches}
    old = [v for v in model.graph.inputs if v not in kept]
    candidates = [v for v in (*old, *_dependents(model, old, graph.ids)) if _is_integer(v)]
    results = [evaluate(model, candidates, probe.feeds) for probe in probes]
    for value, *found in zip(candidates, *results, strict=True):
        new = _meaning(graph, found, probes)
        if new is None:
            continue
        if value.dtype != ir.DataType.INT64:
            new = graph.op("Cast", new, to=int(value.dtype or ir.DataType.INT32))
        for use in list(value.uses()):
            ends = is_op(use.node, "Slice") and use.idx == 2 and new.name in graph.totals
            # A table cut off at the last token may as well go on: the positions say what is read.
            by = graph.number(np.full(found[0].shape, graph.context)) if ends else new
            use.node.replace_input_with(use.idx, by)


def _is_integer(value: ir.Value) -> bool:
    return bool(value.uses()) and value.dtype in (ir.DataType.INT64, ir.DataType.INT32)


def _dependents(model: ir.Model, old: Sequence[ir.Value], ids: ir.Value) -> list[ir.Value]:
    """Values that follow from the old inputs, with nothing new, in the graph's order."""
    from_old, told = set(old), {*old, ids}
    found: list[ir.Value] = []
    for node in model.graph:
        inputs = [v for v in node.inputs if v is not None]
        if not all(v in told or is_constant(v) for v in inputs):
            continue
        told.update(node.outputs)
        if from_old.intersection(inputs):
            from_old.update(node.outputs)
            found += node.outputs
    return found


def _meaning(graph: CacheGraph, found: Sequence[Array], probes: Sequence[Probe]) -> ir.Value | None:
    """What stands for a value that is `found` on each of the probes; None if it means nothing."""
    pairs = list(zip(found, probes, strict=True))
    if all(x.ndim and x.size == p.new and (x.ravel() == p.places).all() for x, p in pairs):
        free = int(np.argmax(found[0].shape))
        if found[0].ndim == 2 and free == 1:
            return graph.position_ids
        shape = [-1 if axis == free else 1 for axis in range(found[0].ndim)]
        return graph.op("Reshape", graph.places, graph.number(shape))
    if any(x.size != 1 for x in found):
        return None
    shape = list(found[0].shape)
    if all(x.item() == p.past for x, p in pairs):
        return graph.op("Reshape", graph.position, graph.number(shape))
    if all(x.item() == p.past + p.new for x, p in pairs):
        return graph.total(shape)
    return None
