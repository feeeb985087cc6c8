"""The nodes of scalar expressions. Build them with the constructors of `ir/expr.py`, which fold.

Nodes are immutable and interned: equality is identity, and shared work is shared structure (a DAG).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakValueDictionary

from webkiln.ir.dtypes import BOOL, F32, I32, DType

if TYPE_CHECKING:
    from webkiln.ir.buffer import Buffer

__all__ = [
    "Const",
    "Dim",
    "Expr",
    "ExprLike",
    "Load",
    "Op",
    "Read",
    "Reduce",
    "Var",
    "const",
    "convert",
]

ExprLike: TypeAlias = "Expr | int | float | bool"

_INTERNED: WeakValueDictionary[tuple[Any, ...], Expr] = WeakValueDictionary()


class Expr:
    """A typed scalar expression. `args` are its operands, `dtype` its element type."""

    __slots__ = ("__weakref__", "args", "dtype")
    args: tuple[Expr, ...]
    dtype: DType

    def __add__(self, other: ExprLike) -> Expr:
        return call("add", self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return call("add", other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return call("sub", self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return call("sub", other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return call("mul", self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return call("mul", other, self)

    def __truediv__(self, other: ExprLike) -> Expr:
        return call("div", self, other)

    def __rtruediv__(self, other: ExprLike) -> Expr:
        return call("div", other, self)

    def __floordiv__(self, other: ExprLike) -> Expr:
        return call("floordiv", self, other)

    def __rfloordiv__(self, other: ExprLike) -> Expr:
        return call("floordiv", other, self)

    def __mod__(self, other: ExprLike) -> Expr:
        return call("mod", self, other)

    def __neg__(self) -> Expr:
        return call("neg", self)

    def __repr__(self) -> str:
        from webkiln.ir.text import expr_text

        return expr_text(self)


def call(name: str, *operands: ExprLike) -> Expr:
    """The folding constructor."""
    return _constructor()(name, *operands)


@lru_cache(maxsize=1)
def _constructor() -> Callable[..., Expr]:
    """Imported when first needed, since it is built on these nodes."""
    from webkiln.ir.expr import call

    return call


def _intern(cls: type[Any], key: tuple[Any, ...], build: Callable[[Any], None]) -> Any:
    full = (cls, *key)
    node = _INTERNED.get(full)
    if node is None:
        node = object.__new__(cls)
        build(node)
        _INTERNED[full] = node
    return node


class Const(Expr):
    """A literal: an exact Python int, a float, or a bool."""

    __slots__ = ("value",)
    value: int | float | bool

    def __new__(cls, value: int | float | bool, dtype: DType) -> Const:
        def build(n: Const) -> None:
            n.value, n.dtype, n.args = value, dtype, ()

        key = repr(value) if dtype.is_float else value  # tells 0.0 from -0.0
        return _intern(cls, (key, dtype), build)  # type: ignore[no-any-return]


class Var(Expr):
    """A named value: a loop axis in `[0, extent)`, or a register when it has no extent."""

    __slots__ = ("extent", "name")
    name: str
    extent: Expr | None

    def __new__(cls, name: str, extent: ExprLike | None = None, dtype: DType = I32) -> Var:
        bound = None if extent is None else convert(extent, I32)

        def build(n: Var) -> None:
            n.name, n.extent, n.dtype, n.args = name, bound, dtype, ()

        return _intern(cls, (name, bound, dtype), build)  # type: ignore[no-any-return]


class Dim(Var):
    """A symbolic dimension of the model, `1 ≤ value ≤ max` (None: no bound is known)."""

    __slots__ = ("max",)
    max: int | None

    def __new__(cls, name: str, max: int | None = None) -> Dim:
        def build(n: Dim) -> None:
            n.name, n.extent, n.dtype, n.args, n.max = name, None, I32, (), max

        return _intern(cls, (name, max), build)  # type: ignore[no-any-return]


class Op(Expr):
    """An operation by name on `args`; `call` is its constructor."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str, args: tuple[Expr, ...], dtype: DType) -> Op:
        def build(n: Op) -> None:
            n.name, n.args, n.dtype = name, args, dtype

        return _intern(cls, (name, args, dtype), build)  # type: ignore[no-any-return]


class Load(Expr):
    """One element of `buffer` at logical indices `args`."""

    __slots__ = ("buffer",)
    buffer: Buffer

    def __new__(cls, buffer: Buffer, index: Iterable[ExprLike]) -> Load:
        args = tuple(convert(i, I32) for i in index)
        if len(args) != len(buffer.shape):
            raise ValueError(
                f"{buffer.name} has rank {len(buffer.shape)}, indexed with {len(args)}"
            )

        def build(n: Load) -> None:
            n.buffer, n.args, n.dtype = buffer, args, buffer.dtype

        return _intern(cls, (id(buffer), args), build)  # type: ignore[no-any-return]


class Read(Expr):
    """A scheduled Load: `dtype.lanes` elements of `buffer` from linear offset `args[0]` on."""

    __slots__ = ("buffer",)
    buffer: Buffer

    def __new__(cls, buffer: Buffer, offset: Expr, lanes: int = 1) -> Read:
        dtype = buffer.dtype.vector(lanes)

        def build(n: Read) -> None:
            n.buffer, n.args, n.dtype = buffer, (offset,), dtype

        return _intern(cls, (id(buffer), offset, lanes), build)  # type: ignore[no-any-return]


class Reduce(Expr):
    """`kind` of `body` over `axes`: sum (of nothing 0), prod (1), max (-inf) or min (inf)."""

    __slots__ = ("axes", "kind")
    kind: str
    axes: tuple[Var, ...]

    def __new__(cls, kind: str, axes: Iterable[Var], body: Expr) -> Reduce:
        over = tuple(axes)

        def build(n: Reduce) -> None:
            n.kind, n.axes, n.args, n.dtype = kind, over, (body,), body.dtype

        return _intern(cls, (kind, over, body), build)  # type: ignore[no-any-return]

    @property
    def body(self) -> Expr:
        """What is reduced."""
        return self.args[0]


def convert(value: ExprLike, dtype: DType | None = None) -> Expr:
    """`value` as an expression; a Python number takes `dtype` (default: int32, float32 or bool)."""
    if isinstance(value, Expr):
        return value
    if dtype is None:
        dtype = BOOL if isinstance(value, bool) else I32 if isinstance(value, int) else F32
    return const(value, dtype)


def const(value: int | float | bool, dtype: DType) -> Const:
    """A literal of type `dtype`, its value coerced to it."""
    if dtype.kind == "b":
        return Const(bool(value), dtype)
    return Const(int(value) if dtype.is_int else float(value), dtype)
