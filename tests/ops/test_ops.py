"""Every operator definition against ONNX Runtime, case by case, on every backend."""

from __future__ import annotations

import pytest

from tests.ops.cases import CASES
from tests.ops.harness import BACKENDS, Case, check


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_matches_onnx_runtime(case: Case, backend: str) -> None:
    check(case, backend)
