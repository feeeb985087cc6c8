"""Tables of 4-bit integers as bytes of two: the same rows."""

import numpy as np
import onnx_ir as ir
import pytest

from tests.passes.conftest import operators, parse, run
from webkiln.passes.dequantize_weights import dequantize_weights
from webkiln.passes.pack_nibbles import pack_nibbles

TEXT = """g (int64[2,3] ids, {kind}[20,64] table, float[20,2] scales{more})
     => (float[2,3,64] y) {{
    y = com.microsoft.GatherBlockQuantized
        <block_size = 32, quantize_axis = 1, gather_axis = 0>(table, ids, scales{points})
}}"""


@pytest.mark.parametrize("kind", ["int4", "uint4"])
@pytest.mark.parametrize("with_points", [False, True])
def test_the_rows_stay_what_they_are(rng, kind, with_points):
    low = -8 if kind == "int4" else 0
    weights = {
        "table": rng.integers(low, low + 16, (20, 64)),
        "scales": rng.standard_normal((20, 2)),
    }
    if with_points:
        weights["points"] = rng.integers(low, low + 16, (20, 2))
    text = TEXT.format(
        kind=kind,
        more=f", {kind}[20,2] points" if with_points else "",
        points=", points" if with_points else "",
    )
    model = parse(text, weights)
    feeds = {"ids": np.array([[3, 19, 0], [1, 2, -1]])}
    packed = pack_nibbles(model.clone())
    assert packed.graph[0].inputs[0].const_value.dtype == ir.DataType.UINT8
    assert list(packed.graph[0].inputs[0].shape) == [20, 32]
    plain = dequantize_weights(packed)
    assert operators(plain) == "Gather"
    np.testing.assert_allclose(run(plain, feeds)[0], run(model, feeds)[0], rtol=1e-6)


def test_tables_of_bytes_are_left(rng):
    text = """g (int64[2] ids, uint8[20,32] table, float[20,2] scales) => (float[2,64] y) {
        y = com.microsoft.GatherBlockQuantized
            <block_size = 32, quantize_axis = 1, bits = 4>(table, ids, scales)
    }"""
    model = parse(text, {"table": rng.integers(0, 256, (20, 32)), "scales": np.ones((20, 2))})
    before = [v.name for v in model.graph[0].inputs]
    assert [v.name for v in pack_nibbles(model).graph[0].inputs] == before
