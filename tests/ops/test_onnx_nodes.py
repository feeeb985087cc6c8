"""ONNX's own node tests of every operator that is defined here, run by the interpreter.

What is left out is what the storage types rule out and what is declared beyond the definitions
below; every other test must pass, and no fewer of them than `FLOOR`.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from tests.ops.harness import interpreter
from webkiln.errors import UnsupportedModelError
from webkiln.ir.dtypes import STORAGE
from webkiln.ops import supports

#: tests run and passed with the onnx release that the repository pins
FLOOR = 1249

#: name (a whole match) → why the definition does not cover it
BEYOND: dict[str, str] = {
    "test_batchnorm_.*_training_mode": "inference only",
    "test_training_dropout.*": "inference only",
    "test_bitcast_.*64.*": "64-bit types are stored in 32 bits",
    "test_resize_.*_antialias": "refused, with a hint",
    "test_resize_downsample_scales_.*_align_corners": "ONNX Runtime's rounded size is taken",
    "test_range_bfloat16.*|test_onehot_with_bfloat16.*": "bfloat16 constants become float32",
}


@cache
def node_tests() -> list[Any]:
    """Tests all of whose operators are defined and whose types can be stored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    return [t for t in found if _defined(t.model) and _storable(t)]


def _defined(model: onnx.ModelProto) -> bool:
    return all(supports(n.op_type, n.domain) for n in model.graph.node)


def _storable(test: Any) -> bool:
    arrays = [a for inputs, outputs in test.data_sets for a in (*inputs, *outputs)]
    return all(isinstance(a, np.ndarray | np.generic) and str(a.dtype) in STORAGE for a in arrays)


def _frozen(model: onnx.ModelProto, inputs: list[Any]) -> onnx.ModelProto:
    """The model with its 0-D and 1-D inputs as constants: shapes and axes are decided at build."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    keep = []
    for info, array in zip(model.graph.input, inputs, strict=True):
        if np.ndim(array) < 2 and np.size(array) < 32:
            result.graph.initializer.append(numpy_helper.from_array(np.asarray(array), info.name))
        else:
            keep.append(info)
    del result.graph.input[:]
    result.graph.input.extend(keep)
    return result


def run(test: Any) -> None:
    for inputs, wanted in test.data_sets:
        arrays = {i.name: a for i, a in zip(test.model.graph.input, inputs, strict=True)}
        try:
            results = interpreter(test.model, arrays, {})
        except UnsupportedModelError as error:
            if "depend" not in str(error):
                raise
            results = interpreter(_frozen(test.model, inputs), arrays, {})
        for actual, expected in zip(results, wanted, strict=True):
            assert str(actual.dtype) == str(expected.dtype)
            assert actual.shape == expected.shape
            loose = {"float16": 5e-3, "bfloat16": 3e-2}.get(str(expected.dtype), test.rtol)
            np.testing.assert_allclose(
                actual.astype(np.float64),
                np.asarray(expected).astype(np.float64),
                rtol=loose,
                atol=max(test.atol, loose * (1e-1 if loose > 1e-2 else 1e-3)),
            )


def reason(name: str) -> str | None:
    return next((why for pattern, why in BEYOND.items() if re.fullmatch(pattern, name)), None)


def test_onnx_node_tests_pass() -> None:
    passed: Counter[str] = Counter()
    failed: list[str] = []
    for test in node_tests():
        if reason(test.name) is not None:
            continue
        op = "+".join(dict.fromkeys(n.op_type for n in test.model.graph.node))
        try:
            run(test)
        except Exception as error:
            failed.append(f"{test.name} ({op}): {str(error).strip()[:200]!r}")
        else:
            passed[op] += 1
    print(f"{passed.total()} node tests of {len(passed)} operators pass")
    assert not failed, "\n".join([f"{len(failed)} node tests fail:", *failed])
    assert passed.total() >= FLOOR


@pytest.mark.parametrize("pattern", BEYOND)
def test_what_is_declared_beyond_the_definitions_still_is(pattern: str) -> None:
    matching = [t for t in node_tests() if re.fullmatch(pattern, t.name)]
    assert matching, f"no node test is called {pattern}"
    for test in matching:
        with pytest.raises((UnsupportedModelError, AssertionError)):
            run(test)
