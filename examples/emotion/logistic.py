"""Multinomial logistic regression with an L2 penalty, chosen by cross-validation.

Bishop, "Pattern Recognition and Machine Learning", section 4.3.4. Deterministic: the loss is
convex, the start is zero, and the folds are dealt out with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import logsumexp

Array = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

FOLDS = 5
SEED = 0


def fit(x: Array, y: Classes, classes: int, l2: float) -> tuple[Array, Array]:
    """Weight [classes, width] and bias [classes] for inputs x [n, width] with classes y [n].

    Minimises the mean cross-entropy plus ``l2 / 2`` times the weight's squared norm.
    """
    n, width = x.shape
    target = np.eye(classes)[y]

    def loss(flat: Array) -> tuple[float, Array]:
        weight, bias = _unflatten(flat, classes, width)
        logp = log_softmax(x @ weight.T + bias)
        error = (np.exp(logp) - target) / n
        value = -(logp * target).sum() / n + 0.5 * l2 * (weight**2).sum()
        return value, np.concatenate([(error.T @ x + l2 * weight).ravel(), error.sum(axis=0)])

    start = np.zeros(classes * (width + 1))
    options = {"maxiter": 5000, "ftol": 1e-12, "gtol": 1e-7}
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    if not best.success:
        raise RuntimeError(f"the fit did not converge: {best.message}")
    return _unflatten(best.x, classes, width)


def cross_validate(x: Array, y: Classes, classes: int, l2: float) -> tuple[float, float]:
    """Accuracy and mean log loss over `FOLDS` folds, each left out once."""
    fold = np.random.default_rng(SEED).permutation(len(x)) % FOLDS
    right, losses = [], []
    for left_out in range(FOLDS):
        inside, outside = fold != left_out, fold == left_out
        weight, bias = fit(x[inside], y[inside], classes, l2)
        logp = log_softmax(x[outside] @ weight.T + bias)
        right.append(logp.argmax(axis=1) == y[outside])
        losses.append(-logp[np.arange(len(logp)), y[outside]])
    return float(np.concatenate(right).mean()), float(np.concatenate(losses).mean())


def choose_l2(
    x: Array, y: Classes, classes: int, candidates: Sequence[float]
) -> tuple[float, dict[float, tuple[float, float]]]:
    """The candidate with the least log loss, and each one's accuracy and log loss.

    Log loss rather than accuracy, because the probabilities are what the page shows as bars.
    """
    scores = {l2: cross_validate(x, y, classes, l2) for l2 in candidates}
    return min(scores, key=lambda l2: scores[l2][1]), scores


def log_softmax(logits: Array) -> Array:
    """Over the last axis."""
    return logits - logsumexp(logits, axis=-1, keepdims=True)


def _unflatten(flat: Array, classes: int, width: int) -> tuple[Array, Array]:
    return flat[: classes * width].reshape(classes, width), flat[classes * width :]
