"""Of a language model's logits, those of the last token: all that choosing the next one needs.

The rows before are cut off as early as each row is computed from its own row alone, so that the
head, often a fifth of the weights, is read for one row and not for each token of the prompt.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from webkiln.passes.graph import attribute, constant, is_constant, is_op

__all__ = ["keep_last_token"]

_ROWS = 1  # the axis of tokens in [batch, tokens, features]
_ELEMENTWISE = ("Add", "Cast", "Div", "Mul", "Neg", "Sigmoid", "Sub", "Tanh")
_NORMS = ("LayerNormalization", "RMSNormalization")


def keep_last_token(model: ir.Model, logits: str = "logits") -> ir.Model:
    """`model` with the output `logits` [batch, tokens, vocabulary] cut to [batch, 1, vocabulary].

    The other outputs stay. A `logits` of one row, or of another rank, is left as it is.
    """
    output = next(value for value in model.graph.outputs if value.name == logits)
    if output.shape is None or len(output.shape) != 3 or output.shape[_ROWS] == 1:
        return model
    path: list[ir.Node] = []  # from the output upwards
    value = output
    while (node := _row_wise(value, is_output=value is output)) is not None:
        path.append(node)
        assert node.inputs[0] is not None
        value = node.inputs[0]
    if path:
        _cut_before(model, path, value)
    else:
        _cut_output(model, output)
    return model


def _row_wise(value: ir.Value, *, is_output: bool) -> ir.Node | None:
    """The node that makes `value`, if it computes each row from that row of its first input.

    None too if something beside the logits needs the value: it keeps all rows.
    """
    node = value.producer()
    uses = len(value.uses()) + value.is_graph_output()
    if node is None or uses != 1 or value.is_graph_output() != is_output or not node.inputs:
        return None
    source, *others = node.inputs
    if source is None or source.shape is None or len(source.shape) != 3:
        return None
    if not all(other is None or is_constant(other) for other in others):
        return None
    if is_op(node, *_ELEMENTWISE):
        return node if all(_one_row(other) for other in others) else None
    if is_op(node, *_NORMS):
        return node if attribute(node, "axis", -1) in (-1, 2) else None
    if is_op(node, "MatMul"):
        rank = len(others[0].shape or ()) if others[0] is not None else 0
        return node if rank == 2 else None
    quantised = node.domain == "com.microsoft" and node.op_type == "MatMulNBits"
    return node if quantised else None


def _one_row(value: ir.Value | None) -> bool:
    """Whether the constant is the same for each row."""
    return value is not None and value.shape is not None and len(value.shape) <= 1


def _cut_before(model: ir.Model, path: list[ir.Node], value: ir.Value) -> None:
    """Puts a Slice between `value` and the first node of the path, and shortens what follows."""
    first = path[-1]
    cut = _slice(model, value)
    first.graph.insert_before(first, cut)  # type: ignore[union-attr]
    first.replace_input_with(0, cut.outputs[0])
    for node in path:
        for made in node.outputs:
            made.shape = _shortened(made.shape)


def _cut_output(model: ir.Model, output: ir.Value) -> None:
    name, output.name = output.name, f"{output.name}/all"
    cut = _slice(model, output)
    model.graph.append(cut)
    last = cut.outputs[0]
    last.name = name
    index = next(i for i, value in enumerate(model.graph.outputs) if value is output)
    model.graph.outputs[index] = last


def _slice(model: ir.Model, value: ir.Value) -> ir.Node:
    numbers = {"starts": -1, "ends": np.iinfo(np.int64).max, "axes": _ROWS}
    bounds = [
        constant(model, np.array([number], np.int64), f"last_token/{name}")
        for name, number in numbers.items()
    ]
    node = ir.node("Slice", [value, *bounds], name="last_token")
    result = node.outputs[0]
    result.name = f"{value.name}/last_token"
    result.type, result.shape = value.type, _shortened(value.shape)
    return node


def _shortened(shape: ir.Shape | None) -> ir.Shape | None:
    if shape is None:
        return None
    extents = list(shape)
    extents[_ROWS] = 1
    return ir.Shape(extents)
