"""Attention on WebGPU: a workgroup for a few queries of a head, in blocks of one key an invocation.

The online softmax of FlashAttention (arXiv 2205.14135). In each block an invocation computes the
scores of its key; together they find the largest; then each owns four columns of the values and
every n-th key of the block. What they have is combined once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import (
    Const,
    Expr,
    ExprLike,
    Read,
    Var,
    call,
    ceildiv,
    compare,
    const,
    lane,
    logical_and,
    maximum,
    minimum,
    select,
    splat,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Stmt, Store
from webkiln.schedule.attention import LOWEST, AttentionNest, attention_nest, local
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, product
from webkiln.schedule.vectorize import vectorize
from webkiln.schedule.webgpu.grid import at_most, groups_of, unflatten
from webkiln.schedule.webgpu.rows import in_registers
from webkiln.targets.webgpu import (
    MAX_GROUPS,
    MAX_INVOCATIONS,
    MAX_WORKGROUP_BYTES,
)

__all__ = ["Update", "attention", "attention_kernel", "shape_of"]

LANES = 4
ROWS = (8, 4, 2, 1)  # queries of a workgroup, as many as its memory holds
INVOCATIONS = 128  # of a workgroup: a key of a block each
SCAN = 8  # invocations that look for a row's largest score


def attention(nest: Nest) -> Kernel | None:
    """The kernel, where the nest (its reductions unsplit) is attention."""
    a = attention_nest(nest)
    if a is None:
        return None
    shape = shape_of(a)
    if shape is None:
        return None
    return attention_kernel(a, *shape)


def attention_kernel(
    a: AttentionNest, count: int, invocations: int, update: Update | None = None
) -> Kernel | None:
    rows = const(1, I32) if a.rows is None else extent_of(a.rows)
    tile = Var("tile", simplify(ceildiv(rows, count)))
    outer = (*a.batch, tile)
    loops, group = groups_of(product([extent_of(v) for v in outer]))
    if len(loops) > 1 or at_most(loops[0].extent) > MAX_GROUPS:
        return None
    work = _Work(a, tile * count, count, invocations, update)
    loops.append(Loop(work.me, const(invocations, I32), "local.x"))
    return make_kernel("attention", a.nest, loops, [*unflatten(group, outer), *work.body()])


def shape_of(a: AttentionNest) -> tuple[int, int] | None:
    """Queries and invocations of a workgroup; None where one query's memory is too much."""
    columns, depth = _size(a.d) // LANES, _size(a.k)
    if columns > MAX_INVOCATIONS:
        return None
    slices = max(n for n in (1, 2, 4, 8, 16, 32) if n == 1 or n * columns <= INVOCATIONS)
    invocations = max(slices * columns, 64)
    slices = invocations // columns
    fits = at_most(const(1, I32) if a.rows is None else extent_of(a.rows))
    for count in ROWS if fits >= ROWS[0] else ROWS[-1:]:  # few queries: a workgroup for each
        each = _floats(count, _joined(count, columns, slices)) + 1
        floats = count * depth + each * invocations
        if floats * 4 <= MAX_WORKGROUP_BYTES and count * SCAN <= invocations:
            return count, invocations
    return None


def _joined(count: int, columns: int, slices: int) -> int:
    """Of `count` rows, those whose results are combined between two barriers.

    As many as the memory of the scores holds, a slice for each, an invocation for each of the sums.
    """
    return max(1, min(count // LANES, columns, slices))


def _floats(count: int, joined: int) -> int:
    """An invocation's share of the scores, whose memory is the results' at the end."""
    return max(count, joined * LANES)


def _size(v: Var) -> int:
    extent = extent_of(v)
    assert isinstance(extent, Const)
    return int(extent.value)


@dataclass(frozen=True, slots=True)
class Update:
    """What key and value number `at` will be, over the attention's k and d; and where they go.

    The query, over k, with what makes it.
    """

    at: Expr
    query: Expr
    key: Expr
    key_place: tuple[Buffer, Expr]
    value: Expr
    value_place: tuple[Buffer, Expr]
    first: Expr  # whether this workgroup is to write them


@dataclass
class _Work:
    """What a workgroup does for `count` queries from `first` on."""

    a: AttentionNest
    first: Expr
    count: int
    invocations: int
    update: Update | None = None
    emit: Emitter = field(default_factory=Emitter)

    def __post_init__(self) -> None:
        self.depth, self.size = _size(self.a.k), _size(self.a.d)
        self.me = Var("me", self.invocations)
        self.queries = local("queries", self.count * self.depth)
        self.columns = self.size // LANES
        self.slices = self.invocations // self.columns
        self.joined = _joined(self.count, self.columns, self.slices)
        self.scores = local("scores", _floats(self.count, self.joined) * self.invocations)
        self.found = local("found", max(self.count * SCAN, self.joined * self.slices))
        self.largest = [self.emit.register(F32, "largest") for _ in range(self.count)]
        self.scales = [self.emit.register(F32, "scale") for _ in range(self.count)]
        self.column, self.slice = Var("column", self.columns), Var("slice", None)
        self.base = Var("base", 1 << 20)
        self.new_key, self.new_value = local("new_key", self.depth), local("new_value", self.size)
        wide = F32.vector(LANES)
        self.mixed = [self.emit.register(wide, "mixed") for _ in range(self.count)]
        self.sums = [self.emit.register(F32, "sum") for _ in range(self.count)]

    def body(self) -> list[Stmt]:
        """Queries fetched, all blocks of keys, the results."""
        low, high = Var("low", None), Var("high", None)
        starts = [self._bound(self.a.start, i) for i in range(self.count)]
        stops = [self._bound(self.a.stop, i) for i in range(self.count)]
        first, last = starts[0], stops[0]
        for start, stop in zip(starts[1:], stops[1:], strict=True):
            first, last = minimum(first, start), maximum(last, stop)
        block: list[Stmt] = [
            *self._score(low, high),
            Barrier(),
            *self._find_largest(),
            *self._exponentials(),
            Barrier(),
            *self._mix(high),
            Barrier(),
        ]
        return [
            Declare(self.column, self.me % self.columns),
            Declare(self.slice, self.me // self.columns),
            *self._fetch(),
            Declare(low, simplify(first)),
            Declare(high, simplify(last)),
            *(Declare(m, const(0.0, F32.vector(LANES))) for m in self.mixed),
            *(Declare(s, const(0.0, F32)) for s in (*self.sums, *self.scales)),
            *(Declare(m, const(LOWEST, F32)) for m in self.largest),
            Barrier(),
            For(self.base, low, high, tuple(block), self.invocations),
            *self._finish(),
        ]

    def _row(self, i: ExprLike) -> Expr:
        """Row number `i`; one beyond the last is the last once more, and is not stored."""
        if self.a.rows is None:
            return const(0, I32)
        rows = extent_of(self.a.rows)
        row = simplify(self.first + i)
        whole = simplify(rows % self.count) is const(0, I32)
        return row if whole else minimum(row, rows - 1)

    def _bound(self, e: Expr, i: int) -> Expr:
        return self.a.at(e, self._row(i))

    def _fetch(self) -> list[Stmt]:
        """The queries, into workgroup memory."""
        new = self.update
        query = self.a.parts.query if new is None else new.query
        values = [self.a.at(query, self._row(i)) for i in range(self.count)]
        if new is not None:
            values += [new.key, new.value]
        out, values = in_registers(values, self.me, self.invocations, self.emit)
        k = self.a.k
        for i in range(self.count):
            four = vectorize(values[i], k, LANES) if self.depth % LANES == 0 else None
            lanes, value = (1, values[i]) if four is None else (LANES, four)
            store = Store(self.queries, i * self.depth + k, value)
            start = simplify(self.me * lanes)
            out.append(For(k, start, extent_of(k), (store,), self.invocations * lanes))
        return out if new is None else [*out, *self._fetch_new(new, *values[self.count :])]

    def _fetch_new(self, new: Update, key: Expr, value: Expr) -> list[Stmt]:
        """The new key and value, into workgroup memory and, by one workgroup, into the cache."""
        out: list[Stmt] = []
        first = self.a.at(new.first, self._row(0))
        for axis, what, own, (cache, place) in (
            (self.a.k, key, self.new_key, new.key_place),
            (self.a.d, value, self.new_value, new.value_place),
        ):
            element = self.emit.register(F32, "new")
            body = (
                Declare(element, what),
                Store(own, axis, element),
                If(first, (Store(cache, place, element),)),
            )
            out.append(For(axis, self.me, extent_of(axis), body, self.invocations))
        return out

    # scores ---------------------------------------------------------------------------------------

    def _score(self, low: Expr, high: Expr) -> list[Stmt]:
        """The scores of key base + me with all queries; -inf where it does not count."""
        t = self.a.t
        dots = [self.emit.register(F32, "dot") for _ in range(self.count)]
        out: list[Stmt] = [Declare(t, self.base + self.me)]
        out += [Declare(d, const(0.0, F32)) for d in dots]
        places = [self.me + i * self.invocations for i in range(self.count)]
        stores: list[Stmt] = []
        for i, (dot, place) in enumerate(zip(dots, places, strict=True)):
            row = self._row(i)
            score = self.a.at(self.a.score_of(dot), row)
            start, stop = self._bound(self.a.start, i), self._bound(self.a.stop, i)
            counts = simplify(logical_and(compare("le", start, t), compare("lt", t, stop)))
            none = const(float("-inf"), F32)
            stores.append(Store(self.scores, place, select(counts, score, none)))
        nothing = tuple(Store(self.scores, p, const(float("-inf"), F32)) for p in places)
        products = self._products(dots, self.a.parts.key)
        if self.update is not None:
            fresh = self._products(dots, Read(self.new_key, self.a.k))
            products = [
                If(compare("eq", t, self.update.at), tuple(fresh), tuple(products)),
            ]
        inside = compare("lt", t, high)
        out.append(If(inside, (*products, *stores), nothing))
        return out

    def _products(self, dots: list[Var], key: Expr) -> list[Stmt]:
        """The queries' products with `key`, an expression over k."""
        k = self.a.k
        if self.depth % LANES:
            element = self.emit.register(F32, "key")
            step: list[Stmt] = [Declare(element, key)]
            for i, dot in enumerate(dots):
                query = Read(self.queries, i * self.depth + k)
                step.append(Assign(dot, call("add", dot, call("mul", query, element))))
            return [For(k, const(0, I32), const(self.depth, I32), tuple(step))]
        step = []
        elements = [self.emit.register(F32, "key") for _ in range(LANES)]
        for j, element in enumerate(elements):
            step.append(Declare(element, self.a.at(key, None, {k: k + j})))
        for i, dot in enumerate(dots):
            four = self.emit.register(F32.vector(LANES), "query")
            step.append(Declare(four, Read(self.queries, i * self.depth + k, LANES)))
            for j, element in enumerate(elements):
                step.append(Assign(dot, call("add", dot, call("mul", lane(four, j), element))))
        return [For(k, const(0, I32), const(self.depth, I32), tuple(step), LANES)]

    # softmax --------------------------------------------------------------------------------------

    def _find_largest(self) -> list[Stmt]:
        """The largest score of each row so far, and what it scales the earlier results by.

        Some invocations look at a part of a row each; then all look at the parts.
        """
        row, part = Var("scan_row", None), Var("scan_part", None)
        most = self.emit.register(F32, "most")
        j = Var("scan", self.invocations)
        score = Read(self.scores, row * self.invocations + j)
        scan: list[Stmt] = [
            Declare(row, self.me // SCAN),
            Declare(part, self.me % SCAN),
            Declare(most, const(float("-inf"), F32)),
            For(j, part, const(self.invocations, I32), (Assign(most, maximum(most, score)),), SCAN),
            Store(self.found, self.me, most),
        ]
        out: list[Stmt] = [If(compare("lt", self.me, self.count * SCAN), tuple(scan)), Barrier()]
        i = Var("found_part", SCAN)
        for n, (largest, scale) in enumerate(zip(self.largest, self.scales, strict=True)):
            before = self.emit.register(F32, "before")
            step = Assign(largest, maximum(largest, Read(self.found, i + n * SCAN)))
            out += [
                Declare(before, largest),
                For(i, const(0, I32), const(SCAN, I32), (step,)),
                Assign(scale, call("exp", before - largest)),
            ]
        return out

    def _exponentials(self) -> list[Stmt]:
        out: list[Stmt] = []
        for i in range(self.count):
            place = self.me + i * self.invocations
            largest = self.largest[i]
            out.append(Store(self.scores, place, call("exp", Read(self.scores, place) - largest)))
        return out

    # values ---------------------------------------------------------------------------------------

    def _mix(self, high: Expr) -> list[Stmt]:
        """Four columns of the values of every n-th key of the block."""
        a, t = self.a, Var("key", 1 << 20)
        value = vectorize(a.parts.value, a.d, LANES)
        assert value is not None
        loaded = self.emit.register(F32.vector(LANES), "value")
        place = a.at(value, None, {a.d: self.column * LANES, a.t: self.base + t})
        out: list[Stmt] = []
        step: list[Stmt] = [Declare(loaded, place)]
        for i, (mixed, total) in enumerate(zip(self.mixed, self.sums, strict=True)):
            scale = self.scales[i]
            out.append(Assign(mixed, call("mul", mixed, splat(scale, LANES))))
            out.append(Assign(total, call("mul", total, scale)))
            weight = self.emit.register(F32, "weight")
            step.append(Declare(weight, Read(self.scores, i * self.invocations + t)))
            term = call("mul", splat(weight, LANES), loaded)
            step.append(Assign(mixed, call("add", mixed, term)))
            step.append(Assign(total, call("add", total, weight)))
        cached = high if self.update is None else self.update.at
        stop = minimum(cached - self.base, self.invocations)
        out.append(For(t, self.slice, stop, tuple(step), self.slices))
        return out if self.update is None else [*out, self._mix_new(self.update.at)]

    def _mix_new(self, at: Expr) -> Stmt:
        """The new value, once, in the block that it belongs to."""
        loaded = Read(self.new_value, self.column * LANES, LANES)
        body: list[Stmt] = []
        for i, (mixed, total) in enumerate(zip(self.mixed, self.sums, strict=True)):
            weight = self.emit.register(F32, "weight")
            place = i * self.invocations + at - self.base
            body.append(Declare(weight, Read(self.scores, simplify(place))))
            term = call("mul", splat(weight, LANES), loaded)
            body.append(Assign(mixed, call("add", mixed, term)))
            body.append(Assign(total, call("add", total, weight)))
        here = logical_and(
            compare("eq", self.slice, 0),
            compare("le", self.base, at),
            compare("lt", at, self.base + self.invocations),
        )
        return If(here, tuple(body))

    def _finish(self) -> list[Stmt]:
        """All slices' sums, `joined` rows at a time: a row for each of the first slices."""
        out: list[Stmt] = []
        for first in range(0, self.count, self.joined):
            if first:
                out.append(Barrier())
            rows = range(first, first + self.joined)
            for j, i in enumerate(rows):
                place = (self.me + j * self.invocations) * LANES
                out.append(Store(self.scores, simplify(place), self.mixed[i]))
            totals = [
                Store(self.found, simplify(self.slice + j * self.slices), self.sums[i])
                for j, i in enumerate(rows)
            ]
            out += [
                If(compare("eq", self.column, 0), tuple(totals)),
                Barrier(),
                If(self._mine(first), tuple(self._store(first))),
            ]
        return out

    def _mine(self, first: int) -> Expr:
        """Whether this invocation's slice has one of the rows from `first` on."""
        mine = compare("lt", self.slice, self.joined)
        if self.a.rows is None or simplify(extent_of(self.a.rows) % self.count) is const(0, I32):
            return mine
        row = self.first + (first + self.slice)
        return logical_and(mine, compare("lt", row, extent_of(self.a.rows)))

    def _store(self, first: int) -> list[Stmt]:
        """Row number `slice` of those from `first` on."""
        a = self.a
        row = self._row(simplify(first + self.slice) if self.joined > 1 else first)
        mixed = self.emit.register(F32.vector(LANES), "all")
        total = self.emit.register(F32, "total")
        part = Var("part", self.slices)
        place = self.slice * self.invocations + part * self.columns + self.column
        other = Read(self.scores, simplify(place * LANES), LANES)
        summed = Read(self.found, self.slice * self.slices + part)
        loop = (
            Assign(mixed, call("add", mixed, other)),
            Assign(total, call("add", total, summed)),
        )
        at = {a.d: self.column * LANES}
        value = a.at(a.result(LANES, mixed, total), row, at)
        offset = a.at(a.nest.offset, row, at)
        return [
            Declare(mixed, const(0.0, F32.vector(LANES))),
            Declare(total, const(0.0, F32)),
            For(part, const(0, I32), const(self.slices, I32), loop),
            Store(a.nest.out, offset, value if value.dtype.lanes > 1 else splat(value, LANES)),
        ]
