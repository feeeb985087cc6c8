"""The plan's expressions, its validation, and the comparison with golden samples."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webkiln.bundle.expression import evaluate, expr_to_json, show
from webkiln.bundle.golden import compare
from webkiln.bundle.plan import to_json, validate
from webkiln.errors import InvalidModelError
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Dim, ceildiv, const, maximum, minimum, select
from webkiln.ir.expr import compare as compare_expr
from webkiln.memory.size import evaluate as evaluate_ir

N, M = Dim("n", 512), Dim("m", 64)
SHA = "0" * 64


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (const(7, I32), 7),
        (N, "n"),
        (N + 1, ["+", "n", 1]),
        (N - 1, ["-", "n", 1]),
        (ceildiv(N, 64), ["ceildiv", "n", 64]),
        (N // 4, ["//", "n", 4]),
        (N % 4, ["%", "n", 4]),
        (minimum(N, 8), ["min", "n", 8]),
        (N + N - N, "n"),
        (N * 4 // 4, "n"),
    ],
)
def test_expressions(expr, expected):
    assert expr_to_json(expr) == expected


@st.composite
def expressions(draw, depth=3):
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from([N, M]) | st.integers(-20, 70).map(lambda v: const(v, I32)))
    a = draw(expressions(depth=depth - 1))
    kind = draw(st.sampled_from(["+", "-", "*", "//", "%", "min", "max", "ceildiv"]))
    if kind in ("//", "%", "ceildiv"):
        b = draw(st.integers(1, 70))
        return {"//": lambda: a // b, "%": lambda: a % b, "ceildiv": lambda: ceildiv(a, b)}[kind]()
    b = draw(expressions(depth=depth - 1))
    return {
        "+": lambda: a + b,
        "-": lambda: a - b,
        "*": lambda: a * b,
        "min": lambda: minimum(a, b),
        "max": lambda: maximum(a, b),
    }[kind]()


@settings(deadline=None)
@given(expressions(), st.integers(1, 512), st.integers(1, 64))
def test_expression_keeps_its_value(expr, n, m):
    dims = {"n": n, "m": m}
    assert evaluate(expr_to_json(expr), dims) == evaluate_ir(expr, dims)


def test_what_a_plan_cannot_say():
    with pytest.raises(ValueError, match="no expression for"):
        expr_to_json(select(compare_expr("lt", N, 7), N, M))


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (3, "3"),
        (["*", 2, "n"], "2 * n"),
        (["*", ["+", "n", 1], 2], "(n + 1) * 2"),
        (["ceildiv", ["+", "n", 1], 8], "ceildiv(n + 1, 8)"),
        (["+", ["min", "n", 8], 1], "min(n, 8) + 1"),
    ],
)
def test_shown_as_people_write(expression, text):
    assert show(expression) == text


PLAN = {
    "format": "webkiln.plan",
    "version": 1,
    "generator": "webkiln 0.1.0",
    "name": "m",
    "dims": [{"name": "n", "min": 1, "max": 8}],
    "programs": [
        {
            "name": "main",
            "inputs": [{"name": "x", "dtype": "int64", "shape": ["n"], "buffer": 0}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": [["*", 2, "n"]], "buffer": 1}],
            "steps": {
                "wasm": [
                    {"label": "Mul", "kind": "loops", "reads": [0], "writes": [1],
                     "flops": "n", "bytes": 8}
                ],
                "webgpu": [
                    {"label": "Mul", "kernel": 0, "buffers": [0, 1], "params": ["n"],
                     "workgroups": [["ceildiv", "n", 64], 1, 1], "flops": "n", "bytes": 8}
                ],
            },
        }
    ],
    "kernels": [{"name": "k", "access": ["read", "write"], "params": 1, "kind": "elementwise"}],
    "buffers": [
        {"name": "x", "dtype": "int32", "bytes": 32, "role": "input", "wasm": 65536,
         "webgpu": {"slot": 1, "offset": 0}},
        {"name": "y", "dtype": "float32", "bytes": 64, "role": "output", "wasm": 65600,
         "webgpu": {"slot": 2, "offset": 0}},
    ],
    "weights": {"bytes": 8, "pieceBytes": 4, "shards": [
        {"file": f"{SHA}.bin", "sha256": SHA, "bytes": 4, "offset": 0, "pieces": [SHA]},
        {"file": f"{SHA}.bin", "sha256": SHA, "bytes": 4, "offset": 4, "pieces": [SHA]}]},
    "wasm": {
        "variants": [{"file": "simd.wasm", "sha256": SHA, "bytes": 1, "features": ["simd"]}],
        "memory": {"bytes": 131072, "dims": 64, "weights": 1024,
                   "stacks": {"offset": 65536, "bytes": 1024}},
        "maxThreads": 1,
    },
    "webgpu": {
        "variants": [
            {"file": "kernels.f16.wgsl", "sha256": SHA, "bytes": 1, "features": ["shader-f16"],
             "limits": {"maxComputeWorkgroupStorageSize": 64}},
            {"file": "kernels.wgsl", "sha256": SHA, "bytes": 1, "features": [], "limits": {}}],
        "slots": [{"bytes": 8, "weights": 0}, {"bytes": 32}, {"bytes": 64}],
        "limits": {"maxBufferSize": 64},
    },
    "golden": [
        {"dims": {"n": 2}, "inputs": {}, "outputs": {
            "y": {"offset": 0, "bytes": 16, "shape": [4], "dtype": "float32"}},
         "file": "golden.bin", "rtol": 1e-3, "atol": 1e-4}
    ],
    "task": {"name": "generic", "anything": [1, 2]},
}  # fmt: skip


def test_a_valid_plan():
    assert validate(copy.deepcopy(PLAN)) == PLAN
    assert b" " not in to_json(PLAN).replace(b"webkiln 0", b"")


def without(plan, key):
    del plan[key]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(format="zip"), "format: "),
        (lambda p: p.update(version=2), "version: "),
        (lambda p: without(p, "buffers"), "'buffers' is a required property"),
        (lambda p: p.update(extra=1), "extra"),
        (lambda p: p["dims"][0].update(name="a b"), r"dims\[0\]\.name: "),
        (lambda p: p["dims"][0].update(max=0), r"dims\[0\]: min 1 is above max 0"),
        (lambda p: p["dims"].append(p["dims"][0]), "two have one name"),
        (lambda p: p["buffers"][0].update(dtype="int64"), r"buffers\[0\]\.dtype: "),
        (lambda p: p["buffers"][0].update(wasm=131070), r"buffers\[0\]\.wasm: "),
        (lambda p: p["buffers"][0].update(wasm=131072), r"buffers\[0\]\.wasm: ends beyond"),
        (
            lambda p: p["buffers"][0].update(wasm=None),
            r"inputs\[0\]\.buffer: has no place on every target",
        ),
        (lambda p: without(p["programs"][0]["steps"], "wasm"), r"steps\.wasm: is missing"),
        (
            lambda p: p["programs"][0]["steps"]["wasm"][0].update(reads=[2]),
            r"steps\.wasm\[0\]: 2 of 2 buffers",
        ),
        (lambda p: p["buffers"][1]["webgpu"].update(slot=1), r"buffers\[1\]\.webgpu: ends beyond"),
        (lambda p: p["buffers"][1]["webgpu"].update(slot=9), r"buffers\[1\]\.webgpu: slot 9 of 3"),
        (lambda p: p["buffers"][1]["webgpu"].update(offset=4), r"buffers\[1\]\.webgpu"),
        (lambda p: p["weights"]["shards"][0].update(file="../x"), r"shards\[0\]\.file: "),
        (lambda p: p["weights"]["shards"][1].update(offset=8), r"shards\[1\]\.offset: is 8"),
        (lambda p: p["weights"].update(pieceBytes=2), r"weights\.pieceBytes: "),
        (lambda p: p["weights"]["shards"][0].update(pieces=[]), r"shards\[0\]\.pieces: "),
        (lambda p: p["weights"].update(bytes=12), r"weights\.bytes: is 12, the shards have 8"),
        (lambda p: p["webgpu"].update(variants=[]), r"webgpu\.variants: "),
        (lambda p: without(p["webgpu"]["variants"][0], "limits"), r"variants\[0\]: 'limits'"),
        (lambda p: p.update(wasm=None, webgpu=None), "neither this target"),
    ],
)
def test_an_invalid_plan_names_the_path(change, message):
    plan = copy.deepcopy(PLAN)
    change(plan)
    with pytest.raises(InvalidModelError, match=message):
        validate(plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(kernel=1), r"steps\.webgpu\[0\]\.kernel: 1 of 1 kernels"),
        (lambda s: s.update(buffers=[0]), r"steps\.webgpu\[0\]\.buffers: has 1 entries, k takes 2"),
        (lambda s: s.update(buffers=[0, 5]), r"steps\.webgpu\[0\]\.buffers: 5 of 2 buffers"),
        (lambda s: s.update(params=[]), r"steps\.webgpu\[0\]\.params: has 0 entries, k takes 1"),
        (lambda s: s.update(params=["z"]), r"steps\.webgpu\[0\]: there is no dimension 'z'"),
        (lambda s: s.update(flops=["*", 2, ["+", "z", 1]]), "there is no dimension 'z'"),
        (lambda s: s.update(flops=["^", 2, 3]), r"steps\.webgpu\[0\]\.flops"),
        (lambda s: s.update(workgroups=[1]), r"steps\.webgpu\[0\]\.workgroups: \[1\] is too short"),
    ],
)
def test_an_invalid_step_names_the_path(change, message):
    plan = copy.deepcopy(PLAN)
    change(plan["programs"][0]["steps"]["webgpu"][0])
    with pytest.raises(InvalidModelError, match=message):
        validate(plan)


def check(actual, expected, rtol=0.1, atol=0.01):
    return compare(0, "y", np.asarray(actual), np.asarray(expected), rtol, atol)


def test_comparison():
    assert check([1.0, 2.0], [1.05, 2.0]).ok
    result = check([1.0, 2.0], [1.0, 4.0])
    assert not result.ok
    assert result.max_abs_error == 2
    assert result.max_rel_error == 0.5
    assert check([0.005], [0.0]).ok
    assert check([0.005], [0.0]).max_rel_error == 0
    assert check([], []).ok


def test_comparison_of_what_is_not_a_number():
    nan, inf = float("nan"), float("inf")
    assert check([nan, inf, -inf], [nan, inf, -inf]).ok
    assert not check([nan], [1.0]).ok
    assert not check([1.0], [nan]).ok
    assert not check([1.0], [inf]).ok
    assert not check([inf], [-inf]).ok
    assert check([nan], [1.0]).max_abs_error == inf
    assert not check([1.0, 2.0], [1.0]).ok
    assert check([True, False], [True, False]).ok
    assert not check([True], [False]).ok


def with_table(plan, **changes):
    """The second shard has the four rows of a byte each that x names."""
    table = {"offset": 4, "rows": 4, "group": 1, "groupBytes": 1}
    plan["weights"]["tables"] = [table | {"namedBy": [{"program": 0, "input": 0}]} | changes]
    plan["weights"]["shards"][1]["table"] = 0
    return plan


def test_a_plan_with_a_table():
    assert validate(with_table(copy.deepcopy(PLAN)))["weights"]["tables"][0]["rows"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: with_table(p, rows=3), r"weights\.shards\[1\]: has more than rows of its table"),
        (lambda p: with_table(p, offset=8), r"weights\.shards\[1\]: has more than rows"),
        (lambda p: with_table(p, group=2), r"weights\.shards\[1\]: has more than rows"),
        (lambda p: with_table(p)["weights"].pop("tables"), r"shards\[1\]\.table: 0 of 0 tables"),
        (
            lambda p: with_table(p, namedBy=[{"program": 1, "input": 0}]),
            r"weights\.tables\[0\]\.namedBy\[0\]\.program: 1 of 1 programs",
        ),
        (
            lambda p: with_table(p, namedBy=[{"program": 0, "input": 2}]),
            r"weights\.tables\[0\]\.namedBy\[0\]\.input: 2 of 1 inputs",
        ),
        (
            lambda p: with_table(p)["buffers"][0].update(dtype="float32"),
            r"namedBy\[0\]\.input: is not of int32",
        ),
    ],
)
def test_an_invalid_table_names_the_path(change, message):
    plan = copy.deepcopy(PLAN)
    change(plan)
    with pytest.raises(InvalidModelError, match=message):
        validate(plan)
