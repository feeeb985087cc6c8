"""Memory that lives between runs: updated in place where one node alone uses it, else copied."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from webkiln import passes
from webkiln.errors import UnsupportedModelError
from webkiln.interpret.compute import run_program
from webkiln.ir.buffer import Buffer
from webkiln.ir.program import Program
from webkiln.ir.verify import verify_program
from webkiln.lower.fuse import fuse
from webkiln.lower.graph import lower_graph
from webkiln.lower.layout import assign_layouts

WEIGHTS = np.arange(32, dtype=np.float32).reshape(4, 8) / 10


def model(*nodes: object, cache: tuple[object, ...] = (1, 16, 8)) -> ir.Model:
    """Inputs x, position and cache; outputs total and next."""
    graph = h.make_graph(
        list(nodes),
        "g",
        [
            h.make_tensor_value_info("x", T.FLOAT, [1, "sequence", 4]),
            h.make_tensor_value_info("position", T.INT64, [1]),
            h.make_tensor_value_info("cache", T.FLOAT, list(cache)),
        ],
        [
            h.make_tensor_value_info("total", T.FLOAT, None),
            h.make_tensor_value_info("next", T.FLOAT, None),
        ],
        [
            numpy_helper.from_array(WEIGHTS, "w"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    return ir.from_proto(h.make_model(graph, opset_imports=[h.make_opsetid("", 24)]))


def compiled(m: ir.Model) -> Program:
    m = passes.run(m, {"sequence": 8})
    program, _ = lower_graph(m, {"sequence": 8}, {"cache": "next"})
    for stage in (fuse, assign_layouts):
        verify_program(program, "the stage before")
        program = stage(program)
    verify_program(program, "layouts")
    return program


def run(program: Program, rows: list[list[np.ndarray]]) -> tuple[list[np.ndarray], np.ndarray]:
    """The first output of each run, and the state after the last."""
    states: dict[Buffer, np.ndarray] = {}
    outputs, position = [], 0
    for chunk in rows:
        x = np.stack(chunk)[None].astype(np.float32)
        inputs = {"x": x, "position": np.array([position])}
        outputs.append(run_program(program, inputs, states=states)[0])
        position += len(chunk)
    return outputs, states[program.states[0]]


SCATTER = (
    h.make_node("MatMul", ["x", "w"], ["y"]),
    h.make_node("TensorScatter", ["cache", "y", "position"], ["next"], axis=1),
    h.make_node("ReduceSum", ["next", "axis"], ["total"], keepdims=0),
)


def test_a_cache_is_updated_in_place_and_read_after() -> None:
    program = compiled(model(*SCATTER))
    assert [b.name for b in program.states] == ["cache"]
    assert [b.name for b in program.inputs] == ["x", "position"]
    assert [b.name for b in program.outputs] == ["total"]
    (update,) = (c for c in program.computes if c.at is not None)
    assert update.out is program.states[0]

    rows = [np.full(4, k + 1) for k in range(5)]
    (first, second), cache = run(program, [rows[:2], rows[2:]])
    expected = np.stack(rows).astype(np.float32) @ WEIGHTS
    np.testing.assert_allclose(cache[0, :5], expected, rtol=1e-6)
    np.testing.assert_array_equal(cache[0, 5:], 0)
    np.testing.assert_allclose(first[0], expected[:2].sum(0), rtol=1e-6)
    np.testing.assert_allclose(second[0], expected.sum(0), rtol=1e-6)


def test_state_that_others_read_too_is_copied_last() -> None:
    old = h.make_node("ReduceSum", ["cache", "axis"], ["total"], keepdims=0)
    program = compiled(model(*SCATTER[:2], old))
    assert all(c.at is None for c in program.computes)
    assert program.computes[-1].out is program.states[0]
    rows = [np.full(4, k + 1) for k in range(3)]
    (first, second), cache = run(program, [rows[:2], rows[2:]])
    expected = np.stack(rows).astype(np.float32) @ WEIGHTS
    np.testing.assert_array_equal(first[0], 0)  # of the cache as it was
    np.testing.assert_allclose(second[0], expected[:2].sum(0), rtol=1e-6)
    np.testing.assert_allclose(cache[0, :3], expected, rtol=1e-6)


def test_state_of_any_kind_is_what_the_output_was() -> None:
    program = compiled(
        model(
            h.make_node("ReduceSum", ["x", "axis"], ["s"], keepdims=1),
            h.make_node("Add", ["cache", "s"], ["next"]),
            h.make_node("Identity", ["next"], ["total"]),
            cache=(1, 1, 4),
        )
    )
    outputs, _ = run(program, [[np.ones(4)], [np.ones(4), np.ones(4)]])
    np.testing.assert_array_equal(outputs[1], np.full((1, 1, 4), 3))


def test_state_of_unknown_size_is_refused_by_name() -> None:
    m = passes.run(model(*SCATTER, cache=(1, "sequence", 8)), {"sequence": 8})
    with pytest.raises(UnsupportedModelError, match="the state 'cache'"):
        lower_graph(m, {"sequence": 8}, {"cache": "next"})
