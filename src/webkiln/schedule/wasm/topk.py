"""TopK on WebAssembly: one walk over the row, with the elements taken so far in order.

Almost no element of a long row gets in, so what counts is to pass over the others quickly: blocks
whose largest element is out are one comparison. A first walk finds a limit that the blocks have to
reach: the row is cut into more interleaved groups than elements are wanted, and as many groups'
largest elements are in front of the last one wanted as there are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Expr,
    ExprLike,
    Op,
    Read,
    Var,
    call,
    cast,
    compare,
    const,
    logical_and,
    logical_not,
    logical_or,
    minimum,
    splat,
    substitute,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Stmt, Store
from webkiln.schedule.emit import Emitter, initial
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of
from webkiln.schedule.ranking import Ranking, match_ranking
from webkiln.schedule.vectorize import vectorize

__all__ = ["topk"]

LANES = 16
BLOCK = 64  # elements passed over at once
GROUPS = 256  # of the first walk
LONG = 16 * GROUPS  # rows that are worth a first walk


def topk(nest: Nest) -> Kernel | None:
    """The kernel, where the nest is a ranking: a task a row."""
    found = match_ranking(nest)
    if found is None or found.taken > GROUPS:
        return None
    loops = [Loop(v, extent_of(v), "task") for v in found.rows]
    return make_kernel("topk", nest, loops, _Row(found).body())


@dataclass
class _Row:
    """Emits what happens to one row: `kept` and `places` hold the first `filled` elements."""

    ranking: Ranking
    emit: Emitter = field(default_factory=Emitter)

    def __post_init__(self) -> None:
        r = self.ranking
        dtype, size = r.element.dtype, (const(r.taken, I32),)
        self.kept = Buffer("kept", dtype, size, "workgroup")
        self.places = Buffer("places", I32, size, "workgroup")
        self.filled = self.emit.register(I32, "filled")
        self.limit = self.emit.register(dtype, "limit")  # what an element has to reach
        self.combine = "max" if r.largest else "min"
        self.worst = initial(self.combine, dtype)
        self.wide = vectorize(r.element, r.item, LANES)

    def body(self) -> list[Stmt]:
        r = self.ranking
        slot, rank = Var("slot", r.taken), r.rank
        clear = (Store(self.kept, slot, self.worst), Store(self.places, slot, const(0, I32)))
        out: list[Stmt] = [
            Declare(self.filled, const(0, I32)),
            Declare(self.limit, self.worst),
            For(slot, const(0, I32), extent_of(slot), clear),
        ]
        start = 0
        if self.wide is not None:
            if r.size >= LONG:
                out += self._first_walk()
            start = r.size - r.size % BLOCK
            out.append(self._blocks(start))
        out.append(self._elements("rest", const(start, I32), const(r.size, I32)))
        value = substitute(r.nest.value, {r.index: Read(self.places, rank)})
        store = Store(r.nest.out, r.nest.offset, simplify(value))
        return [*out, For(rank, const(0, I32), extent_of(rank), (store,))]

    def _at(self, index: Expr, wide: bool = False) -> Expr:
        """The element at `index`, or `LANES` from there on."""
        element = self.wide if wide else self.ranking.element
        assert element is not None
        element = substitute(element, {self.ranking.item: index})
        return splat(element, LANES) if wide and element.dtype.lanes == 1 else element

    def _first_walk(self) -> list[Stmt]:
        """`limit` from the first elements of `GROUPS` interleaved groups."""
        dtype = self.ranking.element.dtype
        firsts = Buffer("firsts", dtype, (const(GROUPS, I32),), "workgroup")
        line = Var("line", self.ranking.size // GROUPS)
        lane, group = Var("lane", GROUPS), Var("group", GROUPS)
        better = call(
            self.combine, Read(firsts, lane, LANES), self._at(line * GROUPS + lane, wide=True)
        )
        clear = Store(firsts, lane, splat(self.worst, LANES))
        end = const(GROUPS, I32)
        over = For(lane, const(0, I32), end, (Store(firsts, lane, better),), LANES)
        insert = self._insert(Read(firsts, group), const(0, I32))
        return [
            For(lane, const(0, I32), end, (clear,), LANES),
            For(line, const(0, I32), extent_of(line), (over,)),
            For(group, const(0, I32), end, tuple(insert)),
            Declare(
                bound := self.emit.register(dtype, "bound"),
                Read(self.kept, const(self.ranking.taken - 1, I32)),
            ),
            Assign(self.limit, bound),
            Assign(self.filled, const(0, I32)),
        ]

    def _blocks(self, stop: int) -> For:
        """Blocks, of which only those that reach the limit are looked at closely."""
        block = Var("block", self.ranking.size)
        best: Expr = self._at(block, wide=True)
        for i in range(LANES, BLOCK, LANES):
            best = call(self.combine, best, self._at(simplify(block + i), wide=True))
        best = Op(f"fold_{self.combine}", (best,), best.dtype.scalar)
        body = self._elements("item", block, simplify(block + BLOCK))
        test = If(self._reaches(best), (body,))
        return For(block, const(0, I32), const(stop, I32), (test,), BLOCK)

    def _elements(self, name: str, start: Expr, stop: Expr) -> For:
        item = Var(name, self.ranking.size)
        return For(item, start, stop, tuple(self._insert(self._at(item), item)))

    def _reaches(self, x: Expr) -> Expr:
        """Not behind the limit; false for NaN."""
        return compare("ge" if self.ranking.largest else "le", x, self.limit)

    def _insert(self, element: Expr, place: ExprLike) -> list[Stmt]:
        """`element` into its place among those kept, if it is not behind all of them."""
        r = self.ranking
        x = self.emit.register(element.dtype, "x")
        position, last = self.emit.register(I32, "position"), self.emit.register(I32, "last")
        slot, move = Var(f"{x.name}_slot", r.taken), Var(f"{x.name}_move", r.taken)
        end = const(r.taken - 1, I32)
        stays = cast(logical_not(r.comes_before(x, Read(self.kept, slot))), I32)
        count = Assign(position, position + stays)
        to = last - move
        shift = [Store(b, to, Read(b, simplify(to - 1))) for b in (self.kept, self.places)]
        full = compare("le", r.taken, self.filled)
        room = logical_or(logical_not(full), r.comes_before(x, Read(self.kept, end)))
        inside: list[Stmt] = [
            Declare(position, const(0, I32)),
            For(slot, const(0, I32), self.filled, (count,)),
            Declare(last, minimum(self.filled, r.taken - 1)),
            For(move, const(0, I32), last - position, tuple(shift)),
            Store(self.kept, position, x),
            Store(self.places, position, place if isinstance(place, Expr) else const(place, I32)),
            Assign(self.filled, minimum(self.filled + 1, r.taken)),
            If(full, (Assign(self.limit, Read(self.kept, end)),)),
        ]
        return [Declare(x, element), If(logical_and(self._reaches(x), room), tuple(inside))]
