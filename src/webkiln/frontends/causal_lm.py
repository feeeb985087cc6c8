"""Causal language models in Hugging Face layout: config.json, safetensors, tokenizer.

The llama family is built here, from its weights alone; every other architecture by mobius-onnx, of
the ``hf`` extra, whose past inputs a graph pass turns into a cache (passes/static_cache.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from webkiln.errors import InvalidModelError, UnsupportedModelError
from webkiln.frontends.builder import Weights, as_float32, sizes
from webkiln.frontends.chat_files import add_chat_files, context_length
from webkiln.frontends.llama import LlamaConfig, LlamaLayer, LlamaWeights, build_llama
from webkiln.frontends.rope import Rope, rope
from webkiln.frontends.source import Source

__all__ = ["is_built_here", "load_causal_lm"]

_GEMMA = ("gemma2", "gemma3_text")
_QK_NORM = ("qwen3", "gemma3_text")
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", *_GEMMA)

# The builder's names of tensors are those of GGUF files.
_NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_GEMMA_NAMES = {
    **_NAMES,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_SILU = ("silu", "swish")
_GELU = ("gelu_pytorch_tanh", "gelu_new")


def is_built_here(config: Mapping[str, Any]) -> bool:
    """Whether the architecture, with all that its config asks for, needs no mobius-onnx."""
    architectures = config.get("architectures") or ["ForCausalLM"]
    if not any(str(name).endswith("ForCausalLM") for name in architectures):
        return False
    kind = config.get("model_type")
    if kind not in MODEL_TYPES or config.get("quantization_config"):
        return False
    activation = config.get("hidden_activation") or config.get("hidden_act") or "silu"
    if activation not in (_GELU if kind in _GEMMA else _SILU):
        return kind in _GEMMA and activation == "gelu"  # which Gemma's code reads as tanh's
    if config.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        return False
    return all(_known_scaling(settings) for settings in _rope_settings(config).values())


def load_causal_lm(
    path: Path, config: Mapping[str, Any], weights: Weights, context: int | None
) -> Source:
    """The model in the folder `path`, over a cache of `context` tokens.

    Raises `InvalidModelError` for weights that are missing or don't fit, `UnsupportedModelError`
    for weights that the architecture has no place for, `InputError` for an impossible `context`.
    """
    length = context_length(path, config, context)
    try:
        settings = _config(config, length)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidModelError(f"config.json lacks, or has a wrong, {error}") from None
    renamed = _renamed(config, weights)
    model = build_llama(settings, LlamaWeights(renamed, {}), name=path.resolve().name)
    _check_all_used(model, renamed, config)
    ports = {
        "ids": "input_ids",
        "position": "position",
        "logits": "logits",
        "state": {
            f"{part}_cache.{i}": f"{part}_cache_out.{i}"
            for i in range(len(settings.layers))
            for part in ("key", "value")
        },
    }
    source = Source(model, path.resolve().name)
    add_chat_files(source, path, config, ports, length)
    return source


# --- config.json ----------------------------------------------------------------------------------


def _config(config: Mapping[str, Any], context: int) -> LlamaConfig:
    kind, width, heads = config["model_type"], int(config["hidden_size"]), _heads(config)
    size = int(config.get("head_dim") or width // heads)
    gemma = kind in _GEMMA
    scale_of = float(config.get("query_pre_attn_scalar") or size) if gemma else size
    return LlamaConfig(
        width=width,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=size,
        inner=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        context=context,
        epsilon=float(config.get("rms_norm_eps", 1e-6)),
        scale=scale_of**-0.5,
        layers=tuple(_layers(config, size)),
        qk_norm=kind in _QK_NORM,
        post_norms=gemma,
        activation="gelu" if gemma else "silu",
        embedding_scale=math.sqrt(width) if gemma else 1.0,
        attention_cap=float(config.get("attn_logit_softcapping") or 0) if gemma else 0.0,
        logit_cap=float(config.get("final_logit_softcapping") or 0) if gemma else 0.0,
    )


def _heads(config: Mapping[str, Any]) -> int:
    return int(config["num_attention_heads"])


def _layers(config: Mapping[str, Any], size: int) -> Iterator[LlamaLayer]:
    ropes = {
        kind: _rope(settings, config, size) for kind, settings in _rope_settings(config).items()
    }
    window = config.get("sliding_window")
    turns = config.get("no_rope_layers") or []
    count = int(config["num_hidden_layers"])
    every = int(config.get("no_rope_layer_interval") or 4)
    for i in range(count):
        local = bool(window) and _is_local(config, i)
        turn: Rope | None = ropes["sliding_attention" if local else "full_attention"]
        if config["model_type"] == "smollm3" and not (turns[i] if turns else (i + 1) % every):
            turn = None
        yield LlamaLayer(turn, int(window) if window and local else None)


def _is_local(config: Mapping[str, Any], layer: int) -> bool:
    """Whether the layer looks at the window only; the families differ in how they say it."""
    kinds = config.get("layer_types")
    if kinds:
        return str(kinds[layer]) == "sliding_attention"
    match config["model_type"]:
        case "mistral":
            return True
        case "qwen2" | "qwen3":
            used = config.get("use_sliding_window", False)
            return bool(used) and layer >= int(config.get("max_window_layers", 28))
        case "gemma2":
            return layer % 2 == 0
        case "gemma3_text":
            return (layer + 1) % int(config.get("sliding_window_pattern", 6)) != 0
    return False


def _rope_settings(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """RoPE's settings of full and of sliding layers, from where each version writes them."""
    found = config.get("rope_parameters")
    kinds = ("full_attention", "sliding_attention")
    if isinstance(found, dict) and isinstance(found.get(kinds[0]), dict):
        return {kind: dict(found.get(kind) or found[kinds[0]]) for kind in kinds}
    theta = config.get("rope_theta") or 10_000.0
    full = {"rope_theta": theta, **(found or config.get("rope_scaling") or {})}
    sliding = full
    if config.get("model_type") == "gemma3_text":
        sliding = {"rope_theta": config.get("rope_local_base_freq", 10_000.0)}
    return {kinds[0]: full, kinds[1]: sliding}


def _kind(settings: Mapping[str, Any]) -> str:
    return str(settings.get("rope_type") or settings.get("type") or "default")


def _known_scaling(settings: Mapping[str, Any]) -> bool:
    if _kind(settings) == "yarn":
        special = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
        usual = {"beta_fast": 32, "beta_slow": 1, "truncate": True}
        return all(settings.get(key) in (None, usual.get(key)) for key in special)
    return _kind(settings) in ("default", "linear", "llama3")


def _rope(settings: Mapping[str, Any], config: Mapping[str, Any], size: int) -> Rope:
    base, kind = float(settings["rope_theta"]), _kind(settings)
    factor = float(settings.get("factor") or 1.0)
    if kind == "default":
        return rope(base, size)
    if kind == "llama3":
        return rope(base, size, divisors=_llama3_divisors(settings, base, size))
    trained = settings.get("original_max_position_embeddings") or config["max_position_embeddings"]
    magnitude = 1.0
    if kind == "yarn" and settings.get("attention_factor"):
        magnitude = float(settings["attention_factor"]) / (1 + 0.1 * math.log(factor))
    return rope(
        base, size, scaling=kind, factor=factor, original_context=int(trained), magnitude=magnitude
    )


def _llama3_divisors(
    settings: Mapping[str, Any], base: float, size: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What Llama 3.1 divides each angle by: slow turns by `factor`, fast ones by 1.

    As meta-llama's `apply_scaling`, with its numbers in config.json.
    """
    factor = float(settings["factor"])
    low, high = float(settings["low_freq_factor"]), float(settings["high_freq_factor"])
    trained = float(settings["original_max_position_embeddings"])
    angles = base ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    turns = trained * angles / (2 * np.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), dtype=np.float32)


# --- weights --------------------------------------------------------------------------------------


def _renamed(config: Mapping[str, Any], weights: Weights) -> dict[str, ir.TensorProtocol]:
    """The tensors under the builder's names; of no use are stored tables of angles."""
    gemma = config["model_type"] in _GEMMA
    names = _GEMMA_NAMES if gemma else _NAMES
    found: dict[str, ir.TensorProtocol] = {}
    for name, tensor in weights.items():
        if name.endswith("rotary_emb.inv_freq"):
            continue
        new = _new_name(name, names)
        if new == "output.weight" and config.get("tie_word_embeddings", gemma):
            continue
        found[new] = _plus_one(tensor) if gemma and new.endswith("norm.weight") else tensor
    return found


def _new_name(name: str, names: Mapping[str, str]) -> str:
    stem, _, kind = name.rpartition(".")
    if stem == "lm_head":
        return f"output.{kind}"
    stem = stem.removeprefix("model.")
    if not stem.startswith("layers."):
        return f"{names.get(stem, stem)}.{kind}"
    _, layer, part = stem.split(".", 2)
    return f"blk.{layer}.{names.get(part, part)}.{kind}"


def _plus_one(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Gemma's norms multiply by 1 + weight."""
    return ir.LazyTensor(
        lambda: ir.tensor(as_float32(tensor).numpy() + np.float32(1)),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(sizes(tensor)),
        name=tensor.name,
    )


def _check_all_used(
    model: ir.Model, weights: Mapping[str, ir.TensorProtocol], config: Mapping[str, Any]
) -> None:
    """A tensor that the graph doesn't read means an architecture other than the config says."""
    used = model.graph.initializers
    left = [name for name in weights if name not in used and f"{name}.T" not in used]
    if left:
        more = f" and {len(left) - 3} more" if left[3:] else ""
        raise UnsupportedModelError(
            f"the weights have tensors that {config['model_type']!r} models don't have: "
            f"{', '.join(left[:3])}{more}",
            hint="export the model to ONNX and build from that",
        )
