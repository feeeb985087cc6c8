"""Inputs and outputs of an `onnx_ir.Model`, as tasks look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

__all__ = ["Port", "inputs", "outputs"]


@dataclass(frozen=True)
class Port:
    """An input or output. An entry of `shape` is a number, a dimension's name, or None."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...]

    def concrete(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """The shape with `dims` put in; what has no value there is 1."""
        return tuple(
            size if isinstance(size, int) else dims.get(size or "", 1) for size in self.shape
        )


def inputs(model: ir.Model) -> list[Port]:
    """The inputs that a caller gives; initializers that are listed as inputs are not."""
    given = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    return [_port(value) for value in given]


def outputs(model: ir.Model) -> list[Port]:
    """The outputs."""
    return [_port(value) for value in model.graph.outputs]


def _port(value: ir.Value) -> Port:
    shape = value.shape if value.shape is not None else ()
    sizes = (size if isinstance(size, int) else size.value for size in shape)
    dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
    return Port(value.name or "", dtype, tuple(sizes))
