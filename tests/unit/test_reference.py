"""ONNX Runtime as the reference: it reads weights where they are, of whatever type."""

from __future__ import annotations

import gc

import numpy as np
import onnx_ir as ir
import pytest

from webkiln.errors import UnsupportedModelError
from webkiln.reference import reference_outputs, reference_session

X = np.linspace(-1, 1, 24, dtype=np.float32)[None]


def product(node: str, weight: ir.TensorProtocol) -> ir.Model:
    """[1, 24] times a weight [24, 96], which `node` makes `w` of."""
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21]>
        g (float[1, 24] x) => (float[1, 96] y) {{ {node} y = MatMul(x, w) }}"""
    )
    value = next(v for n in model.graph for v in n.inputs if v.producer() is None and v.name != "x")
    value.const_value = weight
    model.graph.register_initializer(value)
    return model


NUMBERS = np.arange(24 * 96).reshape(24, 96) % 13 - 6.0  # more than a kilobyte in any type


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        ("", ir.DataType.FLOAT),
        ("w = Cast<to=1>(half)", ir.DataType.FLOAT16),
        ("w = Cast<to=1>(brain)", ir.DataType.BFLOAT16),
        ("w = Cast<to=1>(nibbles)", ir.DataType.INT4),
        ("w = Cast<to=1>(bytes)", ir.DataType.INT8),
    ],
)
def test_weights_of_every_kind(node: str, kind: ir.DataType) -> None:
    weight = ir.Tensor(NUMBERS.astype(kind.numpy()), dtype=kind, name="weight")
    found = reference_outputs(product(node, weight), {"x": X, "more": X})
    assert list(found) == ["y"]
    np.testing.assert_allclose(found["y"], X @ NUMBERS.astype(np.float32), rtol=1e-5, atol=1e-5)


def test_weights_outlive_the_model() -> None:
    model = product("", ir.Tensor(NUMBERS.astype(np.float32), name="w"))
    session = reference_session(model)
    del model
    gc.collect()
    others = [np.full((24, 96), 7, np.float32) for _ in range(100)]  # where those were
    np.testing.assert_allclose(session.run(None, {"x": X})[0], X @ NUMBERS, rtol=1e-5, atol=1e-5)
    assert len(others) == 100


def test_the_model_is_left_as_it_was() -> None:
    model = product("", ir.Tensor(NUMBERS.astype(np.float32), name="weight"))
    reference_session(model)
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert list(model.graph.initializers) == ["w"]


def test_what_it_cannot_run_is_said() -> None:
    model = product("w = Cast<to=1>(bytes)", ir.Tensor(NUMBERS.astype(np.int8), name="bytes"))
    with pytest.raises(UnsupportedModelError, match="the reference for the golden sample"):
        reference_outputs(model, {})
