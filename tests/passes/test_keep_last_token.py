"""The head of a language model computes one row."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from webkiln.passes.keep_last_token import keep_last_token

HEADER = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>'
RNG = np.random.default_rng(0)
TENSORS = {
    "w": RNG.standard_normal((4, 6)).astype(np.float32),
    "g": RNG.standard_normal(4).astype(np.float32),
    "cap": np.float32(3),
    "rows": RNG.standard_normal((1, 5, 4)).astype(np.float32),
    "B": RNG.integers(0, 255, (6, 1, 16), np.uint8),
    "s": RNG.standard_normal(6).astype(np.float32),
}


def model(body: str, outputs: str = "float[1, n, 6] logits") -> ir.Model:
    text = f"{HEADER} g (float[1, n, 4] x) => ({outputs}) {{ {body} }}"
    found = ir.from_onnx_text(text)
    for name, numbers in TENSORS.items():
        value = next(
            (v for node in found.graph for v in node.inputs if v is not None and v.name == name),
            None,
        )
        if value is not None:
            value.const_value = ir.tensor(numbers, name=name)
            value.shape, value.dtype = ir.Shape(numbers.shape), value.const_value.dtype
            found.graph.register_initializer(value)
            for node in found.graph:
                for index, used in enumerate(node.inputs):
                    if used is not None and used.name == name:
                        node.replace_input_with(index, value)
    for node in found.graph:  # what a frontend's shape inference says
        for made in node.outputs:
            if made.shape is None:
                made.shape = ir.Shape([1, "n", 4 if made.name in {"a", "b", "y"} else 6])
                made.dtype = ir.DataType.FLOAT
    return found


def run(found: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    content = ir.to_proto(found).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def input_of(found: ir.Model, op: str) -> str:
    return next(node for node in found.graph if node.op_type == op).inputs[0].producer().op_type


@pytest.mark.parametrize(
    ("body", "first"),
    [
        ("logits = MatMul(x, w)", "MatMul"),
        ("a = RMSNormalization(x, g) logits = MatMul(a, w)", "RMSNormalization"),
        ("a = MatMul(x, w) b = Div(a, cap) c = Tanh(b) logits = Mul(c, cap)", "MatMul"),
        ("logits = com.microsoft.MatMulNBits<K=4, N=6, bits=4, block_size=32>(x, B, s)",
         "MatMulNBits"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [1, 5])
def test_the_cut_moves_up(body, first, rows):
    x = RNG.standard_normal((1, rows, 4)).astype(np.float32)
    (expected,) = run(model(body), x)
    cut = keep_last_token(model(body))
    assert input_of(cut, first) == "Slice"
    (actual,) = run(cut, x)
    np.testing.assert_allclose(actual, expected[:, -1:], rtol=1e-5, atol=1e-6)
    assert list(cut.graph.outputs[0].shape) == [1, 1, 6]


def test_rows_that_differ_stay_below_the_cut():
    body = "a = Add(x, rows) logits = MatMul(a, w)"
    x = RNG.standard_normal((1, 5, 4)).astype(np.float32)
    cut = keep_last_token(model(body))
    assert input_of(cut, "MatMul") == "Slice"
    np.testing.assert_allclose(run(cut, x)[0], run(model(body), x)[0][:, -1:], rtol=1e-5, atol=1e-6)


def test_other_outputs_keep_all_rows():
    body = "y = Neg(x) logits = MatMul(y, w)"
    outputs = "float[1, n, 6] logits, float[1, n, 4] y"
    x = RNG.standard_normal((1, 5, 4)).astype(np.float32)
    expected, kept = run(model(body, outputs), x)
    actual, same = run(keep_last_token(model(body, outputs)), x)
    np.testing.assert_allclose(actual, expected[:, -1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(same, kept)


def test_logits_from_anything_else_are_cut_themselves():
    body = "logits = Concat<axis=-1>(x, x)"
    x = RNG.standard_normal((1, 5, 4)).astype(np.float32)
    cut = keep_last_token(model(body, "float[1, n, 8] logits"))
    np.testing.assert_array_equal(run(cut, x)[0], np.concatenate([x, x], -1)[:, -1:])
    assert cut.graph.outputs[0].name == "logits"


def test_one_row_is_left_alone():
    found = model("logits = MatMul(x, w)", "float[1, 1, 6] logits")
    assert [node.op_type for node in keep_last_token(found).graph] == ["MatMul"]
