"""A small writer of ONNX graphs, for the architectures that are built from bare weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln.errors import InvalidModelError

__all__ = ["OPSET", "GraphBuilder", "Weights", "as_float32", "sizes", "transposed"]

# The first opset that has Gelu (20) and the present LayerNormalization (17) is enough; 21 is the
# version that older models are raised to as well (see passes/normalize_opset.py).
OPSET = 21
# The intermediate representation's version that belongs to an opset, as onnx's release notes say.
_IR_VERSION = {21: 10, 24: 12}

Dims = Sequence[int | str]
Weights = Mapping[str, ir.TensorProtocol]
"""Trained tensors by the name that the checkpoint gives them, read only when asked for."""


class GraphBuilder:
    """Appends nodes to one graph and names every value after the layer that made it."""

    def __init__(self, name: str, weights: Weights, opset: int = OPSET) -> None:
        self.weights = weights
        self._graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name=name)
        self._used: set[str] = set()

    def input(self, name: str, dtype: ir.DataType, shape: Dims) -> ir.Value:
        """A graph input; a string in `shape` is a symbolic dimension."""
        value = ir.val(name, dtype=dtype, shape=shape)
        self._graph.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Dims) -> None:
        """Makes `value` a graph output called `name`."""
        value.name, value.dtype, value.shape = name, dtype, ir.Shape(shape)
        self._graph.outputs.append(value)

    def constant(self, array: npt.ArrayLike, name: str = "constant") -> ir.Value:
        """A small constant of the architecture itself (a shape, an epsilon)."""
        return self._register(ir.tensor(np.asarray(array)), self._unique(name))

    def initializer(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        """`tensor` in the graph under `name`; asked for again, the same value."""
        known = self._graph.initializers.get(name)
        return self._register(tensor, name) if known is None else known

    def weight(self, name: str, shape: Dims | None = None) -> ir.Value:
        """The checkpoint's tensor `name` as float32; `shape` is checked where given."""
        return self._weight(name, name, shape, as_float32)

    def weight_transposed(self, name: str, shape: Dims | None = None) -> ir.Value:
        """The checkpoint's matrix `name` ([out, in]) as MatMul wants it: [in, out]."""
        return self._weight(name, name + ".T", shape, transposed)

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        name: str,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """One node with one output, both called `name` (made unique)."""
        name = self._unique(name)
        node = ir.node(op_type, inputs, attributes=attributes or None, name=name, domain=domain)
        node.outputs[0].name = name
        self._graph.opset_imports.setdefault(domain, 1)
        self._graph.append(node)
        return node.outputs[0]

    def linear(self, x: ir.Value, prefix: str, name: str) -> ir.Value:
        """``x @ W.T + b`` with ``prefix.weight`` [out, in] and ``prefix.bias`` [out] (optional)."""
        y = self.op("MatMul", x, self.weight_transposed(prefix + ".weight"), name=name + "/MatMul")
        if prefix + ".bias" in self.weights:
            y = self.op("Add", y, self.weight(prefix + ".bias"), name=name + "/Add")
        return y

    def model(self) -> ir.Model:
        """The finished model."""
        version = _IR_VERSION[self._graph.opset_imports[""]]
        return ir.Model(self._graph, ir_version=version, producer_name="webkiln")

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._used or unique in self._graph.initializers:
            unique, count = f"{name}_{count}", count + 1
        self._used.add(unique)
        return unique

    def _weight(
        self,
        source: str,
        name: str,
        shape: Dims | None,
        convert: Callable[[ir.TensorProtocol], ir.TensorProtocol],
    ) -> ir.Value:
        if name in self._graph.initializers:
            return self._graph.initializers[name]
        try:
            tensor = self.weights[source]
        except KeyError:
            raise InvalidModelError(
                f"the weights have no tensor {source!r}, which the architecture needs",
                hint="check that the weights belong to the config, and that all shards are there",
            ) from None
        if shape is not None and sizes(tensor) != list(shape):
            raise InvalidModelError(
                f"tensor {source!r} has shape {sizes(tensor)}; the config says {list(shape)}",
                hint="check that the weights belong to the config",
            )
        return self._register(convert(tensor), name)

    def _register(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        value = ir.val(name, const_value=tensor)
        self._graph.register_initializer(value)
        return value


def sizes(tensor: ir.TensorProtocol) -> list[int]:
    """The tensor's shape; a trained tensor's is always known."""
    return [int(dim) for dim in tensor.shape.numpy()]


def as_float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """`tensor` itself if float32, else a view that converts when it is read."""
    if tensor.dtype == ir.DataType.FLOAT:
        return tensor
    return ir.LazyTensor(
        lambda: ir.tensor(np.asarray(tensor.numpy(), dtype=np.float32)),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(sizes(tensor)),
        name=tensor.name,
    )


def transposed(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The matrix transposed, as float32, made when it is read: weights stay memory-mapped."""
    return ir.LazyTensor(
        lambda: ir.tensor(np.ascontiguousarray(tensor.numpy().T, dtype=np.float32)),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(sizes(tensor)[::-1]),
        name=tensor.name,
    )
