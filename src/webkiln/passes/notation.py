"""ONNX nodes written as Python expressions: `x * 2.0 + y` appends a Mul and an Add to a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["Symbol", "Writer"]

Operand: TypeAlias = "Symbol | float | npt.NDArray[Any]"


class Symbol:
    """A value of the graph of `writer`. A Python number beside it takes its element type."""

    def __init__(self, writer: Writer, value: ir.Value) -> None:
        self.writer, self.value = writer, value

    def op(self, op_type: str, *others: Operand, **attributes: Any) -> Symbol:
        """Operator `op_type` of this and `others`; taken to yield elements of this type."""
        like = self.value.dtype
        assert like is not None, self.value
        inputs = [self.writer.symbol(x, like) for x in others]
        return self.writer.node(op_type, [self, *inputs], attributes, like)

    def __add__(self, other: Operand) -> Symbol:
        return self.op("Add", other)

    def __sub__(self, other: Operand) -> Symbol:
        return self.op("Sub", other)

    def __mul__(self, other: Operand) -> Symbol:
        return self.op("Mul", other)

    def __truediv__(self, other: Operand) -> Symbol:
        return self.op("Div", other)

    def __neg__(self) -> Symbol:
        return self.op("Neg")

    def __xor__(self, other: Operand) -> Symbol:
        return self.op("BitwiseXor", other)

    def __rshift__(self, other: Operand) -> Symbol:
        return self.op("BitShift", other, direction="RIGHT")

    def __lt__(self, other: Symbol | float) -> Symbol:
        return self._test("Less", other)

    def __le__(self, other: Symbol | float) -> Symbol:
        return self._test("LessOrEqual", other)

    def __gt__(self, other: Symbol | float) -> Symbol:
        return self._test("Greater", other)

    def __ge__(self, other: Symbol | float) -> Symbol:
        return self._test("GreaterOrEqual", other)

    def __and__(self, other: Symbol) -> Symbol:
        return self.op("And", other)

    def __or__(self, other: Symbol) -> Symbol:
        return self.op("Or", other)

    def __invert__(self) -> Symbol:
        return self.op("Not")

    def is_(self, other: Operand) -> Symbol:
        """Where it equals `other` (`==` is left to Python)."""
        return self._test("Equal", other)

    def _test(self, op_type: str, other: Operand) -> Symbol:
        return self.op(op_type, other).typed(ir.DataType.BOOL)

    def where(self, a: Operand, b: Operand) -> Symbol:
        """`a` where this condition holds, else `b`; of two numbers, float32."""
        given = [x.value.dtype for x in (a, b) if isinstance(x, Symbol)]
        dtype = next(iter(given), None) or ir.DataType.FLOAT
        inputs = [self, self.writer.symbol(a, dtype), self.writer.symbol(b, dtype)]
        return self.writer.node("Where", inputs, {}, dtype)

    def __getitem__(self, index: Operand) -> Symbol:
        """The elements (of axis 0) at `index`; an integer leaves the axis away."""
        return self.op("Gather", self.writer.symbol(index, ir.DataType.INT64))

    def cast(self, dtype: ir.DataType) -> Symbol:
        """Converted to `dtype`."""
        return self.op("Cast", to=int(dtype)).typed(dtype)

    def reshape(self, *shape: int) -> Symbol:
        """The same elements, in rows, under another shape."""
        return self.op("Reshape", np.array(shape, np.int64))

    def reduce(self, kind: str, axis: int = 0, keep: bool = False) -> Symbol:
        """Sum, Max, … over one axis."""
        return self.op(f"Reduce{kind}", np.array([axis], np.int64), keepdims=int(keep))

    def places_of_largest(self, count: int) -> Symbol:
        """Indices of the `count` largest elements of a vector, in order; ties: the first first."""
        inputs = [self, self.writer.symbol(np.array([count]), ir.DataType.INT64)]
        return self.writer.node("TopK", inputs, {"axis": 0}, ir.DataType.INT64, outputs=2)

    def place_of_largest(self) -> Symbol:
        """[1]: the index of the first largest element of a vector."""
        return self.op("ArgMax", axis=0).typed(ir.DataType.INT64)

    def typed(self, dtype: ir.DataType) -> Symbol:
        """Says what element type the operator that made it yields."""
        self.value.dtype = dtype
        return self


class Writer:
    """Appends nodes to the end of a model's graph; names begin with `prefix`."""

    def __init__(self, model: ir.Model, prefix: str) -> None:
        self.graph, self.prefix, self.count = model.graph, prefix, 0

    def input(self, name: str, dtype: ir.DataType, shape: tuple[int, ...]) -> Symbol:
        """A new input of the model."""
        value = ir.val(name, dtype=dtype, shape=shape)
        self.graph.inputs.append(value)
        return Symbol(self, value)

    def output(self, symbol: Symbol, name: str, shape: tuple[int, ...]) -> None:
        """Makes `symbol` an output of the model called `name`."""
        symbol.value.name, symbol.value.shape = name, ir.Shape(shape)
        self.graph.outputs.append(symbol.value)

    def symbol(self, x: Operand, dtype: ir.DataType) -> Symbol:
        """`x` itself, or a constant: of the array's own type, a number's being `dtype`."""
        if isinstance(x, Symbol):
            return x
        array = x if isinstance(x, np.ndarray) else np.array(x, dtype.numpy())
        name = self._name("constant")
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self.graph.register_initializer(value)
        return Symbol(self, value)

    def constant(self, array: npt.NDArray[Any]) -> Symbol:
        """The array as a constant of its own type."""
        return self.symbol(array, ir.DataType.UNDEFINED)

    def node(
        self,
        op_type: str,
        inputs: Sequence[Symbol],
        attributes: Mapping[str, Any],
        dtype: ir.DataType,
        outputs: int = 1,
    ) -> Symbol:
        """A new node with so many outputs; the last of them, which has elements of `dtype`."""
        name = self._name(op_type)
        values = [s.value for s in inputs]
        node = ir.node(op_type, values, attributes or None, name=name, num_outputs=outputs)
        for i, output in enumerate(node.outputs):
            output.name = f"{name}_{i}" if outputs > 1 else name
        node.outputs[-1].dtype = dtype
        self.graph.append(node)
        return Symbol(self, node.outputs[-1])

    def _name(self, what: str) -> str:
        self.count += 1
        return f"{self.prefix}/{what}_{self.count}"
