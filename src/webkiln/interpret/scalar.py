"""What each operation of the IR means, as a NumPy function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["FUNCTIONS"]


def _truncdiv(a: Any, b: Any) -> Any:
    quotient = np.abs(a) // np.maximum(np.abs(b), 1)
    return np.where((np.asarray(a) < 0) != (np.asarray(b) < 0), -quotient, quotient)


def _divisor(b: Any) -> Any:
    """Integer division by zero only occurs where its result is not used."""
    b = np.asarray(b)
    return b if b.dtype.kind == "f" else np.where(b == 0, 1, b)


def _half(words: Any) -> Any:
    """The finite float16 in the lower half of each word."""
    low = (np.asarray(words) & 0xFFFF).astype(np.uint16)
    return low.view(np.float16).astype(np.float32)


def _dot4(a: Any, b: Any, total: Any) -> Any:
    """Plus the products of a's signed bytes with b's, which are below 128."""
    result = np.asarray(total, np.int64)
    for shift in (0, 8, 16, 24):
        signed = (np.right_shift(a, shift) & 0xFF).astype(np.uint8).view(np.int8)
        result = result + signed.astype(np.int64) * (np.right_shift(b, shift) & 0x7F)
    return result


def _dot_planes(high: Any, low: Any, b: Any, total: Any) -> Any:
    """The first half of total plus high's products, the second plus low's; each as `_dot4`."""
    n = np.shape(b)[-1]
    halves = _dot4(high, b, total[..., :n]), _dot4(low, b, total[..., n:])
    return np.concatenate(halves, axis=-1)


def _join_planes(total: Any) -> Any:
    n = np.shape(total)[-1] // 2
    return np.left_shift(total[..., :n], 8) + total[..., n:]


def _dot2(a: Any, b: Any, total: Any) -> Any:
    """Plus the products of a's signed halves with b's."""
    result = np.asarray(total, np.int64)
    for shift in (0, 16):
        halves = ((np.right_shift(x, shift) & 0xFFFF).astype(np.uint16) for x in (a, b))
        left, right = (h.view(np.int16).astype(np.int64) for h in halves)
        result = result + left * right
    return result


_erf = np.vectorize(math.erf, otypes=[np.float64])

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "floordiv": lambda a, b: np.floor_divide(a, _divisor(b)),
    "mod": lambda a, b: np.mod(a, _divisor(b)),
    "truncdiv": _truncdiv,
    "fmod": np.fmod,
    "pow": np.power,
    "atan2": np.arctan2,
    "min": np.minimum,
    "max": np.maximum,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "bitand": np.bitwise_and,
    "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor,
    "bitnot": np.bitwise_not,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "dot2": _dot2,
    "dot4": _dot4,
    "dot_planes": _dot_planes,
    "join_planes": _join_planes,
    "half": _half,
    "coarse8": lambda a: a,
    "coarse16": lambda a: a,
    "select": np.where,
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": _erf,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
    "sign": np.sign,
    "isnan": np.isnan,
    "isinf": np.isinf,
}
