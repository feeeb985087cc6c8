"""Kernels that differ in numbers alone have one body, and compute what each did by itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.graphs import lower, onnx_outputs, parse, random_inputs
from webkiln.codegen.c import kernel_source
from webkiln.interpret.kernel import run_kernel
from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Const
from webkiln.ir.program import Kernel, Program, Step
from webkiln.lower.fuse import fuse
from webkiln.lower.layout import assign_layouts
from webkiln.memory.layout import pack
from webkiln.schedule.program import schedule_program
from webkiln.schedule.share import share

PRODUCTS = """m (float[14,6] x, float[6,16] w0, float[16,24] w1, float[24,32] w2, float[16] wb0,
    float[24] wb1, float[32] wb2) => (float[14,32] y) {
    a = MatMul(x, w0) b = Add(a, wb0) c = Relu(b)
    d = MatMul(c, w1) e = Add(d, wb1) f = Relu(e)
    g = MatMul(f, w2) h = Add(g, wb2) y = Relu(h)
}"""
WINDOWS = """m (float[1,8,9,9] x, float[32,8,1,1] w0, float[32,1,3,3] w1, float[48,32,1,1] w2,
    float[48,1,3,3] w3) => (float[1,48,9,9] y) {
    a = Conv(x, w0)
    b = Conv<group=32, pads=[1,1,1,1]>(a, w1)
    c = Conv(b, w2)
    y = Conv<group=48, pads=[1,1,1,1]>(c, w3)
}"""


def steps_of(model: onnx.ModelProto | str) -> tuple[Program, list[Step]]:
    program = assign_layouts(fuse(lower(model)))
    return program, schedule_program(program, "wasm")


def bodies(steps: list[Step]) -> int:
    """How many bodies their contractions and windows have."""
    return len({id(s.kernel.body) for s in steps if s.kernel.kind in ("contraction", "window")})


def numbers(kernel: Kernel) -> dict[str, int]:
    """The values of its params."""
    return {p.name: int(e.value) for p, e in kernel.extents.items() if isinstance(e, Const)}


@pytest.mark.parametrize("graph", [PRODUCTS, WINDOWS])
def test_one_body_computes_what_each_did(graph: str) -> None:
    model = parse(graph)
    program, own = steps_of(model)
    (shared,) = share([own])
    assert bodies(shared) < bodies(own)

    inputs = random_inputs(model)
    memory: dict[Buffer, np.ndarray] = {b: pack(d, b) for b, d in program.constants.items()}
    memory |= {b: inputs[b.name].reshape(-1) for b in program.inputs}
    for step in shared:
        kernel = step.kernel
        for b in kernel.bound:
            size = int(np.prod([e.value for e in b.shape]))
            memory.setdefault(b, np.zeros(size + 16, b.dtype.name))  # vectors may reach past it
        bound = {formal: memory[b] for formal, b in zip(kernel.buffers, kernel.bound, strict=True)}
        run_kernel(kernel, bound, numbers(kernel))
    (expected,) = onnx_outputs(model, inputs).values()
    found = memory[program.outputs[0]][: expected.size].reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_numbers_that_follow_from_others_are_no_parameters() -> None:
    _, own = steps_of(PRODUCTS)
    (shared,) = share([own])
    first, second, third = (s.kernel for s in shared if s.kernel.kind == "contraction")
    assert first.body is second.body is third.body
    # The depth, the columns, and how rows are divided into blocks: not each row's distance.
    assert len(first.params) <= 4
    assert numbers(first) != numbers(second) != numbers(third)


def test_a_pointer_walks_over_the_rows_of_a_shared_product() -> None:
    _, own = steps_of(PRODUCTS)
    (shared,) = share([own])
    kernel = next(s.kernel for s in shared if s.kernel.kind == "contraction")
    text = kernel_source(kernel, "k")
    loop = text[text.index("int stride_p") :]
    rows = loop.count("MOVE(p1, stride_p1)") + 1
    assert rows == loop.count("splat_f32x8(p1[0])") == 5  # of 14 rows a tile has 5
    assert loop.count("MOVE(p1, back_p1)") == 1
    alone = kernel_source(next(s.kernel for s in own if s.kernel.kind == "contraction"), "k")
    assert "MOVE" not in alone


def test_other_forms_and_other_kinds_keep_their_own() -> None:
    _, relu = steps_of(PRODUCTS)
    _, plain = steps_of(PRODUCTS.replace("Relu", "Tanh"))
    together = share([relu[:1], plain[:1]])
    assert [s.kernel for steps in together for s in steps] == [relu[0].kernel, plain[0].kernel]

    rows = "m (float[{n},8] x) => (float[{n},8] y) {{ y = Softmax(x) }}"
    programs = [steps_of(rows.format(n=n))[1] for n in (3, 4)]
    assert share(programs) == programs


def test_symbolic_extents_stay_beside_the_numbers() -> None:
    graph = PRODUCTS.replace("float[14,", "float[n,")
    model = parse(graph)
    program, own = steps_of(model)
    (shared,) = share([own])
    kernel = next(s.kernel for s in shared if s.kernel.kind == "contraction")
    (dim,) = program.dims
    assert kernel.extents[dim] is dim
    assert all(isinstance(e, Const) for p, e in kernel.extents.items() if p is not dim)
