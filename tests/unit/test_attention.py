"""Attention's schedules: over a cache in place, by position, with windows, on both targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import wgpu_runner
from tests.attention_graphs import cached, feeds, lower_cached
from tests.graphs import onnx_outputs, physical
from webkiln.interpret.compute import evaluate, value_of
from webkiln.interpret.kernel import run_kernel
from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Const
from webkiln.ir.program import Compute, Kernel
from webkiln.ir.stmt import Barrier, For
from webkiln.ir.verify import verify_kernel
from webkiln.lower.fuse import fuse
from webkiln.lower.layout import assign_layouts
from webkiln.schedule import wasm, webgpu
from webkiln.schedule.kernel import statements
from webkiln.targets.webgpu import workgroup_bytes

Array = NDArray[Any]
Runner = Callable[[Kernel, dict[Buffer, Array], dict[str, int]], dict[Buffer, Array]]
SCHEDULES = {"wasm": wasm.schedule, "webgpu": webgpu.schedule}


def interpreted(
    kernel: Kernel, memory: dict[Buffer, Array], dims: dict[str, int]
) -> dict[Buffer, Array]:
    run_kernel(kernel, memory, dims)
    return memory


def steps(
    model: Any, inputs: dict[str, Array], dims: dict[str, int], target: str, run: Runner
) -> Iterator[tuple[Compute, Kernel, Array, Array]]:
    """Each computation, its kernel, what that computes and what it should."""
    program = assign_layouts(fuse(lower_cached(model, dict.fromkeys(dims, 64))))
    arrays = {b: inputs[b.name].astype(b.dtype.name) for b in (*program.inputs, *program.states)}
    arrays |= {b: d.astype(b.dtype.name) for b, d in program.constants.items()}
    for compute in program.computes:
        kernel = SCHEDULES[target](compute)
        verify_kernel(kernel, "schedule", compute.label)
        memory = {b: physical(arrays[b], b, dims) for b in kernel.buffers if b in arrays}
        memory.setdefault(compute.out, np.full(value_of(compute.out.size, dims), np.nan, "f4"))
        slack = {b: np.append(a, np.full(8, 1, a.dtype)) for b, a in memory.items()}
        result = run(kernel, slack, dims)[compute.out]
        arrays[compute.out] = evaluate(compute, arrays, dims)
        expected = physical(arrays[compute.out], compute.out, dims)
        yield compute, kernel, result[: len(expected)], expected


def check(model: Any, position: int, rows: int, target: str, run: Runner) -> None:
    inputs = feeds(model, position, rows)
    symbolic = any(d.dim_param for d in model.graph.input[1].type.tensor_type.shape.dim)
    dims = {"n": rows} if symbolic else {}
    kinds = []
    for compute, kernel, actual, expected in steps(model, inputs, dims, target, run):
        # Sums of some hundred probabilities near 1; exp on an adapter may be off by 3 + 2·|x| ulp.
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-5)
        kinds.append(kernel.kind)
        if compute.out.name == "y":
            wanted = onnx_outputs(model, inputs)["y"]
            np.testing.assert_allclose(actual, wanted.ravel(), rtol=1e-4, atol=1e-5)
    assert kinds[-1] == "attention"


FORMS: dict[str, dict[str, Any]] = {
    "groups": {},
    "heads": {"heads": 2, "kv_heads": 2},
    "three a group": {"heads": 3, "kv_heads": 1},
    "window": {"window": 5},
    "cap": {"softcap": 2.0},
    "twelve columns": {"size": 12, "context": 21},
    "sixteen columns": {"heads": 2, "size": 16},
}


@pytest.mark.parametrize("target", SCHEDULES)
@pytest.mark.parametrize("form", FORMS)
def test_one_token(form: str, target: str) -> None:
    model = cached(1, **FORMS[form])
    for position in (0, 7, 8, 20) if target == "wasm" else (0, 20):
        check(model, position, 1, target, interpreted)


@pytest.mark.parametrize("target", SCHEDULES)
@pytest.mark.parametrize("form", FORMS)
def test_several_tokens(form: str, target: str) -> None:
    model = cached("n", **FORMS[form])
    places = ((0, 1), (0, 7), (3, 5), (9, 8), (0, 13)) if target == "wasm" else ((3, 5), (0, 9))
    for position, rows in places:
        check(model, position, rows, target, interpreted)


def test_more_keys_than_a_block() -> None:
    model = cached(2, heads=1, kv_heads=1, size=4, context=600, window=280)
    for position in (511, 512, 560):
        check(model, position, 2, "wasm", interpreted)


@pytest.mark.parametrize("target", SCHEDULES)
def test_keys_end_at_the_position(target: str) -> None:
    """No loop reaches the end of the cache on its account: the mask is their bound."""
    model = cached(1, context=512)
    program = assign_layouts(fuse(lower_cached(model)))
    kernel = SCHEDULES[target](program.computes[-1])
    stops = [s.stop for s in statements(kernel.body) if isinstance(s, For)]
    assert not any(isinstance(s, Const) and s.value >= 512 for s in stops)
    assert {b.name for b in kernel.buffers} == {"position", "q", "key_cache", "value_cache", "y"}


def test_results_are_combined_where_the_scores_were() -> None:
    """Two queries between two barriers, in no memory of their own."""
    program = assign_layouts(fuse(lower_cached(cached("n", size=32), {"n": 64})))
    kernel = webgpu.schedule(program.computes[-1])
    queries, keys, scan = 8, 128, 8
    rounds = queries // 2
    assert workgroup_bytes(kernel) == 4 * queries * (32 + keys + scan)
    assert [isinstance(s, Barrier) for s in kernel.body].count(True) == 1 + rounds + (rounds - 1)


@pytest.mark.webgpu
@pytest.mark.parametrize("rows", [1, "n"])
@pytest.mark.parametrize("form", FORMS)
def test_on_an_adapter(form: str, rows: int | str) -> None:
    model = cached(rows, **{"size": 64} | FORMS[form] | {"context": 700})
    for position, count in ((0, 1), (600, 1), (300, 19)):
        if rows == "n" or count == 1:
            check(model, position, count, "webgpu", wgpu_runner.run_kernel)
