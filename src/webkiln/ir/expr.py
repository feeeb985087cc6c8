"""Scalar expressions: the one language of operators, indices, shapes and dispatch sizes.

The nodes themselves are in `nodes.py`. The constructors here fold constants and drop neutral
elements; `simplify.py` puts integer expressions in a canonical form.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from webkiln.ir.dtypes import BOOL, F32, I32, DType
from webkiln.ir.nodes import Const, Dim, Expr, ExprLike, Load, Op, Read, Reduce, Var, const, convert

if TYPE_CHECKING:
    from webkiln.ir.buffer import Buffer

__all__ = [
    "COMPARISONS",
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
    "compare",
    "conjuncts",
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
    "vector",
    "walk",
]

COMPARISONS = frozenset({"lt", "le", "eq", "ne"})
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "truncdiv": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
    "min": min,
    "max": max,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
}
_DIVISIONS = ("floordiv", "mod", "truncdiv")
_UNARY_FOLDS: dict[str, Callable[[float], float]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,  # half to even
    "trunc": math.trunc,
    **{
        name: getattr(math, name)
        for name in ("exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh")
    },
    "sqrt": math.sqrt,
    "rsqrt": lambda a: 1 / math.sqrt(a),
    "tanh": math.tanh,
    "erf": math.erf,
}


# --- constructors ---------------------------------------------------------------------------------


def is_const(e: Expr, value: int | float | None = None) -> bool:
    """True when `e` is a literal (and equals `value`, if given)."""
    return isinstance(e, Const) and (value is None or e.value == value)


def call(name: str, *operands: ExprLike) -> Expr:
    """Operation `name`, folded where that is free; Python numbers take the other operand's type."""
    dtype = next((x.dtype for x in operands if isinstance(x, Expr)), None)
    args = tuple([x if isinstance(x, Expr) else convert(x, dtype) for x in operands])
    if name != "select" and any(a.dtype != args[0].dtype for a in args[1:]):
        raise TypeError(f"{name} of {', '.join(a.dtype.name for a in args)}: cast first")
    folded = _fold(name, args)
    if folded is not None:
        return folded
    result = args[-1].dtype
    if name in COMPARISONS or name in ("isnan", "isinf"):
        result = BOOL.vector(result.lanes)
    elif name == "half":
        result = F32.vector(result.lanes)
    return Op(name, args, result)


def _fold(name: str, args: tuple[Expr, ...]) -> Expr | None:
    if len(args) == 1:
        return _fold_unary(name, args[0])
    if len(args) != 2:
        return None
    a, b = args
    if isinstance(a, Const) and isinstance(b, Const):
        if name in _BINARY and not (name in _DIVISIONS and b.value == 0):
            result = _BINARY[name](a.value, b.value)
            return const(result, BOOL.vector(a.dtype.lanes) if name in COMPARISONS else a.dtype)
        if name == "div" and a.dtype.is_float and b.value != 0:
            return const(a.value / b.value, a.dtype)
    return _neutral(name, a, b)


def _fold_unary(name: str, a: Expr) -> Expr | None:
    if isinstance(a, Const):
        if name == "neg":
            return const(-a.value, a.dtype)
        if name == "abs":
            return const(abs(a.value), a.dtype)
        if name == "not":
            return const(not a.value, a.dtype)
        if name in _UNARY_FOLDS and a.dtype.is_float:
            try:
                return const(_UNARY_FOLDS[name](_as_stored(a)), a.dtype)
            except (ArithmeticError, ValueError):
                return None  # an infinity or NaN is left to run time
    return None


def _as_stored(a: Const) -> float:
    """The literal as the target has it: sin(1e30) of the nearest float32 is another number."""
    code = "<f" if a.dtype.bytes == 4 else "<e"
    return float(struct.unpack(code, struct.pack(code, a.value))[0])


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
    """The smaller; a NaN in the first operand is kept."""
    return call("min", a, b)


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    """The larger; a NaN in the first operand is kept."""
    return call("max", a, b)


def logical_and(*conditions: ExprLike) -> Expr:
    """Whether all hold; the right ones are evaluated only where the left ones do."""
    result: Expr = const(True, BOOL)
    for c in conditions:
        result = call("and", result, c)
    return result


def conjuncts(condition: Expr) -> Iterator[Expr]:
    """The conditions that all must hold for `condition` to."""
    if isinstance(condition, Op) and condition.name == "and":
        for a in condition.args:
            yield from conjuncts(a)
    else:
        yield condition


def logical_or(a: ExprLike, b: ExprLike) -> Expr:
    """Whether one holds; `b` is evaluated only where `a` does not."""
    return call("or", a, b)


def logical_not(a: Expr) -> Expr:
    """Whether `a` does not hold."""
    return call("not", a)


def select(condition: Expr, a: ExprLike, b: ExprLike) -> Expr:
    """`a` where `condition` holds, else `b`; the other side is not evaluated (it guards loads)."""
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
    if isinstance(e, Const) and (not dtype.is_int or math.isfinite(e.value)):
        return const(e.value, dtype)
    if dtype.kind == "b":
        return call("ne", e, const(0, e.dtype))
    return Op("cast", (e,), dtype)


def splat(e: Expr, lanes: int) -> Expr:
    """`e`, an element or a shorter vector, as often as it takes to fill a vector of `lanes`."""
    if e.dtype.lanes == lanes:
        return e
    if isinstance(e, Const):
        return Const(e.value, e.dtype.vector(lanes))
    return Op("splat", (e,), e.dtype.vector(lanes))


def lane(e: Expr, index: int) -> Expr:
    """One element of a vector."""
    if isinstance(e, Op) and e.name == "splat":
        (part,) = e.args
        return part if part.dtype.lanes == 1 else lane(part, index % part.dtype.lanes)
    if isinstance(e, Const):
        return Const(e.value, e.dtype.scalar)
    return Op("lane", (e, const(index, I32)), e.dtype.scalar)


def vector(elements: Sequence[Expr]) -> Expr:
    """A vector of scalars of one type."""
    first = elements[0]
    if isinstance(first, Op) and first.name == "lane":
        (whole, _), count = first.args, len(elements)
        if whole.dtype.lanes == count and all(e is lane(whole, i) for i, e in enumerate(elements)):
            return whole
    return Op("vector", tuple(elements), first.dtype.vector(len(elements)))


def bitcast(e: Expr, dtype: DType) -> Expr:
    """The bits of `e` read as `dtype` of the same size."""
    return e if e.dtype == dtype else Op("bitcast", (e,), dtype)


def ceildiv(a: ExprLike, b: ExprLike) -> Expr:
    """⌈a / b⌉ for b > 0."""
    return (convert(a, I32) + (convert(b, I32) - 1)) // b


# --- traversal ------------------------------------------------------------------------------------


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every distinct node below `roots`, operands before their users."""
    seen: set[Expr] = set()
    stack: list[Expr | None] = list(reversed(roots))
    while stack:
        node = stack.pop()
        if node is None:  # the operands of the one below it are done
            yield stack.pop()  # type: ignore[misc]
        elif node not in seen:
            seen.add(node)
            if node.args:
                stack += (node, None, *reversed(node.args))
            else:
                yield node


def map_children(e: Expr, f: Callable[[Expr], Expr]) -> Expr:
    """`e` with `f` applied to each operand, rebuilt through the folding constructors."""
    if not e.args:
        return e
    args = tuple([f(a) for a in e.args])
    if args == e.args:  # nodes are equal when they are one
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
    if e.name == "vector":
        return vector(args)
    if e.name in ("lane", "dot_planes", "join_planes") or e.name.startswith("fold_"):
        return Op(e.name, args, e.dtype)
    return call(e.name, *args)


def transform(e: Expr, f: Callable[[Expr], Expr | None]) -> Expr:
    """Rewriting, operands first: `f` sees each node once, with new operands; None keeps it."""
    done: dict[Expr, Expr] = {}
    for node in walk(e):
        new = map_children(node, done.__getitem__) if node.args else node
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


@lru_cache(maxsize=1 << 14)
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
