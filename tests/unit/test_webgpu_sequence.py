"""Small computations that share a dispatch: the same results, in an order that respects uses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests import wgpu_runner
from tests.graphs import interpret, lower, parse, random_inputs
from webkiln.interpret.compute import value_of
from webkiln.interpret.kernel import run_kernel
from webkiln.ir.buffer import Buffer
from webkiln.ir.program import Program
from webkiln.ir.stmt import Barrier, If, Store
from webkiln.ir.verify import verify_kernel
from webkiln.lower.fuse import fuse
from webkiln.memory.layout import pack
from webkiln.schedule.kernel import statements
from webkiln.schedule.program import schedule_program
from webkiln.targets.webgpu import MAX_STORAGE_BUFFERS

Arrays = dict[Buffer, np.ndarray]


def run(program: Program, inputs: dict[str, np.ndarray], on_adapter: bool) -> list[np.ndarray]:
    """The outputs as the step list computes them."""
    flat: Arrays = {b: pack(np.asarray(d), b) for b, d in program.constants.items()}
    flat |= {b: inputs[b.name].astype(b.dtype.name).reshape(-1) for b in program.inputs}
    for step in schedule_program(program, "webgpu"):
        verify_kernel(step.kernel, "schedule", step.label)
        assert len(step.kernel.buffers) <= MAX_STORAGE_BUFFERS
        assert all(b in flat for b in step.reads), "what a step reads was written before"
        for b in step.writes:
            flat.setdefault(b, np.zeros(value_of(b.size, {}), b.dtype.name))
        actual = dict(zip(step.kernel.buffers, step.kernel.bound, strict=True))
        bound = {formal: flat[b] for formal, b in actual.items()}
        if on_adapter:
            written = wgpu_runner.run_kernel(step.kernel, bound)
            flat |= {actual[formal]: values for formal, values in written.items()}
        else:
            run_kernel(step.kernel, bound)
    return [flat[b] for b in program.outputs]


def kinds(program: Program) -> list[str]:
    return [s.kernel.kind for s in schedule_program(program, "webgpu")]


#: several results: elements, rows, totals; used by later ones and outside, scalars, integers
GRAPHS = [
    """chain (float[40] x, float[40] z) => (float[40] y, float[1] w) {
        a = Softmax(x)
        b = CumSum(a, zero)
        best = ArgMax<axis=0>(b)
        picked = Gather(z, best)
        total = ReduceSum(a)
        c = Erf(b)
        y = Mul(c, total)
        w = Add(picked, total)
    }""",
    """rows (float[6,50] x) => (float[6,50] y, float[6,1] m, int64[6] i) {
        m = ReduceMax(x, one)
        s = Sub(x, m)
        e = Exp(s)
        n = ReduceSum(e, one)
        y = Div(e, n)
        i = ArgMax<axis=1, keepdims=0>(y)
    }""",
    """counting (float[64] x) => (float[64] y, float t) {
        a = Mul(x, ramp)
        b = Softmax(a)
        c = Gather(b, backwards)
        t = ReduceMax<keepdims=0>(c)
        y = Sub(c, t)
    }""",
]
CONDITIONAL = """conditional (float[1] on, float[50] x) => (float[50] y, float[1] t) {
        some = Greater(on, none)
        sum = ReduceLogSumExp(x)
        t = Where(some, sum, none)
        c = Softmax(x)
        y = Sub(c, t)
    }"""
CONSTANTS = {
    "none": np.zeros(1, np.float32),
    "zero": np.array(0, np.int64),
    "one": np.array([1], np.int64),
    "ramp": np.arange(64, dtype=np.float32) / 4,
    "backwards": np.arange(63, -1, -1),
}


def with_constants(graph: str) -> tuple[Program, dict[str, np.ndarray], list[np.ndarray]]:
    model = parse(graph)
    for name, value in CONSTANTS.items():
        if any(name in n.input for n in model.graph.node):
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    program, inputs = fuse(lower(model)), random_inputs(model)
    arrays = interpret(program, inputs)
    return program, inputs, [arrays[b].reshape(-1) for b in program.outputs]


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda g: g.split()[0])
def test_stages_equal_their_definitions(graph: str) -> None:
    program, inputs, wanted = with_constants(graph)
    assert kinds(program) == ["sequence"]
    for a, w in zip(run(program, inputs, on_adapter=False), wanted, strict=True):
        np.testing.assert_allclose(a, w, rtol=2e-5, atol=1e-6)


@pytest.mark.webgpu
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda g: g.split()[0])
def test_stages_on_an_adapter_equal_their_definitions(graph: str) -> None:
    program, inputs, wanted = with_constants(graph)
    for a, w in zip(run(program, inputs, on_adapter=True), wanted, strict=True):
        np.testing.assert_allclose(a, w, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("on", [0.0, 1.0])
@pytest.mark.parametrize(
    "on_adapter", [False, pytest.param(True, marks=pytest.mark.webgpu)], ids=["plain", "adapter"]
)
def test_totals_that_an_input_switches_off(on: float, on_adapter: bool) -> None:
    program, inputs, _ = with_constants(CONDITIONAL)
    inputs["on"] = np.array([on], np.float32)
    arrays = interpret(program, inputs)
    for a, b in zip(run(program, inputs, on_adapter), program.outputs, strict=True):
        np.testing.assert_allclose(a, arrays[b].reshape(-1), rtol=2e-5, atol=1e-6)
    (step,) = schedule_program(program, "webgpu")
    branches = [s for s in step.kernel.body if isinstance(s, If)]
    assert any(isinstance(s, Barrier) for branch in branches for s in branch.body)


def test_what_no_later_stage_reads_has_no_copy() -> None:
    program, *_ = with_constants(GRAPHS[0])
    (step,) = schedule_program(program, "webgpu")
    stored = {s.buffer for s in statements(step.kernel.body) if isinstance(s, Store)}
    copies = {b.name for b in stored if b.role == "workgroup"}
    assert copies.isdisjoint(b.name for b in program.outputs)
    assert not isinstance(step.kernel.body[-1], Barrier)


def test_constants_that_count_up_need_no_binding() -> None:
    program, *_ = with_constants(GRAPHS[2])
    (step,) = schedule_program(program, "webgpu")
    assert {b.name for b in step.kernel.buffers} == {"x", "y", "t"}


def test_large_computations_pass_small_ones_that_wait() -> None:
    """One dispatch before the products, one after: the first total waits for the second."""
    program, inputs, wanted = with_constants("""passing (float[8] x, float[300,300] z)
        => (float[8] a, float[300,300] y, float[8] b) {
        a = Softmax(x)
        y = Erf(z)
        b = LogSoftmax(x)
    }""")
    assert kinds(program) == ["elementwise", "sequence"]
    for a, w in zip(run(program, inputs, on_adapter=False), wanted, strict=True):
        np.testing.assert_allclose(a, w, rtol=2e-5, atol=1e-6)


def test_who_needs_a_small_one_does_not_pass_it() -> None:
    program, *_ = with_constants("""waiting (float[300] x, float[300,300] z)
        => (float[300,300] y, float[300] b) {
        a = Softmax(x)
        y = Mul(z, a)
        b = LogSoftmax(x)
    }""")
    assert kinds(program) == ["rows", "elementwise", "rows"]


def test_more_results_than_bindings_are_several_dispatches() -> None:
    ports = ", ".join(f"float[8] y{i}" for i in range(9))
    nodes = "\n".join(f"y{i} = Softmax(x{i})" for i in range(9))
    inputs = ", ".join(f"float[8] x{i}" for i in range(9))
    program, given, wanted = with_constants(f"many ({inputs}) => ({ports}) {{ {nodes} }}")
    assert kinds(program)[:2] == ["sequence", "sequence"]
    assert len(kinds(program)) == 3
    for a, w in zip(run(program, given, on_adapter=False), wanted, strict=True):
        np.testing.assert_allclose(a, w, rtol=2e-5, atol=1e-6)
