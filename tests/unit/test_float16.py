"""Kernels in float16, for adapters that have it: against definitions, and within whole models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from numpy.typing import NDArray

import webkiln
from tests import wgpu_runner
from tests.graphs import interpret, lower, physical, random_inputs, scheduled
from tests.ops.cases_quantised import product
from tests.ops.harness import Case, build
from tests.quantised_graphs import decoder_layer
from tests.unit import tiny_gguf
from webkiln import compile as compiler
from webkiln import frontends
from webkiln.codegen.unique import unique
from webkiln.codegen.wgsl import kernel_source
from webkiln.interpret.compute import value_of
from webkiln.ir.dtypes import F16
from webkiln.ir.program import Compute, Kernel, Program
from webkiln.ir.stmt import Store
from webkiln.lower.fuse import fuse
from webkiln.lower.layout import assign_layouts
from webkiln.schedule.kernel import statements
from webkiln.schedule.webgpu import schedule
from webkiln.targets.webgpu import workgroup_bytes

Array = NDArray[np.float32]
EXACT, MIDDLE, COARSE = 1, 2, 4  # accuracy_level: activations in float32, or in 16 or 8 bits
#: of a product's largest result. A sum of eight in float16 is off by a few of its 2^-12 (measured:
#: 2e-4 to 6e-4), where float32 is by 1e-6.
TOLERANCE = 1.5e-3
LARGEST = 3e4  # of a row; times a code it is far beyond float16's 65,504


def in_half(compute: Compute) -> Kernel:
    """The form in float16 of the kernel of `compute`, if it has one."""
    kernel = schedule(compute)
    return kernel.half or kernel


def laid_out(model: onnx.ModelProto) -> Program:
    return assign_layouts(fuse(lower(model)))


def name(case: object) -> str | None:
    return case.tag if isinstance(case, Case) else None


CASES = [
    product(rows, k, n, bits, block, zeros, accuracy_level=MIDDLE)
    for rows in ("1", "2,s=18")
    for k, n, bits, block, zeros in (
        (64, 16, 4, 32, "packed"),
        (256, 40, 4, 128, ""),
        (128, 33, 8, 16, "packed"),
        (64, 72, 8, 32, ""),
    )
]


# --- kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES[:2] + CASES[-1:], ids=name)
def test_interpreted(case: Case) -> None:
    model, inputs, dims = build(case)
    ((kernel, actual, expected),) = scheduled(laid_out(model), in_half, inputs, dims)
    assert kernel.kind.startswith("quantised")
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.webgpu
@pytest.mark.parametrize("size", [0.5, LARGEST, 2.0**-20, 2.0**100])
@pytest.mark.parametrize("case", CASES, ids=name)
def test_on_an_adapter(case: Case, size: float) -> None:
    """Rows of any size are kept in range: each has one element of `size`, the rest below 0.5."""
    model, inputs, dims = build(case)
    (row,) = inputs.values()
    row[...] *= min(1, size)
    row[..., 5] = size
    program = laid_out(model)
    (compute,) = program.computes
    arrays = interpret(program, inputs, dims)
    kernel = schedule(compute)
    memory = {b: physical(arrays[b], b, dims) for b in kernel.buffers}
    expected = memory.pop(compute.out)
    memory[compute.out] = np.zeros_like(expected)
    assert kernel.half is not None
    actual = wgpu_runner.run_kernel(kernel.half, memory, dims)[compute.out]
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.webgpu
@pytest.mark.parametrize("rows", ["1", "s=18"])
def test_zeros_and_what_is_not_finite(rows: str) -> None:
    model, inputs, dims = build(product(rows, 64, 16, accuracy_level=MIDDLE))
    (row,) = inputs.values()
    program = laid_out(model)
    (compute,) = program.computes
    kernel = schedule(compute)
    assert kernel.half is not None
    for value in (0.0, np.inf, np.nan):
        row[...] = 0
        row[..., 5] = value
        arrays = interpret(program, inputs, dims)
        memory = {b: physical(arrays[b], b, dims) for b in kernel.buffers}
        actual = wgpu_runner.run_kernel(kernel.half, memory, dims)[compute.out]
        if value == 0:
            np.testing.assert_array_equal(actual, 0)
        else:
            assert not np.isfinite(actual).any()


@pytest.mark.parametrize("rows", [1, "n"])
def test_only_what_may_be_rounded(rows: str | int) -> None:
    for level in (EXACT, MIDDLE, COARSE):
        kernels = [schedule(c) for c in laid_out(decoder_layer(rows, level)).computes]
        products = [k for k in kernels if k.kind.startswith("quantised")]
        assert len(products) == 5
        assert all((k.half is not None) == (level != EXACT) for k in products)
        assert all(k.half is None for k in kernels if k not in products)


def test_a_prompt_takes_half_the_workgroup_memory() -> None:
    for compute in laid_out(decoder_layer("n", MIDDLE)).computes:
        kernel = schedule(compute)
        if kernel.half is None:
            continue
        stores = [s for s in statements(kernel.half.body) if isinstance(s, Store)]
        assert any(s.buffer.dtype == F16 for s in stores)
        assert workgroup_bytes(kernel.half) < 0.6 * workgroup_bytes(kernel)


def test_kernels_that_differ_in_float16_alone_stay_apart() -> None:
    def kernel(level: int) -> Kernel:
        (compute,) = laid_out(build(product("1", 64, 16, accuracy_level=level))[0]).computes
        return schedule(compute)

    kernels = [kernel(level) for level in (MIDDLE, COARSE, EXACT)]
    assert len({kernel_source(k, "k") for k in kernels}) == 1
    merged = unique(kernels, kernel_source)
    assert merged.of_step == [0, 0, 1]
    assert len(set(merged.sources)) == 2


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.webgpu
@pytest.mark.parametrize("rows", [1, 6])
def test_a_layer(rows: int) -> None:
    """Each kernel takes what those before it made; the residual stream reaches `LARGEST`."""
    dims = {"n": rows}
    model = decoder_layer("n", MIDDLE)
    inputs = random_inputs(model, dims)
    inputs["x"][..., 7] = LARGEST
    program = laid_out(model)
    expected = interpret(program, inputs, dims)
    found = {b: physical(expected[b], b, dims) for b in (*program.inputs, *program.constants)}
    for compute in program.computes:
        kernel = in_half(compute)
        found[compute.out] = np.zeros(value_of(compute.out.size, dims), np.float32)
        found |= wgpu_runner.run_kernel(kernel, {b: found[b] for b in kernel.buffers}, dims)
    for out in program.outputs:
        assert cosine(found[out], physical(expected[out], out, dims)) > 0.99999


def cosine(a: Array, b: Array) -> float:
    a, b = (x.astype(np.float64).ravel() for x in (a, b))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def entries(text: str) -> list[str]:
    """What a caller sees of a shader: bindings, workgroups' sizes, entry points."""
    kept = r"^@group.*$|^@compute.*\n.*$"
    return re.findall(kept, re.sub(r"array<.*>;", "", text), re.MULTILINE)


@pytest.mark.webgpu
def test_a_language_model(tmp_path: Path) -> None:
    """Both of a bundle's shaders on one plan: a prompt, then a token."""

    tiny = tiny_gguf.Tiny(
        "llama", permuted=True, kind="Q4_1", head_kind="Q8_0", width=128, inner=192
    )
    path = tiny_gguf.write(tmp_path / "tiny.gguf", tiny, tiny_gguf.weights(tiny))
    bundle = compiler.compile_model(
        frontends.load(path), targets=["webgpu"], bounds={"sequence": 32}
    )
    plan = json.loads(bundle.files["model/plan.json"])
    variants = plan["webgpu"]["variants"]
    assert [v["features"] for v in variants] == [["shader-f16"], []]
    half, plain = (bytes(bundle.files[f"model/{v['file']}"]).decode() for v in variants)
    assert entries(half) == entries(plain)
    assert "f16" in half
    assert "f16" not in plain
    weights = b"".join(bytes(bundle.files[f"model/{s['file']}"]) for s in plan["weights"]["shards"])
    for number, program in enumerate(plan["programs"]):
        inputs = {p["name"]: given(p) for p in program["inputs"]}
        found = [
            wgpu_runner.run_plan(plan, shader, weights, inputs, number) for shader in (half, plain)
        ]
        assert found[0].keys() == found[1].keys()
        logits = [f["logits"] for f in found]
        assert cosine(*logits) > 0.9999
        assert np.abs(logits[0] - logits[1]).max() > 0


@pytest.mark.parametrize(
    ("activations", "files"),
    [("int16", ["kernels.f16.wgsl", "kernels.wgsl"]), ("f32", ["kernels.wgsl"])],
)
def test_a_second_shader_where_there_is_something_to_gain(
    activations: str, files: list[str]
) -> None:
    layer = onnx_ir.from_proto(decoder_layer(1, COARSE))
    bundle = webkiln.build(layer, targets=["webgpu"], activations=activations)
    assert bundle.plan["webgpu"] is not None
    assert [v["file"] for v in bundle.plan["webgpu"]["variants"]] == files
    assert sorted(f for f in bundle.files if f.endswith(".wgsl")) == [f"model/{f}" for f in files]


def given(port: dict) -> NDArray[np.generic]:
    """Seven tokens from the beginning; zeros for what the sampler wants."""
    shape = [n if isinstance(n, int) else 7 for n in port["shape"]]
    value = np.zeros(shape, port["dtype"])
    if port["name"] == "input_ids":
        value[...] = 17 + np.arange(shape[-1])
    return value


def test_samples_allow_for_float16_only_where_it_may_compute_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "_bundle", lambda *parts: parts[7])
    monkeypatch.setattr(compiler, "compile_variants", lambda *_: {})
    tiny = tiny_gguf.Tiny("llama", kind="Q4_0")
    source = frontends.load(tiny_gguf.write(tmp_path / "tiny.gguf", tiny, tiny_gguf.weights(tiny)))
    samples: dict[str, Any] = {
        target: compiler.compile_model(source, targets=(target,)) for target in ("wasm", "webgpu")
    }
    (plain,), (half,) = samples["wasm"], samples["webgpu"]
    assert half.atol == pytest.approx(2.5 * plain.atol)
