"""GGUF files: the architecture from their metadata, the weights as they lie in the file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from webkiln.errors import InputError, InvalidModelError, UnsupportedModelError
from webkiln.frontends.builder import as_float32, sizes
from webkiln.frontends.ggml_types import BLOCK_TYPES, float_tensor, quantised_matrix
from webkiln.frontends.gguf_file import GgufFile, open_gguf
from webkiln.frontends.gguf_tokenizer import tokenizer_from_gguf
from webkiln.frontends.llama import LlamaConfig, LlamaLayer, LlamaWeights, build_llama
from webkiln.frontends.rope import Rope, rope
from webkiln.frontends.source import Source

__all__ = ["ARCHITECTURES", "CHUNK", "DEFAULT_CONTEXT", "load_gguf"]

CHUNK = 128  # tokens that prefill takes at once

# What the model's makers recommend, by its name under general.sampling.
_SAMPLING = {
    "temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}  # fmt: skip
DEFAULT_CONTEXT = 2048  # a cache that small devices can hold; `context` asks for more


@dataclass(frozen=True)
class _Family:
    """What an architecture's name says beyond its metadata."""

    interleaved: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    gemma: bool = False
    """Norms after the branches too, GELU, scaled embeddings."""
    local_layers: int = 0
    """Of so many layers all but the last look at a window only; 0: as the metadata says."""
    local_base: float = 0.0
    """RoPE base of those layers; 0: that of the others."""
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    no_rope_every: int = 0
    """Of so many layers the last knows no positions; 0: all do."""


ARCHITECTURES = {
    "gemma2": _Family(gemma=True, local_layers=2, attention_cap=50.0, logit_cap=30.0),
    "gemma3": _Family(gemma=True, qk_norm=True, local_layers=6, local_base=10_000.0),
    # Converters order q's and k's rows for interleaved RoPE.
    "llama": _Family(interleaved=True),
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(qk_norm=True),
    "smollm3": _Family(interleaved=True, no_rope_every=4),
}


def load_gguf(path: str | os.PathLike[str], *, context: int | None = None) -> Source:
    """A GGUF file as a text-generation model, with its tokenizer and chat template.

    `context` is the length of the KV cache in tokens: by default what the model was trained for,
    at most `DEFAULT_CONTEXT`.

    Raises `InvalidModelError` (broken or truncated file, missing or misshapen tensors),
    `UnsupportedModelError` (architecture, tensor type or RoPE scaling) or `InputError` (options).
    """
    file = open_gguf(Path(path))
    family = ARCHITECTURES.get(file.architecture)
    if family is None:
        raise UnsupportedModelError(
            f"{file.path.name} is of architecture {file.architecture!r}, which is not supported",
            hint=f"one of {', '.join(ARCHITECTURES)}, or an ONNX export of the model",
        )
    length = _context(file, context)
    weights = _weights(file)
    config = _config(file, family, weights, length)
    _check_biases(file, family, len(config.layers))
    model = build_llama(config, weights, name=file.path.stem)
    _check_all_used(file, model)
    return _source(file, model, length)


def _context(file: GgufFile, wanted: int | None) -> int:
    trained = file.integer("{arch}.context_length")
    if wanted is None:
        return min(trained, DEFAULT_CONTEXT)
    if wanted < 1:
        raise InputError(f"a context of {wanted} tokens is not possible", hint="1 or more")
    if wanted > trained:
        raise InputError(
            f"a context of {wanted} tokens is more than {file.path.name} was trained for",
            hint=f"--max sequence={trained} or less",
        )
    return wanted


def _weights(file: GgufFile) -> LlamaWeights:
    plain: dict[str, ir.TensorProtocol] = {}
    quantised = {}
    for tensor in file.reader.tensors:
        kind = tensor.tensor_type.name
        if kind in BLOCK_TYPES and tensor.data.ndim == 2:
            quantised[tensor.name] = quantised_matrix(kind, tensor.data)
        else:
            plain[tensor.name] = float_tensor(kind, tensor.data, tensor.name)
    return LlamaWeights(plain, quantised)


# --- the architecture -----------------------------------------------------------------------------


def _config(file: GgufFile, family: _Family, weights: LlamaWeights, context: int) -> LlamaConfig:
    width = file.integer("{arch}.embedding_length")
    heads = file.integer("{arch}.attention.head_count")
    kv_heads = file.integer("{arch}.attention.head_count_kv", heads)
    head_size = file.integer("{arch}.attention.key_length", width // heads)
    _check_supported(file, head_size)
    if heads % kv_heads:
        raise InvalidModelError(
            f"{file.path.name}: {heads} heads can't share {kv_heads} heads of keys and values",
            hint="convert the model again",
        )
    scale = file.number("{arch}.attention.scale", 1 / math.sqrt(head_size))
    count = file.integer("{arch}.block_count")
    if (file.architecture, count) in _SCALE_BY_WIDTH:
        scale = 1 / math.sqrt(width / heads)
    return LlamaConfig(
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        inner=file.integer("{arch}.feed_forward_length"),
        vocabulary=_vocabulary(file),
        context=context,
        epsilon=file.number("{arch}.attention.layer_norm_rms_epsilon"),
        scale=scale,
        layers=_layers(file, family, count, head_size, weights),
        interleaved=family.interleaved,
        qk_norm=family.qk_norm,
        post_norms=family.gemma,
        activation="gelu" if family.gemma else "silu",
        embedding_scale=math.sqrt(width) if family.gemma else 1.0,
        attention_cap=file.number("{arch}.attn_logit_softcapping", family.attention_cap),
        logit_cap=file.number("{arch}.final_logit_softcapping", family.logit_cap),
    )


# The 27B models of Gemma 2 and 3, known by their number of layers, divide scores by the root of
# width / heads, which is not their head's size; their files don't say so.
_SCALE_BY_WIDTH = {("gemma2", 46), ("gemma3", 62)}


def _vocabulary(file: GgufFile) -> int:
    table = file.tensors.get("token_embd.weight")
    if table is None:
        raise _missing("token_embd.weight")
    return int(table.shape[-1])


def _check_supported(file: GgufFile, head_size: int) -> None:
    experts = file.value("{arch}.expert_count") or 0
    value_size = file.integer("{arch}.attention.value_length", head_size)
    for ok, what in (
        (not experts, f"a mixture of {experts} experts"),
        (value_size == head_size, f"values of {value_size} beside keys of {head_size} numbers"),
        (file.value("{arch}.attention.causal") is not False, "attention in both directions"),
    ):
        if not ok:
            raise UnsupportedModelError(
                f"{file.path.name}: {what} is not supported",
                hint="export the model to ONNX and build from that",
            )


def _layers(
    file: GgufFile, family: _Family, count: int, head_size: int, weights: LlamaWeights
) -> tuple[LlamaLayer, ...]:
    everywhere, local = _ropes(file, family, head_size, weights)
    window = file.value("{arch}.attention.sliding_window") or None
    if window is not None:
        window = file.integer("{arch}.attention.sliding_window")
    layers = []
    for i, is_local in enumerate(_local(file, family, count)):
        no_rope = family.no_rope_every and (i + 1) % family.no_rope_every == 0
        turn = None if no_rope else local if is_local else everywhere
        layers.append(LlamaLayer(turn, window if is_local else None))
    return tuple(layers)


def _local(file: GgufFile, family: _Family, count: int) -> list[bool]:
    """Which layers look at the window only."""
    pattern = file.value("{arch}.attention.sliding_window_pattern")
    if isinstance(pattern, list) and len(pattern) == count:
        return [bool(p) for p in pattern]
    every = pattern if isinstance(pattern, int) else family.local_layers
    return [(i + 1) % every != 0 if every else True for i in range(count)]


def _ropes(
    file: GgufFile, family: _Family, head_size: int, weights: LlamaWeights
) -> tuple[Rope, Rope]:
    """Of the layers that see everything, and of local ones, whose positions are never scaled."""
    base = file.number("{arch}.rope.freq_base", 10_000.0)
    dims = file.integer("{arch}.rope.dimension_count", head_size)
    scaling = file.text("{arch}.rope.scaling.type", "linear")
    factor = file.number("{arch}.rope.scaling.factor", file.number("{arch}.rope.scale_linear", 1.0))
    if scaling not in ("none", "linear", "yarn") or factor <= 0 or dims > head_size or dims % 2:
        raise UnsupportedModelError(
            f"{file.path.name}: RoPE of {dims} out of {head_size} dimensions, scaled by "
            f"{scaling} × {factor}, is not supported",
            hint="export the model to ONNX and build from that",
        )
    divisors = weights.plain.get("rope_freqs.weight")
    if divisors is not None and sizes(divisors) != [dims // 2]:
        raise InvalidModelError(
            f"tensor 'rope_freqs.weight' has shape {sizes(divisors)}; "
            f"the config says {[dims // 2]}",
            hint="check that the weights belong to the config",
        )
    everywhere = rope(
        base,
        dims,
        scaling=scaling,
        factor=factor,
        original_context=file.integer(
            "{arch}.rope.scaling.original_context_length", file.integer("{arch}.context_length")
        ),
        magnitude=file.number("{arch}.rope.scaling.attn_factor", 1.0),
        divisors=None if divisors is None else as_float32(divisors).numpy(),
    )
    if not family.local_base:
        return everywhere, everywhere
    return everywhere, rope(file.number("{arch}.rope.freq_base_swa", family.local_base), dims)


def _check_biases(file: GgufFile, family: _Family, layers: int) -> None:
    """A bias is added wherever there is one; that it is there, the family says."""
    if family.qkv_bias:
        for i in range(layers):
            for part in "qkv":
                if (name := f"blk.{i}.attn_{part}.bias") not in file.tensors:
                    raise _missing(name)


def _missing(tensor: str) -> InvalidModelError:
    return InvalidModelError(
        f"the weights have no tensor {tensor!r}, which the architecture needs",
        hint="convert the model again",
    )


def _check_all_used(file: GgufFile, model: ir.Model) -> None:
    """A tensor that the graph does not read means an architecture other than its name says."""
    used = model.graph.initializers
    left = [
        name
        for name in file.tensors
        if name not in used
        and name + ".T" not in used
        and name != "rope_freqs.weight"  # within the tables of sines
        and not name.endswith(".attn_rot_embd.weight")  # the same tables, in old files
    ]
    if left:
        more = f" and {len(left) - 3} more" if left[3:] else ""
        raise UnsupportedModelError(
            f"{file.path.name} has tensors that {file.architecture!r} models don't have: "
            f"{', '.join(left[:3])}{more}",
            hint="export the model to ONNX and build from that",
        )


# --- what comes with the model --------------------------------------------------------------------


def _source(file: GgufFile, model: ir.Model, context: int) -> Source:
    metadata = file.metadata("tokenizer.")
    text = tokenizer_from_gguf(metadata)
    tokens, rows = len(metadata["tokenizer.ggml.tokens"]), _vocabulary(file)
    if tokens > rows:
        raise InvalidModelError(
            f"{file.path.name} has {tokens} tokens, but embeddings of {rows}",
            hint="convert the model again",
        )
    layers = range(sum(str(value.name).startswith("key_cache.") for value in model.graph.inputs))
    generation: dict[str, Any] = {
        "context": context,
        "ids": "input_ids",
        "position": "position",
        "logits": "logits",
        "state": {
            f"{part}_cache.{i}": f"{part}_cache_out.{i}"
            for i in layers
            for part in ("key", "value")
        },
        "eos": text.eos_ids,
        "bos": text.bos_id,
        "add_bos": text.add_bos,
        "chunk": min(CHUNK, context),
    }
    config: dict[str, Any] = {
        "generation": generation,
        "tokens": text.tokens,
        "max": {"sequence": generation["chunk"]},
    }
    assets = {"tokenizer.json": text.tokenizer_json}
    if text.chat_template is not None:
        config["chat_template"] = text.chat_template
        assets["chat_template.jinja"] = text.chat_template.encode()
    sampling = {name: file.value(f"general.sampling.{key}") for name, key in _SAMPLING.items()}
    config["sampling"] = {
        name: round(value, 6) for name, value in sampling.items() if isinstance(value, int | float)
    }
    said = {
        "model": "general.name",
        "license": "general.license",
        "author": "general.organization",
        "origin": "general.base_model.0.repo_url",
    }
    provenance = {key: str(value) for key, field in said.items() if (value := file.value(field))}
    return Source(
        model,
        file.path.stem,
        "text-generation",
        config,
        assets,
        {"format": "GGUF", **provenance},
    )
