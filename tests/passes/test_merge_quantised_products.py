"""Products of one input with several quantised matrices."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from webkiln import passes


def model(outputs: str, body: str, columns: dict[str, int], zeros: bool) -> onnx.ModelProto:
    """Products `name = x · W` with blocks of 32 for each of `columns`, then `body`."""
    rng = np.random.default_rng(1)
    lines, constants = [], []
    for name, n in columns.items():
        arrays = {
            "b": rng.integers(0, 256, (n, 2, 16), np.uint8),
            "s": rng.random((n, 2), np.float32),
        }
        if zeros:
            arrays["z"] = rng.integers(0, 256, (n, 1), np.uint8)
        constants += [onnx.numpy_helper.from_array(a, f"{name}_{k}") for k, a in arrays.items()]
        given = ", ".join(["x", *(f"{name}_{k}" for k in arrays)])
        attributes = f"K=64, N={n}, bits=4, block_size=32"
        lines.append(f"{name} = com.microsoft.MatMulNBits<{attributes}>({given})")
    text = "\n".join([*lines, body])
    graph = f"g (float[1,N,64] x) => ({outputs}) {{ {text} }}"
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]> {graph}'
    )
    proto.graph.initializer.extend(constants)
    return proto


def run(proto: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return session.run(None, {"x": x})


def operators(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]


@pytest.mark.parametrize("zeros", [False, True])
def test_query_key_and_value_become_one_product(zeros: bool) -> None:
    outputs = "float[1,N,16] q, float[1,N,8] k, float[1,N,8] v"
    before = model(outputs, "", {"q": 16, "k": 8, "v": 8}, zeros)
    after = passes.run(ir.from_proto(before))
    assert operators(after.graph) == ["MatMulNBits", "Split"]
    x = np.random.default_rng(2).random((1, 5, 64), np.float32)
    for wanted, actual in zip(run(before, x), run(ir.to_proto(after), x), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5)


def test_a_gate_and_what_it_lets_through_stay_apart() -> None:
    gated = "s = Sigmoid(g)\n a = Mul(g, s)\n y = Mul(a, u)"
    proto = model("float[1,N,16] y", gated, {"g": 16, "u": 16}, False)
    after = passes.run(ir.from_proto(proto))
    assert operators(after.graph).count("MatMulNBits") == 2
