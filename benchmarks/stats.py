"""Medians with their spread. A figure counts as a ratio of neighbours in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of `count` measurements."""

    median: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, Any]:
        return {key: round(value, 4) for key, value in asdict(self).items()}


def summarize(values: Sequence[float]) -> Summary:
    low, median, high = (float(v) for v in np.percentile(values, (25, 50, 75)))
    return Summary(median, low, high, len(values))


def ratio(slower: Sequence[float], faster: Sequence[float]) -> Summary:
    """How often `faster` fits in `slower`, of each pair measured right after one another."""
    return summarize([a / b for a, b in zip(slower, faster, strict=True)])
