"""Fusion: what stays in memory and what becomes part of its user, and that numbers stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graphs import interpret, lower, parse, random_inputs
from webkiln.ir.expr import Load, Reduce, walk
from webkiln.ir.program import Program
from webkiln.ir.text import program_text
from webkiln.ir.verify import verify_program
from webkiln.lower.fuse import MAX_LOADS, fuse


def fused(graph: str) -> Program:
    """The fused program, after comparing its outputs with those before fusion."""
    model = parse(graph)
    before = lower(model)
    after = fuse(before)
    verify_program(after, "fuse")
    dims = {d.name: 5 for d in before.dims}
    inputs = random_inputs(model, dims)
    old, new = interpret(before, inputs, dims), interpret(after, inputs, dims)
    for out in before.outputs:
        np.testing.assert_allclose(new[out], old[out], rtol=1e-5, atol=1e-6)
    return after


def written(program: Program) -> list[str]:
    return [c.out.name for c in program.computes]


def labels(program: Program) -> list[list[str]]:
    return [[part.split()[0] for part in c.label.split(" + ")] for c in program.computes]


# --- before and after -----------------------------------------------------------------------------


def test_an_epilogue_joins_its_contraction() -> None:
    graph = """g (float[2,3] x, float[3,4] w, float[4] wb) => (float[2,4] y) {
        p = MatMul(x, w)
        a = Add(p, wb)
        y = Relu(a)
    }"""
    before = lower(parse(graph))
    assert (
        program_text(before)
        == """\
input x: float32[2, 3]
constant w: float32[3, 4]
constant wb: float32[4]
t3: float32[2, 4]  # MatMul MatMul → p
  [i0, i1] = sum(k2 < 3: x[i0, k2] * w[k2, i1])
t6: float32[2, 4]  # Add Add → a
  [i4, i5] = t3[i4, i5] + wb[i5]
y: float32[2, 4]  # Relu Relu → y
  [i7, i8] = max(t6[i7, i8], 0.0)"""
    )
    assert (
        program_text(fused(graph))
        == """\
input x: float32[2, 3]
constant w: float32[3, 4]
constant wb: float32[4]
y: float32[2, 4]  # MatMul MatMul → p + Add Add → a + Relu Relu → y
  [i7, i8] = max(sum(k2 < 3: x[i7, k2] * w[k2, i8]) + wb[i8], 0.0)"""
    )


def test_views_cost_nothing() -> None:
    program = fused("""g (float[2,6] x) => (float[3,4] y) {
        t = Transpose(x)
        s = Constant<value_ints=[4,3]>()
        r = Reshape(t, s)
        u = Transpose(r)
        y = Relu(u)
    }""")
    assert written(program) == ["y"]


def test_cheap_work_before_a_reduction_joins_it() -> None:
    program = fused("""g (float[4,6] x) => (float[4] y) {
        a = Mul(x, x)
        axes = Constant<value_ints=[1]>()
        y = ReduceSum<keepdims=0>(a, axes)
    }""")
    assert written(program) == ["y"]


def test_nothing_is_computed_again_for_each_column_of_a_contraction() -> None:
    program = fused("""g (float[4,6] x, float[6,8] w) => (float[4,8] y) {
        a = Exp(x)
        y = MatMul(a, w)
    }""")
    assert labels(program) == [["Exp"], ["MatMul"]]


def test_a_view_is_walked_by_a_contraction() -> None:
    program = fused("""g (float[6,4] x, float[6,8] w) => (float[4,8] y) {
        a = Transpose(x)
        y = MatMul(a, w)
    }""")
    assert labels(program) == [["Transpose", "MatMul"]]


def test_a_reduction_with_several_users_is_kept() -> None:
    program = fused("""g (float[4,6] x, float[6,8] w) => (float[4,8] y, float[4,8] z) {
        p = MatMul(x, w)
        y = Relu(p)
        z = Neg(p)
    }""")
    assert len(program.computes) == 3
    assert sum(isinstance(n, Reduce) for c in program.computes for n in walk(c.value)) == 1


def test_cheap_work_with_several_users_is_repeated() -> None:
    program = fused("""g (float[4,6] x) => (float[4,6] y, float[4,6] z) {
        p = Add(x, x)
        y = Relu(p)
        z = Neg(p)
    }""")
    assert written(program) == ["y", "z"]


def test_costly_work_with_several_users_is_kept() -> None:
    program = fused("""g (float[4,6] x) => (float[4,6] y, float[4,6] z) {
        e = Exp(x)
        s = Sin(e)
        y = Relu(s)
        z = Neg(s)
    }""")
    assert len(program.computes) == 3


def test_costly_work_is_not_repeated_by_a_broadcast() -> None:
    graph = """g (float[2,3,1] gate, float[2,3,50] x) => (float[2,3,50] y) {
        s = Sigmoid(gate)
        y = Mul(x, s)
    }"""
    assert len(fused(graph).computes) == 2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_is_one_kernel(axis: int) -> None:
    program = fused(f"g (float[3,n,5] x) => (float[3,n,5] y) {{ y = Softmax<axis={axis}>(x) }}")
    assert written(program) == ["y"]


def test_layer_norm_is_one_kernel() -> None:
    program = fused("""g (float[n,8] x, float[8] w, float[8] wb) => (float[n,8] y) {
        y = LayerNormalization(x, w, wb)
    }""")
    assert written(program) == ["y"]


def test_an_output_in_the_middle_is_written() -> None:
    program = fused("""g (float[2,3] x, float[3,4] w) => (float[2,4] p, float[2,4] y) {
        p = MatMul(x, w)
        y = Relu(p)
    }""")
    assert written(program) == ["p", "y"]


def test_a_padded_reduction_is_not_computed_outside_of_its_shape() -> None:
    """A guarded consumer reads the reduction at clamped places: it may not become its epilogue."""
    program = fused("""g (float[4,6] x, float[6,8] w) => (float[6,8] y) {
        p = MatMul(x, w)
        s = Constant<value_ints=[1,0,1,0]>()
        y = Pad(p, s)
    }""")
    assert len(program.computes) == 2


def test_dead_nodes_and_constants_go() -> None:
    program = fused("""g (float[4] x, float[4] w, float[4] wb) => (float[4] y) {
        unused = Mul(x, w)
        y = Add(x, wb)
    }""")
    assert written(program) == ["y"]
    assert [b.name for b in program.constants] == ["wb"]


def test_a_kernel_reads_no_more_buffers_than_every_gpu_binds() -> None:
    names = [f"x{i}" for i in range(12)]
    inputs = ", ".join(f"float[4] {n}" for n in names)
    sums = "\n".join(f"s{i} = Add(s{i - 1}, x{i})" for i in range(2, 12))
    program = fused(f"g ({inputs}) => (float[4] y) {{ s1 = Add(x0, x1)\n{sums}\ny = Relu(s11) }}")
    for c in program.computes:
        loads = {n.buffer for n in walk(c.value) if isinstance(n, Load)}
        assert len(loads) <= MAX_LOADS
    assert len(program.computes) == 3


# --- any graph ------------------------------------------------------------------------------------

UNARY = ["Relu", "Neg", "Exp", "Tanh", "Abs", "Sigmoid"]


@st.composite
def graphs(draw: st.DrawFn) -> str:
    """Some nodes over values of one square shape, so that any may feed any; outputs anywhere."""
    values, lines = ["x0", "x1"], []
    for k in range(draw(st.integers(1, 9))):
        name = f"v{k}"
        a, b = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        kinds = ["unary", "binary", "matmul", "mean", "transpose", "softmax", "pad", "concat"]
        match draw(st.sampled_from(kinds)):
            case "unary":
                lines.append(f"{name} = {draw(st.sampled_from(UNARY))}({a})")
            case "binary":
                lines.append(f"{name} = {draw(st.sampled_from(['Add', 'Sub', 'Mul']))}({a}, {b})")
            case "matmul":
                lines.append(f"{name} = MatMul({a}, {b})")
            case "mean":
                axis = draw(st.integers(0, 1))
                lines.append(f"r{k} = ReduceMean<keepdims=1>({a}, axis{axis})")
                lines.append(f"{name} = Sub({b}, r{k})")
            case "transpose":
                lines.append(f"{name} = Transpose({a})")
            case "softmax":
                lines.append(f"{name} = Softmax<axis={draw(st.integers(0, 1))}>({a})")
            case "pad":
                lines.append(f"p{k} = Pad({a}, around)")
                lines.append(f"{name} = Slice(p{k}, from, to)")
            case "concat":
                lines.append(f"c{k} = Concat<axis=1>({a}, {b})")
                lines.append(f"{name} = Slice(c{k}, from, to)")
        values.append(name)
    outputs = draw(st.sets(st.sampled_from(values[2:]), min_size=1, max_size=3)) | {values[-1]}
    constants = """axis0 = Constant<value_ints=[0]>()
        axis1 = Constant<value_ints=[1]>()
        around = Constant<value_ints=[1,1,0,1]>()
        from = Constant<value_ints=[0,1]>()
        to = Constant<value_ints=[3,4]>()"""
    declared = ", ".join(f"float[3,3] {o}" for o in sorted(outputs))
    body = "\n".join(lines)
    return f"g (float[3,3] x0, float[3,3] x1) => ({declared}) {{ {constants}\n{body} }}"


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_fused_equals_unfused(graph: str) -> None:
    program = fused(graph)
    assert set(program.outputs) <= {c.out for c in program.computes}


def test_only_the_rows_that_are_picked_are_computed() -> None:
    program = fused(
        "m (float[1,n,8] x, float[8,5] w0) => (float[1,1,5] y) {"
        " last = Constant<value = int64[1] {-1}>() end = Constant<value = int64[1] {99}>()"
        " axis = Constant<value = int64[1] {1}>()"
        " all = MatMul(x, w0) y = Slice(all, last, end, axis) }"
    )
    (compute,) = program.computes
    assert [repr(e) for e in compute.out.shape] == ["1", "1", "5"]
