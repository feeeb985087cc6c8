"""Products with quantised matrices on WebGPU; weights become floats in registers.

One row (decoding): memory is all that counts. An invocation reads a word of eight columns, 32
bytes, and its neighbours the words next to it; 64 of them share k and combine their sums. The row,
with the norm or the activation that makes it, is computed once for the workgroup, in its memory.

Many rows (a prompt): blocks of the rows and of the weights, as floats, in workgroup memory, and a
register tile from there, as in `staged.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from webkiln.ir.dtypes import F32, I32, U32
from webkiln.ir.expr import (
    Const,
    Expr,
    Load,
    Read,
    Var,
    call,
    cast,
    ceildiv,
    compare,
    const,
    free_vars,
    lane,
    logical_and,
    minimum,
    splat,
    substitute,
    walk,
)
from webkiln.ir.program import Compute, Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Stmt, Store
from webkiln.lower.layout import PANEL
from webkiln.schedule.attention import local
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel, map_expressions
from webkiln.schedule.nest import extent_of, product, reduces
from webkiln.schedule.quantised import QuantisedProduct, QuantisedSum, match_quantised
from webkiln.schedule.webgpu.grid import at_most, groups_of, unflatten
from webkiln.schedule.webgpu.rows import RowWork
from webkiln.schedule.webgpu.tree import combine_shared
from webkiln.targets.webgpu import MAX_GROUPS, MAX_STORAGE_BUFFERS, MAX_WORKGROUP_BYTES

__all__ = ["has_one_row", "quantised"]

LANES = 4
FOURS = PANEL // LANES
SLICES = 64  # invocations that share k; a power of 4
PANELS = 2  # of a workgroup
MAX_SUMS = 2  # of a tile of many rows: what registers and workgroup memory hold


def quantised(compute: Compute) -> Kernel | None:
    """The kernel, where `compute` is made of products with quantised matrices."""
    p = _product(compute)
    if p is None:
        return None
    kernel = _one_row(p) if p.m is None else _many_rows(p)
    if kernel is None or len(kernel.buffers) > MAX_STORAGE_BUFFERS:
        return None
    return kernel


def _product(compute: Compute) -> QuantisedProduct | None:
    """The product, where its row needs nothing but elements and reductions of the whole of rows."""
    p = match_quantised(compute)
    if p is None or not isinstance(extent_of(p.n), Const):
        return None
    return None if any(p.k in free_vars(r) for r in reduces(p.a.value)) else p


def has_one_row(compute: Compute) -> bool:
    """Whether `quantised` makes a kernel of `compute` that reads its matrices once, for one row."""
    p = _product(compute)
    if p is None or p.rows:
        return False
    loaded = {n.buffer for n in walk(compute.value) if isinstance(n, Load)}
    return len(loaded) < MAX_STORAGE_BUFFERS and _chunk(p) >= p.block


def _code(word: Expr, i: int, bits: int) -> Expr:
    """Weight number `i` of `word`, a vector of words, scale and offset aside."""
    shift = i * 8 if bits == 8 else i % 4 * 8 + i // 4 * 4
    mask = const((1 << bits) - 1, word.dtype)
    code = call("bitand", call("shr", word, const(shift, word.dtype)), mask)
    return cast(code, F32.vector(word.dtype.lanes))


def _halves(pair: Expr) -> tuple[Expr, Expr]:
    """Scales and offsets of a vector of pairs."""
    return call("half", pair), call("half", call("shr", pair, const(16, pair.dtype)))


# --- one row --------------------------------------------------------------------------------------


def _chunk(p: QuantisedProduct) -> int:
    """How much of the row fits into workgroup memory at once, whole blocks."""
    partials = PANELS * SLICES * FOURS * LANES * len(p.sums)
    floats = MAX_WORKGROUP_BYTES // 4 - partials - 2 * PANELS * SLICES
    return min(p.depth, floats // p.block * p.block)


def _one_row(p: QuantisedProduct) -> Kernel | None:
    if _chunk(p) < p.block:
        return None
    work = _Vector(p)
    panels = simplify(ceildiv(extent_of(p.n), PANEL))
    groups = simplify(ceildiv(panels, PANELS))
    loops, group = groups_of(groups)
    body = work.body(group, panels)
    loops += [
        Loop(work.panel, const(PANELS, I32), "local.y"),
        Loop(work.slice, const(SLICES, I32), "local.x"),
    ]
    return make_kernel("quantised vector", p.epilogue, loops, body)


@dataclass
class _Vector:
    """A row by one or several quantised matrices; a workgroup has `PANELS` panels of columns."""

    p: QuantisedProduct
    emit: Emitter = field(default_factory=Emitter)
    slice: Var = field(default_factory=lambda: Var("slice", SLICES))
    panel: Var = field(default_factory=lambda: Var("local_panel", PANELS))

    def __post_init__(self) -> None:
        self.chunk = _chunk(self.p)
        self.row = local("row", self.chunk)
        self.sums = [
            [self.emit.register(F32.vector(LANES), "acc") for _ in range(FOURS)]
            for _ in self.p.sums
        ]

    def body(self, group: Expr, panels: Expr) -> list[Stmt]:
        """All chunks of the row, then the sums combined and stored."""
        panel = Var("panel", panels)
        number = group * PANELS + self.panel
        ragged = simplify(panels % PANELS) is not const(0, I32)
        last = panels - 1
        statistics = RowWork(self.slice, SLICES, self.panel, PANELS, emit=self.emit)
        value = statistics.reduce_all(self.p.a.value)
        base = Var("base", self.p.depth)
        step = [*self._fetch(value, base), Barrier(), *self._accumulate(panel, base)]
        if self.chunk == self.p.depth:
            chunks = list(_at_zero(step, base))
        else:
            inside = (Barrier(), *step)
            chunks = [For(base, const(0, I32), const(self.p.depth, I32), inside, self.chunk)]
        return [
            Declare(panel, minimum(number, last) if ragged else number),
            *statistics.out,
            *(Declare(s, const(0.0, s.dtype)) for line in self.sums for s in line),
            *chunks,
            *self._store(panel, number if ragged else None, panels),
        ]

    def _fetch(self, value: Expr, base: Expr) -> list[Stmt]:
        """Elements base … of the row into workgroup memory."""
        k = self.p.k
        me = self.panel * SLICES + self.slice
        left = simplify(minimum(const(self.chunk, I32), self.p.depth - base))
        index = Var("element", self.chunk)
        store = Store(self.row, index, substitute(value, {k: base + index}))
        return [For(index, me, left, (store,), PANELS * SLICES)]

    def _accumulate(self, panel: Expr, base: Expr) -> list[Stmt]:
        """Every n-th word of the chunk."""
        out: list[Stmt] = []
        for per in dict.fromkeys(s.per_word for s in self.p.sums):
            word = Var(f"index{per}", self.chunk // per)
            elements: list[Expr] = []
            step: list[Stmt] = []
            for i in range(0, per, LANES):
                four = self.emit.register(F32.vector(LANES), "a")
                step.append(Declare(four, Read(self.row, word * per + i, LANES)))
                elements += [lane(four, j) for j in range(LANES)]
            together = self.emit.register(F32, "together")
            total = elements[0]
            for element in elements[1:]:
                total = call("add", total, element)
            step.append(Declare(together, total))
            for s, line in zip(self.p.sums, self.sums, strict=True):
                if s.per_word == per:
                    step += self._word(s, line, panel, word, base, elements, together)
            left = simplify(minimum(const(self.chunk, I32), self.p.depth - base) // per)
            out.append(For(word, self.slice, left, tuple(step), SLICES))
        return out

    def _word(
        self,
        s: QuantisedSum,
        line: list[Var],
        panel: Expr,
        word: Expr,
        base: Expr,
        elements: Sequence[Expr],
        together: Expr,
    ) -> list[Stmt]:
        """A word of eight columns, times the elements of the row."""
        at = base // s.per_word + word
        out: list[Stmt] = []
        for four, total in enumerate(line):
            column = panel * PANEL + four * LANES
            words, pairs = _words(s, at, column, self.emit, out)
            scale, offset = _halves(pairs)
            dot = self._dot(words, elements, s.bits)
            term = call("add", call("mul", dot, scale), call("mul", offset, splat(together, LANES)))
            out.append(Assign(total, call("add", total, term)))
        return out

    def _dot(self, words: Expr, elements: Sequence[Expr], bits: int) -> Expr:
        """Σ element · weight over the weights of `words`, scales and offsets aside."""
        total: Expr | None = None
        for i, element in enumerate(elements):
            term = call("mul", _code(words, i, bits), splat(element, LANES))
            total = term if total is None else call("add", total, term)
        assert total is not None
        return total

    def _store(self, panel: Expr, number: Expr | None, panels: Expr) -> list[Stmt]:
        """The slices' sums combined; then an invocation for each column stores its result."""
        slots = PANELS * SLICES * FOURS * len(self.p.sums)
        shared = local("partial", slots * LANES)
        partials: list[tuple[Expr, Expr]] = []
        for i, line in enumerate(self.sums):
            for j, total in enumerate(line):
                base = ((self.panel * len(self.sums) + i) * FOURS + j) * SLICES
                partials.append((total, base))
        out = combine_shared(shared, partials, "add", self.slice, SLICES)
        column = Var("column", extent_of(self.p.n))
        totals: list[Stmt] = []
        for i, s in enumerate(self.p.sums):
            first = ((self.panel * len(self.sums) + i) * FOURS) * SLICES * LANES
            four = self.slice // LANES * (SLICES * LANES)
            totals.append(Declare(s.total, Read(shared, first + four + self.slice % LANES)))
        at = {self.p.n: column}
        stored = Store(
            self.p.epilogue.out,
            simplify(substitute(self.p.epilogue.offset, at)),
            substitute(self.p.epilogue.value, at),
        )
        mine = compare("lt", self.slice, PANEL)
        if number is not None:
            mine = logical_and(mine, compare("lt", number, panels))
        if simplify(extent_of(self.p.n) % PANEL) is not const(0, I32):
            there = compare("lt", panel * PANEL + self.slice, extent_of(self.p.n))
            mine = logical_and(mine, there)
        place = Declare(column, panel * PANEL + self.slice)
        return [*out, If(mine, (place, *totals, stored))]


def _at_zero(body: Sequence[Stmt], base: Var) -> tuple[Stmt, ...]:
    """`body` with base 0 everywhere, loop bounds too."""

    def zero(e: Expr) -> Expr:
        return simplify(substitute(e, {base: const(0, I32)}))

    out: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            inner = _at_zero(s.body, base)
            out.append(For(s.var, zero(s.start), zero(s.stop), inner, s.step))
        else:
            out += map_expressions((s,), zero)
    return tuple(out)


def _words(
    s: QuantisedSum, word: Expr, column: Expr, emit: Emitter, out: list[Stmt]
) -> tuple[Var, Var]:
    """Registers for word number `word` of four columns, and for their scales and offsets."""
    wide = U32.vector(LANES)
    words, pairs = emit.register(wide, "word"), emit.register(wide, "pair")
    group = word // (s.block // s.per_word)
    out.append(Declare(words, Read(s.words, simplify(s.words.offset((word, column))), LANES)))
    out.append(Declare(pairs, Read(s.scales, simplify(s.scales.offset((group, column))), LANES)))
    return words, pairs


# --- many rows ------------------------------------------------------------------------------------

SIDE = 8  # invocations along each direction of a workgroup
ROWS = 4  # of an invocation's tile: its y, y + 8, …
DEPTH = 32  # steps of k staged at once, at most a block


def _many_rows(p: QuantisedProduct) -> Kernel | None:
    if p.m is None or len(p.sums) > MAX_SUMS:
        return None
    depth = min(DEPTH, p.block)
    batch = product([extent_of(v) for v in p.rows[:-1]])
    columns = SIDE * PANEL // len(p.sums)
    if at_most(batch) > MAX_GROUPS or any(s.per_word > depth for s in p.sums):
        return None
    plane = Var("batch", batch)
    down = Var("group_m", simplify(ceildiv(extent_of(p.m), ROWS * SIDE)))
    across = Var("group_n", simplify(ceildiv(extent_of(p.n), columns)))
    if max(at_most(extent_of(down)), at_most(extent_of(across))) > MAX_GROUPS:
        return None
    work = _Matrix(p, p.m, depth, columns, down * (ROWS * SIDE), across * columns)
    loops = [Loop(plane, batch, "workgroup.z")] if p.rows[:-1] else []
    loops += [
        Loop(down, extent_of(down), "workgroup.y"),
        Loop(across, extent_of(across), "workgroup.x"),
        Loop(work.down, const(SIDE, I32), "local.y"),
        Loop(work.across, const(SIDE, I32), "local.x"),
    ]
    body = [*unflatten(plane, p.rows[:-1]), *work.body()]
    return make_kernel("quantised matrix", p.epilogue, loops, body)


@dataclass
class _Matrix:
    """Rows by one or two quantised matrices; `row` and `column` are a workgroup's first."""

    p: QuantisedProduct
    m: Var
    depth: int
    columns: int
    row: Expr
    column: Expr
    emit: Emitter = field(default_factory=Emitter)
    across: Var = field(default_factory=lambda: Var("local_n", SIDE))
    down: Var = field(default_factory=lambda: Var("local_m", SIDE))
    me: Var = field(default_factory=lambda: Var("me", SIDE * SIDE))
    line: Var = field(default_factory=lambda: Var("line", ROWS * SIDE))

    def __post_init__(self) -> None:
        self.each = self.columns // SIDE // LANES  # vec4 of columns of a sum an invocation has
        self.a_stride = self.depth + LANES  # four more than needed, for the banks
        self.b_stride = self.depth * PANEL + LANES
        self.a = local("a_block", ROWS * SIDE * self.a_stride)
        panels = self.columns // PANEL
        self.b = [local(f"b_block{i}", panels * self.b_stride) for i in range(len(self.p.sums))]
        wide = F32.vector(LANES)
        self.sums = [
            [[self.emit.register(wide, "acc") for _ in range(self.each)] for _ in range(ROWS)]
            for _ in self.p.sums
        ]

    def body(self) -> list[Stmt]:
        """Blocks along k fetched and multiplied; the results."""
        statistics: list[Stmt] = []
        value = self._statistics(self.p.a.value, statistics)
        trip = Var("trip", self.p.depth // self.depth)
        k = trip * self.depth
        inside = [
            Barrier(),
            *self._fetch_rows(value, k),
            *self._fetch_weights(k),
            Barrier(),
            *self._multiply(),
        ]
        return [
            Declare(self.me, self.down * SIDE + self.across),
            *statistics,
            *(Declare(s, const(0.0, s.dtype)) for one in self.sums for line in one for s in line),
            For(trip, const(0, I32), extent_of(trip), tuple(inside)),
            *self._stores(),
        ]

    def _clamped(self, row: Expr) -> Expr:
        """`row` of the workgroup; one beyond the last is the last once more."""
        whole = simplify(extent_of(self.m) % (ROWS * SIDE)) is const(0, I32)
        place = self.row + row
        return place if whole else minimum(place, extent_of(self.m) - 1)

    def _statistics(self, value: Expr, out: list[Stmt]) -> Expr:
        """`value` with each reduction along a row replaced by what it is in workgroup memory.

        An invocation a row: the rows' memory is read once more, which is little beside the product.
        """
        rows = ROWS * SIDE
        while True:
            ready = [r for r in reduces(value) if not any(reduces(a) for a in r.args)]
            if not ready:
                return value
            result = local(f"statistic{len(out)}", rows)
            own: list[Stmt] = [
                Declare(self.line, self.me),
                Declare(self.m, self._clamped(self.line)),
            ]
            total = Emitter(LANES, row_lanes=LANES).reduction(
                ready[0], frozenset(self.p.rows), own, None
            )
            own.append(Store(result, self.line, total))
            out += [If(compare("lt", self.me, rows), tuple(own)), Barrier()]
            value = substitute(value, {ready[0]: Read(result, self.line)})

    def _fetch_rows(self, value: Expr, k: Expr) -> list[Stmt]:
        """Rows of `a`, element by element; neighbouring invocations have neighbours in a row."""
        count = ROWS * SIDE * self.depth
        slot, element = Var("slot", count), Var("element", self.depth)
        body = (
            Declare(self.line, slot // self.depth),
            Declare(element, slot % self.depth),
            Declare(self.m, self._clamped(self.line)),
            Declare(self.p.k, k + element),
            Store(self.a, self.line * self.a_stride + element, value),
        )
        return [For(slot, self.me, const(count, I32), body, SIDE * SIDE)]

    def _fetch_weights(self, k: Expr) -> list[Stmt]:
        """Words of every matrix, as floats."""
        out: list[Stmt] = []
        last = simplify(ceildiv(extent_of(self.p.n), PANEL) - 1)
        for i, (s, block) in enumerate(zip(self.p.sums, self.b, strict=True)):
            words = self.depth // s.per_word
            count = self.columns // LANES * words
            slot, panel = Var(f"unit{i}", count), Var(f"panel{i}", simplify(last + 1))
            half, word = slot % FOURS, slot // FOURS % words
            line = slot // (FOURS * words)
            inside: list[Stmt] = [Declare(panel, minimum(self.column // PANEL + line, last))]
            column = panel * PANEL + half * LANES
            loaded, pairs = _words(s, k // s.per_word + word, column, self.emit, inside)
            scale, offset = (self.emit.register(F32.vector(LANES), n) for n in ("scale", "offset"))
            for var, e in zip((scale, offset), _halves(pairs), strict=True):
                inside.append(Declare(var, e))
            for j in range(s.per_word):
                weight = call("add", call("mul", _code(loaded, j, s.bits), scale), offset)
                place = line * self.b_stride + (word * s.per_word + j) * PANEL + half * LANES
                inside.append(Store(block, simplify(place), weight))
            out.append(For(slot, self.me, const(count, I32), tuple(inside), SIDE * SIDE))
        return out

    def _multiply(self) -> list[Stmt]:
        wide = F32.vector(LANES)
        four = Var("four", self.depth // LANES)
        body: list[Stmt] = []
        rows: list[Var] = []
        for i in range(ROWS):
            rows.append(self.emit.register(wide, "a"))
            place = (self.down + i * SIDE) * self.a_stride + four * LANES
            body.append(Declare(rows[-1], Read(self.a, place, LANES)))
        for step in range(LANES):
            for block, sums in zip(self.b, self.sums, strict=True):
                for j in range(self.each):
                    vector = self.emit.register(wide, "b")
                    place = self._place(j, four * LANES + step)
                    body.append(Declare(vector, Read(block, simplify(place), LANES)))
                    for line, row in zip(sums, rows, strict=True):
                        term = call("mul", splat(lane(row, step), LANES), vector)
                        body.append(Assign(line[j], call("add", line[j], term)))
        return [For(four, const(0, I32), extent_of(four), tuple(body))]

    def _place(self, j: int, k: Expr) -> Expr:
        """Where step k of this invocation's vec4 number j of columns lies in a block of weights."""
        four = self.across * self.each + j
        return four // FOURS * self.b_stride + k * PANEL + four % FOURS * LANES

    def _stores(self) -> list[Stmt]:
        """Column by column, so that epilogues of any form do."""
        p = self.p
        out: list[Stmt] = []
        first = self.column + self.across * (self.each * LANES)
        for i in range(ROWS):
            row = Var(f"row{i}", extent_of(self.m))
            inside: list[Stmt] = []
            for j in range(self.each):
                for element in range(LANES):
                    column = Var(f"column{i}_{j}_{element}", extent_of(p.n))
                    at: dict[Var, Expr] = {self.m: row, p.n: column}
                    for s, sums in zip(p.sums, self.sums, strict=True):
                        at[s.total] = lane(sums[i][j], element)
                    store = Store(
                        p.epilogue.out,
                        simplify(substitute(p.epilogue.offset, at)),
                        substitute(p.epilogue.value, at),
                    )
                    place = simplify(first + (j * LANES + element))
                    there = compare("lt", place, extent_of(p.n))
                    inside.append(If(there, (Declare(column, place), store)))
            out.append(Declare(row, self.row + self.down + i * SIDE))
            out.append(If(compare("lt", row, extent_of(self.m)), tuple(inside)))
        return out
