"""Gives quantised matrices back as float32, for the reference that a model is checked against.

ONNX Runtime knows com.microsoft.MatMulNBits and GatherBlockQuantized too, but not every form of
their zero points; and it rounds activations, where it may, in a way of its own.
"""

from __future__ import annotations

import onnx_ir as ir

from webkiln.passes.blocks import Blocks, from_blocks
from webkiln.passes.graph import array, attribute, constant, remove, replace

__all__ = ["dequantize_weights"]

_BITS = 4  # what both operators assume where the attribute is missing


def dequantize_weights(model: ir.Model) -> ir.Model:
    """MatMulNBits → MatMul (and Add), GatherBlockQuantized → Gather, with the exact weights.

    `model` is changed. Nodes whose weights are no constants stay.
    """
    matrices: dict[tuple[str | None, bool], ir.Value] = {}
    for node in list(model.graph):
        if node.domain != "com.microsoft":
            continue
        if node.op_type == "MatMulNBits":
            _product(model, node, matrices)
        elif node.op_type == "GatherBlockQuantized":
            _lookup(model, node, matrices)
    unused = [v for v in model.graph.initializers.values() if not v.uses()]
    for value in unused:
        if not value.is_graph_output():
            model.graph.initializers.pop(str(value.name))
    return model


def _product(
    model: ir.Model, node: ir.Node, matrices: dict[tuple[str | None, bool], ir.Value]
) -> None:
    x, integers, scales, points, _, bias = _inputs(node, 6)
    weight = _matrix(model, node, (integers, scales, points), matrices, transposed=True)
    if weight is None:
        return
    made = [ir.node("MatMul", [x, weight], name=node.name)]
    if bias is not None:
        made.append(ir.node("Add", [made[0].outputs[0], bias], name=f"{node.name}/bias"))
        made[0].outputs[0].name = f"{node.name}/product"
    _stand_in(model, node, made)


def _lookup(
    model: ir.Model, node: ir.Node, matrices: dict[tuple[str | None, bool], ir.Value]
) -> None:
    integers, indices, scales, points = _inputs(node, 4)
    if attribute(node, "gather_axis", 0) != 0:
        return
    table = _matrix(model, node, (integers, scales, points), matrices, transposed=False)
    if table is not None:
        _stand_in(model, node, [ir.node("Gather", [table, indices], {"axis": 0}, name=node.name)])


def _matrix(
    model: ir.Model,
    node: ir.Node,
    stored: tuple[ir.Value | None, ir.Value | None, ir.Value | None],
    matrices: dict[tuple[str | None, bool], ir.Value],
    *,
    transposed: bool,
) -> ir.Value | None:
    """The float32 matrix [N, K] (or [K, N]) as a constant of the model."""
    integers, scales, points = (array(value) for value in stored)
    if integers is None or scales is None or (stored[2] is not None and points is None):
        return None
    key = stored[0].name if stored[0] is not None else None, transposed
    if key not in matrices:
        bits, block = attribute(node, "bits", _BITS), attribute(node, "block_size", 128)
        rows = integers.shape[0] if integers.ndim > 1 else attribute(node, "N")
        blocks = Blocks(bits, block, integers, scales.reshape(rows, -1), points)
        depth = attribute(node, "K", scales.size // rows * block)
        numbers = from_blocks(blocks)[:, :depth]
        matrices[key] = constant(model, numbers.T if transposed else numbers, f"{key[0]}/float32")
    return matrices[key]


def _inputs(node: ir.Node, count: int) -> list[ir.Value | None]:
    return [*node.inputs, *[None] * count][:count]


def _stand_in(model: ir.Model, node: ir.Node, made: list[ir.Node]) -> None:
    node.prepend(made)
    old, new = node.outputs[0], made[-1].outputs[0]
    new.name, new.type, new.shape = f"{old.name}/dequantised", old.type, old.shape
    if replace(old, new):
        remove(model, [node])
