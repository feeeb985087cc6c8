"""Scalar expressions: constructors that fold, interning, traversal, substitution, rewriting."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webkiln.interpret.scalar import FUNCTIONS
from webkiln.ir import nodes
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import BOOL, F32, I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Load,
    Op,
    Read,
    Reduce,
    Var,
    bitcast,
    call,
    cast,
    ceildiv,
    compare,
    conjuncts,
    const,
    convert,
    free_vars,
    is_const,
    lane,
    logical_and,
    logical_not,
    logical_or,
    rebuffer,
    select,
    splat,
    substitute,
    transform,
    vector,
    walk,
)
from webkiln.ir.verify import OPERATIONS, verify_expr

X = Buffer("x", F32, (4, 5))
I, J, K = Var("i", 4), Var("j", 5), Var("k", 5)
ELEMENT = Load(X, (I, J))
FOUR = Read(X, I, 4)


# --- interning ------------------------------------------------------------------------------------


def test_equal_expressions_are_one() -> None:
    assert I * 5 + J is Var("i", 4) * 5 + Var("j", 5)
    assert Load(X, (I, J)) is ELEMENT
    assert Reduce("sum", (K,), Load(X, (I, K))) is Reduce("sum", (K,), Load(X, (I, K)))


def test_what_differs_is_not_one() -> None:
    assert Var("i", 4) is not Var("i", 5)
    assert const(1, I32) is not const(1, F32)
    assert Const(0.0, F32) is not Const(-0.0, F32)
    assert Load(Buffer("x", F32, (4, 5)), (I, J)) is not ELEMENT


def test_forgotten_expressions_are_freed() -> None:
    gc.collect()
    before = len(nodes._INTERNED)
    kept = Var("forgotten", 9) * 1234 + 4321
    assert len(nodes._INTERNED) > before
    del kept
    gc.collect()
    assert len(nodes._INTERNED) <= before


# --- folding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folded", "result"),
    [
        (I + 0, I),
        (0 + I, I),
        (I * 1, I),
        (I - 0, I),
        (I * 0, const(0, I32)),
        (I // 1, I),
        (I % 1, const(0, I32)),
        (ELEMENT / 1.0, ELEMENT),
        (call("min", I, I), I),
        (call("and", compare("lt", I, 3), True), compare("lt", I, 3)),
        (call("or", compare("lt", I, 3), True), const(True, BOOL)),
        (select(const(True, BOOL), I, J), I),
        (select(compare("lt", I, 3), J, J), J),
        (cast(I, I32), I),
        (cast(compare("lt", I, 3), BOOL), compare("lt", I, 3)),
        (call("ne", cast(compare("lt", I, 3), I32), 0), compare("lt", I, 3)),
        (lane(splat(ELEMENT, 4), 2), ELEMENT),
        (splat(ELEMENT, 1), ELEMENT),
        (splat(FOUR, 4), FOUR),
        (lane(splat(FOUR, 8), 6), lane(FOUR, 2)),
        (bitcast(ELEMENT, F32), ELEMENT),
        (compare("gt", I, J), call("lt", J, I)),
        (-const(3, I32), const(-3, I32)),
        (ceildiv(7, 4), const(2, I32)),
        (const(-7, I32) // 2, const(-4, I32)),
        (const(-7, I32) % 4, const(1, I32)),
    ],
    ids=str,
)
def test_folds(folded: Expr, result: Expr) -> None:
    assert folded is result


def test_floats_times_zero_do_not_fold() -> None:
    """The other operand may be infinite or NaN."""
    assert isinstance(ELEMENT * 0.0, Op)


@pytest.mark.parametrize("name", ["floordiv", "mod"])
def test_a_division_by_zero_is_left_alone(name: str) -> None:
    assert isinstance(call(name, const(3, I32), 0), Op)


def test_numbers_take_the_type_of_what_they_meet() -> None:
    assert (ELEMENT + 1).args[1] is const(1.0, F32)
    assert (1 - I).args[0] is const(1, I32)
    assert convert(True).dtype == BOOL


def test_types_do_not_mix() -> None:
    with pytest.raises(TypeError, match="cast first"):
        call("add", ELEMENT, I)
    with pytest.raises(TypeError, match="select of"):
        select(compare("lt", I, 3), ELEMENT, I)
    with pytest.raises(ValueError, match="rank 2, indexed with 1"):
        Load(X, (I,))


NUMBERS = st.one_of(
    st.floats(-100, 100, width=32), st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.5, 2.5, 1e30])
)
UNARY = [n for n, law in OPERATIONS.items() if law is OPERATIONS["exp"]]


@given(st.sampled_from(UNARY), NUMBERS)
@example("sin", 1e30)  # is not what a float32 holds
def test_folded_functions_are_those_of_the_interpreter(name: str, x: float) -> None:
    folded = call(name, const(x, F32))
    if isinstance(folded, Const):
        with np.errstate(all="ignore"):
            expected = float(FUNCTIONS[name](np.float64(np.float32(x))))
        assert math.isclose(float(folded.value), expected, rel_tol=1e-6, abs_tol=1e-30)


@given(
    st.sampled_from(["add", "sub", "mul", "floordiv", "mod", "min", "max", "truncdiv", "lt", "eq"]),
    st.integers(-50, 50),
    st.integers(-50, 50).filter(bool),
)
def test_folded_integers_are_those_of_the_interpreter(name: str, a: int, b: int) -> None:
    folded = call(name, const(a, I32), b)
    assert isinstance(folded, Const)
    assert folded.value == FUNCTIONS[name](np.int32(a), np.int32(b))


def test_logic_of_nothing_and_of_one() -> None:
    first, second = compare("lt", I, 3), compare("lt", J, 3)
    assert logical_and() is const(True, BOOL)
    assert logical_and(first) is first
    assert list(conjuncts(logical_and(first, second, first))) == [first, second, first]
    assert list(conjuncts(first)) == [first]
    assert logical_or(first, second) is call("or", first, second)
    assert logical_not(const(False, BOOL)) is const(True, BOOL)


def test_is_const() -> None:
    assert is_const(const(3, I32), 3)
    assert not is_const(const(3, I32), 4)
    assert not is_const(I)


# --- traversal and rewriting ----------------------------------------------------------------------


def test_walk_visits_each_node_once_operands_first() -> None:
    shared = I * 5
    order = list(walk(shared + shared * J))
    assert len(order) == len(set(order))
    assert all(order.index(a) < order.index(n) for n in order for a in n.args)


def test_substitution_folds() -> None:
    assert substitute(I * 5 + J, {I: const(0, I32)}) is J
    assert substitute(select(compare("lt", I, 3), J, K), {I: const(1, I32)}) is J


def test_substitution_is_simultaneous() -> None:
    assert substitute(I - J, {I: J, J: I}) is J - I


def test_substitution_reaches_into_indices_and_reductions() -> None:
    row = Reduce("sum", (K,), Load(X, (I, K)))
    assert substitute(row, {I: const(2, I32)}) is Reduce("sum", (K,), Load(X, (2, K)))


def test_transform_sees_rewritten_operands_and_shared_nodes_once() -> None:
    seen: list[Expr] = []

    def visit(node: Expr) -> Expr | None:
        seen.append(node)
        return J if node is I else None

    shared = I * 5
    assert transform(shared + shared * K, visit) is J * 5 + J * 5 * K
    assert seen.count(J * 5) == 1


def test_rewriting_keeps_vectors() -> None:
    wide = splat(ELEMENT, 4)
    chosen = Op("select", (compare("lt", I, 3), wide, splat(const(0, F32), 4)), F32.vector(4))
    rewritten = substitute(chosen, {J: K})
    verify_expr(rewritten)
    assert rewritten.dtype == F32.vector(4)
    assert not {J} & set(walk(rewritten))


def test_rewriting_keeps_what_joins_vectors() -> None:
    """Their lanes are not those of an operand."""
    words = Read(Buffer("w", I32, (64,)), I, 8)
    both = Op("dot_planes", (words, words, words, const(0, I32.vector(16))), I32.vector(16))
    joined = substitute(Op("join_planes", (both,), I32.vector(8)), {I: J})
    verify_expr(joined)
    assert joined.args[0].dtype == I32.vector(16)


def test_rebuffer() -> None:
    other = Buffer("other", F32, (4, 5))
    assert rebuffer(ELEMENT + 1, {X: other}) is Load(other, (I, J)) + 1


def test_free_variables_are_those_no_reduction_binds() -> None:
    row = Reduce("sum", (K,), Load(X, (I, K)))
    assert free_vars(row) == {I}
    assert free_vars(row + cast(K, F32)) == {I, K}


def test_a_vector_taken_apart_and_joined_is_itself() -> None:
    four = Var("four", None, F32.vector(4))
    parts = [lane(four, i) for i in range(4)]
    assert vector(parts) is four
    assert vector(parts[::-1]).args == tuple(parts[::-1])
    assert vector(parts[:2]).dtype == F32.vector(2)
    changed = substitute(vector(parts[::2]), {parts[0]: ELEMENT})
    assert changed is vector([ELEMENT, parts[2]])


def test_text() -> None:
    row = Reduce("max", (K,), Load(X, (I, K)) * 2.0)
    assert repr(row) == "max(k < 5: x[i, k] * 2.0)"
    assert repr((I + 1) * 5 // 2) == "((i + 1) * 5) // 2"
    assert repr(cast(compare("le", I, 3), F32)) == "float32(i <= 3)"
