"""Softmax, normalisation, reductions of whole rows: a workgroup a row.

Every reduction of the nest is a stage: the invocations go over the row in strides, leave their
partial results in workgroup memory, and fold them four to one until one is left. Then they compute
the row's outputs together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Op,
    Read,
    Reduce,
    Var,
    call,
    ceildiv,
    compare,
    const,
    free_vars,
    minimum,
    splat,
    substitute,
    walk,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Stmt, Store
from webkiln.schedule.attention import local
from webkiln.schedule.emit import COMBINE, Emitter, bounds_of, initial
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, product, reduces
from webkiln.schedule.vectorize import unit_stride, vectorize
from webkiln.schedule.webgpu.grid import GROUP, at_most, groups_of, unflatten
from webkiln.schedule.webgpu.tree import combine_shared

__all__ = ["RowWork", "Statistics", "in_registers", "rows"]

LANES = 4
SHORT = 32  # reductions up to this size are not worth a workgroup
LONG = 1024  # rows from here on get a workgroup of 256
SHARERS = (16, 8, 4, 2, 1)  # invocations that share a short reduction, as many as divide all
MANY = 1024  # rows, of which a workgroup may take several and still leave enough workgroups


def rows(nest: Nest) -> Kernel | None:
    """A workgroup for each combination of the loops that the reductions depend on."""
    found = reduces(nest.value)
    if not found:
        return None
    used = frozenset[Var]().union(*(free_vars(r) for r in found))
    outer = tuple(v for v in nest.loops if v in used)
    columns = tuple(v for v in nest.loops if v not in used)
    size = max(at_most(product([extent_of(a) for a in r.axes])) for r in found)
    if size <= SHORT or nest.loops[: len(outer)] != outer:
        return None
    if not columns and not all(_contiguous(r) for r in found):
        return None
    count = product([extent_of(v) for v in outer])
    threads, each = _shape(size, at_most(count))
    loops, group = groups_of(simplify(ceildiv(count, each)))
    local, line = Var("local", threads), Var("line", each)
    number, row = Var("number", count), Var("row", count)
    work = RowWork(local, threads, line, each)
    value = work.reduce_all(nest.value)
    stores: list[Stmt] = work.store(replace(nest, value=value), columns)
    ragged = len(loops) > 1 or simplify(count % each) is not const(0, I32)
    if ragged:  # who has no row does the last one again, and does not store
        stores = [If(compare("lt", number, count), tuple(stores))]
    body: list[Stmt] = [
        Declare(number, group * each + line if each > 1 else group),
        Declare(row, minimum(number, count - 1) if ragged else number),
        *unflatten(row, outer),
        *work.out,
        *stores,
    ]
    loops = [*loops, Loop(local, const(threads, I32), "local.x")]
    if each > 1:
        loops.append(Loop(line, const(each, I32), "local.y"))
    return make_kernel("rows", nest, loops, body)


def _shape(size: int, count: int) -> tuple[int, int]:
    """Invocations of a row, and rows of a workgroup: several where rows are short and many."""
    if size >= LONG:
        return 256, 1
    few = size <= LONG // 2 and count >= MANY
    return (GROUP // 4, 4) if few else (GROUP, 1)


def _contiguous(reduce: Reduce) -> bool:
    """Neighbouring invocations read neighbouring elements."""
    reads = [n for n in walk(reduce.body) if isinstance(n, Read)]
    moves = [unit_stride(r.args[0], reduce.axes[-1]) for r in reads]
    return 1 in moves and None not in moves


@dataclass
class RowWork:
    """Emits what the `threads` invocations `local` of row `line` of a workgroup do."""

    local: Var
    threads: int
    line: Var
    lines: int
    out: list[Stmt] = field(default_factory=list)
    emit: Emitter = field(default_factory=lambda: Emitter(1))
    stage: itertools.count[int] = field(default_factory=itertools.count)

    def reduce_all(self, value: Expr) -> Expr:
        """`value` with each reduction replaced by a register, inner ones first."""
        return self.reduce_each([value])[0]

    def reduce_each(self, values: Sequence[Expr]) -> list[Expr]:
        """The same for several values, which share the registers of the reductions they share."""
        while True:
            ready = [r for v in values for r in reduces(v) if not any(reduces(a) for a in r.args)]
            if not ready:
                return list(values)
            total = {ready[0]: self._reduce(ready[0])}
            values = [substitute(v, total) for v in values]

    def _reduce(self, reduce: Reduce) -> Expr:
        bounds, body = bounds_of(reduce)
        *outer, inner = reduce.axes
        start, stop = bounds[inner]
        lanes = _lanes(body, inner, start, stop)
        wide = body if lanes == 1 else vectorize(body, inner, lanes)
        assert wide is not None
        wide = splat(wide, lanes) if wide.dtype.lanes < lanes else wide
        combine = COMBINE[reduce.kind]
        partial = self.emit.register(wide.dtype, "part")
        self.out.append(Declare(partial, splat(initial(reduce.kind, reduce.dtype), lanes)))
        step: list[Stmt] = [Assign(partial, call(combine, partial, wide))]
        loops: list[Stmt] = [self._strided(inner, start, stop, step, lanes)]
        for axis in reversed(outer):
            loops = [For(axis, *bounds[axis], tuple(loops))]
        self.out.extend(loops)
        whole: Expr = partial if lanes == 1 else Op(f"fold_{combine}", (partial,), reduce.dtype)
        return self._fold(whole, combine)

    def _strided(self, var: Var, start: Expr, stop: Expr, body: Sequence[Stmt], lanes: int) -> For:
        first = simplify(start + self.local * lanes)
        return For(var, first, stop, tuple(body), self.threads * lanes)

    def _fold(self, partial: Expr, combine: str) -> Expr:
        """All invocations' `partial` combined, known to each of them."""
        name = f"partial{next(self.stage)}"
        slots = const(self.threads * self.lines, I32)
        shared = Buffer(name, partial.dtype, (slots,), "workgroup")
        first = self.line * self.threads if self.lines > 1 else const(0, I32)
        self.out += combine_shared(shared, [(partial, first)], combine, self.local, self.threads)
        result = self.emit.register(partial.dtype, "total")
        self.out.append(Declare(result, Read(shared, first)))
        return result

    def store(self, nest: Nest, columns: tuple[Var, ...]) -> list[Stmt]:
        """The row's outputs."""
        if not columns:
            one = Store(nest.out, nest.offset, nest.value)
            return [If(compare("eq", self.local, 0), (one,))]
        *outer, inner = columns
        stop = extent_of(inner)
        wide = None
        if unit_stride(nest.offset, inner) == 1 and _divides(LANES, stop):
            wide = vectorize(nest.value, inner, LANES)
        lanes = 1 if wide is None else LANES
        value = nest.value if wide is None else wide
        value = splat(value, lanes) if value.dtype.lanes < lanes else value
        store = Store(nest.out, nest.offset, value)
        loops: list[Stmt] = [self._strided(inner, const(0, I32), stop, [store], lanes)]
        for axis in reversed(outer):
            loops = [For(axis, const(0, I32), extent_of(axis), tuple(loops))]
        return loops


class Statistics(RowWork):
    """Reductions by each of a workgroup's lines for itself; its invocations add up all parts.

    That is more arithmetic than a tree, and one barrier where a tree has several.
    """

    def _fold(self, partial: Expr, combine: str) -> Expr:
        shared = local(f"statistic{next(self.stage)}", self.threads * self.lines)
        total = self.emit.register(partial.dtype, "total")
        first = self.line * self.threads
        self.out += [
            Store(shared, first + self.local, partial),
            Barrier(),
            Declare(total, Read(shared, first)),
        ]
        part = Var("part", self.threads)
        step = Assign(total, call(combine, total, Read(shared, first + part)))
        self.out.append(For(part, const(1, I32), const(self.threads, I32), (step,)))
        return total


def in_registers(
    values: Sequence[Expr], me: Var, invocations: int, emit: Emitter
) -> tuple[list[Stmt], list[Expr]]:
    """`values` with their reductions in registers, after what computes those.

    All `invocations` of the workgroup need them; this one is number `me`.
    """
    threads = max(n for n in SHARERS if invocations % n == 0)
    lines = invocations // threads
    part, line = Var("part_of", threads), Var("line", lines)
    work = Statistics(part, threads, line, lines, emit=emit)
    reduced = work.reduce_each(values)
    places = [Declare(part, me % threads), Declare(line, me // threads)]
    return [*places, *work.out] if work.out else [], reduced


def _lanes(body: Expr, inner: Var, start: Expr, stop: Expr) -> int:
    """4 where the row is contiguous and four at a time never reach beyond its end."""
    whole = isinstance(start, Const) and start.value == 0 and _divides(LANES, stop)
    reads = [n for n in walk(body) if isinstance(n, Read)]
    moves = [unit_stride(r.args[0], inner) for r in reads]
    fits = whole and 1 in moves and vectorize(body, inner, LANES) is not None
    return LANES if fits else 1


def _divides(width: int, e: Expr) -> bool:
    return simplify(e % width) is const(0, I32)
