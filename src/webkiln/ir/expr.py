"""Scalar expressions: the one language in which operators, indices, shapes and dispatch sizes are
written.

Nodes are immutable and interned, so equality is identity and shared work is shared structure (a
DAG). The constructors below fold constants and drop neutral elements; `simplify.py` puts integer
expressions in a canonical form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakValueDictionary

from webkiln.ir.dtypes import BOOL, F32, I32, DType

if TYPE_CHECKING:
    from webkiln.ir.buffer import Buffer

__all__ = [
    "COMPARISONS",
    "UNARY",
    "Const",
    "Dim",
    "Expr",
    "ExprLike",
    "Load",
    "Op",
    "Read",
    "Reduce",
    "Var",
    "bitcast",
    "call",
    "cast",
    "ceildiv",
    "children",
    "compare",
    "const",
    "convert",
    "free_vars",
    "is_const",
    "lane",
    "logical_and",
    "logical_not",
    "logical_or",
    "map_children",
    "maximum",
    "minimum",
    "rebuffer",
    "select",
    "splat",
    "substitute",
    "transform",
    "walk",
]

ExprLike: TypeAlias = "Expr | int | float | bool"

_INTERNED: WeakValueDictionary[tuple[Any, ...], Expr] = WeakValueDictionary()

#: one-argument float functions; their meaning is NumPy's function of that name (erf: SciPy's).
UNARY = frozenset(
    [
        "neg",
        "abs",
        "exp",
        "log",
        "sqrt",
        "rsqrt",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "erf",
        "floor",
        "ceil",
        "round",
        "trunc",
        "sign",
        "isnan",
        "isinf",
    ]
)
COMPARISONS = frozenset({"lt", "le", "eq", "ne"})
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
}


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


def _intern(cls: type[Any], key: tuple[Any, ...], build: Callable[[Any], None]) -> Any:
    full = (cls, *key)
    node = _INTERNED.get(full)
    if node is None:
        node = object.__new__(cls)
        build(node)
        _INTERNED[full] = node
    return node


class Const(Expr):
    """A literal. Integers are exact Python ints, floats are printed with their shortest exact
    decimal.
    """

    __slots__ = ("value",)
    value: int | float | bool

    def __new__(cls, value: int | float | bool, dtype: DType) -> Const:
        def build(n: Const) -> None:
            n.value, n.dtype, n.args = value, dtype, ()

        return _intern(cls, (repr(value), dtype), build)  # type: ignore[no-any-return]


class Var(Expr):
    """A named integer: a loop axis in `[0, extent)`. A `Dim` when it stands for a symbolic
    dimension.
    """

    __slots__ = ("extent", "name")
    name: str
    extent: Expr | None

    def __new__(cls, name: str, extent: ExprLike | None = None, dtype: DType = I32) -> Var:
        bound = None if extent is None else convert(extent, I32)

        def build(n: Var) -> None:
            n.name, n.extent, n.dtype, n.args = name, bound, dtype, ()

        return _intern(cls, (name, bound, dtype), build)  # type: ignore[no-any-return]


class Dim(Var):
    """A symbolic dimension of the model, `1 ≤ value ≤ max`; `max` is None until the user gives a
    bound.
    """

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
    """`dtype.lanes` consecutive elements of `buffer` from linear element offset `args[0]`: a
    scheduled Load.
    """

    __slots__ = ("buffer",)
    buffer: Buffer

    def __new__(cls, buffer: Buffer, offset: Expr, lanes: int = 1) -> Read:
        dtype = buffer.dtype.vector(lanes)

        def build(n: Read) -> None:
            n.buffer, n.args, n.dtype = buffer, (offset,), dtype

        return _intern(cls, (id(buffer), offset, lanes), build)  # type: ignore[no-any-return]


class Reduce(Expr):
    """`kind` (sum, prod, max, min) of `body` over `axes`; an empty sum is 0, prod 1, max -inf, min
    inf.
    """

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
        return self.args[0]


# --- constructors ---------------------------------------------------------------------------------


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


def is_const(e: Expr, value: int | float | None = None) -> bool:
    """True when `e` is a literal (and equals `value`, if given)."""
    return isinstance(e, Const) and (value is None or e.value == value)


def call(name: str, *operands: ExprLike) -> Expr:
    """The operation `name` on `operands`, folded where that is free; Python numbers take the
    others' type.
    """
    dtype = next((x.dtype for x in operands if isinstance(x, Expr)), None)
    args = tuple(convert(x, dtype) for x in operands)
    if len({a.dtype for a in args}) > 1 and name != "select":
        raise TypeError(f"{name} of {', '.join(a.dtype.name for a in args)}: cast first")
    folded = _fold(name, args)
    if folded is not None:
        return folded
    result = args[-1].dtype
    if name in COMPARISONS or name in ("isnan", "isinf"):
        result = BOOL.vector(result.lanes)
    return Op(name, args, result)


def _fold(name: str, args: tuple[Expr, ...]) -> Expr | None:
    if len(args) == 1:
        return _fold_unary(name, args[0])
    if len(args) != 2:
        return None
    a, b = args
    if isinstance(a, Const) and isinstance(b, Const):
        if name in _BINARY and not (name in ("floordiv", "mod") and b.value == 0):
            result = _BINARY[name](a.value, b.value)
            return const(result, BOOL if name in COMPARISONS else a.dtype)
        if name == "div" and a.dtype.is_float and b.value != 0:
            return const(a.value / b.value, a.dtype)
    return _neutral(name, a, b)


def _fold_unary(name: str, a: Expr) -> Expr | None:
    if isinstance(a, Const):
        if name == "neg":
            return const(-a.value, a.dtype)
        if name == "abs":
            return const(abs(a.value), a.dtype)
        if name == "sqrt" and a.value >= 0:
            return const(math.sqrt(a.value), a.dtype)
        if name == "not":
            return const(not a.value, BOOL)
    return None


def _neutral(name: str, a: Expr, b: Expr) -> Expr | None:
    """x+0, x*1, … Float x*0 stays: it is NaN for infinite x."""
    if name == "add":
        return b if is_const(a, 0) else a if is_const(b, 0) else None
    if name == "sub":
        return a if is_const(b, 0) else None
    if name == "mul":
        if a.dtype.is_int and (is_const(a, 0) or is_const(b, 0)):
            return const(0, a.dtype)
        return b if is_const(a, 1) else a if is_const(b, 1) else None
    if name in ("div", "floordiv"):
        return a if is_const(b, 1) else None
    if name == "mod":
        return const(0, a.dtype) if a.dtype.is_int and is_const(b, 1) else None
    if name in ("and", "or"):
        absorbing = name == "or"
        for x, y in ((a, b), (b, a)):
            if isinstance(x, Const):
                return x if x.value == absorbing else y
    if name in ("min", "max", "and", "or") and a is b:
        return a
    if name == "ne" and is_const(b, 0) and isinstance(a, Op) and a.name == "cast":
        inner = a.args[0]
        return inner if inner.dtype.kind == "b" else None
    return None


def compare(name: str, a: ExprLike, b: ExprLike) -> Expr:
    """`lt`, `le`, `gt`, `ge`, `eq` or `ne`; gt and ge are lt and le with their sides exchanged."""
    if name in ("gt", "ge"):
        return call({"gt": "lt", "ge": "le"}[name], b, a)
    return call(name, a, b)


def minimum(a: ExprLike, b: ExprLike) -> Expr:
    return call("min", a, b)


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    """The larger; a NaN in the first operand is kept."""
    return call("max", a, b)


def logical_and(*conditions: ExprLike) -> Expr:
    result: Expr = const(True, BOOL)
    for c in conditions:
        result = call("and", result, c)
    return result


def logical_or(a: ExprLike, b: ExprLike) -> Expr:
    return call("or", a, b)


def logical_not(a: Expr) -> Expr:
    return call("not", a)


def select(condition: Expr, a: ExprLike, b: ExprLike) -> Expr:
    """`a` where `condition` holds, else `b`. Only the chosen side is evaluated (it may guard an
    index).
    """
    dtype = a.dtype if isinstance(a, Expr) else b.dtype if isinstance(b, Expr) else None
    x, y = convert(a, dtype), convert(b, dtype)
    if x.dtype != y.dtype:
        raise TypeError(f"select of {x.dtype} and {y.dtype}")
    if isinstance(condition, Const):
        return x if condition.value else y
    return x if x is y else Op("select", (condition, x, y), x.dtype)


def cast(e: Expr, dtype: DType) -> Expr:
    """`e` converted to `dtype`; float to int truncates, anything to bool is `!= 0`."""
    if e.dtype == dtype:
        return e
    if isinstance(e, Const):
        return const(e.value, dtype)
    if dtype.kind == "b":
        return call("ne", e, const(0, e.dtype))
    return Op("cast", (e,), dtype)


def splat(e: Expr, lanes: int) -> Expr:
    """`e` in every lane of a vector."""
    if lanes == 1:
        return e
    if isinstance(e, Const):
        return Const(e.value, e.dtype.vector(lanes))
    return Op("splat", (e,), e.dtype.vector(lanes))


def lane(e: Expr, index: int) -> Expr:
    """One element of a vector."""
    if isinstance(e, Op) and e.name == "splat":
        return e.args[0]
    if isinstance(e, Const):
        return Const(e.value, e.dtype.scalar)
    return Op("lane", (e, const(index, I32)), e.dtype.scalar)


def bitcast(e: Expr, dtype: DType) -> Expr:
    """The bits of `e` read as `dtype` of the same size."""
    return e if e.dtype == dtype else Op("bitcast", (e,), dtype)


def ceildiv(a: ExprLike, b: ExprLike) -> Expr:
    """⌈a / b⌉ for b > 0."""
    return (convert(a, I32) + (convert(b, I32) - 1)) // b


# --- traversal ------------------------------------------------------------------------------------


def children(e: Expr) -> tuple[Expr, ...]:
    return e.args


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every distinct node below `roots`, operands before their users."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        node, done = stack.pop()
        if done:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args))


def map_children(e: Expr, f: Callable[[Expr], Expr]) -> Expr:
    """`e` with `f` applied to each operand, rebuilt through the folding constructors."""
    if not e.args:
        return e
    args = tuple(f(a) for a in e.args)
    if all(x is y for x, y in zip(args, e.args, strict=True)):
        return e
    if isinstance(e, Load):
        return Load(e.buffer, args)
    if isinstance(e, Read):
        return Read(e.buffer, args[0], e.dtype.lanes)
    if isinstance(e, Reduce):
        return Reduce(e.kind, e.axes, args[0])
    assert isinstance(e, Op)
    if e.name == "splat":
        return splat(args[0], e.dtype.lanes)
    if e.name == "select":
        return select(*args)
    if e.name == "cast":
        return cast(args[0], e.dtype)
    if e.name == "bitcast":
        return bitcast(args[0], e.dtype)
    if e.name == "lane" or e.name.startswith("fold_"):
        return Op(e.name, args, e.dtype)
    return call(e.name, *args)


def transform(e: Expr, f: Callable[[Expr], Expr | None]) -> Expr:
    """Bottom-up rewriting: `f` sees each node with rewritten operands; None keeps it. Shared nodes
    once.
    """
    done: dict[Expr, Expr] = {}
    for node in walk(e):
        new = map_children(node, done.__getitem__)
        replaced = f(new)
        done[node] = new if replaced is None else replaced
    return done[e]


def substitute(e: Expr, values: Mapping[Any, Expr]) -> Expr:
    """`e` with each key (a node, usually a Var) replaced by its value."""
    if not values:
        return e
    return transform(e, values.get)


def rebuffer(e: Expr, buffers: Mapping[Buffer, Buffer]) -> Expr:
    """`e` loading from other buffers of the same logical shape."""

    def visit(node: Expr) -> Expr | None:
        if isinstance(node, Load) and node.buffer in buffers:
            return Load(buffers[node.buffer], node.args)
        return None

    return transform(e, visit) if buffers else e


def free_vars(e: Expr) -> frozenset[Var]:
    """Variables of `e` that no Reduce inside it binds."""
    found: dict[Expr, frozenset[Var]] = {}
    for node in walk(e):
        if isinstance(node, Var):
            found[node] = frozenset((node,))
        else:
            inner = frozenset[Var]().union(*(found[a] for a in node.args))
            found[node] = inner - frozenset(node.axes) if isinstance(node, Reduce) else inner
    return found[e]
