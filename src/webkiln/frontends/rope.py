"""Rotary position embeddings: angles, their scaling for longer contexts, tables.

Sources: Su et al., "RoFormer" (arXiv:2104.09864); Peng et al., "YaRN" (arXiv:2309.00071).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rope", "rope", "tables"]

# Where YaRN's ramp begins and ends, in turns over the original context (its section 3.2).
_BETA_FAST, _BETA_SLOW = 32.0, 1.0


@dataclass(frozen=True, eq=False)
class Rope:
    """Angles in radians a position, float64 [rotated dims / 2]; YaRN also stretches the vectors."""

    angles: NDArray[np.float64]
    magnitude: float = 1.0


def rope(
    base: float,
    dims: int,
    *,
    scaling: str = "none",
    factor: float = 1.0,
    original_context: int = 0,
    magnitude: float = 1.0,
    divisors: NDArray[np.float32] | None = None,
) -> Rope:
    """The angles ``base ** (-2 i / dims)``, with one kind of `scaling`.

    ``linear`` divides positions by `factor`. ``yarn`` divides only angles that make less than one
    turn within `original_context`, leaves those of more than 32, and goes gradually between.
    `divisors` [dims / 2], of Llama 3 models, divide each angle by its own number.
    """
    index = np.arange(0, dims, 2, dtype=np.float64)
    angles = base ** (-index / dims)
    if divisors is not None:
        angles = angles / divisors.astype(np.float64)
    if scaling == "linear":
        angles = angles / factor
    elif scaling == "yarn":
        first, last = (
            dims * math.log(original_context / (turns * 2 * math.pi)) / (2 * math.log(base))
            for turns in (_BETA_FAST, _BETA_SLOW)
        )
        first, last = max(math.floor(first), 0), min(math.ceil(last), dims - 1)
        ramp = np.clip((index / 2 - first) / max(0.001, last - first), 0, 1)
        angles = angles * (1 - ramp) + angles / factor * ramp
        magnitude *= 1 + 0.1 * math.log(factor)
    return Rope(angles, magnitude)


def tables(rope: Rope, length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines of every position below `length`: two float32 [length, dims / 2]."""
    turn = np.arange(length, dtype=np.float64)[:, None] * rope.angles
    cos, sin = np.cos(turn) * rope.magnitude, np.sin(turn) * rope.magnitude
    return cos.astype(np.float32), sin.astype(np.float32)
