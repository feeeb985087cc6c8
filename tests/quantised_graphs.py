"""Models of products with quantised matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.ops.cases_quantised import matrix

__all__ = ["decoder_layer", "tied"]

_OPSETS = (("", 23), ("com.microsoft", 1))


class _Graph:
    def __init__(self, level: int) -> None:
        self.level = level
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        domain = "com.microsoft" if op in ("MatMulNBits", "GatherBlockQuantized") else ""
        self.nodes.append(
            helper.make_node(op, inputs, [output], output, domain=domain, **attributes)
        )
        return output

    def matrix(self, name: str, k: int, n: int, bits: int = 4) -> list[str]:
        b, scales, _ = matrix(k, n, bits, 32, seed=len(self.constants))
        small = scales.value / np.float32(16)  # so that a layer's values stay about 1
        return [self.constant(name, b.value), self.constant(f"{name}_scales", small)]

    def product(self, x: str, name: str, k: int, n: int) -> str:
        given = self.matrix(f"{name}_weights", k, n)
        sizes = {"K": k, "N": n, "bits": 4, "block_size": 32}
        return self.node("MatMulNBits", [x, *given], name, accuracy_level=self.level, **sizes)

    def norm(self, x: str, name: str, size: int) -> str:
        weight = self.constant(f"{name}_weight", np.linspace(0.5, 1.5, size, dtype=np.float32))
        return self.node("RMSNormalization", [x, weight], name, epsilon=1e-5)

    def model(self, x: list[str | int], outputs: dict[str, list[str | int]]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            self.constants,
        )
        opsets = [helper.make_opsetid(*o) for o in _OPSETS]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def decoder_layer(
    rows: str | int, level: int, hidden: int = 64, inner: int = 64
) -> onnx.ModelProto:
    """A decoder's layer on x [1, rows, hidden], with a softmax of each head for the attention."""
    g = _Graph(level)
    normal = g.norm("x", "norm1", hidden)
    query = g.product(normal, "query", hidden, hidden)
    g.product(normal, "key", hidden, 32)
    heads = g.constant("heads", np.array([0, 0, -1, 32]))
    split = g.node("Reshape", [query, heads], "split")
    apart = g.node("Transpose", [split], "apart", perm=[0, 2, 1, 3])
    mixed = g.node("Softmax", [apart], "mixed")
    together = g.node("Transpose", [mixed], "together", perm=[0, 2, 1, 3])
    width = g.constant("width", np.array([0, 0, hidden]))
    attended = g.node("Reshape", [together, width], "attended")
    projected = g.product(attended, "projected", hidden, hidden)
    middle = g.node("Add", ["x", projected], "middle")
    normal = g.norm(middle, "norm2", hidden)
    gate = g.product(normal, "gate", hidden, inner)
    sigmoid = g.node("Sigmoid", [gate], "sigmoid")
    silu = g.node("Mul", [gate, sigmoid], "silu")
    passed = g.node("Mul", [silu, g.product(normal, "up", hidden, inner)], "passed")
    g.node("Add", [middle, g.product(passed, "down", inner, hidden)], "y")
    return g.model([1, rows, hidden], {"y": [1, rows, hidden], "key": [1, rows, 32]})


def tied(hidden: int, vocabulary: int) -> onnx.ModelProto:
    """Rows of a table picked by x, added to products with the same table."""
    g = _Graph(0)
    table = g.matrix("table", hidden, vocabulary, 8)
    sizes = {"K": hidden, "N": vocabulary, "bits": 8, "block_size": 32}
    logits = g.node("MatMulNBits", ["x", *table], "logits", **sizes)
    best = g.node("ArgMax", [logits], "best", axis=-1, keepdims=0)
    rows = [table[0], best, table[1]]
    g.node("GatherBlockQuantized", rows, "y", bits=8, block_size=32, quantize_axis=1)
    return g.model(["n", hidden], {"y": ["n", hidden], "logits": ["n", vocabulary]})
