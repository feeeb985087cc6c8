"""LSTM, GRU and RNN, unrolled, against ONNX Runtime's own."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from webkiln.passes.unroll_recurrent import MAX_STEPS, unroll_recurrent

STEPS, BATCH, WIDTH, HIDDEN = 3, 2, 4, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def model(rng, kind, *, steps=STEPS, bias=True, initial=True, peepholes=False, **attributes):
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    gates = GATES[kind] * HIDDEN
    x = ir.val("x", ir.DataType.FLOAT, [steps, BATCH, WIDTH])
    state = [directions, BATCH, HIDDEN]

    def constant(name, *shape):
        numbers = rng.standard_normal(shape).astype(np.float32) * 0.5
        return ir.val(name, const_value=ir.tensor(numbers, name=name))

    def given(name, wanted):
        return ir.val(name, ir.DataType.FLOAT, state) if wanted else None

    lstm = kind == "LSTM"
    h, c = given("h", initial), given("c", initial and lstm)
    weights = [
        constant("W", directions, gates, WIDTH),
        constant("R", directions, gates, HIDDEN),
        constant("B", directions, 2 * gates) if bias else None,
    ]
    inputs = [x, *weights, None, h, c]
    if peepholes:
        inputs.append(constant("P", directions, 3 * HIDDEN))
    node = ir.node(
        kind, inputs[: 6 if not lstm else None], {"hidden_size": HIDDEN, **attributes},
        num_outputs=3 if lstm else 2, name="cell",
    )  # fmt: skip
    shapes = [[steps, directions, BATCH, HIDDEN], state, state]
    for name, output, shape in zip(("Y", "Y_h", "Y_c"), node.outputs, shapes, strict=False):
        output.name, output.dtype, output.shape = name, ir.DataType.FLOAT, ir.Shape(shape)
    graph = ir.Graph(
        [v for v in (x, h, c) if v is not None],
        node.outputs,
        nodes=[node],
        initializers=[v for v in inputs if v is not None and v.const_value is not None],
        opset_imports={"": 21},
        name="g",
    )
    return ir.Model(graph, ir_version=10)


def check(compare, before, rng):
    after = unroll_recurrent(before.clone())
    assert not {"LSTM", "GRU", "RNN"} & {node.op_type for node in after.graph}
    feeds = {
        value.name: rng.standard_normal([int(d) for d in value.shape]).astype(np.float32)
        for value in before.graph.inputs
    }
    compare(before, after, feeds, 1e-5)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("bias", "initial"), list(itertools.product([True, False], repeat=2)))
def test_unrolled_is_the_same(compare, rng, kind, direction, bias, initial):
    check(compare, model(rng, kind, bias=bias, initial=initial, direction=direction), rng)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_peepholes(compare, rng, direction):
    check(compare, model(rng, "LSTM", peepholes=True, direction=direction), rng)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_gru_with_linear_before_reset(compare, rng, direction):
    check(compare, model(rng, "GRU", linear_before_reset=1, direction=direction), rng)


def test_coupled_forget_gate(compare, rng):
    check(compare, model(rng, "LSTM", input_forget=1), rng)


def test_clipped_gates(compare, rng):
    check(compare, model(rng, "LSTM", clip=0.3), rng)
    check(compare, model(rng, "GRU", clip=0.3), rng)
    check(compare, model(rng, "RNN", clip=0.3), rng)


def test_other_activations(compare, rng):
    check(compare, model(rng, "RNN", activations=["Relu"]), rng)
    check(compare, model(rng, "LSTM", activations=["HardSigmoid", "Relu", "Softsign"]), rng)
    both = ["Tanh", "Relu"]
    check(compare, model(rng, "RNN", activations=both, direction="bidirectional"), rng)


def test_lengths_that_are_all_of_the_steps_say_nothing(compare, rng):
    before = model(rng, "LSTM")
    lengths = ir.tensor(np.full(BATCH, STEPS, np.int32), name="lengths")
    value = ir.val("lengths", const_value=lengths)
    before.graph.register_initializer(value)
    before.graph.node(0).replace_input_with(4, value)
    check(compare, before, rng)


def test_symbolic_and_very_long_sequences_stay(rng):
    for steps in ("N", MAX_STEPS + 1):
        after = unroll_recurrent(model(rng, "GRU", steps=steps))
        assert [node.op_type for node in after.graph] == ["GRU"]
