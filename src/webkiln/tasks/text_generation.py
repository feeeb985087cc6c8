"""A language model: a prompt or a conversation → its continuation, token by token.

What generates is `webkiln.generation` here and runtime/src/tasks/generation in the browser; this
module says what the bundle must have for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from tokenizers import Tokenizer

from webkiln.errors import InputError
from webkiln.frontends.source import Source
from webkiln.generation.sampling import Sampling, device_inputs
from webkiln.passes.append_sampler import append_sampler
from webkiln.passes.keep_last_token import keep_last_token
from webkiln.passes.static_cache import static_cache
from webkiln.tasks import ports
from webkiln.tasks.text import read_text

__all__ = [
    "NAME", "graph", "matches", "plan_config", "postprocess", "prepare", "preprocess", "programs",
    "sample",
]  # fmt: skip

NAME = "text-generation"
CHECKED = ("logits",)  # by golden samples: of two tokens that are as likely, either may come first
TOKENIZER = "tokenizer.json"

# For models whose makers recommend nothing. Small ones wander off at higher temperatures: this is
# near what SmolLM2's model card says (0.2 and 0.9).
SAMPLING = {"temperature": 0.3, "top_p": 0.9, "top_k": 40}

SAMPLES = [
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about the sea.",
    "Give me three ideas for a rainy afternoon.",
]

_GOLDEN_TEXT = (
    "The kiln was warm when she opened it, and the glaze had turned the colour of the sea. "
    "She took out the first bowl, held it to the light, and smiled at what the fire had made. "
)


def matches(source: Source) -> bool:
    """Whoever read the model says so, by where its cache is."""
    return "generation" in source.config


def prepare(source: Source) -> Source:
    """An export that takes the past and returns the present gets a cache of fixed length.

    Raises `UnsupportedModelError` for an attention that isn't understood, `InputError` for a
    context that the model's own tables don't reach.
    """
    generation = source.config.get("generation", {})
    if "past" not in generation:
        return source
    model, generation = static_cache(source.model, generation, generation["context"])
    return replace(source, model=model, config=source.config | {"generation": generation})


def graph(source: Source) -> ir.Model:
    """The model, its logits cut to those of the last token, and the sampler after them."""
    logits = _generation(source)["logits"]
    model = keep_last_token(source.model.clone(), logits)
    return append_sampler(model, vocabulary=_vocabulary(source), logits=logits)


def programs(source: Source) -> Mapping[str, Mapping[str, int]]:
    """`prefill` reads as many tokens as a chunk has; `decode` one."""
    generation = _generation(source)
    dimension = _sequence(source, generation)
    if dimension is None:
        return {"decode": {}}
    return {"prefill": {dimension: generation["chunk"]}, "decode": {dimension: 1}}


def plan_config(source: Source) -> dict[str, Any]:
    """Ports and bounds of generation, tokenizer, chat template, special tokens, defaults.

    Raises `InputError` for a model without cache or tokenizer.
    """
    generation = _generation(source)
    if TOKENIZER not in source.assets:
        raise InputError(
            "the model has no tokenizer.json, so text can't become its input",
            hint="put tokenizer.json beside the model, or build with --task generic",
        )
    config = source.config
    return {
        "name": NAME,
        "tokenizer": TOKENIZER,
        "generation": {key: value for key, value in generation.items() if key != "state"},
        "tokens": config.get("tokens", {}),
        "chat_template": config.get("chat_template"),
        "sampling": _sampling(config.get("sampling") or {}) or SAMPLING,
        "samples": config.get("samples", SAMPLES),
        "about": source.provenance,
    }


def _sampling(said: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's files recommend, as far as it is possible."""
    kept = {}
    for name, value in said.items():
        with suppress(InputError):
            Sampling.of({name: value})
            kept[name] = value
    return kept


def sample(source: Source, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The first tokens of a text at position 0, and a sampler that takes the most likely one.

    Caches are not among them: they start empty.
    """
    generation = _generation(source)
    greedy = device_inputs(Sampling(temperature=0), [], 0, 0, _vocabulary(source))
    feeds: dict[str, np.ndarray] = dict(greedy)
    for port in ports.inputs(source.model):
        if port.name in generation["state"]:
            continue
        shape = port.concrete(dims)
        if port.name == generation["ids"]:
            values = _golden_ids(source, math.prod(shape)).reshape(shape)
        else:
            values = np.zeros(shape)
        feeds[port.name] = values.astype(port.dtype)
    return feeds


def _golden_ids(source: Source, length: int) -> np.ndarray:
    tokenizer = Tokenizer.from_buffer(source.assets[TOKENIZER])
    each = tokenizer.encode(_GOLDEN_TEXT, add_special_tokens=False).ids or [0]
    return np.resize(np.array(each, np.int64), length)


def preprocess(value: str | Path, plan: Mapping[str, Any], base: Path) -> dict[str, np.ndarray]:
    """A text, or a file of it, → the inputs of one run from an empty cache.

    Raises `InputError` for more tokens than one run takes; `webkiln.generation` has no such limit.
    """
    generation = plan["task"]["generation"]
    tokenizer = Tokenizer.from_buffer((base / plan["task"]["tokenizer"]).read_bytes())
    ids = tokenizer.encode(read_text(value), add_special_tokens=False).ids
    if generation["add_bos"] or not ids:
        ids = [generation["bos"] or 0, *ids]
    if len(ids) > generation["chunk"]:
        raise InputError(
            f"the text has {len(ids)} tokens, one run takes {generation['chunk']}",
            hint="give it with --prompt",
        )
    inputs = plan["programs"][0]["inputs"]
    words = next((port["shape"][0] for port in inputs if port["name"] == "token_mask"), None)
    sampler = {} if words is None else device_inputs(Sampling(temperature=0), ids, 0, 0, 32 * words)
    return {
        generation["ids"]: np.array([ids], np.int64),
        generation["position"]: np.zeros(1, np.int64),
        **sampler,
    }


def postprocess(outputs: Mapping[str, np.ndarray], plan: Mapping[str, Any]) -> Any:
    """The ten tokens that may come next, by id, most likely first."""
    logits = outputs[plan["task"]["generation"]["logits"]].reshape(-1).astype(np.float64)
    shifted = np.exp(logits - logits.max())
    chances = shifted / shifted.sum()
    best = np.argsort(-chances, kind="stable")[:10]
    return [{"token": int(i), "probability": float(chances[i])} for i in best]


def _generation(source: Source) -> dict[str, Any]:
    found: dict[str, Any] | None = source.config.get("generation")
    if found is None:
        raise InputError(
            "the model has no cache of keys and values that webkiln recognises, so it can't "
            "generate text",
            hint="build with --task generic",
        )
    return found


def _vocabulary(source: Source) -> int:
    """How many logits there are."""
    logits = _generation(source)["logits"]
    extent = next(p for p in ports.outputs(source.model) if p.name == logits).shape[-1]
    if not isinstance(extent, int):
        raise InputError(f"the model's output {logits!r} says no size of the vocabulary")
    return extent


def _sequence(source: Source, generation: Mapping[str, Any]) -> str | None:
    """The name of the dimension that counts the tokens of a run; None if it is fixed."""
    port = next(p for p in ports.inputs(source.model) if p.name == generation["ids"])
    extent = port.shape[-1]
    return extent if isinstance(extent, str) else None
