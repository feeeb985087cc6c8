"""Recognises an exported causal language model by its inputs and outputs."""

from __future__ import annotations

import re
from typing import Any

import onnx_ir as ir

__all__ = ["CHUNK", "DEFAULT_CONTEXT", "past_ports"]

CHUNK = 128  # tokens that prefill takes at once
DEFAULT_CONTEXT = 2048  # a cache that small devices can hold

_IDS = "input_ids"
_LOGITS = "logits"
# Longest first: what is left of a name is its layer and its kind.
_PREFIXES = {
    "past": ("past_key_values", "past_key_value", "past_kv", "past"),
    "present": ("present_key_values", "present_key_value", "present_kv", "present"),
}


def past_ports(model: ir.Model) -> dict[str, Any] | None:
    """``ids``, ``logits`` and ``past`` for `Source.config["generation"]`; None: no such model.

    ``past`` maps each input of past keys or values, ``past_key_values.0.key`` and the like, to the
    output that continues it, ``present.0.key``.
    """
    inputs = {str(value.name) for value in model.graph.inputs}
    outputs = {str(value.name) for value in model.graph.outputs}
    before, after = _numbered(inputs, "past"), _numbered(outputs, "present")
    if _IDS not in inputs or _LOGITS not in outputs or not before or before.keys() != after.keys():
        return None
    past = {before[port]: after[port] for port in sorted(before)}
    return {"ids": _IDS, "logits": _LOGITS, "past": past}


def _numbered(names: set[str], word: str) -> dict[tuple[int, str], str]:
    """Names such as ``past_key_values.0.key`` or ``present_value_0``, by layer and kind."""
    found = {}
    for name in names:
        prefix = next((p for p in _PREFIXES[word] if name.startswith(p)), None)
        if prefix is None:
            continue
        match sorted(re.split(r"[._]", name[len(prefix) :].strip("._"))):
            case [layer, ("key" | "value") as kind] if layer.isdigit():
                found[int(layer), kind] = name
    return found
