"""Every case through the whole compiler, run as WebAssembly and on WebGPU, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.ops.cases import CASES
from tests.ops.harness import Case, build, compare, expected
from tests.ops.targets import Compiled, compile_case, run_webgpu, wasm_module
from webkiln.errors import ToolchainError

GROUP = 80  # cases a module: a second to start the compiler, and one failure splits a group

GROUPS = [CASES[k : k + GROUP] for k in range(0, len(CASES), GROUP)]


def _ids(cases: Sequence[Case]) -> str:
    return f"{cases[0].op}..{cases[-1].op}"


@pytest.mark.slow
@pytest.mark.parametrize("cases", GROUPS, ids=_ids)
def test_webassembly_matches_onnx_runtime(cases: Sequence[Case]) -> None:
    failed: list[str] = []
    compiled: list[Compiled] = []
    for case in cases:
        try:
            compiled.append(compile_case(case, "wasm"))
        except Exception as error:
            failed.append(f"{case}: {error!r}")
    _run_group(compiled, failed)
    assert not failed, "\n".join([f"{len(failed)} of {len(cases)} cases fail:", *failed])


def _run_group(compiled: Sequence[Compiled], failed: list[str]) -> None:
    try:
        run = wasm_module(compiled)
    except (ToolchainError, TypeError, ValueError, KeyError) as error:
        if len(compiled) == 1:
            failed.append(f"{compiled[0].case}: {error}")
            return
        middle = len(compiled) // 2
        _run_group(compiled[:middle], failed)
        _run_group(compiled[middle:], failed)
        return
    for k, x in enumerate(compiled):
        model, inputs, _ = build(x.case)
        try:
            for actual, wanted in zip(run(k), expected(x.case, model, inputs), strict=True):
                compare(actual, wanted, x.case.rtol)
        except Exception as error:
            failed.append(f"{x.case}: {error}")


@pytest.mark.webgpu
@pytest.mark.parametrize("case", CASES, ids=str)
def test_webgpu_matches_onnx_runtime(case: Case) -> None:
    model, inputs, _ = build(case)
    results = run_webgpu(compile_case(case, "webgpu"))
    for actual, wanted in zip(results, expected(case, model, inputs), strict=True):
        compare(actual, wanted, case.rtol)
