"""A computation as a loop nest over physical memory, and rewrites that suit every target.

`nest_of` turns logical indices into linear offsets, in the order of the output's layout.
`split_axes` and `collapse` then bring the axes into their simplest shape: no division left in an
index, no two loops where one does. All rewrites return a new Nest; print one to see it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Load,
    Op,
    Read,
    Reduce,
    Var,
    compare,
    const,
    convert,
    free_vars,
    logical_and,
    select,
    substitute,
    transform,
    walk,
)
from webkiln.ir.program import Compute
from webkiln.ir.simplify import linear, simplify

__all__ = [
    "Nest",
    "collapse",
    "drop_units",
    "extent_of",
    "nest_of",
    "product",
    "reads",
    "reduces",
    "split_axes",
    "strides",
]


@dataclass(frozen=True, slots=True)
class Nest:
    """`out[offset] = value` for all `loops`, outermost first; Loads are Reads, Reduces whole."""

    out: Buffer
    loops: tuple[Var, ...]
    offset: Expr
    value: Expr
    label: str

    def __str__(self) -> str:
        lines = [f"{'  ' * i}for {v.name} < {v.extent!r}:" for i, v in enumerate(self.loops)]
        pad = "  " * len(self.loops)
        return "\n".join([*lines, f"{pad}{self.out.name}@({self.offset!r}) = {self.value!r}"])


def drop_units(nest: Nest) -> Nest:
    """Without loops and axes of one iteration; the innermost loop stays, for stores along it."""
    axes = {*nest.loops[:-1], *(a for r in reduces(nest.value) for a in r.axes)}
    units: dict[Var, Expr] = {a: const(0, I32) for a in axes if a.extent is const(1, I32)}

    def visit(node: Expr) -> Expr | None:
        if isinstance(node, Var):
            return units.get(node)
        if isinstance(node, Reduce) and any(a in units for a in node.axes):
            left = tuple(a for a in node.axes if a not in units)
            return Reduce(node.kind, left, node.body) if left else node.body
        return None

    if not units:
        return nest
    return replace(
        nest,
        loops=tuple(v for v in nest.loops if v not in units),
        offset=simplify(substitute(nest.offset, units)),
        value=simplify(transform(nest.value, visit)),
    )


def nest_of(compute: Compute) -> Nest:
    """The loops of `compute` in its output's physical order; padding of panels is stored as 0."""
    out = compute.out
    if compute.at is not None:
        offset = _flatten(simplify(out.offset(compute.at)))
        value = simplify(_flatten(simplify(compute.value)))
        return Nest(out, compute.axes, simplify(offset), value, compute.label)
    physical: list[Var] = []
    index: list[Expr] = [const(0, I32) for _ in compute.axes]
    for part, extent in zip(out.layout.parts, out.layout.extents(out.shape), strict=True):
        axis = compute.axes[part.axis]
        whole = part.divisor == 1 and part.modulus is None
        var = axis if whole else Var(f"{axis.name}_{part.divisor}", simplify(extent))
        physical.append(var)
        index[part.axis] = index[part.axis] + var * part.divisor
    guards = [
        compare("lt", i, convert(extent))
        for i, extent in zip(index, out.shape, strict=True)
        if not isinstance(i, Var)
    ]
    value = substitute(compute.value, dict(zip(compute.axes, index, strict=True)))
    if guards:
        value = select(logical_and(*guards), value, const(0, out.dtype))
    flat = simplify(_flatten(simplify(value)))
    return Nest(out, tuple(physical), simplify(out.offset(index)), flat, compute.label)


def _flatten(value: Expr) -> Expr:
    def visit(node: Expr) -> Expr | None:
        if isinstance(node, Load):
            return Read(node.buffer, simplify(node.buffer.offset(node.args)))
        return None

    return transform(value, visit)


def extent_of(v: Var) -> Expr:
    """The extent of a loop variable."""
    assert v.extent is not None, v.name
    return v.extent


def product(extents: Sequence[Expr]) -> Expr:
    """All extents multiplied; 1 of none."""
    total: Expr = const(1, I32)
    for extent in extents:
        total = total * extent
    return simplify(total)


def reads(e: Expr) -> list[Read]:
    """The distinct Reads of `e`, in evaluation order."""
    return [n for n in walk(e) if isinstance(n, Read)]


def reduces(e: Expr) -> list[Reduce]:
    """The distinct Reduces of `e`, inner ones first."""
    return [n for n in walk(e) if isinstance(n, Reduce)]


def strides(e: Expr, over: Iterable[Var]) -> dict[Var, Expr] | None:
    """How far offset `e` moves with each of `over` (absent: not at all); None if not linear."""
    result = linear(e, over)
    return None if result is None else result[0]


# --- splitting ------------------------------------------------------------------------------------


def split_axes(nest: Nest, *, loops_only: bool = False) -> Nest:
    """Axes that occur as `v // c` or `v % c` with c dividing their extent become two loops.

    `loops_only`: not those of reductions.
    """
    for _ in range(16):
        found = _divided(nest, loops_only)
        if found is None:
            return nest
        var, width = found
        assert isinstance(var.extent, Const)
        outer = Var(f"{var.name}o", int(var.extent.value) // width)
        inner = Var(f"{var.name}i", width)
        nest = _replace_axis(nest, var, (outer, inner), outer * width + inner)
    return nest


def _divided(nest: Nest, loops_only: bool) -> tuple[Var, int] | None:
    bound = set(nest.loops)
    if not loops_only:
        bound = bound.union(*(r.axes for r in reduces(nest.value)))
    found: tuple[Var, int] | None = None
    for node in itertools.chain(walk(nest.offset), walk(nest.value)):
        if not (isinstance(node, Op) and node.name in ("floordiv", "mod")):
            continue
        var, width = node.args
        if not (isinstance(var, Var) and isinstance(width, Const) and var in bound):
            continue
        size = var.extent
        divides = isinstance(size, Const) and size.value % width.value == 0
        if not divides or size is width:
            continue
        # the widest part of an axis first: what is left of the others divides that
        if found is None or (var is found[0] and width.value > found[1]):
            found = var, int(width.value)
    return found


def _replace_axis(nest: Nest, var: Var, new: Sequence[Var], value: Expr) -> Nest:
    """`var` replaced by axes `new`, its occurrences by `value`."""

    def expand(axes: tuple[Var, ...]) -> tuple[Var, ...]:
        return tuple(itertools.chain.from_iterable(new if a is var else (a,) for a in axes))

    def visit(node: Expr) -> Expr | None:
        if node is var:
            return value
        if isinstance(node, Reduce) and var in node.axes:
            return Reduce(node.kind, expand(node.axes), node.body)
        return None

    return replace(
        nest,
        loops=expand(nest.loops),
        offset=simplify(substitute(nest.offset, {var: value})),
        value=simplify(transform(nest.value, visit)),
    )


# --- collapsing -----------------------------------------------------------------------------------


def collapse(nest: Nest) -> Nest:
    """Adjacent loops, or axes of a reduction, that every offset walks as one become one."""
    changed = True
    while changed:
        changed = False
        for reduce in reduces(nest.value):
            ordered = _by_stride(reduce)
            if ordered.axes != reduce.axes:
                nest = replace(nest, value=substitute(nest.value, {reduce: ordered}))
                changed = True
                break
        if changed:
            continue
        for axes in (nest.loops, *(r.axes for r in reduces(nest.value))):
            pair = next((p for p in itertools.pairwise(axes) if _mergeable(nest, *p)), None)
            if pair is not None:
                nest = _merge(nest, *pair)
                changed = True
                break
    return nest


def _by_stride(reduce: Reduce) -> Reduce:
    """The reduction with its axes sorted by how far they move the first Read, farthest first."""
    first = next(iter(reads(reduce.body)), None)
    moves = None if first is None else strides(first.args[0], reduce.axes)
    if moves is None:
        return reduce

    def distance(axis: Var) -> int:
        move = moves.get(axis, const(0, I32))
        return int(move.value) if isinstance(move, Const) else 1 << 30

    ordered = tuple(sorted(reduce.axes, key=distance, reverse=True))
    return reduce if ordered == reduce.axes else Reduce(reduce.kind, ordered, reduce.body)


def _mergeable(nest: Nest, outer: Var, inner: Var) -> bool:
    assert inner.extent is not None
    for e in _users(nest, (outer, inner)):
        if not isinstance(e, Read) and e is not nest.offset:
            return False
        offset = e.args[0] if isinstance(e, Read) else e
        moves = strides(offset, (outer, inner))
        if moves is None:
            return False
        zero = const(0, I32)
        if simplify(moves.get(inner, zero) * inner.extent) is not simplify(moves.get(outer, zero)):
            return False
    return True


def _users(nest: Nest, axes: tuple[Var, Var]) -> list[Expr]:
    """What mentions the axes: Reads, the store offset, or what else, which forbids merging."""
    found: list[Expr] = [nest.offset] if set(axes) & free_vars(nest.offset) else []
    wanted = set(axes)
    stack, seen = [nest.value], set[Expr]()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Read):
            if wanted & set(walk(node.args[0])):
                found.append(node)
            # a Read inside an offset (a gathered index) is itself a user
            stack.extend(n for n in walk(node.args[0]) if isinstance(n, Read))
        elif node in wanted:
            found.append(node)
        else:
            stack.extend(node.args)
    return found


def _merge(nest: Nest, outer: Var, inner: Var) -> Nest:
    assert outer.extent is not None
    assert inner.extent is not None
    merged = Var(f"{outer.name}{inner.name}", simplify(outer.extent * inner.extent))
    values: Mapping[Var, Expr] = {outer: const(0, I32), inner: merged}

    def join(axes: tuple[Var, ...]) -> tuple[Var, ...]:
        return tuple(merged if a is inner else a for a in axes if a is not outer)

    def visit(node: Expr) -> Expr | None:
        if isinstance(node, Var):
            return values.get(node)
        if isinstance(node, Reduce) and inner in node.axes:
            return Reduce(node.kind, join(node.axes), node.body)
        return None

    return replace(
        nest,
        loops=join(nest.loops),
        offset=simplify(substitute(nest.offset, values)),
        value=simplify(transform(nest.value, visit)),
    )
