"""Products with quantised matrices: what is fused, what kernels compute, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest

from tests.graphs import lower, random_inputs, scheduled
from tests.ops import targets
from tests.ops.cases_quantised import matrix, product
from tests.ops.harness import Constant, build, compare, interpreter, lowered
from tests.quantised_graphs import decoder_layer, tied
from webkiln.errors import UnsupportedModelError
from webkiln.interpret.compute import run_program, value_of
from webkiln.ir.program import Kernel
from webkiln.ir.stmt import Once, Store
from webkiln.lower.fuse import fuse
from webkiln.lower.graph import lower_graph
from webkiln.lower.layout import PANEL, assign_layouts
from webkiln.lower.quantised import is_product
from webkiln.schedule.kernel import statements
from webkiln.schedule.wasm import schedule
from webkiln.targets.toolchain import PLANES_VARIANTS

EXACT, MIDDLE, COARSE = 1, 2, 4  # accuracy_level: activations in float32, or in 16 or 8 bits


# --- fusion ---------------------------------------------------------------------------------------


def test_norms_gates_and_residuals_join_the_products() -> None:
    program = fuse(lower(decoder_layer("n", COARSE)))
    products = [c for c in program.computes if is_product(c)]
    assert len(products) == 5  # query, key, projection, gate with up, down
    assert len(program.computes) == 6  # and the softmax
    assert ["Sigmoid" in c.label and "up" in c.label for c in products].count(True) == 1
    assert sum("RMSNormalization" in c.label for c in products) == 3


@pytest.mark.parametrize("rows", [1, "n"])
def test_fusion_computes_the_same(rows: str | int) -> None:
    model = decoder_layer(rows, COARSE)
    inputs = random_inputs(model, {"n": 5})
    program = lower(model)
    expected = run_program(program, inputs)
    for actual, wanted in zip(run_program(fuse(program), inputs), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


def test_a_norm_that_others_need_stays_for_them() -> None:
    model = decoder_layer("n", COARSE)
    kind = onnx.helper.make_tensor_value_info("norm1", onnx.TensorProto.FLOAT, [1, "n", 64])
    model.graph.output.append(kind)
    program = fuse(lower(model))
    assert "norm1" in [c.out.name for c in program.computes]


# --- kernels --------------------------------------------------------------------------------------


def kernels(model: onnx.ModelProto, tolerance: float, **dims: int) -> list[Kernel]:
    """The model's WebAssembly kernels, each interpreted and compared with its definition."""
    program = assign_layouts(fuse(lower(model)))
    runs = scheduled(program, schedule, random_inputs(model, dims), dims, slack=PANEL - 1)
    found = []
    for kernel, actual, expected in runs:
        error = np.abs(actual - expected).max()
        limit = tolerance if kernel.kind == "quantised" else 1e-5
        assert error <= limit * np.abs(expected).max(), f"{kernel.kind}: {error}"
        found.append(kernel)
    return found


@pytest.mark.parametrize(("level", "tolerance"), [(EXACT, 1e-5), (MIDDLE, 2e-4), (COARSE, 0.02)])
@pytest.mark.parametrize("rows", [1, 6])
def test_kernels_of_a_layer(rows: int, level: int, tolerance: float) -> None:
    found = kernels(decoder_layer("n", level), tolerance, n=rows)
    assert [k.kind for k in found].count("quantised") == 5


@pytest.mark.parametrize(("level", "tolerance"), [(EXACT, 1e-5), (MIDDLE, 2e-4), (COARSE, 0.02)])
def test_kernels_of_one_row(level: int, tolerance: float) -> None:
    found = kernels(decoder_layer(1, level), tolerance)
    products = [k for k in found if k.kind == "quantised"]
    assert len(products) == 5
    for kernel in products:  # threads stage the row once
        assert isinstance(kernel.body[0], Once)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("depth", "copies"), [(64, 4), (4096, 1)])
def test_a_short_row_is_staged_as_vectors(depth: int, copies: int, bits: int) -> None:
    """Four copies of each word; of a long one they would push weights out of the nearest cache."""
    model, _, _ = build(product("1", depth, 8, bits, 32, accuracy_level=MIDDLE))
    (kernel,) = kernels(model, 2e-4)
    (staged,) = {
        s.buffer
        for s in statements(kernel.body)
        if isinstance(s, Store) and s.buffer.name == "elements"
    }
    assert value_of(staged.size, {}) * staged.dtype.bytes == 2 * depth * copies


@pytest.mark.parametrize("panels", range(1, 10))
def test_panels_of_several_places(panels: int) -> None:
    """However many there are, each place has some of the matrix, and none has what is beyond."""
    model, _, _ = build(product("1", 64, 8 * panels, accuracy_level=MIDDLE))
    (kernel,) = kernels(model, 2e-4)
    assert kernel.kind == "quantised"


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("panels", [1, 2, 3])
def test_rows_in_pairs(panels: int, bits: int) -> None:
    """Two panels at a time, the last one alone or not; two rows at a time, the last one alone."""
    zeros = "packed" if bits == 4 else ""
    shape = ("n=19", 128, 8 * panels - 3, bits, 64, zeros)
    model, _, dims = build(product(*shape, accuracy_level=MIDDLE))
    (kernel,) = kernels(model, 2e-4, **dims)
    pairs = kernel if bits == 8 else kernel.paired  # bytes only where weights leave them a bit
    assert pairs is not None
    assert {s.buffer.name for s in statements(pairs.body) if isinstance(s, Store)} >= {
        "unpacked",
        "totals",
    }


def test_only_rows_of_16_bits_have_a_form_in_pairs() -> None:
    for level, several in ((EXACT, False), (MIDDLE, True), (COARSE, False)):
        for rows in (1, "n"):
            program = assign_layouts(fuse(lower(decoder_layer(rows, level))))
            made = [schedule(c) for c in program.computes]
            forms = [k.paired is not None for k in made if k.kind == "quantised"]
            assert forms == [several and rows == "n"] * 5


def test_coarse_rows_are_bytes() -> None:
    found = kernels(decoder_layer("n", COARSE), 0.02, n=3)
    local = {
        s.buffer.dtype.name
        for k in found
        for s in statements(k.body)
        if hasattr(s, "buffer") and s.buffer.role == "workgroup"
    }
    assert "int8" in local


CASES = [
    product(rows, k, n, bits, block, zeros, accuracy_level=level)
    for level in (COARSE, MIDDLE)
    for rows in ("1", "2,s=18")
    for k, n, bits, block, zeros in (
        (64, 16, 4, 32, "packed"),
        (256, 40, 4, 128, ""),
        (128, 33, 8, 16, "packed"),
        (64, 16, 8, 32, ""),
        (2112, 8, 4, 32, ""),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("variant", PLANES_VARIANTS[3:], ids=lambda v: v.name)
def test_bytes_in_each_variant(variant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With either dot product of relaxed SIMD, and with what stands for it."""
    monkeypatch.setattr(targets, "VARIANT", variant)
    compiled = [targets.compile_case(case, "wasm") for case in CASES]
    run = targets.wasm_module(compiled)
    for k, x in enumerate(compiled):
        assert [s.kernel.kind for s in x.steps] == ["quantised"]
        model, inputs, dims = build(x.case)
        (actual,), (wanted,) = run(k), interpreter(model, inputs, dims)
        scale = float(np.abs(wanted).max())
        level = x.case.attributes["accuracy_level"]
        compare(actual / scale, wanted / scale, {COARSE: 0.02, MIDDLE: 2e-4}[level])


# --- constants ------------------------------------------------------------------------------------


def test_a_tied_table_is_stored_once() -> None:
    program = assign_layouts(fuse(lower(tied(64, 40))))
    assert len(program.constants) == 2  # words and scales
    (words,) = [b for b in program.constants if b.name.endswith("_words")]
    assert len({words.layout, *(b.layout for b in program.constants)}) == 1


def test_four_bits_keep_every_weight() -> None:
    """A row that is 1 at one place picks one weight of each column."""
    case = product("64", 64, 9, 4, 32, "packed")
    model, _, dims = build(case)
    (actual,) = run_program(lowered(model, dims), {"x0": np.eye(64, dtype=np.float32)})
    b, scales, zeros = matrix(64, 9, 4, 32, "packed")
    nibbles = np.stack([b.value & 15, b.value >> 4], -1).reshape(9, 2, 32).astype(float)
    points = np.stack([zeros.value & 15, zeros.value >> 4], -1).reshape(9, -1)[:, :2]
    wanted = (nibbles - points[..., None]) * scales.value[..., None]
    np.testing.assert_allclose(actual, wanted.reshape(9, 64).T, rtol=1e-6)


@pytest.mark.parametrize("size", [2.0**-40, 2.0**100])
def test_scales_of_any_size(size: float) -> None:
    _, scales, _ = matrix(64, 8)
    case = product("1", 64, 8)
    inputs = [*case.inputs]
    inputs[2] = Constant((scales.value * np.float32(size)).astype(np.float32))
    model, given, dims = build(
        type(case)("MatMulNBits", inputs, case.attributes, domain=case.domain)
    )
    (actual,) = interpreter(model, given, dims)
    (plain,) = interpreter(build(case)[0], given, dims)
    np.testing.assert_allclose(actual, plain * np.float32(size), rtol=1e-5)


# --- refusals -------------------------------------------------------------------------------------


def _refused(change: dict[str, Any], inputs: dict[int, Any]) -> str:
    case = product("1", 64, 8)
    given = [*case.inputs, None, None, None][:6]
    for k, value in inputs.items():
        given[k] = value
    while given[-1] is None:
        given.pop()
    attributes = {**case.attributes, **change}
    model, _, dims = build(type(case)("MatMulNBits", given, attributes, domain=case.domain))
    with pytest.raises(UnsupportedModelError) as error:
        lower_graph(onnx_ir.from_proto(model), dict.fromkeys(dims, 64))
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "inputs", "message"),
    [
        ({"bits": 2}, {}, "weights of 2 bits"),
        ({"block_size": 24}, {}, "blocks of 24"),
        ({"weight_prepacked": 1}, {}, "weight_prepacked"),
        ({"K": 96}, {}, "rows of 64 for K = 96"),
        ({"N": 9}, {}, "B of"),
        ({}, {2: Constant(np.full((8, 2), np.nan, np.float32))}, "not finite"),
        ({}, {3: Constant(np.zeros((8, 3), np.float32))}, "zero_points of 24"),
        ({}, {4: Constant(np.zeros(64, np.int32))}, "g_idx"),
        ({}, {1: "u8[8,2,16]"}, "B depends on the input's values"),
    ],
)
def test_what_is_not_supported_is_named(
    change: dict[str, Any], inputs: dict[int, Any], message: str
) -> None:
    text = _refused(change, inputs)
    assert message in text
    assert "MatMulNBits" in text
