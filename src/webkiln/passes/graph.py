"""What passes share: asking about values, replacing them, making constants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

__all__ = [
    "array",
    "attribute",
    "constant",
    "dims",
    "factor_of",
    "is_constant",
    "is_op",
    "light_proto",
    "nodes_of",
    "only_consumer",
    "remove",
    "replace",
    "require_opset",
    "scalar",
    "through_proto",
]

# Initializers larger than this don't go through a serialized model; their types do.
_SMALL_BYTES = 1024


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether the node is one of these ONNX operators."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def nodes_of(model: ir.Model, *op_types: str) -> Iterator[ir.Node]:
    """The main graph's nodes of these operators, while the graph may change."""
    for node in list(model.graph):
        if node.graph is not None and is_op(node, *op_types):
            yield node


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is known at build time. What a caller could override is not."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def array(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """The constant's numbers, None if the value is no constant."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds, None if it is not such a constant."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    numbers = array(value)
    return None if numbers is None else float(numbers.reshape(()))


def dims(value: ir.Value | None) -> list[int | str | None] | None:
    """The value's extents: a number, a symbol's name, or None where nothing is known."""
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute's plain value; strings as str, lists as lists."""
    found = node.attributes.get(name)
    if found is None or found.value is None:
        return default
    return list(found.value) if isinstance(found.value, tuple | list) else found.value


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads the value, once, if nothing else needs it."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def factor_of(node: ir.Node) -> tuple[ir.Value, float] | None:
    """The value that a Mul or Div multiplies, and by which number.

    None where that value is no float, is read elsewhere too, or changes its shape.
    """
    for index in (0, 1) if node.op_type == "Mul" else (1,):
        number, value = scalar(node.inputs[index]), node.inputs[1 - index]
        by, shape = node.inputs[index], value.shape if value is not None else None
        if number is None or not number or value is None or by is None or is_constant(value):
            continue
        if value.dtype is None or not value.dtype.is_floating_point() or shape is None:
            continue
        if by.shape is not None and len(by.shape) <= len(shape) and only_consumer(value) is node:
            return value, number if node.op_type == "Mul" else 1 / number
    return None


def constant(
    model: ir.Model, numbers: npt.ArrayLike | ir.TensorProtocol, name: str, like: Any = None
) -> ir.Value:
    """A new initializer, named `name` or, if that is taken, with a number appended.

    The dtype is that of `numbers`, or of the constant value `like`.
    """
    taken = model.graph.initializers
    unique, count = name, 1
    while unique in taken:
        unique, count = f"{name}_{count}", count + 1
    if isinstance(numbers, ir.TensorProtocol):
        tensor = numbers
    else:
        numbers = np.asarray(numbers)
        if like is not None:
            numbers = numbers.astype(like.dtype.numpy())
        tensor = ir.tensor(np.ascontiguousarray(numbers).reshape(numbers.shape), name=unique)
    value = ir.val(unique, const_value=tensor)
    model.graph.register_initializer(value)
    return value


def replace(old: ir.Value, new: ir.Value) -> bool:
    """Lets every reader of `old` read `new`; a graph output keeps its name.

    False, and nothing done, if `old` is a graph output that `new` can't stand for: an input, a
    constant, another output.
    """
    if old.is_graph_output():
        if new.producer() is None or new.is_graph_output() or old.graph is not new.graph:
            return False
        new.name, old.name = old.name, f"{old.name}/replaced"
        if new.shape is None or old.shape is not None:
            new.shape = old.shape
    new.type = new.type or old.type
    if new.shape is None:
        new.shape = old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    return True


def remove(model: ir.Model, nodes: Sequence[ir.Node]) -> None:
    """Takes out nodes whose outputs nothing reads any more."""
    for node in nodes:
        if node.graph is not None:
            node.graph.remove(node, safe=True)


def require_opset(model: ir.Model, opset: int, ir_version: int) -> None:
    """Raises what the model claims to be, for operators that an older one does not have."""
    model.opset_imports[""] = max(opset, model.opset_imports[""])
    model.ir_version = max(ir_version, model.ir_version)


def light_proto(model: ir.Model) -> tuple[onnx.ModelProto, Mapping[str, ir.TensorProtocol]]:
    """The model for a function of the onnx package, without a copy of its weights.

    Large initializers are inputs of their type in it, after the model's own; their tensors by name.
    """
    tensors: dict[str, ir.TensorProtocol] = {}
    inputs = len(model.graph.inputs)
    initializers = list(model.graph.initializers.values())
    for value in initializers:
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _SMALL_BYTES and not value.is_graph_input():
            value.dtype, value.shape = tensor.dtype, ir.Shape(list(tensor.shape.numpy()))
            tensors[str(value.name)] = tensor
            model.graph.inputs.append(value)
            model.graph.initializers.pop(str(value.name))
    try:
        return ir.to_proto(model), tensors
    finally:
        while len(model.graph.inputs) > inputs:
            model.graph.inputs.pop()
        for value in initializers:
            if value.name in tensors:
                value.const_value = tensors[value.name]
                model.graph.register_initializer(value)


def through_proto(
    model: ir.Model, function: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> ir.Model:
    """Applies a function of the onnx package, without copying the weights through it.

    Large initializers pass as inputs of their type and get their tensors back afterwards.
    """
    proto, tensors = light_proto(model)
    result = ir.from_proto(function(proto))
    for value in list(result.graph.inputs)[len(model.graph.inputs) :]:
        result.graph.inputs.remove(value)
        value.const_value = tensors[str(value.name)]
        result.graph.register_initializer(value)
    return result
