"""Choosing the next token.

In this order, as on the device (docs/generation.md): penalties, temperature, top-k, top-p of what
top-k left, min-p, draw. Where the bundle has a sampler its programs get `device_inputs`; else
`sample` chooses on the host, as runtime/src/tasks/generation/sampler.ts does in the browser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webkiln.errors import InputError, InvalidModelError

__all__ = ["DEVICE_TOP_K", "Sampling", "device_inputs", "penalise", "sample", "uniform"]

# Sizes of the device sampler's ports; docs/generation.md.
DEVICE_TOP_K, _PENALTIES = 64, 256

_MASK = 0xFFFFFFFF
_LARGEST = 2**53  # what JavaScript counts exactly


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. `temperature` 0 takes the most likely one; `top_k` 0 means all."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises `InputError`: names the setting, what it should be, and what it is."""
        whole = {"top_k": (0, _LARGEST), "seed": (-_LARGEST, _LARGEST)}
        within = {
            "temperature": (0, 2), "top_p": (0, 1), "min_p": (0, 1),
            "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2),
        }  # fmt: skip
        for name, (low, high) in whole.items():
            value = getattr(self, name)
            if not _is_whole(value) or not low <= value <= high:
                _refuse(name, "a whole number" + " from 0" * (low == 0), value)
        for name, (low, high) in within.items():
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= high:
                _refuse(name, f"a number from {low} to {high}", value)
        value = self.repetition_penalty
        if not _is_number(value) or not 0 < value < float("inf"):
            _refuse("repetition_penalty", "a number above 0", value)

    @classmethod
    def of(cls, *choices: Mapping[str, Any]) -> Sampling:
        """The settings of these mappings, the first that says something; None says nothing."""
        merged: dict[str, Any] = {}
        for field in fields(cls):
            said = (choice.get(field.name) for choice in choices)
            found = next((value for value in said if value is not None), None)
            if found is not None:
                merged[field.name] = found
        return cls(**merged)

    @property
    def penalises(self) -> bool:
        """Whether it matters which tokens there are already."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or isinstance(value, float | np.floating)


def _refuse(name: str, expected: str, value: object) -> None:
    raise InputError(f"{name} should be {expected}, but is {value!r}")


def penalise(
    logits: NDArray[np.float32], ids: Sequence[int], start: int, sampling: Sampling
) -> NDArray[np.float32]:
    """The logits [vocabulary] after the penalties on `ids`, prompt and answer; a new array.

    Repetition as in CTRL (Keskar et al., 2019) on every token that occurred, presence and frequency
    as in OpenAI's API on those of the answer, which begins at `ids[start]`.
    """
    result = np.array(logits, np.float32)
    if sampling.repetition_penalty != 1:
        seen = np.unique(np.asarray(ids, np.int64))
        value, factor = result[seen], np.float32(sampling.repetition_penalty)
        result[seen] = np.where(value > 0, value / factor, value * factor)
    if sampling.presence_penalty or sampling.frequency_penalty:
        answer, counts = np.unique(np.asarray(ids[start:], np.int64), return_counts=True)
        result[answer] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return result


def sample(logits: NDArray[np.float32], sampling: Sampling, step: int) -> int:
    """The token drawn from (penalised) logits [vocabulary]; -inf rules a token out.

    `step` is the number of the token in its answer: together with the seed it decides. Of equal
    logits the lower id comes first. Raises `InvalidModelError` if no logit is a number.
    """
    usable = np.where(np.isnan(logits), -np.inf, logits).astype(np.float64)
    best = int(usable.argmax())
    if not np.isfinite(usable[best]):
        raise InvalidModelError(
            "the model's logits are not finite numbers",
            hint="`webkiln check DIR` says whether the bundle is right",
        )
    if sampling.temperature == 0 or sampling.top_k == 1:
        return best
    weights = np.exp((usable - usable[best]) / sampling.temperature)
    if sampling.top_k == 0 and sampling.top_p == 1:
        order = np.flatnonzero((weights > 0) & (weights >= sampling.min_p))
    else:
        order = _restricted(weights, sampling)
    reached = np.cumsum(weights[order])
    place = np.searchsorted(reached, uniform(sampling.seed, step) * reached[-1], side="right")
    return int(order[min(int(place), len(order) - 1)])


def _restricted(weights: NDArray[np.float64], sampling: Sampling) -> NDArray[np.int64]:
    """The ids that top-k, then top-p (Holtzman et al., 2020), then min-p leave, likeliest first."""
    order = np.argsort(-weights, kind="stable")
    order = order[weights[order] > 0]
    if sampling.top_k:
        order = order[: sampling.top_k]
    kept = weights[order]
    reached = np.cumsum(kept)
    end = int(np.searchsorted(reached, sampling.top_p * reached[-1])) + 1
    kept = kept[:end]
    keep = kept >= sampling.min_p
    keep[0] = True
    found: NDArray[np.int64] = order[:end][keep]
    return found


def uniform(seed: int, step: int) -> float:
    """The `step`-th number of a seed: uniform in [0, 1), a multiple of 2^-24.

    PCG3D of Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.
    """
    x, y, z = (
        (word * 1664525 + 1013904223) & _MASK
        for word in (seed & _MASK, (seed >> 32) & _MASK, step & _MASK)
    )
    for shift in (16, 0):
        x = (x + y * z) & _MASK
        y = (y + z * x) & _MASK
        z = (z + x * y) & _MASK
        if shift:
            x, y, z = x ^ (x >> shift), y ^ (y >> shift), z ^ (z >> shift)
    return float((x >> 8) / 2**24)


def device_inputs(
    sampling: Sampling, ids: Sequence[int], start: int, step: int, vocabulary: int
) -> dict[str, NDArray[Any]]:
    """What the device's sampler takes; docs/generation.md has the ports.

    `ids` are prompt and answer, the answer begins at `ids[start]`; `step` as in `sample`.
    """
    settings = [
        sampling.temperature, sampling.top_p, sampling.min_p, sampling.repetition_penalty,
        sampling.presence_penalty, sampling.frequency_penalty, sampling.top_k, 0,
    ]  # fmt: skip
    occurred = np.full(_PENALTIES, -1, np.int64)
    counts = np.zeros((2, _PENALTIES), np.float32)
    if sampling.penalises:
        recent = list(dict.fromkeys(reversed(ids)))[:_PENALTIES]
        answered = Counter(ids[start:])
        occurred[: len(recent)] = recent
        counts[0, : len(recent)] = [answered.get(token, -1) for token in recent]
    return {
        "sampling": np.array(settings, np.float32),
        "seed": np.array([sampling.seed & _MASK, step], np.uint32),
        "penalty_ids": occurred,
        "penalties": counts,
        "token_mask": np.full(-(-vocabulary // 32), _MASK, np.uint32),
    }
