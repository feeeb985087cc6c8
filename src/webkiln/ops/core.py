"""How an operator says what it computes: tensors to tensors, each a scalar expression over axes.

    @operator("Softmax")
    def softmax(ctx: Context, x: Tensor) -> Tensor:
        axis = ctx.axis(x, ctx.int("axis", -1))
        def value(*i): ...
        return ctx.compute(x.shape, value, x.dtype)

An operator knows nothing of targets, layouts or fusion. Shapes are expressions, so a definition is
at the same time the shape inference. Integer tensors whose elements are known (what Shape, Gather,
Concat of them yield) carry those as expressions, so that shape arithmetic disappears at build time,
symbolic dimensions included.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from webkiln.errors import UnsupportedModelError
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import BOOL, I32, STORAGE, DType
from webkiln.ir.expr import (
    Const,
    Expr,
    ExprLike,
    Load,
    Reduce,
    Var,
    call,
    cast,
    compare,
    const,
    convert,
    logical_and,
    select,
    substitute,
    transform,
    walk,
)
from webkiln.ir.program import Compute
from webkiln.ir.simplify import simplify

__all__ = [
    "OPERATORS",
    "Context",
    "Operator",
    "Tensor",
    "Unsupported",
    "operator",
    "static",
    "stored",
]

MAX_KNOWN = 1024  # elements: shape arithmetic is far smaller
MAX_CHOICES = (
    16  # elements of a symbolic tensor spelled as a chain of selections rather than loaded
)

_WIDE = {"int64": (-(2**31), 2**31 - 1), "uint64": (0, 2**32 - 1)}

Operator = Callable[..., "Tensor | Sequence[Tensor]"]
OPERATORS: dict[tuple[str, str], Operator] = {}


class Unsupported(UnsupportedModelError):
    """An operator's definition does not cover this attribute, type or shape; says which."""


def operator(*names: str, domain: str = "") -> Callable[[Operator], Operator]:
    """Register a definition for ONNX operators `names` of `domain`."""

    def add(f: Operator) -> Operator:
        for name in names:
            OPERATORS[domain, name] = f
        return f

    return add


@dataclass(eq=False)
class Tensor:
    """A value of the model: ONNX dtype (NumPy name), shape, and how to read an element.

    `known` holds the elements as expressions over the model's dims where they are known at build
    time. `data` holds a constant's values; those that count evenly along each axis (positions
    0, 1, 2, …) are computed rather than loaded, from `steps`: the first one and each axis' step.
    """

    buffer: Buffer
    dtype: str
    known: NDArray[Any] | None = None
    data: NDArray[np.generic] | None = None
    steps: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[Expr, ...]:
        return self.buffer.shape

    @property
    def rank(self) -> int:
        return len(self.buffer.shape)

    def __getitem__(self, index: ExprLike | tuple[ExprLike, ...]) -> Expr:
        """The element at logical `index`; of a bool tensor, a condition."""
        items = tuple(convert(i, I32) for i in (index if isinstance(index, tuple) else (index,)))
        if self.known is not None and all(isinstance(i, Const) for i in items):
            return self._element(tuple(int(i.value) for i in items if isinstance(i, Const)))
        if self.known is not None and self.known.size <= MAX_CHOICES and not self._is_fixed():
            return self._choose(items)
        if self.steps is not None:
            counted: Expr = const(self.steps[0], I32)
            for i, step in zip(items, self.steps[1:], strict=True):
                counted = counted + i * step
            return counted
        element = Load(self.buffer, items)
        return compare("ne", element, 0) if self.dtype == "bool" else element

    def _is_fixed(self) -> bool:
        assert self.known is not None
        return all(isinstance(e, Const) for e in self.known.flat)

    def _element(self, where: tuple[int, ...]) -> Expr:
        """A known element; outside, on the side of a select that is not taken, anything will do."""
        assert self.known is not None
        if any(not 0 <= i < n for i, n in zip(where, self.known.shape, strict=True)):
            return const(0, BOOL if self.dtype == "bool" else self.buffer.dtype)
        element: Expr = self.known[where]
        return element

    def _choose(self, items: tuple[Expr, ...]) -> Expr:
        """An element of a small tensor of symbolic integers by chained selection."""
        assert self.known is not None
        result: Expr | None = None
        for where in itertools.product(*(range(n) for n in self.known.shape)):
            element: Expr = self.known[where]
            if result is None:
                result = element
                continue
            here: Expr = const(True, BOOL)
            for axis, at in zip(items, where, strict=True):
                here = logical_and(here, compare("eq", axis, at))
            result = select(here, element, result)
        assert result is not None
        return result

    def ints(self, what: str) -> tuple[Expr, ...]:
        """The elements of a 0-D or 1-D tensor; `what` names it in the error if unknown."""
        if self.known is None:
            raise Unsupported(f"{what} depends on the input's values", hint="make it a constant")
        return tuple(np.atleast_1d(self.known).flat)

    def constants(self, what: str) -> list[int]:
        """Like `ints`, and every element must be a number."""
        values = self.ints(what)
        if not all(isinstance(v, Const) for v in values):
            raise Unsupported(f"{what} depends on a symbolic dimension")
        return [int(v.value) for v in values if isinstance(v, Const)]


def stored(dtype: str) -> DType:
    """The storage type of ONNX type `dtype`; raises `Unsupported` for one that has none."""
    if dtype not in STORAGE:
        raise Unsupported(f"no target stores elements of type {dtype}")
    return STORAGE[dtype]


def _values(known: NDArray[Any], storage: DType) -> NDArray[Any]:
    """Literals as an array of their storage type, saturated."""
    values = np.array([e.value for e in known.flat], np.float64 if storage.is_float else object)
    if not storage.is_float:
        limits = np.iinfo(storage.name)
        values = np.clip(values, limits.min, limits.max) if values.size else values
    with np.errstate(over="ignore"):
        return values.astype(storage.name).reshape(known.shape)


def _steps(data: NDArray[Any]) -> tuple[int, ...] | None:
    """The first element and each axis' step, where those give all of signed integers `data`."""
    if str(data.dtype) not in ("int64", "int32") or data.size < 2:
        return None
    first = int(data.flat[0])
    steps = []
    for axis, size in enumerate(data.shape):
        second = data[tuple(int(a == axis) for a in range(data.ndim))] if size > 1 else first
        steps.append(int(second) - first)
    last = first + sum(s * (n - 1) for s, n in zip(steps, data.shape, strict=True))
    if last != data.flat[-1] or abs(last) >= 2**31 or abs(first) >= 2**31:
        return None
    grid = np.ogrid[tuple(slice(n) for n in data.shape)]
    counted = first + sum(s * i for s, i in zip(steps, grid, strict=True))
    return (first, *steps) if np.array_equal(counted, data) else None


def static(e: Expr, what: str) -> int:
    """The value of a dimension that must be fixed; `what` names it in the error."""
    if isinstance(e, Const):
        return int(e.value)
    raise Unsupported(f"{what} must be fixed, not symbolic ({e!r})")


# the methods below are named as the types that they return
_Int: TypeAlias = int
_Float: TypeAlias = float
_Str: TypeAlias = str


@dataclass
class Attributes:
    """A node's attributes by name, with ONNX's defaults given where they are read."""

    attributes: Mapping[str, Any] = field(default_factory=dict)

    def int(self, name: _Str, default: _Int | None = None) -> _Int:
        value = self.attributes.get(name, default)
        if value is None:
            raise Unsupported(f"attribute {name} is missing")
        return int(value)

    def float(self, name: _Str, default: _Float) -> _Float:
        return float(self.attributes.get(name, default))

    def str(self, name: _Str, default: _Str) -> _Str:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def ints(self, name: _Str, default: Sequence[_Int] | None = None) -> list[_Int] | None:
        value = self.attributes.get(name, default)
        return None if value is None else [int(v) for v in value]


@dataclass
class Context(Attributes):
    """What a definition sees of its node, and where its results are collected.

    Shared by all nodes of a graph: `computes` grows in topological order.
    """

    computes: list[Compute] = field(default_factory=list)
    tensors: dict[Buffer, Tensor] = field(default_factory=dict)
    constants: dict[Buffer, NDArray[np.generic]] = field(default_factory=dict)
    opset: int = 0
    node: str = ""
    outputs: int = 1
    channels_last: set[Buffer] = field(default_factory=set)  # where this layout serves the operator
    shared: dict[Hashable, Any] = field(default_factory=dict)  # what nodes have in common, by key
    updatable: set[Buffer] = field(default_factory=set)  # state that one node alone uses
    _fresh: Iterator[int] = field(default_factory=itertools.count)

    # axes -----------------------------------------------------------------------------------------

    def axis(self, x: Tensor, axis: int) -> int:
        """A possibly negative axis of `x`, from the front."""
        if not -x.rank <= axis < x.rank:
            raise Unsupported(f"axis {axis} of a rank-{x.rank} tensor")
        return axis % x.rank

    def var(self, extent: ExprLike, name: str = "r") -> Var:
        """A fresh axis over `[0, extent)`; reductions need one each."""
        return Var(f"{name}{next(self._fresh)}", simplify(convert(extent, I32)))

    def reduce(
        self, kind: str, extents: Sequence[ExprLike], body: Callable[..., Expr], name: str = "r"
    ) -> Expr:
        """`kind` (sum, prod, max, min) of `body(*axes)` over fresh axes of `extents`."""
        axes = tuple(self.var(e, name) for e in extents)
        return Reduce(kind, axes, body(*axes)) if axes else body()

    # results --------------------------------------------------------------------------------------

    def compute(
        self,
        shape: Sequence[ExprLike],
        value: Callable[..., Expr],
        dtype: str,
        *,
        channels_last: bool = False,
    ) -> Tensor:
        """A tensor of `shape` and ONNX `dtype` whose element at axes i is `value(*i)`."""
        extents = tuple(simplify(convert(s, I32)) for s in shape)
        axes = tuple(self.var(e, "i") for e in extents)
        storage = stored(dtype)
        body = value(*axes)
        buffer = Buffer(f"t{next(self._fresh)}", storage, extents, model_dtype=dtype)
        compute = Compute(buffer, axes, simplify(cast(body, storage)), self.node)
        tensor = Tensor(buffer, dtype, self._known(compute, dtype))
        if tensor.known is not None and tensor._is_fixed():
            return self.constant(_values(tensor.known, storage), dtype=dtype)
        self.computes.append(compute)
        self.tensors[buffer] = tensor
        if channels_last:
            self.channels_last.add(buffer)
        return tensor

    def update(
        self,
        state: Tensor,
        shape: Sequence[ExprLike],
        at: Callable[..., Sequence[Expr]],
        value: Callable[..., Expr],
    ) -> Tensor:
        """`state` with element `at(*i)` set to `value(*i)` for i over `shape`, in place.

        Only for a state in `updatable`, once: whoever reads the result reads the same memory.
        """
        self.updatable.remove(state.buffer)
        axes = tuple(self.var(e, "i") for e in shape)
        places = tuple(simplify(e) for e in at(*axes))
        element = simplify(cast(value(*axes), state.buffer.dtype))
        self.computes.append(Compute(state.buffer, axes, element, self.node, places))
        return state

    def constant(self, data: NDArray[Any], name: str = "", dtype: str = "") -> Tensor:
        """A constant tensor of ONNX type `dtype` (the data's own); a small one is also known."""
        dtype = dtype or str(data.dtype)
        storage = stored(dtype)
        if dtype in _WIDE:  # saturated, so that "as far as there is" stays so in 32 bits
            data = np.clip(data, *_WIDE[dtype])
        buffer = Buffer(
            name or f"c{next(self._fresh)}",
            storage,
            tuple(data.shape),
            "constant",
            model_dtype=dtype,
        )
        known = None
        if data.size <= MAX_KNOWN:
            known = np.empty(data.shape, object)
            kind = BOOL if dtype == "bool" else storage
            for where in np.ndindex(*data.shape):
                known[where] = const(data[where].item(), kind)
        tensor = Tensor(buffer, dtype, known, data, _steps(data))
        self.constants[buffer] = data
        self.tensors[buffer] = tensor
        return tensor

    def known(self, elements: NDArray[Any], dtype: str = "int64") -> Tensor:
        """A tensor given by its elements, expressions over the model's dims."""
        simplified = np.empty(elements.shape, object)
        for where in np.ndindex(*elements.shape):
            element: Any = elements[where]
            simplified[where] = simplify(convert(element, stored(dtype)))
        if all(isinstance(e, Const) for e in simplified.flat):
            values = [e.value for e in simplified.flat]
            return self.constant(np.array(values, dtype).reshape(elements.shape))
        buffer = Buffer(f"s{next(self._fresh)}", STORAGE[dtype], elements.shape, model_dtype=dtype)
        tensor = Tensor(buffer, dtype, simplified)
        self.tensors[buffer] = tensor
        axes = tuple(self.var(e, "i") for e in buffer.shape)
        value = cast(simplify(tensor._choose(axes)), buffer.dtype)
        self.computes.append(Compute(buffer, axes, value, self.node))
        return tensor

    def _known(self, compute: Compute, dtype: str) -> NDArray[Any] | None:
        """The elements, when all that the computation loads is known and the result is small."""
        if not all(isinstance(s, Const) for s in compute.out.shape):
            return None
        shape = tuple(int(s.value) for s in compute.out.shape if isinstance(s, Const))
        if int(np.prod(shape, dtype=np.int64)) > MAX_KNOWN:
            return None
        for node in walk(compute.value):
            if isinstance(node, Load) and self.tensors[node.buffer].known is None:
                return None
            if isinstance(node, Reduce) and not all(isinstance(a.extent, Const) for a in node.axes):
                return None
        elements = np.empty(shape, object)
        for where in np.ndindex(*shape):
            at = {v: const(i, I32) for v, i in zip(compute.axes, where, strict=True)}
            element = simplify(self._evaluate(substitute(compute.value, at)))
            if dtype == "bool":
                element = compare("ne", element, 0)
            if any(isinstance(n, Load) for n in walk(element)):
                return None
            elements[where] = element
        return elements

    def _evaluate(self, e: Expr) -> Expr:
        """`e` with loads of known elements replaced and reductions of fixed extent written out."""

        def visit(node: Expr) -> Expr | None:
            if isinstance(node, Load) and all(isinstance(i, Const) for i in node.args):
                where = tuple(int(i.value) for i in node.args if isinstance(i, Const))
                return cast(self.tensors[node.buffer]._element(where), node.dtype)
            if isinstance(node, Reduce):
                return self._write_out(node)
            return None

        return transform(e, visit)

    def _write_out(self, node: Reduce) -> Expr | None:
        sizes = [int(a.extent.value) for a in node.axes if isinstance(a.extent, Const)]
        if int(np.prod(sizes)) > MAX_KNOWN or len(sizes) < len(node.axes):
            return None
        combine = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}[node.kind]
        total: Expr | None = None
        for where in itertools.product(*map(range, sizes)):
            at = {v: const(i, I32) for v, i in zip(node.axes, where, strict=True)}
            term = self._evaluate(substitute(node.body, at))
            total = term if total is None else call(combine, total, term)
        return total
