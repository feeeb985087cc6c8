"""Layers that are alike share their kernels."""

from __future__ import annotations

import numpy as np

from tests.graphs import lower, onnx_outputs, parse, random_inputs
from webkiln.interpret.kernel import run_kernel
from webkiln.lower.fuse import fuse
from webkiln.lower.layout import assign_layouts
from webkiln.memory.layout import pack
from webkiln.schedule import wasm
from webkiln.schedule.memo import Memo, signature

LAYERS = (
    "m (float[3,8] x, float[8,8] w0, float[8,8] w1, float[8,8] w2, float[8,5] w3)"
    " => (float[3,5] y) { a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) d = Relu(c)"
    " e = MatMul(d, w2) f = Relu(e) y = MatMul(f, w3) }"
)


def test_equal_layers_are_scheduled_once_and_keep_their_own_buffers() -> None:
    model = parse(LAYERS)
    program = assign_layouts(fuse(lower(model)))
    scheduled = []

    def schedule(compute):
        scheduled.append(compute)
        return wasm.schedule(compute)

    memo = Memo(schedule)
    kernels = [memo(c) for c in program.computes]
    _, second, third, last = kernels
    assert len(scheduled) == 3  # the first reads an input
    assert third.body is second.body
    assert third.bound[-1] is not second.bound[-1]
    assert last.body is not second.body

    inputs = random_inputs(model)
    memory = {b: pack(d, b) for b, d in program.constants.items()}
    memory |= {b: inputs[b.name].reshape(-1) for b in program.inputs}
    for kernel in kernels:
        actual = dict(zip(kernel.buffers, kernel.bound, strict=True))
        for b in actual.values():
            memory.setdefault(b, np.zeros(int(np.prod([e.value for e in b.shape])), np.float32))
        bound = {formal: memory[b] for formal, b in actual.items()}
        run_kernel(kernel, bound, {})
    found = memory[program.outputs[0]].reshape(3, 5)
    np.testing.assert_allclose(found, onnx_outputs(model, inputs)["y"], rtol=1e-5, atol=1e-6)


def test_what_a_kernel_depends_on_is_in_the_signature() -> None:
    graphs = {
        "a product": "m (float[3,8] x, float[8,8] w) => (float[3,8] y) { y = MatMul(x, w) }",
        "other rows": "m (float[4,8] x, float[8,8] w) => (float[4,8] y) { y = MatMul(x, w) }",
        "a sum": "m (float[3,8] x, float[3,8] w) => (float[3,8] y) { y = Add(x, w) }",
        "a difference": "m (float[3,8] x, float[3,8] w) => (float[3,8] y) { y = Sub(x, w) }",
        "turned": "m (float[3,8] x, float[3,8] w) => (float[3,8] y) { y = Sub(w, x) }",
        "any rows": "m (float[n,8] x, float[8,8] w) => (float[n,8] y) { y = MatMul(x, w) }",
    }
    keys = {}
    for name, graph in graphs.items():
        program = fuse(lower(graph))
        keys[name] = signature(program.computes[-1])[0]
        assert keys[name] == signature(fuse(lower(graph)).computes[-1])[0]
    assert len(set(keys.values())) == len(graphs)
