"""Cases of TopK and scatters large enough for the schedules of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.ops.harness import Case, Constant

__all__ = ["CASES"]

_RNG = np.random.default_rng(5)


def _taken(count: int) -> Constant:
    return Constant(np.array([count], np.int64))


def _ties(*shape: int) -> NDArray[np.float32]:
    return _RNG.integers(0, 9, shape).astype(np.float32)


def _masked(size: int, left: int) -> NDArray[np.float32]:
    """Almost all elements alike, as a mask leaves them."""
    row = np.full(size, -3e38, np.float32)
    row[_RNG.permutation(size)[:left]] = _RNG.standard_normal(left)
    return row


_ROWS: dict[str, str | NDArray[np.generic]] = {
    "random": "f32[1300]",
    "rows": "f32[2,3,600]",
    "ties": _ties(2, 700),
    "masked": _masked(1000, 5),
    "ascending": np.arange(900, dtype=np.float32),
    "descending": -np.arange(900, dtype=np.float32),
    "infinite": np.where(np.arange(600) % 7, -np.inf, np.arange(600)).astype(np.float32),
    "two walks": _RNG.standard_normal(4100).astype(np.float32),
    "integers": _RNG.integers(-50, 50, (2, 640)),
}

CASES = [
    *(
        Case("TopK", [row, _taken(k)], {"largest": largest}, outputs=2, tag=f"{name} {k}")
        for name, row in _ROWS.items()
        for k, largest in ((64, 1), (5, 0), (1, 1))
    ),
    *(
        Case(
            "ScatterElements",
            [f"f32[{size}]", _RNG.integers(0, size, 40), "f32[40]"],
            {"reduction": "add"},
            opset=18,
            tag=f"{size}",
        )
        for size in (64, 1000, 2100)
    ),
]
