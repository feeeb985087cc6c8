"""TopK on WebGPU: a workgroup a row, in rounds that leave a quarter of what was left.

The invocations cut the row into 256 interleaved groups. The elements wanted, at most 64, lie in the
64 groups whose first elements come first; those groups are cut into four each, and so on until a
group is one element. An invocation finds its group's place among the others by counting, in
workgroup memory that all read at the same address: two barriers a round, where sorting would take
dozens. The work does not depend on the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Expr,
    Read,
    Var,
    cast,
    compare,
    const,
    logical_and,
    logical_or,
    substitute,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Stmt, Store
from webkiln.schedule.emit import Emitter, initial
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, product
from webkiln.schedule.ranking import Ranking, match_ranking
from webkiln.schedule.webgpu.grid import at_most, groups_of, unflatten
from webkiln.targets.webgpu import MAX_GROUPS

__all__ = ["THREADS", "ranked", "topk"]

THREADS = 256
KEPT = 64  # groups after a round
SPLIT = THREADS // KEPT


def topk(nest: Nest) -> Kernel | None:
    """The kernel, where the nest is a ranking with few elements taken."""
    found = match_ranking(nest)
    if found is None or found.taken > KEPT or found.size < KEPT:
        return None
    count = product([extent_of(v) for v in found.rows])
    if at_most(count) > MAX_GROUPS:
        return None
    loops, group = groups_of(count)
    local = Var("local", THREADS)
    body = [*unflatten(group, found.rows), *ranked(found, local)]
    return make_kernel("topk", nest, [*loops, Loop(local, const(THREADS, I32), "local.x")], body)


def ranked(ranking: Ranking, local: Var) -> list[Stmt]:
    """What invocation `local` of `THREADS` does to rank one row, up to the stores."""
    return list(_Row(ranking, local).statements())


@dataclass
class _Row:
    """`firsts` holds the first element of each group kept; `values` and `places` the groups'."""

    ranking: Ranking
    local: Var
    emit: Emitter = field(default_factory=lambda: Emitter(1))

    def __post_init__(self) -> None:
        dtype, threads = self.ranking.element.dtype, (const(THREADS, I32),)
        self.values = Buffer("values", dtype, threads, "workgroup")
        self.places = Buffer("places", I32, threads, "workgroup")
        self.firsts = Buffer("firsts", I32, (const(KEPT, I32),), "workgroup")

    def statements(self) -> Iterator[Stmt]:
        """All rounds, then the stores."""
        r, local = self.ranking, self.local
        yield If(compare("lt", local, KEPT), (Store(self.firsts, local, local),))
        first: Expr = local
        stride, length = THREADS, -(-r.size // THREADS)
        while True:
            yield from self._round(first, stride, length)
            if length == 1:
                break
            base = self.emit.register(I32, "base")
            yield Declare(base, Read(self.firsts, local // SPLIT))
            first = base + (local % SPLIT) * stride
            stride, length = stride * SPLIT, -(-length // SPLIT)
        value = substitute(r.nest.value, {r.index: Read(self.firsts, r.rank)})
        store = Store(r.nest.out, r.nest.offset, simplify(value))
        yield For(r.rank, local, const(r.taken, I32), (store,), THREADS)

    def _round(self, first: Expr, stride: int, length: int) -> Iterator[Stmt]:
        """The groups' first elements, and of the `KEPT` groups that come first where they begin.

        A group of one element begins with the element itself.
        """
        r, local = self.ranking, self.local
        begin = self.emit.register(I32, "begin")
        value = self.emit.register(r.element.dtype, "value")
        place, rank = self.emit.register(I32, "place"), self.emit.register(I32, "rank")
        yield Declare(begin, simplify(first))
        yield Declare(value, initial("max" if r.largest else "min", r.element.dtype))
        yield Declare(place, local + r.size)  # of a group without elements: after all others
        yield from self._walk(begin, stride, length, value, place)
        yield Store(self.values, local, value)
        yield Store(self.places, local, place)
        yield Barrier()
        other = Var(f"{rank.name}_other", THREADS)
        theirs, where = Read(self.values, other), Read(self.places, other)
        tie = logical_and(compare("eq", theirs, value), compare("lt", where, place))
        ahead = logical_or(r.comes_before(theirs, value), tie)
        yield Declare(rank, const(0, I32))
        count = Assign(rank, rank + cast(ahead, I32))
        yield For(other, const(0, I32), const(THREADS, I32), (count,))
        yield If(compare("lt", rank, KEPT), (Store(self.firsts, rank, begin),))
        yield Barrier()

    def _walk(self, begin: Var, stride: int, length: int, value: Var, place: Var) -> Iterator[Stmt]:
        """`value` and `place` of the element of a group that comes first."""
        r = self.ranking
        step = Var(f"{begin.name}_step", length)
        item, x = self.emit.register(I32, "item"), self.emit.register(r.element.dtype, "x")
        better = logical_or(compare("ge", place, r.size), r.comes_before(x, value))
        take = If(better, (Assign(value, x), Assign(place, item)))
        inside = (Declare(x, substitute(r.element, {r.item: item})), take)
        body = (Declare(item, begin + step * stride), If(compare("lt", item, r.size), inside))
        yield For(step, const(0, I32), const(length, I32), body)
