"""A classifier's raw outputs → labels with scores; the same as runtime/src/tasks/scores.ts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from webkiln.frontends.source import Source

__all__ = ["activate", "activation", "labels", "rank"]


def labels(source: Source) -> list[str]:
    """Class names by index, from ``labels`` or Hugging Face's ``id2label``; empty if unknown."""
    if given := source.config.get("labels"):
        return [str(label) for label in given]
    by_index: Mapping[Any, Any] = source.config.get("id2label") or {}
    named = {int(index): str(label) for index, label in by_index.items()}
    return [named.get(index, f"class {index}") for index in range(max(named, default=-1) + 1)]


def activation(source: Source) -> str:
    """What turns the first output into probabilities: ``softmax``, ``sigmoid``, or ``none`` if the
    graph itself ends in one.
    """
    node = source.model.graph.outputs[0].producer()
    # Shape changes keep what a value means.
    while isinstance(node, ir.Node) and node.op_type in {"Reshape", "Squeeze", "Flatten", "Cast"}:
        before = node.inputs[0]
        node = before.producer() if before is not None else None
    if node is not None and node.op_type in {"Softmax", "Sigmoid"}:
        return "none"
    # The Hugging Face name for several classes that may be true at once.
    several = source.config.get("problem_type") == "multi_label_classification"
    return "sigmoid" if several else "softmax"


def activate(logits: np.ndarray, kind: str) -> np.ndarray:
    """Scores of the same shape, [classes]."""
    if kind == "softmax":
        powers = np.exp(logits - logits.max())
        return np.asarray(powers / powers.sum())
    return np.asarray(1 / (1 + np.exp(-logits))) if kind == "sigmoid" else logits


def rank(
    scores: np.ndarray, names: Sequence[str], count: int | None = None
) -> list[dict[str, Any]]:
    """The `count` highest scores, best first, as ``{"label", "score"}``."""
    order = np.argsort(-scores, kind="stable")[:count]
    return [
        {"label": names[i] if i < len(names) else f"class {i}", "score": float(scores[i])}
        for i in order
    ]
