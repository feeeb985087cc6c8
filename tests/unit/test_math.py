"""Compositions of scalar functions against float64, over dense sweeps of float32."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from webkiln.interpret.scalar import FUNCTIONS
from webkiln.ir.dtypes import F16, F32, I32, U32, DType
from webkiln.ir.expr import Const, Expr, Op, Var, call, walk
from webkiln.targets.math import EXPANDED, expand

BASIC = frozenset({"sqrt", "floor", "ceil", "trunc", "round", "abs", "neg"})


def run(e: Expr, values: dict[Var, np.ndarray]) -> np.ndarray:
    """`e` on arrays, every step rounded to its own dtype."""
    memo: dict[Expr, np.ndarray] = dict(values)
    with np.errstate(all="ignore"):
        for node in walk(e):
            if node in memo:
                continue
            dtype = np.dtype(node.dtype.name)
            if isinstance(node, Const):
                memo[node] = np.asarray(node.value, dtype)
                continue
            assert isinstance(node, Op)
            args = [memo[a] for a in node.args]
            if node.name == "cast":
                memo[node] = args[0].astype(dtype)
            elif node.name == "bitcast":
                memo[node] = np.ascontiguousarray(args[0]).view(dtype).reshape(args[0].shape)
            else:
                memo[node] = np.asarray(FUNCTIONS[node.name](*args)).astype(dtype)
    return memo[e]


def expanded(name: str, *operands: np.ndarray, dtype: DType = F32) -> np.ndarray:
    slots = [Var(f"x{i}", None, dtype) for i in range(len(operands))]
    e = expand(call(name, *slots), EXPANDED)
    left = {n.name for n in walk(e) if isinstance(n, Op)} & EXPANDED
    assert not left, f"{name} still uses {left}"
    return run(e, dict(zip(slots, operands, strict=True)))


def ulps(actual: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units of the last place; subnormal results are excused."""
    rounded = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(rounded))
    np.testing.assert_array_equal(np.isposinf(actual), np.isposinf(rounded))
    np.testing.assert_array_equal(np.isneginf(actual), np.isneginf(rounded))
    finite = np.isfinite(rounded)
    unit = np.spacing(np.maximum(np.abs(rounded[finite]), np.float32(2**-125))).astype(np.float64)
    return float(np.max(np.abs(actual[finite].astype(np.float64) - exact[finite]) / unit))


def sweep(low: float, high: float) -> np.ndarray:
    """Evenly and logarithmically spaced values of both signs inside [low, high]."""
    even = np.linspace(low, high, 40_001)
    magnitude = np.geomspace(1e-38, max(abs(low), abs(high)), 40_001)
    values = np.concatenate([even, magnitude, -magnitude])
    values = values[(values >= low) & (values <= high)]
    return values.astype(np.float32)


SPECIAL = np.array([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 1e-45, 3.4e38], np.float32)
erf64 = np.vectorize(math.erf, otypes=[np.float64])

CASES: list[tuple[str, Callable[..., np.ndarray], float, float, float]] = [
    # name, float64 reference, range, ulps allowed
    ("exp", np.exp, -87.3, 88.37, 1.5),
    ("log", np.log, 1e-38, 3.3e38, 1.5),
    ("log1p", np.log1p, -0.999999, 3.3e38, 3),
    ("rsqrt", lambda x: 1 / np.sqrt(x), 1e-37, 1e38, 2),
    ("sinh", np.sinh, -89.3, 89.3, 4),
    ("cosh", np.cosh, -89.3, 89.3, 4),
    ("tanh", np.tanh, -20, 20, 6),
    ("asinh", np.arcsinh, -3.3e38, 3.3e38, 4),
    ("acosh", np.arccosh, 1, 3.3e38, 4),
    ("atanh", np.arctanh, -0.9999999, 0.9999999, 4),
    ("erf", erf64, -10, 10, 6),
    ("asin", np.arcsin, -1, 1, 3),
    ("acos", np.arccos, -1, 1, 3),
    ("atan", np.arctan, -3.3e38, 3.3e38, 3),
    ("tan", np.tan, -100, 100, 4),
]


@pytest.mark.parametrize(("name", "reference", "low", "high", "allowed"), CASES)
def test_accuracy_over_the_range(name, reference, low, high, allowed):
    x = sweep(low, high)
    assert ulps(expanded(name, x), reference(x.astype(np.float64))) <= allowed


@pytest.mark.parametrize("name", [c[0] for c in CASES] + ["sin", "cos", "sign"])
def test_special_values(name):
    """Infinities, NaN, signed zeros, the smallest and nearly the largest number."""
    reference = {c[0]: c[1] for c in CASES}.get(name) or getattr(np, name)
    with np.errstate(all="ignore"):
        exact = reference(SPECIAL.astype(np.float64))
    actual = expanded(name, SPECIAL)
    if name in ("sin", "cos", "tan"):  # 3.4e38 is beyond the range reduction: bounded, no more
        actual, exact = actual[:-1], exact[:-1]
    assert ulps(actual, exact) <= 4
    odd = {"sinh", "tanh", "asinh", "atanh", "erf", "asin", "atan"}
    if name in odd:
        assert np.signbit(actual[1])
        assert not np.signbit(actual[0])


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_circular_functions(name):
    """Within 1.5e-7 over the phases that positions of long texts produce; never out of [-1, 1]."""
    x = np.concatenate([sweep(-100, 100), sweep(-1e5, 1e5)])
    exact = getattr(np, name)(x.astype(np.float64))
    assert np.max(np.abs(expanded(name, x) - exact)) <= 1.5e-7
    huge = np.array([1e6, -1e9, 1e20, 3e38], np.float32)
    assert np.max(np.abs(expanded(name, huge))) <= 1.0000001


def test_exp_at_its_ends():
    x = np.array([88.6, 88.72, 88.7229, 89, 1000, -87.3, -104, -1e30], np.float32)
    actual = expanded("exp", x)
    with np.errstate(all="ignore"):
        exact = np.exp(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(actual, exact, rtol=5e-5, atol=1.2e-38)


def test_exp_of_zero_is_one():
    assert expanded("exp", np.zeros(1, np.float32))[0] == 1


def test_tanh_and_erf_stay_within_one():
    x = sweep(-30, 30)
    for name in ("tanh", "erf"):
        assert np.max(np.abs(expanded(name, x))) <= 1


def test_log_of_subnormals_and_edges():
    x = np.array([1e-45, 1e-40, 0, -1, math.inf, math.nan], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(expanded("log", x), np.log(x.astype(np.float64)), rtol=1e-6)


def test_pow():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-5, 5, 4000), np.exp(rng.uniform(-60, 60, 4000))])
    y = np.concatenate([rng.integers(-8, 9, 4000), rng.uniform(-1.4, 1.4, 4000)])
    x, y = x.astype(np.float32), y.astype(np.float32)
    exact = np.power(x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(expanded("pow", x, y), exact, rtol=2e-6)


def test_pow_special_values():
    values = np.array([0, 1, -1, 0.5, -0.5, 2, -2, 3, math.inf, -math.inf, math.nan], np.float32)
    x, y = (g.ravel() for g in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    usual = ~(np.isinf(y) & (x < 0)) & ~np.isneginf(x)
    actual = expanded("pow", x, y)[usual]
    np.testing.assert_allclose(actual, exact[usual], rtol=1e-6)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, 5.0, -1.0, -2.0, 0.5, -0.5])
def test_constant_powers_become_products_and_roots(exponent):
    x = Var("x", None, F32)
    e = expand(call("pow", x, exponent), EXPANDED)
    assert {n.name for n in walk(e) if isinstance(n, Op)} <= {"mul", "div", "sqrt"}
    values = np.linspace(0.1, 9, 200, dtype=np.float32)
    np.testing.assert_allclose(run(e, {x: values}), values.astype(float) ** exponent, rtol=1e-6)


def test_integer_powers_wrap_like_numpy():
    x, y = (g.ravel().astype(np.int32) for g in np.meshgrid(np.arange(-5, 6), np.arange(0, 13)))
    np.testing.assert_array_equal(expanded("pow", x, y, dtype=I32), x**y)
    parity = expanded("pow", *np.array([[-1, -1, 1, 0], [32, 33, 99, 40]]), dtype=I32)
    np.testing.assert_array_equal(parity, [1, -1, 1, 0])


@pytest.mark.parametrize("name", ["fmod", "mod"])
def test_remainders(name):
    rng = np.random.default_rng(1)
    x = rng.uniform(-1000, 1000, 20_000).astype(np.float32)
    y = (rng.uniform(0.5, 50, 20_000) * rng.choice([-1, 1], 20_000)).astype(np.float32)
    exact = getattr(np, name)(x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(expanded(name, x, y), exact, rtol=1e-6, atol=1e-6)


def test_atan2_in_every_quadrant():
    rng = np.random.default_rng(2)
    y, x = (rng.normal(size=(2, 20_000)) * 100).astype(np.float32)
    edges = np.array([0.0, -0.0, 1, -1, math.inf, -math.inf], np.float32)
    ey, ex = (g.ravel() for g in np.meshgrid(edges, edges))
    y, x = np.concatenate([y, ey]), np.concatenate([x, ex])
    exact = np.arctan2(y.astype(np.float64), x.astype(np.float64))
    np.testing.assert_allclose(expanded("atan2", y, x), exact, rtol=4e-7)


def test_classification_by_bits():
    np.testing.assert_array_equal(expanded("isnan", SPECIAL), np.isnan(SPECIAL))
    np.testing.assert_array_equal(expanded("isinf", SPECIAL), np.isinf(SPECIAL))


def test_half_reads_every_finite_float16():
    bits = np.arange(1 << 16, dtype=np.uint32)
    halves = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    finite = np.isfinite(halves)
    above = np.uint32(0xABCD0000)  # what lies in the upper half is another number's
    got = expanded("half", bits[finite] | above, dtype=U32)
    np.testing.assert_array_equal(got.view(np.uint32), halves[finite].view(np.uint32))


@pytest.mark.parametrize("name", sorted(EXPANDED - {"half"}))
def test_vectors_stay_vectors(name):
    vector = Var("v", None, F32.vector(4))
    operands = [vector] * (
        2 if name in {"pow", "atan2", "fmod", "mod", "floordiv", "truncdiv"} else 1
    )
    e = call(name, *operands)
    assert expand(e, EXPANDED).dtype == e.dtype


def test_halves_keep_their_type():
    half = Var("h", None, F16)
    e = expand(call("exp", half), EXPANDED)
    assert e.dtype == F16
    x = np.linspace(-8, 8, 100).astype(np.float16)
    np.testing.assert_allclose(run(e, {half: x}), np.exp(x.astype(float)), rtol=1e-3)


def test_only_named_functions_are_expanded():
    x = Var("x", None, F32)
    e = expand(call("tanh", call("exp", x)), frozenset({"tanh"}))
    assert "exp" in {n.name for n in walk(e) if isinstance(n, Op)}


def test_exp_is_short_enough_for_simd():
    """Operations of one exp: the softmax's and the sigmoid's whole cost."""
    e = expand(call("exp", Var("x", None, F32)), EXPANDED)
    work = [n for n in walk(e) if isinstance(n, Op) and n.name != "bitcast"]
    assert (
        len(work) <= 23
    )  # 12 multiplications, 6 of which fuse with an addition where the target can
