"""Many rows by quantised matrices on WebGPU: a prompt.

Blocks of the rows and of the weights, as floats, lie in workgroup memory; register tiles are
multiplied from there, as in `staged.py`. In float16 they take half the room. Then rows are staged a
run at a time (`runs.py`), and weights times `UNIT`: by their packing they are below 2^23, so the
products of a run add up to less than 2^15, and those of common sizes are normal numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from webkiln.ir.dtypes import F16, F32, I32
from webkiln.ir.expr import (
    Expr,
    Read,
    Var,
    call,
    cast,
    ceildiv,
    compare,
    const,
    lane,
    minimum,
    splat,
    substitute,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Stmt, Store
from webkiln.lower.layout import PANEL
from webkiln.schedule.attention import local
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import extent_of, product, reduces
from webkiln.schedule.quantised import QuantisedProduct
from webkiln.schedule.webgpu.grid import at_most, unflatten
from webkiln.schedule.webgpu.runs import Halves, elements
from webkiln.schedule.webgpu.words import LANES, code_of, halves, load
from webkiln.targets.webgpu import MAX_GROUPS

__all__ = ["many_rows"]

FOURS = PANEL // LANES
MAX_SUMS = 2  # of a tile: what registers and workgroup memory hold
SIDE = 8  # invocations along each direction of a workgroup
ROWS = 4  # of an invocation's tile: its y, y + 8, …
DEPTH = 32  # steps of k staged at once, at most a block
RUN = 8  # steps of k whose products are summed in float16
UNIT = 2.0**-12  # of weights in float16


def many_rows(p: QuantisedProduct, *, half: bool) -> Kernel | None:
    """The kernel for `p`, or None where a tile can't hold its sums. `half`: it works in float16."""
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
    work = _Matrix(p, p.m, depth, columns, down * (ROWS * SIDE), across * columns, half)
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
    half: bool
    emit: Emitter = field(default_factory=Emitter)
    across: Var = field(default_factory=lambda: Var("local_n", SIDE))
    down: Var = field(default_factory=lambda: Var("local_m", SIDE))
    me: Var = field(default_factory=lambda: Var("me", SIDE * SIDE))
    line: Var = field(default_factory=lambda: Var("line", ROWS * SIDE))

    def __post_init__(self) -> None:
        self.each = self.columns // SIDE // LANES  # vec4 of columns of a sum an invocation has
        self.a_stride = self.depth + LANES  # four more than needed, for the banks
        self.b_stride = self.depth * PANEL + LANES
        self.kind = F16 if self.half else F32
        self.a = local("a_block", ROWS * SIDE * self.a_stride, self.kind)
        self.runs = self.depth // RUN
        self.factors = local("a_factors", ROWS * SIDE * self.runs)
        size = self.columns // PANEL * self.b_stride
        self.b = [local(f"b_block{i}", size, self.kind) for i in range(len(self.p.sums))]
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
            *(self._fetch_runs(value, k) if self.half else self._fetch_rows(value, k)),
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

    def _fetch_runs(self, value: Expr, k: Expr) -> list[Stmt]:
        """Rows of `a` in float16, a run at a time, and its factor."""
        count = ROWS * SIDE * self.runs
        slot, number = Var("slot", count), Var("run", self.runs)
        body: list[Stmt] = [
            Declare(self.line, slot // self.runs),
            Declare(number, slot % self.runs),
            Declare(self.m, self._clamped(self.line)),
        ]
        found = elements(value, self.p.k, k + number * RUN, RUN, self.emit, body)
        run = Halves(found, self.emit, body)
        for i in range(0, RUN, LANES):
            place = self.line * self.a_stride + number * RUN + i
            body.append(Store(self.a, place, run.chosen(*range(i, i + LANES))))
        place = self.line * self.runs + number
        body.append(Store(self.factors, place, run.factor * (1 / UNIT)))
        return [For(slot, self.me, const(count, I32), tuple(body), SIDE * SIDE)]

    def _fetch_weights(self, k: Expr) -> list[Stmt]:
        """Words of every matrix, as floats."""
        unit = const(UNIT if self.half else 1.0, F32.vector(LANES))
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
            at = k // s.per_word + word
            loaded = load(s.words, at, column, self.emit, inside)
            pairs = load(s.scales, at // (s.block // s.per_word), column, self.emit, inside)
            scale, offset = (self.emit.register(F32.vector(LANES), n) for n in ("scale", "offset"))
            for var, e in zip((scale, offset), halves(pairs), strict=True):
                inside.append(Declare(var, call("mul", e, unit)))
            for j in range(s.per_word):
                weight = call("add", call("mul", code_of(loaded, j, s.bits), scale), offset)
                weight = cast(weight, self.kind.vector(LANES))
                place = line * self.b_stride + (word * s.per_word + j) * PANEL + half * LANES
                inside.append(Store(block, simplify(place), weight))
            out.append(For(slot, self.me, const(count, I32), tuple(inside), SIDE * SIDE))
        return out

    def _multiply(self) -> list[Stmt]:
        """A block's products; those of a run in float16 become float32 at its end."""
        wide = self.kind.vector(LANES)
        steps = RUN if self.half else LANES
        chunk = Var("chunk", self.depth // steps)
        body: list[Stmt] = []
        rows: list[list[Expr]] = []
        for i in range(ROWS):
            place = (self.down + i * SIDE) * self.a_stride + chunk * steps
            fours = [self.emit.register(wide, "a") for _ in range(steps // LANES)]
            for j, four in enumerate(fours):
                body.append(Declare(four, Read(self.a, place + j * LANES, LANES)))
            rows.append([lane(four, j) for four in fours for j in range(LANES)])
        sums = self._run_sums(body) if self.half else self.sums
        for step in range(steps):
            for block, lines in zip(self.b, sums, strict=True):
                for j in range(self.each):
                    vector = self.emit.register(wide, "b")
                    place = self._place(j, chunk * steps + step)
                    body.append(Declare(vector, Read(block, simplify(place), LANES)))
                    for line, row in zip(lines, rows, strict=True):
                        term = call("mul", splat(row[step], LANES), vector)
                        body.append(Assign(line[j], call("add", line[j], term)))
        if self.half:
            body += self._add_runs(sums, chunk)
        return [For(chunk, const(0, I32), extent_of(chunk), tuple(body))]

    def _run_sums(self, out: list[Stmt]) -> list[list[list[Var]]]:
        """Registers for what a run adds to `sums`."""
        kind = self.kind.vector(LANES)
        found = [
            [[self.emit.register(kind, "run") for _ in line] for line in one] for one in self.sums
        ]
        out += [Declare(r, const(0.0, kind)) for one in found for line in one for r in line]
        return found

    def _add_runs(self, runs: list[list[list[Var]]], number: Expr) -> list[Stmt]:
        """Every row's sums of run `number`, times its factor, to `sums`."""
        out: list[Stmt] = []
        for i in range(ROWS):
            factor = self.emit.register(F32, "factor")
            place = (self.down + i * SIDE) * self.runs + number
            out.append(Declare(factor, Read(self.factors, place)))
            for one, lines in zip(self.sums, runs, strict=True):
                for total, run in zip(one[i], lines[i], strict=True):
                    term = call("mul", cast(run, total.dtype), splat(factor, LANES))
                    out.append(Assign(total, call("add", total, term)))
        return out

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
