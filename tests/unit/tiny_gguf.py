"""Tiny seeded language models as GGUF files, and the same models in plain NumPy.

Weights are made in Hugging Face's layout, in which `forward` reads them as the papers say; `write`
turns them into GGUF's as llama.cpp's converters do: q and k of Llama permuted, 1 added to Gemma's
norms. The graph under test shares none of this.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from gguf import GGMLQuantizationType as Kind

from webkiln.passes.dequantize_weights import dequantize_weights

VOCABULARY = 259

# Byte offsets of the float16 numbers in a record of each quantised type.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}  # fmt: skip


@dataclass
class Tiny:
    """An architecture's settings, as papers and configs name them."""

    architecture: str
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 16
    inner: int = 96
    layers: int = 2
    base: float = 10_000.0
    local_base: float | None = None
    windows: tuple[int | None, ...] = (None, None)
    no_rope: tuple[int, ...] = ()
    tied: bool = False
    permuted: bool = False
    bias: bool = False
    qk_norm: bool = False
    gemma: bool = False
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    scale: float | None = None
    rotated: int | None = None
    divisors: np.ndarray | None = None
    linear: float = 1.0
    yarn: tuple[float, int] | None = None
    kind: str = "F32"
    head_kind: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    seed: int = 7

    def with_(self, **changes: Any) -> Tiny:
        return replace(self, **changes)


@dataclass
class Weights:
    """Numbers by Hugging Face-like names, and each matrix as its rows lie in a GGUF file."""

    floats: dict[str, np.ndarray]
    rows: dict[str, tuple[np.ndarray, Kind]]


def records(rng: np.random.Generator, count: int, kind: str, scale: float) -> np.ndarray:
    """`count` random records of a quantised type: every bit pattern, finite scales."""
    size = gguf.GGML_QUANT_SIZES[Kind[kind]][1]
    made = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in HALVES[kind]:
        number = (rng.normal(size=count) * scale).astype(np.float16)
        number[rng.random(count) < 0.05] = 0
        made[:, at : at + 2] = number[:, None].view(np.uint8).reshape(count, 2)
    return made


def matrix(rng: np.random.Generator, n: int, k: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A matrix [n, k] as it lies in a file, and what gguf says its numbers are."""
    form = Kind[kind]
    if kind in HALVES:
        # The integers' spread differs; this gives all types weights of much the same size.
        spread = {"Q4_K": 300, "Q5_K": 600, "Q6_K": 1200, "Q8_0": 74, "Q5_0": 9, "Q5_1": 18}
        size = gguf.GGML_QUANT_SIZES[form][0]
        scale = 0.8 / np.sqrt(k) / spread.get(kind, 7)
        raw = records(rng, n * k // size, kind, scale).reshape(n, -1)
    else:
        raw = gguf.quantize((rng.normal(size=(n, k)) / np.sqrt(k)).astype(np.float32), form)
    return raw, gguf.dequantize(raw, form).astype(np.float32)


def weights(tiny: Tiny) -> Weights:
    rng = np.random.default_rng(tiny.seed)
    made = Weights({}, {})

    def linear(name: str, n: int, k: int, kind: str | None = None) -> None:
        raw, made.floats[name] = matrix(rng, n, k, kind or tiny.kind)
        made.rows[name] = raw, Kind[kind or tiny.kind]

    def vector(name: str, size: int, middle: float) -> None:
        made.floats[name] = (middle + 0.2 * rng.normal(size=size)).astype(np.float32)

    q, kv = tiny.heads * tiny.head_size, tiny.kv_heads * tiny.head_size
    one = 0.0 if tiny.gemma else 1.0  # Gemma's checkpoints hold what is added to 1
    linear("token_embd", VOCABULARY, tiny.width, tiny.head_kind)
    if not tiny.tied:
        linear("output", VOCABULARY, tiny.width, tiny.head_kind)
    vector("output_norm", tiny.width, one)
    for i in range(tiny.layers):
        p = f"blk.{i}."
        sizes = {"attn_q": (q, tiny.width), "attn_k": (kv, tiny.width), "attn_v": (kv, tiny.width),
                 "attn_output": (tiny.width, q), "ffn_gate": (tiny.inner, tiny.width),
                 "ffn_up": (tiny.inner, tiny.width),
                 "ffn_down": (tiny.width, tiny.inner)}  # fmt: skip
        for name, (n, k) in sizes.items():
            linear(p + name, n, k)
        norms = ["attn_norm", "ffn_norm"]
        norms += ["post_attention_norm", "post_ffw_norm"] if tiny.gemma else []
        for name in norms:
            vector(p + name, tiny.width, one)
        for name in ("attn_q_norm", "attn_k_norm") if tiny.qk_norm else ():
            vector(p + name, tiny.head_size, one)
        if tiny.bias:
            for name, size in (("attn_q", q), ("attn_k", kv), ("attn_v", kv)):
                vector(p + name + ".bias", size, 0.0)
    return made


# --- the file -------------------------------------------------------------------------------------


def _permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head: i and i + half become neighbours."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def write(path: Path, tiny: Tiny, made: Weights, skip: str = "") -> Path:
    """The model as a GGUF file, without the tensor `skip`."""
    writer = gguf.GGUFWriter(path, tiny.architecture)
    for key, value in (_metadata(tiny) | tiny.metadata).items():
        _add(writer, key.replace("{arch}", tiny.architecture), value)
    for name, (raw, kind) in made.rows.items():
        if tiny.permuted and name.endswith(("attn_q", "attn_k")):
            raw = _permuted(raw, tiny.heads if name.endswith("q") else tiny.kv_heads)
        if f"{name}.weight" != skip:
            writer.add_tensor(f"{name}.weight", raw, raw_dtype=kind)
    for name, numbers in made.floats.items():
        if name in made.rows:
            continue
        whole = name if name.endswith(".bias") else f"{name}.weight"
        if whole != skip:
            writer.add_tensor(whole, numbers + (1 if tiny.gemma else 0))
    if tiny.divisors is not None:
        writer.add_tensor("rope_freqs.weight", tiny.divisors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _metadata(tiny: Tiny) -> dict[str, Any]:
    letters = [chr(b) for b in range(33, 127)] + [chr(b) for b in (*range(0xA1, 0xAD),)]
    tokens = [*letters, "he"]
    tokens += [*(f"<{i}>" for i in range(VOCABULARY - len(tokens) - 1)), "<|im_end|>"]
    said: dict[str, Any] = {
        "{arch}.context_length": 64,
        "{arch}.embedding_length": tiny.width,
        "{arch}.block_count": tiny.layers,
        "{arch}.feed_forward_length": tiny.inner,
        "{arch}.attention.head_count": tiny.heads,
        "{arch}.attention.head_count_kv": tiny.kv_heads,
        "{arch}.attention.key_length": tiny.head_size,
        "{arch}.attention.value_length": tiny.head_size,
        "{arch}.attention.layer_norm_rms_epsilon": 1e-6,
        "{arch}.rope.freq_base": tiny.base,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (VOCABULARY - 1) + [3],
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.eos_token_id": VOCABULARY - 1,
    }
    return said


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
           str: writer.add_string, list: writer.add_array}[type(value)]  # fmt: skip
    add(key, value)


# --- the model ------------------------------------------------------------------------------------


def forward(tiny: Tiny, w: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """Logits [len(ids), vocabulary] of the whole text at once, in float64."""
    w = {k: v.astype(np.float64) for k, v in w.items()}
    x = w["token_embd"][ids] * (np.sqrt(tiny.width) if tiny.gemma else 1)
    for i in range(tiny.layers):
        p = f"blk.{i}."
        y = _attention(tiny, w, i, _norm(tiny, x, w[p + "attn_norm"]))
        x = x + (_norm(tiny, y, w[p + "post_attention_norm"]) if tiny.gemma else y)
        h = _norm(tiny, x, w[p + "ffn_norm"])
        gate, up = h @ w[p + "ffn_gate"].T, h @ w[p + "ffn_up"].T
        y = (_gelu(gate) if tiny.gemma else gate / (1 + np.exp(-gate))) * up
        y = y @ w[p + "ffn_down"].T
        x = x + (_norm(tiny, y, w[p + "post_ffw_norm"]) if tiny.gemma else y)
    x = _norm(tiny, x, w["output_norm"])
    logits = x @ w["token_embd" if tiny.tied else "output"].T
    return _capped(logits, tiny.logit_cap)


def _attention(tiny: Tiny, w: dict[str, np.ndarray], layer: int, x: np.ndarray) -> np.ndarray:
    p, count = f"blk.{layer}.", len(x)

    def heads(name: str, n: int) -> np.ndarray:
        y = x @ w[p + name].T + w.get(p + name + ".bias", 0)
        y = y.reshape(count, n, tiny.head_size)
        if tiny.qk_norm and p + name + "_norm" in w:
            y = _norm(tiny, y, w[p + name + "_norm"])
        return y.swapaxes(0, 1)

    q, k, v = (
        heads("attn_q", tiny.heads),
        *(heads(name, tiny.kv_heads) for name in ("attn_k", "attn_v")),
    )
    if layer not in tiny.no_rope:
        q, k = (_turned(tiny, y, tiny.windows[layer] is not None) for y in (q, k))
    k, v = (y.repeat(tiny.heads // tiny.kv_heads, axis=0) for y in (k, v))
    scale = tiny.scale or tiny.head_size**-0.5
    scores = _capped(q @ k.swapaxes(1, 2) * scale, tiny.attention_cap)
    distance = np.arange(count)[:, None] - np.arange(count)
    seen = (distance >= 0) & (distance < (tiny.windows[layer] or count))
    scores = np.where(seen, scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return (shares @ v).swapaxes(0, 1).reshape(count, -1) @ w[p + "attn_output"].T


def _turned(tiny: Tiny, x: np.ndarray, local: bool) -> np.ndarray:
    """RoFormer's rotation of pairs (i, i + half), x [heads, tokens, size]."""
    size = tiny.rotated or tiny.head_size
    pair = np.arange(size // 2)
    base = tiny.local_base if local and tiny.local_base else tiny.base
    angle, stretch = base ** (-2.0 * pair / size), 1.0
    if tiny.divisors is not None:
        angle = angle / tiny.divisors
    if not (local and tiny.local_base):
        angle = angle / tiny.linear
        if tiny.yarn:
            factor, original = tiny.yarn
            # Section 3.2 of the YaRN paper, with turns r over the original context.
            low, high = (
                np.log(original / (r * 2 * np.pi)) / np.log(base) * size / 2 for r in (32, 1)
            )
            low, high = max(np.floor(low), 0), min(np.ceil(high), size - 1)
            keep = 1 - np.clip((pair - low) / (high - low), 0, 1)
            angle = keep * angle + (1 - keep) * angle / factor
            stretch = 0.1 * np.log(factor) + 1
    turn = np.exp(1j * np.arange(x.shape[1])[:, None] * angle) * stretch
    first, second = x[..., : size // 2], x[..., size // 2 : size]
    turned = (first + 1j * second) * turn
    return np.concatenate([turned.real, turned.imag, x[..., size:]], axis=-1)


def _norm(tiny: Tiny, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    scaled = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6)
    return scaled * (weight + 1 if tiny.gemma else weight)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _capped(x: np.ndarray, cap: float) -> np.ndarray:
    return np.tanh(x / cap) * cap if cap else x


# --- running the graph ----------------------------------------------------------------------------


class Session:
    """ONNX Runtime on the graph with its weights as float32, one conversation long."""

    def __init__(self, source: Any) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # it warns that TensorScatter copies the cache
        proto = ir.serde.serialize_model(dequantize_weights(source.model.clone()))
        self.session = ort.InferenceSession(proto.SerializeToString(), options)
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.updates = source.config["generation"]["state"]
        self.state = {
            i.name: np.zeros(i.shape, np.float32)
            for i in self.session.get_inputs()
            if i.name in self.updates
        }
        self.position = 0

    def feed(self, ids: list[int]) -> np.ndarray:
        """Logits [len(ids), vocabulary] of more tokens."""
        feeds = {"input_ids": np.array([ids]), "position": np.array([self.position]), **self.state}
        found = dict(zip(self.outputs, self.session.run(None, feeds), strict=True))
        self.state = {given: found[updated] for given, updated in self.updates.items()}
        self.position += len(ids)
        return np.asarray(found["logits"][0])
