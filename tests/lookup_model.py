"""A model whose weights are a table, looked up by its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def embedding_model(
    rows: int = 70_000, width: int = 32, *, tied: bool = False
) -> tuple[ir.Model, NDArray[Any]]:
    """y = table[ids]; `tied`: z = y @ tableᵀ."""
    values = np.random.default_rng(0).standard_normal((rows, width), np.float32)
    made = ir.Value(name="table", const_value=ir.tensor(values, name="table"))
    x = ir.Value(name="ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["sequence"]))
    nodes = [ir.node("Gather", [made, x], {"axis": 0})]
    y = nodes[0].outputs[0]
    y.name, y.dtype, y.shape = "y", ir.DataType.FLOAT, ir.Shape(["sequence", width])
    outputs = [y]
    if tied:
        nodes += [ir.node("Transpose", [made])]
        nodes += [ir.node("MatMul", [y, nodes[1].outputs[0]])]
        z = nodes[-1].outputs[0]
        z.name, z.dtype, z.shape = "z", ir.DataType.FLOAT, ir.Shape(["sequence", rows])
        outputs = [z]
    graph = ir.Graph(
        [x], outputs, nodes=nodes, initializers=[made], opset_imports={"": 21}, name="lookup"
    )
    return ir.Model(graph, ir_version=10), values
