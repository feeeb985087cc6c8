"""Every quantised tensor type: the same numbers as gguf's own dequantisation, nothing rounded."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from tests.unit import tiny_gguf
from webkiln.errors import InvalidModelError
from webkiln.frontends import load
from webkiln.frontends.ggml_types import (
    BLOCK_TYPES,
    FLOAT_TYPES,
    SUPPORTED_TYPES,
    float_tensor,
    quantised_matrix,
)
from webkiln.passes.blocks import Blocks, from_blocks

SYMMETRIC = ("Q4_0", "Q5_0", "Q8_0", "Q6_K")


def numbers(matrix):
    """What MatMulNBits' definition makes of it."""
    points = matrix.zero_points
    return from_blocks(
        Blocks(
            matrix.bits,
            matrix.block,
            matrix.integers.numpy(),
            matrix.scales.numpy(),
            None if points is None else points.numpy(),
        )
    )


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_same_numbers_as_gguf(kind):
    rng = np.random.default_rng(3)
    raw = tiny_gguf.records(rng, 7 * 6, kind, scale=1.0).reshape(7, -1)
    matrix = quantised_matrix(kind, raw)
    expected = gguf.dequantize(raw, Kind[kind])
    n, k = expected.shape
    form = BLOCK_TYPES[kind]
    assert (matrix.n, matrix.k, matrix.bits, matrix.block) == (n, k, form.bits, form.block)
    assert matrix.integers.numpy().shape == tuple(matrix.integers.shape.numpy())
    assert matrix.integers.numpy().shape == (n, k // form.block, form.block * form.bits // 8)
    assert matrix.scales.numpy().shape == (n, k // form.block)
    assert matrix.scales.numpy().dtype == np.float32
    if kind in SYMMETRIC:
        assert matrix.zero_points is None
        assert np.array_equal(numbers(matrix), expected)
    else:
        # s · q + m there, s · (q - z) with z = -m / s here: apart by float32's rounding of m.
        tolerance = 2**-22 * np.abs(expected).reshape(n, -1, form.block).max(axis=2)
        error = np.abs(numbers(matrix) - expected).reshape(n, -1, form.block)
        assert (error <= tolerance[..., None]).all()


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_1"])
def test_offsets_survive_the_zero_point(kind):
    """Kernels keep m = -s · z in half precision: it must be the file's number again."""
    form = BLOCK_TYPES[kind]
    raw = tiny_gguf.records(np.random.default_rng(4), 400, kind, scale=0.05)
    matrix = quantised_matrix(kind, raw.reshape(4, -1))
    scale, offset = (part.reshape(4, -1) for part in form.scales(raw))
    stored, points = matrix.scales.numpy(), matrix.zero_points.numpy()
    assert (scale == 0).any()
    assert np.array_equal(stored, np.where(scale == 0, offset, scale))
    assert np.array_equal((-stored * points).astype(np.float16), offset.astype(np.float16))


def test_order_of_a_record():
    """Q4_0 keeps weight i and i + 16 in byte i; MatMulNBits 2 i and 2 i + 1."""
    raw = np.zeros((1, 18), np.uint8)
    raw[0, :2] = np.array([0.5], np.float16).view(np.uint8)
    raw[0, 2:] = np.arange(16) | np.arange(15, -1, -1) << 4
    matrix = quantised_matrix("Q4_0", raw)
    q = [*range(16), *range(15, -1, -1)]
    assert matrix.integers.numpy().ravel().tolist() == [
        low | high << 4 for low, high in zip(q[::2], q[1::2], strict=True)
    ]
    assert numbers(matrix).ravel().tolist() == [0.5 * (i - 8) for i in q]


@pytest.mark.parametrize("kind", SUPPORTED_TYPES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_one_type(tmp_path, kind, tied):
    tiny = tiny_gguf.Tiny(
        "llama", permuted=True, tied=tied, kind=kind, width=256, head_size=64, inner=256
    )
    made = tiny_gguf.weights(tiny)
    source = load(tiny_gguf.write(tmp_path / "tiny.gguf", tiny, made))
    ids = [5, 90, 12, 200, 3]
    expected = tiny_gguf.forward(tiny, made.floats, ids)
    assert expected.std() > 0.3
    assert np.abs(tiny_gguf.Session(source).feed(ids) - expected).max() < 2e-4
    used = {node.op_type for node in source.model.graph}
    assert used & {"MatMul", "MatMulNBits"} == {"MatMul" if kind in FLOAT_TYPES else "MatMulNBits"}
    names = [n for n in source.model.graph.initializers if n.startswith(("token_embd", "output."))]
    per_table = 1 if kind in FLOAT_TYPES else 2 if kind in SYMMETRIC else 3
    assert len(names) == per_table * (1 if tied else 2)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_float_types_are_exact(kind):
    data = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    raw = gguf.quantize(data, Kind[kind])
    expected = gguf.dequantize(raw, Kind[kind])
    assert np.array_equal(float_tensor(kind, raw, "t").numpy().astype(np.float32), expected)


def test_a_quantised_vector_is_refused():
    with pytest.raises(InvalidModelError, match=r"'blk\.0\.attn_norm\.weight' is of type Q8_0"):
        float_tensor("Q8_0", np.zeros(34, np.uint8), "blk.0.attn_norm.weight")
