"""Gives inputs and dimensions that will not change their one value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln.errors import InputError
from webkiln.passes.graph import constant, dims

__all__ = ["bind_constants", "name_dimensions"]


def name_dimensions(model: ir.Model) -> ir.Model:
    """Names every nameless dimension of an input ``<input>_<axis>``, so that it can be bounded."""
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                # Some exporters write 0 for "any".
                f"{value.name}_{axis}" if dim in (None, 0) else dim
                for axis, dim in enumerate(dims(value) or ())
            )
    return model


def bind_constants(
    model: ir.Model, constants: Mapping[str, npt.ArrayLike], bounds: Mapping[str, int]
) -> ir.Model:
    """Binds inputs, by name, to values and symbolic dimensions to extents.

    `constants` holds either; a dimension whose upper bound in `bounds` is 1 can't be anything else
    and is bound as well. A bound input is no input afterwards.

    Raises `InputError` for a name that is neither, or a value that doesn't fit the input.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    symbols = {
        dim.value
        for value in model.graph.inputs
        for dim in value.shape or ()
        if not isinstance(dim, int)
    }
    extents = {name: 1 for name, bound in bounds.items() if bound == 1}
    for name, value in constants.items():
        if name in inputs:
            _bind_input(model, inputs[name], np.asarray(value))
        elif name in symbols:
            extents[name] = int(np.asarray(value).reshape(()))
        else:
            known = ", ".join(sorted(map(str, inputs.keys() | (symbols - {None}))))
            raise InputError(
                f"{name!r} is neither an input nor a dimension of the model",
                hint=f"one of: {known}",
            )
    for graph in (model.graph, *model.graph.subgraphs()):
        _bind_dimensions(graph, extents)
    return model


def _bind_input(model: ir.Model, value: ir.Value, numbers: npt.NDArray[np.generic]) -> None:
    if value.dtype is None:
        raise InputError(f"input {value.name!r} has no type and can't be bound")
    rank = None if value.shape is None else len(value.shape)
    if rank is not None and rank != numbers.ndim:
        raise InputError(
            f"input {value.name!r} has {rank} dimensions; the value to bind has {numbers.ndim}"
        )
    model.graph.inputs.remove(value)
    bound = constant(model, numbers.astype(value.dtype.numpy()), f"{value.name}")
    ir.convenience.replace_all_uses_with(value, bound)


def _bind_dimensions(graph: ir.Graph, extents: Mapping[str, int]) -> None:
    values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape(
                extents.get(dim, dim) if isinstance(dim, str) else dim for dim in dims(value) or ()
            )
