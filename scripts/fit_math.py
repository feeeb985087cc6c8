"""Derives the polynomial and rational coefficients in src/webkiln/targets/functions.py.

Minimax fits by Lawson's iteration: weighted least squares whose weights grow where the error is
largest (C. L. Lawson, 1961); a rational P/Q is linearised around the last Q (Loeb). Errors are
relative unless said.

    python scripts/fit_math.py
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
GRID = 4000


def nodes(low: float, high: float) -> Vector:
    """Chebyshev points: dense at the ends, where minimax errors peak."""
    return (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * (np.arange(GRID) + 0.5) / GRID)


def fit(
    x: Vector, f: Vector, scale: Vector, numerator: int, denominator: int = 0, rounds: int = 300
) -> tuple[Vector, Vector, float]:
    """P, Q (Q[0] = 1) and their max |(P(x)/Q(x) - f) / scale|."""
    p_powers = x[:, None] ** np.arange(numerator + 1)
    q_powers = x[:, None] ** np.arange(1, denominator + 1)
    weight, q_last = np.ones_like(x), np.ones_like(x)
    best: tuple[Vector, Vector, float] = (np.zeros(1), np.ones(1), math.inf)
    for _ in range(rounds):
        row = np.sqrt(weight) / (scale * q_last)
        matrix = np.hstack([p_powers, -f[:, None] * q_powers]) * row[:, None]
        norms = np.linalg.norm(matrix, axis=0)
        solution = np.linalg.lstsq(matrix / norms, f * row, rcond=None)[0] / norms
        p = solution[: numerator + 1]
        q = np.concatenate([[1.0], solution[numerator + 1 :]])
        q_last = 1 + q_powers @ q[1:] if denominator else np.ones_like(x)
        error = np.abs((p_powers @ p / q_last - f) / scale)
        if error.max() < best[2]:
            best = (p, q, float(error.max()))
        weight *= error / error.mean() + 1e-3
        weight /= weight.sum()
    return best


def show(name: str, result: tuple[Vector, Vector, float]) -> None:
    p, q, error = result
    print(f"{name}: error {error:.2e}")
    print("   ", ", ".join(repr(float(np.float32(c))) for c in p))
    if len(q) > 1:
        print("   ", ", ".join(repr(float(np.float32(c))) for c in q))


def each(f: Callable[[float], float], x: Vector) -> Vector:
    return np.array([f(float(v)) for v in x])


def main() -> None:
    half = math.log(2) / 2
    r = nodes(-half, half)
    # e^r = 1 + r + r² q(r)
    show("exp", fit(r, (np.expm1(r) - r) / r**2, np.exp(r) / r**2, 4))

    m = nodes(math.sqrt(0.5) - 1, math.sqrt(2) - 1)
    # log(1 + f) = f - f²/2 + f³ q(f)
    show("log", fit(m, (np.log1p(m) - m + m**2 / 2) / m**3, np.abs(np.log1p(m) / m**3), 7))

    z = nodes(1e-8, (math.pi / 4 * 1.001) ** 2)
    t = np.sqrt(z)
    show("sin", fit(z, (np.sin(t) / t - 1) / z, np.sin(t) / t / z, 2))
    show("cos", fit(z, (np.cos(t) - 1 + z / 2) / z**2, 1 / z**2, 2))

    z = nodes(1e-6, 0.25)
    t = np.sqrt(z)
    show("asin", fit(z, (np.arcsin(t) / t - 1) / z, np.arcsin(t) / t / z, 4))
    z = nodes(1e-6, 1.0)
    t = np.sqrt(z)
    show("atan", fit(z, (np.arctan(t) / t - 1) / z, np.arctan(t) / t / z, 7))
    show("sinh", fit(z, (np.sinh(t) / t - 1) / z, np.sinh(t) / t / z, 2))

    z = nodes(1e-6, 9.02**2)
    t = np.sqrt(z)
    f = np.tanh(t) / t
    for n, d in ((3, 3), (4, 3), (5, 3), (6, 3), (4, 4)):
        show(f"tanh {n}/{d}", fit(z, f, f, n, d))

    z = nodes(1e-6, 3.84**2)
    t = np.sqrt(z)
    f = each(math.erf, t) / t
    for n, d in ((4, 4), (5, 4), (6, 4), (5, 5), (6, 5)):
        show(f"erf {n}/{d}", fit(z, f, f, n, d))


if __name__ == "__main__":
    main()
