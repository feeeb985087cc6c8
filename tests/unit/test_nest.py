"""Rewrites of loop nests keep what is computed, element by element."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.graphs import interpret, lower, parse, physical, random_inputs
from webkiln.interpret.kernel import run_kernel
from webkiln.ir.buffer import Buffer, packed
from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import Expr, Load, Read, Reduce, Var, cast, compare, const, select, splat
from webkiln.ir.program import Compute, Program
from webkiln.lower.fuse import fuse
from webkiln.lower.layout import assign_layouts
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, collapse, drop_units, nest_of, reduces, split_axes, strides
from webkiln.schedule.vectorize import unit_stride, vectorize

REWRITES = {"split": split_axes, "collapse": collapse, "drop": drop_units}


def run(nest: Nest, memory: dict[Buffer, np.ndarray], dims: dict[str, int]) -> np.ndarray:
    """The nest one element at a time; what it does not write is NaN."""
    kernel = make_kernel("plain", nest, (), Emitter(1).loops(nest, nest.loops, frozenset()))
    arrays = {b: a.copy() for b, a in memory.items()}
    arrays[nest.out] = np.full(len(memory[nest.out]), np.nan, np.float32)
    run_kernel(kernel, arrays, dims)
    return arrays[nest.out]


GRAPHS = {
    "reshape": """g (float[2,6] x) => (float[4,3] y) {
        s = Constant<value_ints=[4,3]>()
        y = Reshape(x, s)
    }""",
    "heads": """g (float[2,n,12] x) => (float[2,3,n,4] y) {
        s = Constant<value_ints=[0,0,3,4]>()
        r = Reshape(x, s)
        y = Transpose<perm=[0,2,1,3]>(r)
    }""",
    "transpose": "g (float[2,3,4] x) => (float[4,2,3] y) { y = Transpose<perm=[2,0,1]>(x) }",
    "matmul": "g (float[2,n,6] x, float[6,13] w) => (float[2,n,13] y) { y = MatMul(x, w) }",
    "conv": """g (float[1,3,5,6] x, float[4,3,3,3] w) => (float[1,4,5,6] y) {
        y = Conv<pads=[1,1,1,1]>(x, w)
    }""",
    "depthwise": """g (float[1,8,5,6] x, float[8,1,3,3] w) => (float[1,8,3,3] y) {
        y = Conv<group=8, pads=[1,1,1,1], strides=[2,2]>(x, w)
    }""",
    "softmax": "g (float[2,n,3] x) => (float[2,n,3] y) { y = Softmax<axis=1>(x) }",
    "mean": """g (float[2,3,4,5] x) => (float[2,3,1,1] y) {
        y = GlobalAveragePool(x)
    }""",
    "units": "g (float[1,1,4,1,3] x) => (float[1,1,4,1,3] y) { y = Exp(x) }",
    "cumulative": """g (float[2,7] x) => (float[2,7] y) {
        a = Constant<value_int=1>()
        y = CumSum(x, a)
    }""",
    "slice": """g (float[9,4] x) => (float[4,4] y) {
        a = Constant<value_ints=[7]>()
        b = Constant<value_ints=[-9]>()
        c = Constant<value_ints=[0]>()
        d = Constant<value_ints=[-2]>()
        y = Slice(x, a, b, c, d)
    }""",
    "concat": "g (float[n,3] x, float[n,5] z) => (float[n,8] y) { y = Concat<axis=1>(x, z) }",
}


def laid_out(graph: str) -> tuple[Program, dict[Buffer, np.ndarray], dict[str, int]]:
    model = parse(graph)
    program = assign_layouts(fuse(lower(model)))
    dims = {d.name: 5 for d in program.dims}
    values = interpret(program, random_inputs(model, dims), dims)
    return program, {b: physical(v, b, dims) for b, v in values.items()}, dims


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_rewritten_nests_compute_the_same(graph: str) -> None:
    program, memory, dims = laid_out(graph)
    for compute in program.computes:
        nest = nest_of(compute)
        expected = run(nest, memory, dims)
        np.testing.assert_allclose(expected, memory[compute.out], rtol=1e-5, atol=1e-6)
        for names in itertools.permutations(REWRITES):
            rewritten = nest
            for name in names:
                rewritten = REWRITES[name](rewritten)
            found = run(rewritten, memory, dims)
            np.testing.assert_allclose(
                found, expected, rtol=1e-5, atol=1e-6, err_msg=f"{names}\n{rewritten}"
            )


def simplest(graph: str) -> Nest:
    program, _, _ = laid_out(graph)
    return collapse(drop_units(split_axes(nest_of(program.computes[-1]))))


def test_a_reshape_is_one_loop() -> None:
    assert [repr(v.extent) for v in simplest(GRAPHS["reshape"]).loops] == ["12"]


def test_heads_are_split_without_divisions() -> None:
    nest = simplest(GRAPHS["heads"])
    assert "//" not in str(nest)
    assert "%" not in str(nest)


def test_a_mean_over_an_image_is_one_axis() -> None:
    (reduce,) = reduces(simplest(GRAPHS["mean"]).value)
    assert [repr(a.extent) for a in reduce.axes] == ["20"]


def test_the_innermost_loop_stays() -> None:
    assert len(simplest("g (float[1,1] x) => (float[1,1] y) { y = Exp(x) }").loops) == 1


def test_a_nest_prints() -> None:
    assert str(simplest("g (float[2,3] x) => (float[3,2] y) { y = Transpose(x) }")) == (
        "for i0 < 3:\n  for i1 < 2:\n    y@((i0 * 2) + i1) = x@(i0 + (i1 * 3))"
    )


# --- vectors --------------------------------------------------------------------------------------

X = Buffer("x", F32, (8, 8))
I, J, K = Var("i", 8), Var("j", 8), Var("k", 4)
ALONG, ACROSS, FIXED = Read(X, I * 8 + J), Read(X, J * 8 + I), Read(X, I * 8)


def test_strides() -> None:
    assert strides(I * 8 + J, (I, J)) == {I: const(8, I32), J: const(1, I32)}
    assert strides(I * J, (I, J)) is None
    assert unit_stride(I * 8 + J, J) == 1
    assert unit_stride(I * 8, J) == 0
    assert unit_stride(J * 2, J) is None
    assert unit_stride(J // 2, J) is None


def test_reads_become_vectors_where_they_walk_memory() -> None:
    assert vectorize(ALONG, J, 4) is Read(X, I * 8 + J, 4)
    assert vectorize(ALONG * FIXED, J, 4) is Read(X, I * 8 + J, 4) * splat(FIXED, 4)
    assert vectorize(FIXED, J, 4) is FIXED


@pytest.mark.parametrize(
    "value",
    [
        ACROSS,
        cast(J, F32),
        Read(X, J // 2),
        select(compare("lt", J, 3), ALONG, 0.0),
        Reduce("sum", (K,), Read(X, K * 8 + J)),
    ],
    ids=str,
)
def test_what_has_no_vector_form(value: Expr) -> None:
    assert vectorize(value, J, 4) is None


def test_lanes_that_read_each_elsewhere_have_no_vector_form() -> None:
    found = Var("found", None)
    known = {found: Var("wide", None, I32.vector(4))}
    assert vectorize(found + 1, J, 4, known) is not None
    assert vectorize(Read(X, found * 8 + J), J, 4, known) is None


def test_a_guard_stays_a_guard() -> None:
    wide = vectorize(select(compare("lt", I, 3), ALONG, 0.0), J, 4)
    assert wide is select(compare("lt", I, 3), Read(X, I * 8 + J, 4), splat(const(0, F32), 4))


def test_padding_of_panels_is_written() -> None:
    """13 columns in panels of 8 leave three columns: zeros, so that what reads them gets no NaN."""
    source = Buffer("s", F32, (2, 13))
    target = Buffer("t", F32, (2, 13), layout=packed((0, 1), 1, 8))
    a, b = Var("a", 2), Var("b", 13)
    nest = nest_of(Compute(target, (a, b), Load(source, (a, b))))
    values = np.arange(26, dtype=np.float32).reshape(2, 13)
    memory = {source: values.ravel(), target: np.zeros(32, np.float32)}
    np.testing.assert_array_equal(run(nest, memory, {}), physical(values, target, {}))
