"""A text → its embedding, a vector whose angle to another's tells how close their meanings are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from webkiln.errors import InputError
from webkiln.frontends.source import Source
from webkiln.tasks import ports, text

__all__ = ["NAME", "matches", "plan_config", "postprocess", "preprocess", "sample"]

NAME = "feature-extraction"

# The first is what is looked for among the others.
SAMPLES = [
    "Somewhere to eat something warm",
    "The café on the corner makes a wonderful soup.",
    "My train was two hours late again.",
    "The bakery sells bread fresh from the oven.",
    "It is going to rain all weekend.",
    "Water was found under the surface of Mars.",
]


def matches(source: Source) -> bool:
    """Token ids go in, and one vector, or one a token, comes out."""
    return text.reads_text(source) and len(ports.outputs(source.model)[0].shape) in (2, 3)


def plan_config(source: Source) -> dict[str, Any]:
    """The tokenizer's place, and the pooling that the graph itself does not do.

    Raises `InputError` for a kind of pooling that the browser does not know.
    """
    pooled = len(ports.outputs(source.model)[0].shape) == 2
    pooling = "none" if pooled else source.config.get("pooling", "mean")
    if pooling not in ("mean", "cls", "none"):
        raise InputError(f"there is no pooling {pooling!r}", hint="choose mean or cls")
    return {
        "name": NAME,
        "text": text.text_config(source),
        "pooling": pooling,
        "normalize": bool(source.config.get("normalize", True)) and not pooled,
        "samples": source.config.get("samples", SAMPLES),
        "about": source.provenance,
    }


def sample(source: Source, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
    """A sentence of as many tokens as `dims` says."""
    return text.sample_inputs(source, dims)


def preprocess(value: str | Path, plan: Mapping[str, Any], base: Path) -> dict[str, np.ndarray]:
    """A text, or a file that holds one, → token ids and mask."""
    return text.text_feeds(value, plan, base)


def postprocess(outputs: Mapping[str, np.ndarray], plan: Mapping[str, Any]) -> Any:
    """The embedding as a list of numbers. Of a padded text, all positions count."""
    task, name = plan["task"], plan["programs"][0]["outputs"][0]["name"]
    vector = outputs[name].astype(np.float32)[0]
    if task["pooling"] != "none":
        vector = vector[0] if task["pooling"] == "cls" else vector.mean(axis=0)
    if task["normalize"]:
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return [float(x) for x in vector]
