"""A text → its classes, most likely first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from webkiln.frontends.source import Source
from webkiln.tasks import ports, scores, text

__all__ = ["NAME", "matches", "plan_config", "postprocess", "preprocess", "sample"]

NAME = "text-classification"

# Of several moods and kinds, since what the classes are is the model's business.
SAMPLES = [
    "This is the best thing that has happened to me all year!",
    "I waited two hours, and then they told me to come back tomorrow.",
    "The meeting is on Tuesday at ten.",
    "I never thought I would see you here.",
]


def matches(source: Source) -> bool:
    """Token ids go in, [batch, classes] comes out, and the classes have names."""
    output = ports.outputs(source.model)[0]
    return text.reads_text(source) and len(output.shape) == 2 and bool(scores.labels(source))


def plan_config(source: Source) -> dict[str, Any]:
    """The tokenizer's place, labels, and what turns the output into probabilities."""
    return {
        "name": NAME,
        "text": text.text_config(source),
        "labels": scores.labels(source),
        "activation": scores.activation(source),
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
    """Every class as ``[{"label", "score"}, …]``, best first."""
    task, name = plan["task"], plan["programs"][0]["outputs"][0]["name"]
    found = scores.activate(outputs[name].reshape(-1).astype(np.float32), task["activation"])
    return scores.rank(found, task["labels"])
