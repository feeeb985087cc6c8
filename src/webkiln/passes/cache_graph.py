"""The one form of attention over a cache that the compiler knows, as nodes of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from webkiln.errors import InputError
from webkiln.passes.attention_sites import Site, unsupported
from webkiln.passes.graph import array, constant, dims, replace

__all__ = ["CacheGraph", "check_tables", "head_size"]


def head_size(past: ir.Value) -> tuple[int, int]:
    """The number of heads and their size, of a past [batch, heads, tokens, size]."""
    shape = dims(past) or []
    if len(shape) == 4 and isinstance(shape[1], int) and isinstance(shape[3], int):
        return shape[1], shape[3]
    raise InputError(
        f"the shape of {past.name!r} should be [batch, heads, tokens, size] with fixed heads and "
        f"size; it is {shape}"
    )


def check_tables(site: Site, context: int) -> None:
    """Raises an error if the site's rotary tables don't reach `context` positions."""
    for table in site.rotary or ():
        numbers = array(table)
        if numbers is None:
            raise unsupported(site.node, "has rotary tables that are no constants")
        if len(numbers) < context:
            raise InputError(
                f"a context of {context} tokens is more than the {len(numbers)} positions that "
                "the model has",
                hint=f"--max sequence={len(numbers)} or less",
            )


class CacheGraph:
    """Appends to `model` the inputs `position` and the caches, masks, and rewritten attentions.

    The graph is to be sorted afterwards.
    """

    def __init__(self, model: ir.Model, ids: ir.Value, context: int) -> None:
        self.model, self.context = model, context
        self.caches: list[ir.Value] = []
        self._masks: dict[int | None, ir.Value] = {}
        self._tables: dict[ir.Value, ir.Value] = {}
        self._used = {str(v.name) for n in model.graph for v in n.outputs}
        self.position = ir.val("position", dtype=ir.DataType.INT64, shape=[1])
        model.graph.inputs.append(self.position)
        self.ids = ids
        self._name_sequence()
        self.length = self.op("Shape", self.ids, start=1, end=2)
        """int64 [1]: how many new tokens there are."""
        steps = self.op("Range", self.number(0), self.op("Squeeze", self.length), self.number(1))
        self.places = self.op("Add", steps, self.position)
        """int64 [sequence]: the position of each token."""
        self._position_ids: ir.Value | None = None
        self.totals: set[str | None] = set()

    @property
    def position_ids(self) -> ir.Value:
        """int64 [1, sequence]."""
        if self._position_ids is None:
            self._position_ids = self.op("Unsqueeze", self.places, self.number([0]))
        return self._position_ids

    def total(self, shape: list[int]) -> ir.Value:
        """How many tokens there are, old and new, as an int64 of one element."""
        value = self.op("Add", self.position, self.length)
        value = self.op("Reshape", value, self.number(shape))
        self.totals.add(value.name)
        return value

    def _name_sequence(self) -> None:
        """Tokens come as int64 [1, sequence], whatever they were."""
        self.ids.shape = ir.Shape([1, "sequence"])
        if self.ids.dtype != ir.DataType.INT64:
            narrow = self.ids.dtype
            assert narrow is not None
            users = list(self.ids.uses())
            self.ids.dtype = ir.DataType.INT64
            cast = self.op("Cast", self.ids, to=int(narrow))
            for use in users:
                use.node.replace_input_with(use.idx, cast)

    # --- writing nodes ----------------------------------------------------------------------------

    def op(
        self, op_type: str, *inputs: ir.Value | None, like: str = "cache", **attributes: Any
    ) -> ir.Value:
        """A node at the end of the graph; its output is named after `like`."""
        node = ir.node(op_type, inputs, attributes or None)
        node.name = node.outputs[0].name = self._unique(f"{like}/{op_type}")
        self.model.graph.append(node)
        return node.outputs[0]

    def number(self, numbers: Any) -> ir.Value:
        """An int64 constant."""
        return constant(self.model, np.array(numbers, np.int64), "cache/number")

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._used:
            unique, count = f"{name}_{count}", count + 1
        self._used.add(unique)
        return unique

    # --- attention --------------------------------------------------------------------------------

    def rewrite(self, site: Site) -> None:
        """Puts the attention over caches in the place of `site`."""
        layer, name = site.layer, f"layer{site.layer.index}"
        kv_heads, size = head_size(layer.past_key)
        _, value_size = head_size(layer.past_value)
        query, key, value = self._separate(site, kv_heads, size, name)
        flat = site.heads is not None
        key = self._heads(key, kv_heads, size, flat, f"{name}/key")
        value = self._heads(value, kv_heads, value_size, flat, f"{name}/value")
        query = self._heads(query, site.heads or 0, size, flat, f"{name}/query")
        if site.rotary is not None:
            query, key = (self._turned(x, site, size, f"{name}/rotary") for x in (query, key))
        keys = self._scatter(key, layer.past_key, f"key_cache.{layer.index}")
        values = self._scatter(value, layer.past_value, f"value_cache.{layer.index}")
        scale = size**-0.5 if site.scale is None else site.scale
        result = self.op(
            "Attention",
            query,
            keys,
            values,
            self.mask(site.window),
            like=name,
            scale=float(scale),
            softcap=float(site.softcap),
        )
        if site.heads is not None:
            result = self.op("Transpose", result, like=name, perm=[0, 2, 1, 3])
            shape = self.number([0, 0, site.heads * value_size])
            result = self.op("Reshape", result, shape, like=name)
        if not replace(site.output, result):
            raise unsupported(site.node, "is an output of the model itself")

    def _separate(
        self, site: Site, kv_heads: int, size: int, name: str
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Query, key and value of their own, with their biases."""
        _, value_size = head_size(site.layer.past_value)
        widths = [(site.heads or 0) * size, kv_heads * size, kv_heads * value_size]
        if site.packed:
            node = ir.node("Split", [site.query, self.number(widths)], {"axis": 2}, num_outputs=3)
            node.name = self._unique(f"{name}/Split")
            for part, output in zip(("query", "key", "value"), node.outputs, strict=True):
                output.name = self._unique(f"{name}/{part}")
            self.model.graph.append(node)
            parts = node.outputs[0], node.outputs[1], node.outputs[2]
        else:
            parts = site.query, site.key, site.value
        if site.biases is None:
            return parts
        biases = array(site.biases)
        if biases is None or biases.size != sum(widths):
            raise unsupported(site.node, "has biases that are no constant of the expected size")
        pieces = np.split(biases.astype(np.float32), np.cumsum(widths)[:-1])
        query, key, value = (
            self.op("Add", x, constant(self.model, piece, f"{name}/bias"), like=name)
            for x, piece in zip(parts, pieces, strict=True)
        )
        return query, key, value

    def _heads(self, x: ir.Value, heads: int, size: int, flat: bool, name: str) -> ir.Value:
        """[1, sequence, heads · size] → [1, heads, sequence, size], if it has no axis of heads."""
        if not flat or len(x.shape or ()) == 4:
            return x
        x = self.op("Reshape", x, self.number([0, 0, heads, size]), like=name)
        return self.op("Transpose", x, like=name, perm=[0, 2, 1, 3])

    def _turned(self, x: ir.Value, site: Site, size: int, name: str) -> ir.Value:
        assert site.rotary is not None
        cos, sin = (self._table(table) for table in site.rotary)
        rotary = 2 * int(str((dims(cos) or [])[1]))
        return self.op(
            "RotaryEmbedding",
            x,
            cos,
            sin,
            self.position_ids,
            like=name,
            interleaved=int(site.interleaved),
            rotary_embedding_dim=0 if rotary == size else rotary,
        )

    def _table(self, table: ir.Value) -> ir.Value:
        """As many rows as the cache has places."""
        if table not in self._tables:
            numbers = array(table)
            assert numbers is not None
            rows = numbers[: self.context]
            self._tables[table] = constant(self.model, rows, f"{table.name}/rows")
        return self._tables[table]

    def _scatter(self, new: ir.Value, past: ir.Value, name: str) -> ir.Value:
        heads, size = head_size(past)
        shape = [1, heads, self.context, size]
        cache = ir.val(name, dtype=ir.DataType.FLOAT, shape=shape)
        self.model.graph.inputs.append(cache)
        self.caches.append(cache)
        result = self.op("TensorScatter", cache, new, self.position, axis=2)
        result.name = name.replace("_cache.", "_cache_out.")
        result.dtype, result.shape = ir.DataType.FLOAT, ir.Shape(shape)
        self.model.graph.outputs.append(result)
        return result

    def mask(self, window: int | None) -> ir.Value:
        """bool [sequence, context]: which entries of the cache each token sees."""
        if window not in self._masks:
            entries = self.number(np.arange(self.context)[None, :])
            rows = self.op("Unsqueeze", self.places, self.number([1]), like="mask")
            mask = self.op("LessOrEqual", entries, rows, like="mask")
            if window is not None:
                before = self.op("Sub", rows, self.number(window), like="mask")
                inside = self.op("Greater", entries, before, like="mask")
                mask = self.op("And", mask, inside, like="mask")
            self._masks[window] = mask
        return self._masks[window]
