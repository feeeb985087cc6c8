"""Compositions for scalar functions, on float32 and int32, scalars and vectors alike.

The coefficients are minimax fits, derived by scripts/fit_math.py. Where no other source is named,
the methods are those of W. J. Cody and W. Waite, "Software Manual for the Elementary Functions"
(1980). Accuracy is in units of the last place (ulp).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from webkiln.ir.dtypes import F32, I32, DType
from webkiln.ir.expr import (
    Expr,
    bitcast,
    call,
    cast,
    compare,
    const,
    maximum,
    minimum,
    select,
)

__all__ = ["FLOAT", "INTEGER"]

_LOG2E: Final = 1 / math.log(2)
_LN2: Final = math.log(2)
# ln 2 and π/2 in parts short enough that n times each leading part is exact in float32.
_LN2_PARTS: Final = (0.693359375, math.log(2) - 0.693359375)
_HALF_PI_PARTS: Final = (1.5703125, 0.0004825592041015625, 1.2665987014770508e-06)
_HALF_PI_REST: Final = 9.920935796805404e-10
_SMALLEST_NORMAL: Final = 2.0**-126

# fmt: off
# Coefficients from scripts/fit_math.py, lowest power first.
_EXP: Final = (0.4999999403953552, 0.1666652113199234, 0.04166838899254799,
               0.008368710055947304, 0.001381461275741458)
_LOG: Final = (0.3333333134651184, -0.2500081956386566, 0.20001226663589478, -0.16623356938362122,
               0.14201757311820984, -0.13160182535648346, 0.1276157647371292, -0.07634496688842773)
_SIN: Final = (-0.16666655242443085, 0.008332155644893646, -0.0001951463200384751)
_COS: Final = (0.04166664555668831, -0.001388736185617745, 2.4437729734927416e-05)
_ASIN: Final = (0.16666752099990845, 0.07495297491550446, 0.04547037556767464,
                0.02417951449751854, 0.04216630756855011)
_ATAN: Final = (-0.33333152532577515, 0.19993773102760315, -0.14211055636405945,
                0.10666004568338394, -0.07552213966846466, 0.04321185126900673,
                -0.016367923468351364, 0.0029206909239292145)
_SINH: Final = (0.1666671633720398, 0.008330283686518669, 0.00020372193830553442)
_TANH: Final = (
    (1.0, 0.13379718363285065, 0.00349403521977365, 2.058349309663754e-05, 1.3319085390151031e-08),
    (1.0, 0.4671303331851959, 0.025871075689792633, 0.00032830939744599164, 7.762025120428007e-07),
)
_ERF: Final = (
    (1.1283791065216064, 0.18755944073200226, 0.052444517612457275, 0.003661765018478036,
     0.00028582592494785786, 2.1167586510273395e-06),
    (1.0, 0.4995531141757965, 0.11299777030944824, 0.01476052775979042,
     0.001143316738307476, 3.8826805393910035e-05),
)
# fmt: on


# --- building blocks ------------------------------------------------------------------------------


def _int(x: Expr) -> DType:
    return I32.vector(x.dtype.lanes)


def _bits(x: Expr) -> Expr:
    return bitcast(x, _int(x))


def _float(bits: Expr) -> Expr:
    return bitcast(bits, F32.vector(bits.dtype.lanes))


def _horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    total: Expr = const(coefficients[-1], x.dtype)
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total


def _with_sign(magnitude: Expr, sign: Expr) -> Expr:
    """A non-negative `magnitude` with the sign bit of `sign`."""
    return _float(call("bitor", _bits(magnitude), call("bitand", _bits(sign), _SIGN)))


def _minus(x: Expr, n: Expr, parts: Sequence[float]) -> Expr:
    """X - n·Σparts, the leading products exact."""
    for part in parts:
        x = x - n * part
    return x


_SIGN: Final = -(2**31)


def _odd_rational(x: Expr, end: float, p: Sequence[float], q: Sequence[float]) -> Expr:
    """X·P(x²)/Q(x²) within ±1 for a sigmoid that has reached ±1 at ±`end`."""
    x = maximum(minimum(x, end), -end)
    z = x * x
    y = x * _horner(z, p) / _horner(z, q)
    return maximum(minimum(y, 1.0), -1.0)


def _pick(condition: Expr, a: Expr, b: float) -> Expr:
    return select(condition, a, const(b, a.dtype))


# --- exponential and logarithm --------------------------------------------------------------------


def _exp(x: Expr) -> Expr:
    """2ⁿ·eʳ with r = x - n·ln 2, |r| ≤ ln 2 / 2. 1 ulp; 4e-5 above 2^127.5; 0 below 2^-126.5.

    Adding 1.5·2²³ + 127 rounds to an integer and leaves it, biased as an exponent, in the low bits
    of the mantissa. n stops at 127: the largest results, and then infinity, come from eʳ alone.
    """
    magic = 1.5 * 2**23 + 127
    x = maximum(x, -88.0)
    t = minimum(x * _LOG2E + magic, magic + 127)
    scale = _float(call("shl", _bits(t), 23))
    r = _minus(x, t - magic, _LN2_PARTS)
    return _horner(r, (1.0, 1.0, *_EXP)) * scale


def _split(x: Expr) -> tuple[Expr, Expr]:
    """(e, f): x = 2ᵉ·(1 + f), √½ ≤ 1 + f < √2, e a float, for 0 < x < ∞, subnormal x too."""
    tiny = compare("lt", x, _SMALLEST_NORMAL)
    bits = _bits(select(tiny, x * 2.0**23, x))
    root_half = 0x3F3504F3
    exponent = call("shr", bits - root_half, 23)
    e = cast(exponent, x.dtype) - _pick(tiny, const(23.0, x.dtype), 0.0)
    return e, _float(bits - call("shl", exponent, 23)) - 1.0


def _log1p_poly(f: Expr) -> Expr:
    """log(1 + f) for √½ ≤ 1 + f < √2."""
    square = f * f
    return f + (square * f * _horner(f, _LOG) - square * 0.5)


def _log(x: Expr) -> Expr:
    """e·ln 2 + log(1 + f). 1 ulp; -inf of 0, NaN of a negative."""
    e, f = _split(x)
    square = f * f
    small = square * f * _horner(f, _LOG) + e * _LN2_PARTS[1] - square * 0.5
    positive = e * _LN2_PARTS[0] + (f + small)
    finite = _pick(compare("ne", x, math.inf), positive, math.inf)
    edge = select(compare("eq", x, 0.0), const(-math.inf, x.dtype), const(math.nan, x.dtype))
    return select(compare("gt", x, 0.0), finite, edge)


def _log1p(x: Expr) -> Expr:
    """log(u)·x / (u - 1), u = 1 + x rounded: keeps a small x (W. Kahan, HP-15C)."""
    u = x + 1.0
    exact = select(compare("eq", u, 1.0), const(1.0, x.dtype), u - 1.0)
    scaled = call("log", u) * (x / exact)
    whole = call("or", compare("eq", u, 1.0), compare("eq", u, math.inf))
    return select(whole, x, scaled)


def _pow(x: Expr, y: Expr) -> Expr:
    """|x|ʸ = 2^(y·log₂|x|) with the sign of an odd power; NaN of a negative to a fraction.

    y is cut in two halves so that y·e is exact; the error is that of y·log₂(1 + f), about |y|·3e-8.
    """
    a = call("abs", x)
    e, f = _split(a)
    l = _log1p_poly(f) * _LOG2E
    high = _float(call("bitand", _bits(y), -4096))
    whole = high * e
    part = (y - high) * e + y * l
    n = call("round", minimum(maximum(whole + part, -300.0), 300.0))
    power = call("exp", ((whole - n) + part) * _LN2)
    half = call("floor", n * 0.5)
    power = power * _power_of_two(half) * _power_of_two(n - half)
    grows = _both_or_neither(compare("lt", a, 1.0), compare("lt", y, 0.0))
    limit = select(grows, const(math.inf, x.dtype), const(0.0, x.dtype))
    endless = call("or", compare("eq", a, 0.0), compare("eq", a, math.inf))
    endless = call("or", endless, compare("eq", call("abs", y), math.inf))
    power = select(endless, limit, power)
    odd = compare("ne", call("floor", y * 0.5) * 2.0, y)
    fraction = compare("ne", call("floor", y), y)
    negative = compare("lt", x, 0.0)
    power = select(call("and", negative, odd), -power, power)
    power = _pick(call("not", call("and", negative, fraction)), power, math.nan)
    undefined = call("or", call("isnan", x), call("isnan", y))
    power = _pick(call("not", undefined), power, math.nan)
    one = call("or", compare("eq", y, 0.0), compare("eq", x, 1.0))
    return _pick(call("not", one), power, 1.0)


def _both_or_neither(a: Expr, b: Expr) -> Expr:
    return call("or", call("and", a, b), call("and", call("not", a), call("not", b)))


def _power_of_two(n: Expr) -> Expr:
    return _float(call("shl", cast(n, _int(n)) + 127, 23))


def _integer_pow(x: Expr, y: Expr) -> Expr:
    """By squaring over five bits of the exponent; beyond 31 only -1, 0, 1 matter, by parity."""
    y = select(compare("gt", y, 31), call("bitand", y, 1) + 30, y)
    power: Expr = const(1, x.dtype)
    for bit in range(5):
        taken = compare("ne", call("bitand", y, 1 << bit), 0)
        power = select(taken, power * x, power)
        x = x * x
    return power


# --- circular -------------------------------------------------------------------------------------


def _quadrant(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(n, sin r, cos r) with r = x - n·π/2, |r| ≤ π/4: 1 ulp for |x| ≤ 1e5, bounded beyond."""
    n = call("round", x * (2 / math.pi))
    r = _minus(x, n, (*_HALF_PI_PARTS, _HALF_PI_REST))
    r = maximum(minimum(r, 0.7854), -0.7854)
    z = r * r
    sine = r + r * z * _horner(z, _SIN)
    cosine = (1.0 - z * 0.5) + z * z * _horner(z, _COS)
    return cast(n, _int(n)), sine, cosine


def _odd(n: Expr) -> Expr:
    return compare("ne", call("bitand", n, 1), 0)


def _signed_by(n: Expr, magnitude: Expr) -> Expr:
    """`magnitude` with its sign changed in the third and fourth quadrant."""
    return _float(call("bitxor", _bits(magnitude), call("shl", call("bitand", n, 2), 30)))


def _sin(x: Expr) -> Expr:
    n, sine, cosine = _quadrant(x)
    return _signed_by(n, select(_odd(n), cosine, sine))


def _cos(x: Expr) -> Expr:
    n, sine, cosine = _quadrant(x)
    return _signed_by(n + 1, select(_odd(n), sine, cosine))


def _tan(x: Expr) -> Expr:
    n, sine, cosine = _quadrant(x)
    odd = _odd(n)
    return select(odd, -cosine, sine) / select(odd, sine, cosine)


def _asin_pair(a: Expr) -> tuple[Expr, Expr, Expr]:
    """(large, t, asin t): t = a up to ½, else √((1 - a)/2), where asin a = π/2 - 2·asin t."""
    large = compare("gt", a, 0.5)
    z = select(large, (1.0 - a) * 0.5, a * a)
    t = select(large, call("sqrt", z), a)
    return large, t, t + t * z * _horner(z, _ASIN)


def _asin(x: Expr) -> Expr:
    large, _, y = _asin_pair(call("abs", x))
    return _with_sign(select(large, math.pi / 2 - y * 2.0, y), x)


def _acos(x: Expr) -> Expr:
    large, _, y = _asin_pair(call("abs", x))
    negative = compare("lt", x, 0.0)
    outer = select(negative, math.pi - y * 2.0, y * 2.0)
    return select(large, outer, math.pi / 2 - _with_sign(y, x))


def _atan_poly(z: Expr) -> Expr:
    square = z * z
    return z + z * square * _horner(square, _ATAN)


def _atan(x: Expr) -> Expr:
    """Atan a = π/2 - atan(1/a) for a > 1. 2 ulp."""
    a = call("abs", x)
    large = compare("gt", a, 1.0)
    y = _atan_poly(select(large, 1.0 / a, a))
    return _with_sign(select(large, math.pi / 2 - y, y), x)


def _atan2(y: Expr, x: Expr) -> Expr:
    a, b = call("abs", y), call("abs", x)
    high = maximum(a, b)
    ratio = minimum(a, b) / high
    ratio = _pick(compare("ne", high, 0.0), ratio, 0.0)
    both = call("and", compare("eq", a, math.inf), compare("eq", b, math.inf))
    angle = _atan_poly(_pick(call("not", both), ratio, 1.0))
    angle = select(compare("gt", a, b), math.pi / 2 - angle, angle)
    angle = select(compare("lt", _bits(x), 0), math.pi - angle, angle)
    return _with_sign(angle, y)


# --- hyperbolic -----------------------------------------------------------------------------------


def _tanh(x: Expr) -> Expr:
    """X·P(x²)/Q(x²) up to 9.02, where tanh rounds to 1. 6 ulp, never beyond ±1, one division."""
    return _odd_rational(x, 9.02, *_TANH)


def _half_exp(a: Expr) -> Expr:
    """exp(a)/2 without overflowing before cosh does."""
    root = call("exp", a * 0.5)
    return root * (root * 0.5)


def _sinh(x: Expr) -> Expr:
    a = call("abs", x)
    h = _half_exp(a)
    z = x * x
    small = x + x * z * _horner(z, _SINH)
    return select(compare("lt", a, 1.0), small, _with_sign(h - 0.25 / h, x))


def _cosh(x: Expr) -> Expr:
    h = _half_exp(call("abs", x))
    return h + 0.25 / h


_BIG: Final = 2.0**60  # beyond it 1 + x² = x², and squaring further would overflow


def _asinh(x: Expr) -> Expr:
    """log1p(a + a²/(1 + √(1 + a²))); log a + log 2 for a huge one."""
    a = call("abs", x)
    bounded = minimum(a, _BIG)
    square = bounded * bounded
    small = _log1p(bounded + square / (1.0 + call("sqrt", square + 1.0)))
    return _with_sign(select(compare("lt", a, _BIG), small, call("log", a) + _LN2), x)


def _acosh(x: Expr) -> Expr:
    """log1p(t + √(2t + t²)), t = x - 1; NaN below 1."""
    bounded = minimum(x, _BIG)
    t = bounded - 1.0
    small = _log1p(t + call("sqrt", t * (t + 2.0)))
    return select(compare("lt", x, _BIG), small, call("log", x) + _LN2)


def _atanh(x: Expr) -> Expr:
    a = call("abs", x)
    half = _log1p(a * 2.0 / (1.0 - a)) * 0.5
    return _with_sign(half, x)


def _erf(x: Expr) -> Expr:
    """X·P(x²)/Q(x²) up to 3.84, where erf rounds to 1. 6 ulp, never beyond ±1, one division."""
    return _odd_rational(x, 3.84, *_ERF)


# --- the rest -------------------------------------------------------------------------------------


def _fmod(x: Expr, y: Expr) -> Expr:
    """X - trunc(x/y)·y, the product in two exact halves: right while |x/y| < 4096, near beyond."""
    q = call("trunc", x / y)
    high = _float(call("bitand", _bits(y), -4096))
    r = (x - q * high) - q * (y - high)
    a = call("abs", y)
    size = call("abs", x)
    # the quotient's rounding can be off by one either way
    magnitude = _float(call("bitxor", _bits(r), call("bitand", _bits(x), _SIGN)))
    magnitude = select(compare("lt", magnitude, 0.0), magnitude + a, magnitude)
    magnitude = select(compare("ge", magnitude, a), magnitude - a, magnitude)
    return select(compare("lt", size, a), x, _with_sign(magnitude, x))


def _mod(x: Expr, y: Expr) -> Expr:
    """The remainder with the divisor's sign, as Python's and NumPy's."""
    r = call("fmod", x, y)
    wrong = call("and", compare("ne", r, 0.0), compare("lt", r * y, 0.0))
    return select(wrong, r + y, r)


def _sign(x: Expr) -> Expr:
    one, minus = const(1, x.dtype), const(-1, x.dtype)
    zero = x if x.dtype.is_float else const(0, x.dtype)  # a NaN stays
    return select(compare("gt", x, 0), one, select(compare("lt", x, 0), minus, zero))


def _half(x: Expr) -> Expr:
    """The float16 in the lower half of a word: its bits moved, its exponent then corrected.

    Exact for all finite ones, subnormal too.
    """
    sign = call("shl", call("bitand", x, 0x8000), 16)
    bits = call("bitor", sign, call("shl", call("bitand", x, 0x7FFF), 13))
    return _float(bits) * 2.0**112  # the exponents' biases: 127 - 15


def _magnitude_bits(x: Expr) -> Expr:
    return call("bitand", _bits(x), 0x7FFFFFFF)


FLOAT: Final[dict[str, Callable[..., Expr]]] = {
    "exp": _exp,
    "log": _log,
    "log1p": _log1p,
    "pow": _pow,
    "rsqrt": lambda x: 1.0 / call("sqrt", x),
    "sin": _sin,
    "cos": _cos,
    "tan": _tan,
    "asin": _asin,
    "acos": _acos,
    "atan": _atan,
    "atan2": _atan2,
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": _tanh,
    "asinh": _asinh,
    "acosh": _acosh,
    "atanh": _atanh,
    "erf": _erf,
    "fmod": _fmod,
    "mod": _mod,
    "floordiv": lambda x, y: call("floor", x / y),
    "truncdiv": lambda x, y: call("trunc", x / y),
    "sign": _sign,
    # the leave to round it, which a schedule took or did not
    "coarse8": lambda x: x,
    "coarse16": lambda x: x,
    # by their bits: shader compilers may assume that no NaN and no infinity ever occurs
    "isnan": lambda x: compare("gt", _magnitude_bits(x), 0x7F800000),
    "isinf": lambda x: compare("eq", _magnitude_bits(x), 0x7F800000),
}
INTEGER: Final[dict[str, Callable[..., Expr]]] = {
    "pow": _integer_pow,
    "sign": _sign,
    "half": _half,
}
