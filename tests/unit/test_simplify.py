"""Index simplification against evaluation at random points, and what layouts rest on."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webkiln.ir.buffer import Buffer, packed, row_major
from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import (
    Const,
    Dim,
    Expr,
    Op,
    Var,
    call,
    cast,
    ceildiv,
    compare,
    const,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    select,
    substitute,
)
from webkiln.ir.simplify import always_nonneg, linear, poly, simplify, to_expr, upper_bound
from webkiln.ops.shape import regroup

N = Dim("n", 12)
M = Dim("m")
VARIABLES = {
    N: 12,
    M: 7,
    Var("i", 4): 4,
    Var("j", 6): 6,
    Var("k", N): None,
    Var("l", N * 3): None,
    Var("p", N + M): None,
}


def value(e: Expr, at: Mapping[Var, int]) -> int | bool:
    """`e` at a point, as Python computes it."""
    if isinstance(e, Const):
        return e.value  # type: ignore[return-value]
    if isinstance(e, Var):
        return at[e]
    assert isinstance(e, Op)
    if e.name == "select":
        condition, a, b = e.args
        return value(a if value(condition, at) else b, at)
    x = [value(a, at) for a in e.args]
    functions = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "floordiv": lambda a, b: a // b,
        "mod": lambda a, b: a % b,
        "truncdiv": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
        "min": min,
        "max": max,
        "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b,
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "and": lambda a, b: a and b,
        "or": lambda a, b: a or b,
        "not": lambda a: not a,
        "neg": lambda a: -a,
        "abs": abs,
        "cast": int,
    }
    return functions[e.name](*x)


def points(count: int, seed: int) -> list[dict[Var, int]]:
    """Values of all variables within their ranges; the ends of a range are likely."""
    rng = random.Random(seed)
    result = []
    for _ in range(count):
        at: dict[Var, int] = {}
        for var, top in VARIABLES.items():
            if isinstance(var, Dim):
                at[var] = rng.choice([1, 1, top, rng.randint(1, top or 7)])
            else:
                assert var.extent is not None
                size = int(value(var.extent, at))
                at[var] = rng.choice([0, size - 1, rng.randrange(size)])
        result.append(at)
    return result


def divisor(draw: st.DrawFn) -> Expr:
    """A divisor: positive in all but one case."""
    numbers = [const(c, I32) for c in (1, 2, 3, 4, 6, 12, -3)]
    return draw(st.sampled_from([*numbers, N, M, N * 2, N * M, N + 1]))


@st.composite
def integers(draw: st.DrawFn, depth: int = 4) -> Expr:
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        leaf = st.sampled_from(list(VARIABLES))
        return draw(st.one_of(leaf, leaf, st.integers(-7, 13).map(lambda c: const(c, I32))))
    a = draw(integers(depth - 1))
    name = draw(
        st.sampled_from(
            ["add", "add", "sub", "mul", "floordiv", "floordiv", "mod", "mod"]
            + ["min", "max", "neg", "select", "cast", "truncdiv", "abs"]
        )
    )
    if name in ("floordiv", "mod", "truncdiv"):
        return call(name, a, divisor(draw))
    if name == "mul":
        return a * draw(st.one_of(st.sampled_from([2, 3, 6, -1]), st.sampled_from([N, M])))
    if name in ("neg", "abs"):
        return call(name, a)
    if name == "cast":
        return cast(draw(conditions(depth - 1)), I32)
    b = draw(integers(depth - 1))
    if name == "select":
        return select(draw(conditions(depth - 1)), a, b)
    return call(name, a, b)


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> Expr:
    name = draw(st.sampled_from(["lt", "le", "eq", "ne", "ge", "gt", "and", "or", "not"]))
    if name in ("and", "or", "not") and depth > 0:
        a = draw(conditions(depth - 1))
        if name == "not":
            return logical_not(a)
        b = draw(conditions(depth - 1))
        return logical_and(a, b) if name == "and" else logical_or(a, b)
    name = name if name in ("lt", "le", "eq", "ne", "ge", "gt") else "lt"
    return compare(name, draw(integers(max(depth - 1, 0))), draw(integers(max(depth - 1, 0))))


@settings(max_examples=150, deadline=None)
@given(integers(), st.integers(0, 9))
def test_simplified_integers_keep_their_value(e: Expr, seed: int) -> None:
    simple = simplify(e)
    for at in points(20, seed):
        assert value(simple, at) == value(e, at), f"{e!r} became {simple!r} at {at}"


@settings(max_examples=80, deadline=None)
@given(conditions(), st.integers(0, 9))
def test_simplified_conditions_keep_their_value(e: Expr, seed: int) -> None:
    simple = simplify(e)
    for at in points(20, seed):
        assert value(simple, at) == value(e, at), f"{e!r} became {simple!r} at {at}"


@settings(max_examples=80, deadline=None)
@given(integers(), st.integers(0, 9))
def test_simplification_is_stable(e: Expr, seed: int) -> None:
    once = simplify(e)
    twice = simplify(once)
    for at in points(5, seed):
        assert value(twice, at) == value(once, at)


@settings(max_examples=150, deadline=None)
@given(integers(), st.integers(0, 9))
def test_what_is_proved_non_negative_is(e: Expr, seed: int) -> None:
    for least in (-6, -1, 0, 1, 2, 3, 5):
        if always_nonneg(poly(e - least)):
            for at in points(20, seed):
                assert value(e, at) >= least, f"{e!r} at {at}"
        if always_nonneg(poly(least - e)):
            for at in points(20, seed):
                assert value(e, at) <= least, f"{e!r} at {at}"


@settings(max_examples=80, deadline=None)
@given(integers(), st.integers(0, 9))
def test_upper_bounds_hold(e: Expr, seed: int) -> None:
    bound = upper_bound(poly(e))
    if bound is not None:
        for at in points(40, seed):
            assert value(e, at) <= value(to_expr(bound), at)


@settings(max_examples=80, deadline=None)
@given(integers(), st.integers(0, 9))
def test_linear_forms_keep_their_value(e: Expr, seed: int) -> None:
    axes = [v for v in VARIABLES if not isinstance(v, Dim)]
    form = linear(e, axes)
    if form is None:
        return
    coefficients, rest = form
    for at in points(20, seed):
        total = value(rest, at) + sum(value(c, at) * at[v] for v, c in coefficients.items())
        assert total == value(e, at)


# --- identities -----------------------------------------------------------------------------------

SHAPES = st.lists(st.sampled_from([2, 3, 4, 6]), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(SHAPES, st.integers(1, 6), st.booleans())
def test_reshape_there_and_back_is_nothing(sizes: list[int], split: int, symbolic: bool) -> None:
    """[…] → flat → […] gives the index back, also with a symbolic outermost extent."""
    shape = [const(s, I32) for s in sizes]
    if symbolic:
        shape[0] = N
    flat = [simplify(shape[0] if len(shape) == 1 else _product(shape))]
    axes = tuple(Var(f"a{k}", e) for k, e in enumerate(shape))
    there = regroup(axes, shape, flat)
    back = regroup(there, flat, shape)
    assert tuple(simplify(e) for e in back) == axes
    _ = split


def _product(shape: list[Expr]) -> Expr:
    total: Expr = const(1, I32)
    for e in shape:
        total = total * e
    return total


@settings(max_examples=80, deadline=None)
@given(SHAPES, SHAPES, st.integers(0, 99))
def test_regroup_is_row_major(a: list[int], b: list[int], seed: int) -> None:
    """Any reshape reads the element with the same linear position."""
    count = 1
    for s in a:
        count *= s
    shape = _factors(count, b)
    source = [const(s, I32) for s in a]
    axes = tuple(Var(f"r{k}", s) for k, s in enumerate(shape))
    index = regroup(axes, [const(s, I32) for s in shape], source)
    rng = random.Random(seed)
    for _ in range(20):
        at = {v: rng.randrange(s) for v, s in zip(axes, shape, strict=True)}
        wanted = 0
        for v, s in zip(axes, shape, strict=True):
            wanted = wanted * s + at[v]
        flat = 0
        for e, s in zip(index, a, strict=True):
            digit = int(value(simplify(e), at))
            assert 0 <= digit < s
            flat = flat * s + digit
        assert flat == wanted


def _factors(count: int, wanted: list[int]) -> list[int]:
    shape = []
    for w in wanted:
        if count % w == 0:
            shape.append(w)
            count //= w
    return [*shape, count]


@pytest.mark.parametrize("layout", [row_major(2), row_major((1, 0)), packed((0, 1), 1, 4)])
def test_offsets_of_fixed_layouts_are_linear_or_whole_tiles(layout: object) -> None:
    buffer = Buffer("b", F32, (const(8, I32), const(8, I32)), layout=layout)  # type: ignore[arg-type]
    i, o, lane = Var("i", 8), Var("o", 2), Var("lane", 4)
    offset = simplify(buffer.offset((i, o * 4 + lane)))
    assert linear(offset, (i, o, lane)) is not None, repr(offset)


def symbol(name: str, extent: int) -> Var:
    return Var(name, extent)


@pytest.mark.parametrize(
    "e",
    [  # each was once taken for at least `least`
        maximum(1 - cast(compare("lt", -3, Var("i", 4)), I32), Var("j", 6)),
        maximum(3 - Var("i", 4), Var("k", N)),
        Var("j", 6) // -3,
        call("truncdiv", Var("j", 6) // -3, const(2, I32)),
    ],
    ids=repr,
)
def test_what_was_proved_too_much(e: Expr) -> None:
    lowest = min(value(e, at) for at in points(200, 0))
    assert not always_nonneg(poly(e - lowest - 1))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((N * 12) // 12, N),
        ((N * 12) % 12, const(0, I32)),
        ((Var("i", 4) + N * 4) // 4, N),
        ((Var("i", 4) + N * 4) % 4, Var("i", 4)),
        (ceildiv(N * 4, 4), N),
        (minimum(N, 12), N),  # by the dimension's bound
        (minimum(N, 20), N),
        (maximum(N, 1), N),
        (maximum(N - 13, 0), const(0, I32)),
        (maximum(ceildiv(minimum(N, 12) - 0, 1), 0), N),
        (call("truncdiv", N * 6, const(3, I32)), N * 2),
        (N // 2 // 3, N // 6),
        (compare("lt", Var("k", N), N), const(True, compare("lt", N, 1).dtype)),
        (compare("lt", N, 13), const(True, compare("lt", N, 1).dtype)),
        (compare("ge", Var("i", 4), 4), const(False, compare("lt", N, 1).dtype)),
    ],
    ids=repr,
)
def test_identities(before: Expr, after: Expr) -> None:
    assert simplify(before) is simplify(after)


def test_substituting_a_bound_folds_to_a_number() -> None:
    e = simplify(ceildiv(N * 3 + 1, 4) * minimum(N, M))
    folded = simplify(substitute(e, {N: const(5, I32), M: const(9, I32)}))
    assert isinstance(folded, Const)
    assert folded.value == 4 * 5


def test_what_lies_below_the_grain_of_a_division_leaves_it():
    group, lane = Var("group", 18), Var("lane", 16)
    k = group * 32 + lane + 16
    assert simplify(k // 64) is simplify(group // 2)
    assert simplify(k % 64) is simplify(group % 2 * 32 + lane + 16)
    assert simplify(k // 64 * 64 + k % 64) is simplify(k)
    assert isinstance(simplify((group * 32 + Var("wide", 40)) // 64), Op)
