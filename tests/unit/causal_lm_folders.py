"""Folders of tiny language models in Hugging Face layout, and what they compute, in NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

__all__ = ["BASE", "logits", "weights_of", "write_folder"]

Array = NDArray[Any]

BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 64,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}


def write_folder(
    path: Path, config: dict[str, Any], seed: int = 0, **files: Any
) -> dict[str, Array]:
    """config.json, model.safetensors and tokenizer.json; `files` are more JSON files, by stem."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    for stem, content in files.items():
        (path / f"{stem}.json").write_text(json.dumps(content))
    words = {f"w{i}": i for i in range(3, config["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, **words}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(path / "tokenizer.json"))
    weights = weights_of(config, seed)
    save_file(weights, path / "model.safetensors")
    return weights


def weights_of(config: dict[str, Any], seed: int = 0) -> dict[str, Array]:
    """Random weights under the names that transformers gives them."""
    kind, width, size = config["model_type"], config["hidden_size"], config["head_dim"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    inner = config["intermediate_size"]
    rng = np.random.default_rng(seed)
    gemma = kind.startswith("gemma")
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (config["vocab_size"], width),
        "norm.weight": (width,),
    }
    for i in range(config["num_hidden_layers"]):
        layer = {"input_layernorm": (width,), "post_attention_layernorm": (width,)}
        if gemma:
            layer |= {f"{where}_feedforward_layernorm": (width,) for where in ("pre", "post")}
        for part, rows in (("q", heads), ("k", kv), ("v", kv)):
            layer[f"self_attn.{part}_proj"] = (rows * size, width)
            if kind == "qwen2":
                shapes[f"layers.{i}.self_attn.{part}_proj.bias"] = (rows * size,)
        if kind in ("qwen3", "gemma3_text"):
            layer |= {"self_attn.q_norm": (size,), "self_attn.k_norm": (size,)}
        layer |= {
            "self_attn.o_proj": (width, heads * size),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        shapes |= {f"layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    found = {f"model.{name}": shape for name, shape in shapes.items()}
    if not config.get("tie_word_embeddings", gemma):
        found["lm_head.weight"] = (config["vocab_size"], width)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1] if len(shape) > 1 else 4)).astype(
            np.float32
        )
        for name, shape in found.items()
    }


# --- the architecture, as modeling_llama.py and its relatives have it -----------------------------


def logits(config: dict[str, Any], weights: dict[str, Array], ids: list[int]) -> Array:
    """float64 [sequence, vocabulary], all tokens at once."""
    model = {name.removeprefix("model."): w.astype(np.float64) for name, w in weights.items()}
    gemma = config["model_type"].startswith("gemma")
    x = model["embed_tokens.weight"][ids]
    if gemma:
        x = x * np.sqrt(config["hidden_size"])
    for i in range(config["num_hidden_layers"]):
        layer = {
            name.removeprefix(f"layers.{i}."): w
            for name, w in model.items()
            if name.startswith(f"layers.{i}.")
        }
        y = _attention(config, layer, i, _norm(config, x, layer["input_layernorm.weight"]))
        if not gemma:
            x = x + y
            y = _mlp(layer, _norm(config, x, layer["post_attention_layernorm.weight"]), gemma)
            x = x + y
            continue
        x = x + _norm(config, y, layer["post_attention_layernorm.weight"])
        y = _mlp(layer, _norm(config, x, layer["pre_feedforward_layernorm.weight"]), gemma)
        x = x + _norm(config, y, layer["post_feedforward_layernorm.weight"])
    head = model.get("lm_head.weight", model["embed_tokens.weight"])
    result = _norm(config, x, model["norm.weight"]) @ head.T
    cap = config.get("final_logit_softcapping")
    return cap * np.tanh(result / cap) if cap else result


def _norm(config: dict[str, Any], x: Array, weight: Array) -> Array:
    scaled = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + config["rms_norm_eps"])
    return scaled * (1 + weight if config["model_type"].startswith("gemma") else weight)


def _mlp(layer: dict[str, Array], x: Array, gemma: bool) -> Array:
    gate, up = (x @ layer[f"mlp.{part}_proj.weight"].T for part in ("gate", "up"))
    if gemma:
        act = gate * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
    else:
        act = gate / (1 + np.exp(-gate))
    return (act * up) @ layer["mlp.down_proj.weight"].T


def _attention(config: dict[str, Any], layer: dict[str, Array], index: int, x: Array) -> Array:
    size, length = config["head_dim"], len(x)
    local = config.get("layer_types", ["full_attention"] * 99)[index] == "sliding_attention"

    def heads(part: str) -> Array:
        y = x @ layer[f"self_attn.{part}_proj.weight"].T
        y = y + layer.get(f"self_attn.{part}_proj.bias", 0)
        y = y.reshape(length, -1, size)
        norm = layer.get(f"self_attn.{part}_norm.weight")
        y = y if norm is None else _norm(config, y, norm)
        return y.swapaxes(0, 1)

    q, k, v = (heads(part) for part in "qkv")
    q, k = (_turned(y, _angles(config, local)) for y in (q, k))
    group = len(q) // len(k)
    k, v = (np.repeat(y, group, axis=0) for y in (k, v))
    scores = q @ k.swapaxes(1, 2) / np.sqrt(config.get("query_pre_attn_scalar", size))
    cap = config.get("attn_logit_softcapping")
    scores = cap * np.tanh(scores / cap) if cap else scores
    apart = np.arange(length)[:, None] - np.arange(length)
    seen = (apart >= 0) & (apart < (config["sliding_window"] if local else length))
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = weights / weights.sum(axis=-1, keepdims=True) @ v
    return mixed.swapaxes(0, 1).reshape(length, -1) @ layer["self_attn.o_proj.weight"].T


def _angles(config: dict[str, Any], local: bool) -> Array:
    """Radians a position, [size / 2]."""
    theta = config.get("rope_theta", 10_000.0)
    if local and config["model_type"] == "gemma3_text":
        theta = config["rope_local_base_freq"]
    angles = theta ** (-np.arange(0, config["head_dim"], 2) / config["head_dim"])
    scaling = config.get("rope_scaling") or {}
    if local and config["model_type"] == "gemma3_text":
        return angles
    if scaling.get("rope_type") == "linear":
        return angles / scaling["factor"]
    if scaling.get("rope_type") != "llama3":
        return angles
    scaled = []
    for angle in angles:  # as llama-models' apply_scaling
        length = 2 * np.pi / angle
        trained, factor = scaling["original_max_position_embeddings"], scaling["factor"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        if length < trained / high:
            scaled.append(angle)
        elif length > trained / low:
            scaled.append(angle / factor)
        else:
            smooth = (trained / length - low) / (high - low)
            scaled.append((1 - smooth) * angle / factor + smooth * angle)
    return np.array(scaled)


def _turned(x: Array, angles: Array) -> Array:
    turn = np.arange(x.shape[1])[:, None] * angles
    a, b = np.split(x, 2, axis=-1)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
