"""BERT encoders (BERT, RoBERTa, DistilBERT) as ONNX graphs, from their config and weights.

Sources: Devlin et al., "BERT" (arXiv:1810.04805); Liu et al., "RoBERTa" (arXiv:1907.11692);
Sanh et al., "DistilBERT" (arXiv:1910.01108); Reimers & Gurevych, "Sentence-BERT"
(arXiv:1908.10084) for the pooling. Tensor names are those of the Hugging Face checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from webkiln.errors import InvalidModelError, UnsupportedModelError
from webkiln.frontends.builder import GraphBuilder, Weights, sizes

__all__ = ["MODEL_TYPES", "POOLING", "build_bert"]

POOLING = ("mean", "cls", "max", "mean_sqrt_len")
SEQUENCE = "sequence"

# What the original BERT adds to the score of a masked position. Big enough that its softmax is
# exactly 0 in float32, small enough to exist in float16.
_MASKED = -10000.0


@dataclass(frozen=True)
class _Names:
    """Where one family keeps its tensors and its settings."""

    embeddings_norm: str
    layer: str
    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    up: str
    down: str
    output_norm: str
    width: str = "hidden_size"
    heads: str = "num_attention_heads"
    layers: str = "num_hidden_layers"
    inner: str = "intermediate_size"
    activation: str = "hidden_act"


_BERT = _Names(
    embeddings_norm="embeddings.LayerNorm",
    layer="encoder.layer.{}.",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)
MODEL_TYPES = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": _Names(
        embeddings_norm="embeddings.LayerNorm",
        layer="transformer.layer.{}.",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_out="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        output_norm="output_layer_norm",
        width="dim",
        heads="n_heads",
        layers="n_layers",
        inner="hidden_dim",
        activation="activation",
    ),
}

_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


def build_bert(
    config: Mapping[str, Any],
    weights: Weights,
    *,
    head: str | None = None,
    pooling: str | None = None,
    normalize: bool = False,
    name: str = "bert",
) -> ir.Model:
    """The encoder as a model with batch 1 and a symbolic dimension ``sequence``.

    Inputs, int64 [1, sequence]: ``input_ids``, ``attention_mask`` (1 a token, 0 padding) and, where
    the family has it, ``token_type_ids``. The one output, float32, depends on what is asked for:

    - `head` ``"sequence-classification"``: ``logits`` [1, classes]
    - `head` ``"token-classification"``: ``logits`` [1, sequence, classes]
    - `pooling` (one of `POOLING`): ``embedding`` [1, width], of length 1 if `normalize`
    - neither: ``last_hidden_state`` [1, sequence, width]

    Raises `InvalidModelError` for weights that don't fit the config, `UnsupportedModelError` for
    settings that change the computation in a way that is not built here.
    """
    return _Encoder(config, weights, name).build(head, pooling, normalize)


class _Encoder:
    def __init__(self, config: Mapping[str, Any], weights: Weights, name: str) -> None:
        self.type = str(config["model_type"])
        self.names = MODEL_TYPES[self.type]
        self.config = config
        prefix = self.type + "."
        self.prefix = prefix if any(key.startswith(prefix) for key in weights) else ""
        self.g = GraphBuilder(name, weights)
        self.width = self._int(self.names.width)
        self.heads = self._int(self.names.heads)
        self.epsilon = float(config.get("layer_norm_eps", 1e-12))
        activation = str(config.get(self.names.activation, "gelu"))
        position = config.get("position_embedding_type", "absolute")
        for ok, what in (
            (activation in _ACTIVATIONS, f"activation {activation!r}"),
            (position == "absolute", f"position embedding {position!r}"),
            (not config.get("is_decoder"), "use as a decoder"),
            (not config.get("sinusoidal_pos_embds"), "sinusoidal positions computed on the fly"),
        ):
            if not ok:
                raise UnsupportedModelError(
                    f"{self.type}: {what} is not supported",
                    hint="export the model to ONNX and build from that",
                )
        if self.width % self.heads:
            raise InvalidModelError(f"width {self.width} is no multiple of {self.heads} heads")
        self.activation = _ACTIVATIONS[activation]

    def build(self, head: str | None, pooling: str | None, normalize: bool) -> ir.Model:
        g = self.g
        ids = g.input("input_ids", ir.DataType.INT64, [1, SEQUENCE])
        mask = g.input("attention_mask", ir.DataType.INT64, [1, SEQUENCE])
        mask = g.op("Cast", mask, name="attention_mask/Cast", to=ir.DataType.FLOAT)
        x = self._embed(ids)
        bias = self._attention_bias(mask)
        for layer in range(self._int(self.names.layers)):
            x = self._layer(x, bias, self.prefix + self.names.layer.format(layer), f"layer{layer}")
        if head is not None:
            self._classify(x, head)
        elif pooling is not None:
            g.output(
                self._pool(x, mask, pooling, normalize),
                "embedding",
                ir.DataType.FLOAT,
                [1, self.width],
            )
        else:
            g.output(x, "last_hidden_state", ir.DataType.FLOAT, [1, SEQUENCE, self.width])
        return g.model()

    def _embed(self, ids: ir.Value) -> ir.Value:
        g, prefix = self.g, self.prefix + "embeddings."
        words = g.weight(prefix + "word_embeddings.weight", [self._int("vocab_size"), self.width])
        x = g.op("Gather", words, ids, name="embeddings/words", axis=0)
        table = g.weight(prefix + "position_embeddings.weight")
        if self.type == "roberta":
            places = g.op("Gather", table, self._roberta_positions(ids), name="embeddings/places")
        else:
            length = g.op("Shape", ids, name="embeddings/length", start=1, end=2)
            zero, axis = g.constant(np.array([0])), g.constant(np.array([0]))
            places = g.op("Slice", table, zero, length, axis, name="embeddings/places")
            # Shape inference doesn't see that the slice is as long as the input.
            places.dtype, places.shape = ir.DataType.FLOAT, ir.Shape([SEQUENCE, self.width])
        x = g.op("Add", x, places, name="embeddings/add_places")
        types = prefix + "token_type_embeddings.weight"
        if types in g.weights:
            table = g.weight(types)
            if self.type == "bert":
                kinds = g.input("token_type_ids", ir.DataType.INT64, [1, SEQUENCE])
                kind = g.op("Gather", table, kinds, name="embeddings/types", axis=0)
            else:  # RoBERTa has one type, for every token
                kind = g.op("Gather", table, g.constant(0), name="embeddings/types", axis=0)
            x = g.op("Add", x, kind, name="embeddings/add_types")
        return self._norm(x, self.prefix + self.names.embeddings_norm, "embeddings")

    def _roberta_positions(self, ids: ir.Value) -> ir.Value:
        """Positions count tokens that are no padding, from the padding's own index + 1 on."""
        g, pad = self.g, int(self.config.get("pad_token_id", 1))
        is_pad = g.op("Equal", ids, g.constant(pad), name="positions/is_pad")
        token = g.op("Not", is_pad, name="positions/is_token")
        token = g.op("Cast", token, name="positions/token", to=ir.DataType.INT64)
        count = g.op("CumSum", token, g.constant(1), name="positions/count")
        count = g.op("Mul", count, token, name="positions/masked")
        return g.op("Add", count, g.constant(pad), name="positions/index")

    def _attention_bias(self, mask: ir.Value) -> ir.Value:
        """[1, 1, 1, sequence]: 0 for a token, very negative for padding."""
        g = self.g
        mask = g.op("Unsqueeze", mask, g.constant(np.array([1, 2])), name="attention_mask/4d")
        gap = g.op("Sub", g.constant(np.float32(1)), mask, name="attention_mask/gap")
        return g.op("Mul", gap, g.constant(np.float32(_MASKED)), name="attention_mask/bias")

    def _layer(self, x: ir.Value, bias: ir.Value, prefix: str, name: str) -> ir.Value:
        """One post-norm transformer layer over x [1, sequence, width]."""
        g, names = self.g, self.names
        y = self._attention(x, bias, prefix, name + "/attention")
        x = g.op("Add", x, y, name=name + "/attention/residual")
        x = self._norm(x, prefix + names.attention_norm, name + "/attention")
        op, attributes = self.activation
        y = g.linear(x, prefix + names.up, name + "/up")
        y = g.op(op, y, name=f"{name}/{op}", **attributes)
        y = g.linear(y, prefix + names.down, name + "/down")
        x = g.op("Add", x, y, name=name + "/residual")
        return self._norm(x, prefix + names.output_norm, name)

    def _attention(self, x: ir.Value, bias: ir.Value, prefix: str, name: str) -> ir.Value:
        g, names = self.g, self.names
        size = self.width // self.heads
        split = g.constant(np.array([0, 0, self.heads, size]), name + "/heads")

        def heads(part: str, place: str, axes: list[int]) -> ir.Value:
            y = g.op("Reshape", g.linear(x, prefix + part, place), split, name=place + "/Reshape")
            return g.op("Transpose", y, name=place + "/Transpose", perm=axes)

        q = heads(names.query, name + "/query", [0, 2, 1, 3])
        k = heads(names.key, name + "/key", [0, 2, 3, 1])  # already transposed for the product
        v = heads(names.value, name + "/value", [0, 2, 1, 3])
        q = g.op("Mul", q, g.constant(np.float32(1 / math.sqrt(size))), name=name + "/scale")
        scores = g.op("MatMul", q, k, name=name + "/scores")
        scores = g.op("Add", scores, bias, name=name + "/masked")
        shares = g.op("Softmax", scores, name=name + "/Softmax", axis=-1)
        y = g.op("MatMul", shares, v, name=name + "/mix")
        y = g.op("Transpose", y, name=name + "/Transpose", perm=[0, 2, 1, 3])
        y = g.op("Reshape", y, g.constant(np.array([0, 0, self.width])), name=name + "/Reshape")
        return g.linear(y, prefix + names.attention_out, name + "/output")

    def _norm(self, x: ir.Value, prefix: str, name: str) -> ir.Value:
        g = self.g
        # Checkpoints converted from TensorFlow call them gamma and beta.
        scale, shift = (
            (prefix + ".weight", prefix + ".bias")
            if prefix + ".weight" in g.weights
            else (prefix + ".gamma", prefix + ".beta")
        )
        return g.op(
            "LayerNormalization",
            x,
            g.weight(scale, [self.width]),
            g.weight(shift, [self.width]),
            name=name + "/LayerNorm",
            axis=-1,
            epsilon=self.epsilon,
        )

    def _pool(self, x: ir.Value, mask: ir.Value, pooling: str, normalize: bool) -> ir.Value:
        """Token vectors [1, sequence, width] and mask [1, sequence] → [1, width]."""
        g = self.g
        if pooling == "cls":
            y = self._first_token(x)
        else:
            mask = g.op("Unsqueeze", mask, g.constant(np.array([2])), name="pooling/mask")
            axis = g.constant(np.array([1]), "pooling/axis")
            if pooling == "max":
                low = g.op("Sub", mask, g.constant(np.float32(1)), name="pooling/gap")
                low = g.op("Mul", low, g.constant(np.float32(1e9)), name="pooling/low")
                y = g.op("Add", x, low, name="pooling/masked")
                y = g.op("ReduceMax", y, axis, name="pooling/max", keepdims=0)
            else:
                y = g.op("Mul", x, mask, name="pooling/masked")
                y = g.op("ReduceSum", y, axis, name="pooling/sum", keepdims=0)
                count = g.op("ReduceSum", mask, axis, name="pooling/count", keepdims=0)
                # 1e-9 is what sentence-transformers guards an empty mask with.
                count = g.op("Max", count, g.constant(np.float32(1e-9)), name="pooling/some")
                if pooling == "mean_sqrt_len":
                    count = g.op("Sqrt", count, name="pooling/sqrt")
                y = g.op("Div", y, count, name="pooling/mean")
        if normalize:
            length = g.op("ReduceL2", y, g.constant(np.array([1])), name="normalize/length")
            length = g.op("Max", length, g.constant(np.float32(1e-12)), name="normalize/some")
            y = g.op("Div", y, length, name="normalize/Div")
        return y

    def _first_token(self, x: ir.Value) -> ir.Value:
        return self.g.op("Gather", x, self.g.constant(0), name="first_token", axis=1)

    def _classify(self, x: ir.Value, head: str) -> None:
        g = self.g
        final = "classifier"
        if head == "sequence-classification":
            x = self._first_token(x)
            if self.type == "bert":
                x = g.linear(x, self.prefix + "pooler.dense", "pooler")
                x = g.op("Tanh", x, name="pooler/Tanh")
            elif self.type == "roberta":
                x = g.op("Tanh", g.linear(x, "classifier.dense", "pooler"), name="pooler/Tanh")
                final = "classifier.out_proj"
            else:
                x = g.op("Relu", g.linear(x, "pre_classifier", "pooler"), name="pooler/Relu")
        logits = g.linear(x, final, "classifier")
        classes = sizes(g.weights[final + ".weight"])[0]
        shape: list[int | str] = (
            [1, classes] if head == "sequence-classification" else [1, SEQUENCE, classes]
        )
        g.output(logits, "logits", ir.DataType.FLOAT, shape)

    def _int(self, key: str) -> int:
        value = self.config.get(key)
        if not isinstance(value, int) or value < 1:
            raise InvalidModelError(
                f"config.json: {key} should be a positive number, not {value!r}"
            )
        return value
