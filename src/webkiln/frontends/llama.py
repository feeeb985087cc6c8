"""Decoder-only language models of the llama family as ONNX graphs with a static KV cache.

One builder for Llama, Qwen 2 and 3, and Gemma: they differ in the settings of `LlamaConfig`.
Sources: Touvron et al., "LLaMA" (arXiv:2302.13971); Ainslie et al., "GQA" (arXiv:2305.13245);
Gemma Team, "Gemma 3" (arXiv:2503.19786); Qwen Team, "Qwen3" (arXiv:2505.09388). Tensor names are
those of GGUF files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from webkiln.errors import InvalidModelError
from webkiln.frontends.builder import GraphBuilder, Weights
from webkiln.frontends.quantised import QuantisedMatrix, gather_rows, matmul
from webkiln.frontends.rope import Rope, tables

__all__ = ["LlamaConfig", "LlamaLayer", "LlamaWeights", "build_llama"]

SEQUENCE = "sequence"
OPSET = 24  # the first with TensorScatter


@dataclass(frozen=True)
class LlamaLayer:
    """What may differ from layer to layer."""

    rope: Rope | None
    """None: this layer does not know positions."""
    window: int | None = None
    """A token sees itself and the `window - 1` before it; None: all before it."""


@dataclass(frozen=True)
class LlamaConfig:
    """The architecture. `layers` has one entry a layer; `scale` multiplies attention scores."""

    width: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    vocabulary: int
    context: int
    epsilon: float
    scale: float
    layers: tuple[LlamaLayer, ...]
    interleaved: bool = False
    """RoPE turns neighbours (2i, 2i+1); else i with i + half."""
    qk_norm: bool = False
    post_norms: bool = False
    activation: str = "silu"
    embedding_scale: float = 1.0
    attention_cap: float = 0.0
    logit_cap: float = 0.0


@dataclass(frozen=True)
class LlamaWeights:
    """Tensors by name: floats, and matrices in blocks of integers."""

    plain: Weights
    quantised: Mapping[str, QuantisedMatrix]


def build_llama(config: LlamaConfig, weights: LlamaWeights, *, name: str = "llama") -> ir.Model:
    """The decoder with batch 1, a symbolic dimension ``sequence`` and a cache of fixed length.

    Inputs: ``input_ids`` int64 [1, sequence], ``position`` int64 [1] (tokens that the cache holds
    already), and a layer ``key_cache.i``, ``value_cache.i`` float32 [1, kv_heads, context,
    head_size]. Outputs: ``logits`` float32 [1, sequence, vocabulary], ``key_cache_out.i``,
    ``value_cache_out.i``. Keys are stored rotated.

    Raises `InvalidModelError` for weights that are missing or don't fit the config.
    """
    return _Decoder(config, weights, name).build()


class _Decoder:
    def __init__(self, config: LlamaConfig, weights: LlamaWeights, name: str) -> None:
        self.config = config
        self.weights = weights
        self.g = GraphBuilder(name, weights.plain, OPSET)
        self._tables: dict[Rope, tuple[ir.Value, ir.Value]] = {}
        self._masks: dict[int | None, ir.Value] = {}
        self._ids: ir.Value | None = None

    def build(self) -> ir.Model:
        g, config = self.g, self.config
        ids = g.input("input_ids", ir.DataType.INT64, [1, SEQUENCE])
        self.position = g.input("position", ir.DataType.INT64, [1])
        length = g.op("Shape", ids, name="positions/length", start=1, end=2)
        length = g.op("Squeeze", length, name="positions/count")
        steps = g.op("Range", g.constant(0), length, g.constant(1), name="positions/Range")
        steps.dtype, steps.shape = ir.DataType.INT64, ir.Shape([SEQUENCE])
        self.places = g.op("Add", steps, self.position, name="positions/Add")
        caches = [self._caches(i) for i in range(len(config.layers))]
        x = self._embed(ids)
        updated = []
        for i, layer in enumerate(config.layers):
            x, *cache = self._layer(x, layer, f"blk.{i}.", f"layer{i}", *caches[i])
            updated.append(cache)
        x = self._norm(x, "output_norm.weight", config.width, "output_norm")
        self._head(x)
        shape = [1, config.kv_heads, config.context, config.head_size]
        for i, (key, value) in enumerate(updated):
            g.output(key, f"key_cache_out.{i}", ir.DataType.FLOAT, shape)
            g.output(value, f"value_cache_out.{i}", ir.DataType.FLOAT, shape)
        return g.model()

    def _caches(self, i: int) -> tuple[ir.Value, ir.Value]:
        shape = [1, self.config.kv_heads, self.config.context, self.config.head_size]
        return (
            self.g.input(f"key_cache.{i}", ir.DataType.FLOAT, shape),
            self.g.input(f"value_cache.{i}", ir.DataType.FLOAT, shape),
        )

    # --- embedding and head -----------------------------------------------------------------------

    def _embed(self, ids: ir.Value) -> ir.Value:
        g, config, table = self.g, self.config, "token_embd.weight"
        if table in self.weights.quantised:
            matrix = self._matrix(table, config.vocabulary, config.width)
            x = gather_rows(g, matrix, table, ids, "embeddings/words")
            x.dtype, x.shape = ir.DataType.FLOAT, ir.Shape([1, SEQUENCE, config.width])
        elif self._tied():
            # From the head's own transposed table, so that the bundle has it once.
            words = g.weight_transposed(table, [config.vocabulary, config.width])
            x = g.op("Gather", words, ids, name="embeddings/columns", axis=1)
            x = g.op("Transpose", x, name="embeddings/words", perm=[1, 2, 0])
        else:
            words = g.weight(table, [config.vocabulary, config.width])
            x = g.op("Gather", words, ids, name="embeddings/words", axis=0)
        if config.embedding_scale != 1:
            scale = g.constant(np.float32(config.embedding_scale))
            x = g.op("Mul", x, scale, name="embeddings/scale")
        return x

    def _tied(self) -> bool:
        return not any(
            "output.weight" in names for names in (self.weights.plain, self.weights.quantised)
        )

    def _head(self, x: ir.Value) -> None:
        g, config = self.g, self.config
        prefix = "token_embd" if self._tied() else "output"
        logits = self._linear(x, prefix, config.vocabulary, config.width, "head")
        if config.logit_cap:
            cap = g.constant(np.float32(config.logit_cap))
            logits = g.op("Div", logits, cap, name="head/uncapped")
            logits = g.op("Tanh", logits, name="head/Tanh")
            logits = g.op("Mul", logits, cap, name="head/capped")
        g.output(logits, "logits", ir.DataType.FLOAT, [1, SEQUENCE, config.vocabulary])

    # --- one layer --------------------------------------------------------------------------------

    def _layer(
        self,
        x: ir.Value,
        layer: LlamaLayer,
        prefix: str,
        name: str,
        key_cache: ir.Value,
        value_cache: ir.Value,
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """x [1, sequence, width] → the same, and the caches with these tokens in them."""
        g, width = self.g, self.config.width
        y = self._norm(x, prefix + "attn_norm.weight", width, name + "/attention_norm")
        y, keys, values = self._attention(y, layer, prefix, name, key_cache, value_cache)
        if self.config.post_norms:
            norm = prefix + "post_attention_norm.weight"
            y = self._norm(y, norm, width, name + "/attention_post_norm")
        x = g.op("Add", x, y, name=name + "/attention_residual")
        y = self._norm(x, prefix + "ffn_norm.weight", width, name + "/mlp_norm")
        y = self._mlp(y, prefix, name + "/mlp")
        if self.config.post_norms:
            y = self._norm(y, prefix + "post_ffw_norm.weight", width, name + "/mlp_post_norm")
        return g.op("Add", x, y, name=name + "/mlp_residual"), keys, values

    def _attention(
        self,
        x: ir.Value,
        layer: LlamaLayer,
        prefix: str,
        name: str,
        key_cache: ir.Value,
        value_cache: ir.Value,
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        g, config = self.g, self.config
        q = self._heads(x, layer, prefix + "attn_q", config.heads, name + "/query")
        k = self._heads(x, layer, prefix + "attn_k", config.kv_heads, name + "/key")
        v = self._heads(x, None, prefix + "attn_v", config.kv_heads, name + "/value")
        keys, values = (
            g.op("TensorScatter", cache, update, self.position, name=f"{name}/{part}_cache", axis=2)
            for cache, update, part in ((key_cache, k, "key"), (value_cache, v, "value"))
        )
        y = g.op(
            "Attention",
            q,
            keys,
            values,
            self._mask(layer.window),
            name=name + "/Attention",
            scale=config.scale,
            softcap=config.attention_cap,
        )
        y = g.op("Transpose", y, name=name + "/attention/Transpose", perm=[0, 2, 1, 3])
        size = config.heads * config.head_size
        y = g.op("Reshape", y, g.constant(np.array([0, 0, size])), name=name + "/attention/Reshape")
        y = self._linear(y, prefix + "attn_output", config.width, size, name + "/attention_output")
        return y, keys, values

    def _heads(
        self, x: ir.Value, layer: LlamaLayer | None, prefix: str, heads: int, name: str
    ) -> ir.Value:
        """x [1, sequence, width] → [1, heads, sequence, head_size]; turned if `layer` is given."""
        g, config = self.g, self.config
        size = config.head_size
        y = self._linear(x, prefix, heads * size, config.width, name)
        split = g.constant(np.array([0, 0, heads, size]))
        y = g.op("Reshape", y, split, name=name + "/Reshape")
        if layer is not None and config.qk_norm:
            y = self._norm(y, prefix + "_norm.weight", size, name + "_norm")
        y = g.op("Transpose", y, name=name + "/Transpose", perm=[0, 2, 1, 3])
        if layer is None or layer.rope is None:
            return y
        partial = 2 * layer.rope.angles.size
        return g.op(
            "RotaryEmbedding",
            y,
            *self._turns(layer.rope),
            self._position_ids(),
            name=name + "/RotaryEmbedding",
            interleaved=int(config.interleaved),
            rotary_embedding_dim=0 if partial == size else partial,
        )

    def _mlp(self, x: ir.Value, prefix: str, name: str) -> ir.Value:
        g, config = self.g, self.config
        gate = self._linear(x, prefix + "ffn_gate", config.inner, config.width, name + "/gate")
        up = self._linear(x, prefix + "ffn_up", config.inner, config.width, name + "/up")
        if config.activation == "silu":
            open_ = g.op("Sigmoid", gate, name=name + "/Sigmoid")
            gate = g.op("Mul", gate, open_, name=name + "/SiLU")
        else:
            gate = g.op("Gelu", gate, name=name + "/Gelu", approximate="tanh")
        y = g.op("Mul", gate, up, name=name + "/gated")
        return self._linear(y, prefix + "ffn_down", config.width, config.inner, name + "/down")

    # --- pieces -----------------------------------------------------------------------------------

    def _linear(self, x: ir.Value, prefix: str, n: int, k: int, name: str) -> ir.Value:
        """``x @ W.T + b`` with W [n, k], in blocks of integers or as floats; b is optional."""
        g, weight, bias = self.g, prefix + ".weight", prefix + ".bias"
        if weight in self.weights.quantised:
            y = matmul(g, x, self._matrix(weight, n, k), weight, name + "/MatMulNBits")
            # ONNX's shape inference does not know operators of com.microsoft.
            y.dtype, y.shape = ir.DataType.FLOAT, ir.Shape([1, SEQUENCE, n])
        else:
            y = g.op("MatMul", x, g.weight_transposed(weight, [n, k]), name=name + "/MatMul")
        if bias in self.weights.plain:
            y = g.op("Add", y, g.weight(bias, [n]), name=name + "/Add")
        return y

    def _matrix(self, weight: str, n: int, k: int) -> QuantisedMatrix:
        matrix = self.weights.quantised[weight]
        if (matrix.n, matrix.k) != (n, k):
            raise InvalidModelError(
                f"tensor {weight!r} has shape {[matrix.n, matrix.k]}; the config says {[n, k]}",
                hint="check that the weights belong to the config",
            )
        return matrix

    def _norm(self, x: ir.Value, weight: str, size: int, name: str) -> ir.Value:
        scale = self.g.weight(weight, [size])
        return self.g.op(
            "RMSNormalization", x, scale, name=name, axis=-1, epsilon=self.config.epsilon
        )

    def _turns(self, rope: Rope) -> tuple[ir.Value, ir.Value]:
        if rope not in self._tables:
            cos, sin = tables(rope, self.config.context)
            self._tables[rope] = self.g.constant(cos, "cosines"), self.g.constant(sin, "sines")
        return self._tables[rope]

    def _position_ids(self) -> ir.Value:
        """int64 [1, sequence]."""
        if self._ids is None:
            axis = self.g.constant(np.array([0]))
            self._ids = self.g.op("Unsqueeze", self.places, axis, name="positions/ids")
        return self._ids

    def _mask(self, window: int | None) -> ir.Value:
        """bool [sequence, context]: which entries of the cache each token sees."""
        if window is not None and window >= self.config.context:
            window = None
        if window in self._masks:
            return self._masks[window]
        g = self.g
        entries = g.constant(np.arange(self.config.context)[None, :], "mask/entries")
        rows = g.op("Unsqueeze", self.places, g.constant(np.array([1])), name="mask/tokens")
        mask = g.op("LessOrEqual", entries, rows, name="mask/causal")
        if window is not None:
            before = g.op("Sub", rows, g.constant(window), name="mask/before_window")
            inside = g.op("Greater", entries, before, name="mask/inside")
            mask = g.op("And", mask, inside, name="mask/window")
        self._masks[window] = mask
        return mask
