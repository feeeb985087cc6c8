"""Gives quantised matrices back as float32, for the reference that a model is checked against.

ONNX Runtime knows com.microsoft.MatMulNBits and GatherBlockQuantized too, but not every form of
their zero points; and it rounds activations, where it may, in a way of its own.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from webkiln.passes.blocks import Blocks, from_blocks
from webkiln.passes.graph import array, attribute, constant, remove, replace

__all__ = ["dequantize_weights"]

_BITS = 4  # what both operators assume where the attribute is missing


def dequantize_weights(model: ir.Model, *, as_stored: bool = False) -> ir.Model:
    """MatMulNBits → MatMul (and Add), GatherBlockQuantized → Gather, with the exact weights.

    `as_stored`: with those that a bundle has, whose scales are rounded to half precision. `model`
    is changed. Nodes whose weights are no constants stay.
    """
    matrices = _Matrices(model, as_stored)
    for node in list(model.graph):
        if node.domain != "com.microsoft":
            continue
        if node.op_type == "MatMulNBits":
            _product(node, matrices)
        elif node.op_type == "GatherBlockQuantized":
            _lookup(node, matrices)
    unused = [v for v in model.graph.initializers.values() if not v.uses()]
    for value in unused:
        if not value.is_graph_output():
            model.graph.initializers.pop(str(value.name))
    return model


class _Matrices:
    """The float32 matrices of a model, each once."""

    def __init__(self, model: ir.Model, as_stored: bool) -> None:
        self.model, self.as_stored = model, as_stored
        self._known: dict[tuple[str | None, bool], ir.Value] = {}

    def get(
        self, node: ir.Node, stored: list[ir.Value | None], *, transposed: bool
    ) -> ir.Value | None:
        """The matrix [N, K] (or [K, N]) of integers, scales and zero points, as a constant."""
        integers, scales, points = (array(value) for value in stored)
        if integers is None or scales is None or (stored[2] is not None and points is None):
            return None
        key = stored[0].name if stored[0] is not None else None, transposed
        if key not in self._known:
            bits, block = attribute(node, "bits", _BITS), attribute(node, "block_size", 128)
            rows = integers.shape[0] if integers.ndim > 1 else attribute(node, "N")
            blocks = Blocks(bits, block, integers, scales.reshape(rows, -1), points)
            depth = attribute(node, "K", scales.size // rows * block)
            numbers = from_blocks(blocks, as_stored=self.as_stored)[:, :depth]
            numbers = np.ascontiguousarray(numbers.T if transposed else numbers)
            self._known[key] = constant(self.model, numbers, f"{key[0]}/float32")
        return self._known[key]


def _product(node: ir.Node, matrices: _Matrices) -> None:
    x, integers, scales, points, _, bias = _inputs(node, 6)
    weight = matrices.get(node, [integers, scales, points], transposed=True)
    if weight is None:
        return
    made = [ir.node("MatMul", [x, weight], name=node.name)]
    if bias is not None:
        made.append(ir.node("Add", [made[0].outputs[0], bias], name=f"{node.name}/bias"))
        made[0].outputs[0].name = f"{node.name}/product"
    _stand_in(matrices.model, node, made)


def _lookup(node: ir.Node, matrices: _Matrices) -> None:
    integers, indices, scales, points = _inputs(node, 4)
    if attribute(node, "gather_axis", 0) != 0:
        return
    table = matrices.get(node, [integers, scales, points], transposed=False)
    if table is not None:
        made = ir.node("Gather", [table, indices], {"axis": 0}, name=node.name)
        _stand_in(matrices.model, node, [made])


def _inputs(node: ir.Node, count: int) -> list[ir.Value | None]:
    return [*node.inputs, *[None] * count][:count]


def _stand_in(model: ir.Model, node: ir.Node, made: list[ir.Node]) -> None:
    node.prepend(made)
    old, new = node.outputs[0], made[-1].outputs[0]
    new.name, new.type, new.shape = f"{old.name}/dequantised", old.type, old.shape
    if replace(old, new):
        remove(model, [node])
