"""Products with quantised matrices on WebGPU; weights become floats in registers.

Where the activations may be rounded there is a second form, in float16 (see `runs.py`).

One row (decoding): memory is all that counts. An invocation reads a word of eight columns, 32
bytes, and its neighbours the words next to it; 64 of them share k and combine their sums. The row,
with the norm or the activation that makes it, is computed once for the workgroup, in its memory.

Many rows (a prompt) are in `quantised_rows.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Load,
    Read,
    Var,
    call,
    ceildiv,
    compare,
    const,
    free_vars,
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
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, reduces
from webkiln.schedule.quantised import QuantisedProduct, QuantisedSum, match_quantised, row_of
from webkiln.schedule.webgpu.bindings import can_bind, within_bindings
from webkiln.schedule.webgpu.grid import groups_of
from webkiln.schedule.webgpu.quantised_rows import many_rows
from webkiln.schedule.webgpu.rows import Statistics
from webkiln.schedule.webgpu.runs import Floats, Pairs, elements
from webkiln.schedule.webgpu.words import LANES, halves, load

__all__ = ["has_one_row", "quantised"]

FOURS = PANEL // LANES
INVOCATIONS = 64  # of a workgroup, at most: those that share k, for as many panels as there is room
SLICES = range(16, 7, -1)  # invocations that share k: the number that leaves fewest idle


def quantised(compute: Compute, kept: Compute | None = None) -> Kernel | None:
    """The kernel, where `compute` is made of products with quantised matrices.

    `kept` is a row that it computes inside (see `has_one_row`), which others need as well.
    """
    p = _product(compute)
    if p is None:
        return None
    make = partial(_one_row, p, kept) if p.m is None else partial(many_rows, p)
    kernel = make(half=False)
    if kernel is None:
        return None
    return within_bindings(replace(kernel, half=make(half=True)) if p.coarse else kernel)


def _product(compute: Compute) -> QuantisedProduct | None:
    """The product, where its row needs nothing but elements and reductions of the whole of rows."""
    p = match_quantised(compute)
    if p is None or not isinstance(extent_of(p.n), Const):
        return None
    return None if any(p.k in free_vars(r) for r in reduces(p.a.value)) else p


def has_one_row(compute: Compute, kept: Compute | None = None) -> bool:
    """Whether `quantised` makes a kernel of `compute` that reads its matrices once, for one row.

    And stores the row `kept` on its way.
    """
    p = _product(compute)
    if p is None or p.rows:
        return False
    loaded = dict.fromkeys(n.buffer for n in walk(compute.value) if isinstance(n, Load))
    stored = (compute.out,) if kept is None else (compute.out, kept.out)
    return can_bind((*loaded, *stored))


# --- one row --------------------------------------------------------------------------------------


def _one_row(p: QuantisedProduct, kept: Compute | None, *, half: bool) -> Kernel | None:
    panels = simplify(ceildiv(extent_of(p.n), PANEL))
    slices = min(SLICES, key=lambda n: -(-p.blocks // n) * n)
    lines = INVOCATIONS // slices
    work = _Vector(p, panels, slices, lines, half, None if kept is None else row_of(kept))
    loops, group = groups_of(simplify(ceildiv(panels, lines)))
    body = work.body(group)
    loops += [
        Loop(work.line, const(lines, I32), "local.y"),
        Loop(work.slice, const(slices, I32), "local.x"),
    ]
    return make_kernel("quantised vector", p.epilogue, loops, body)


@dataclass
class _Vector:
    """A row by one or several quantised matrices, of `panels` panels.

    A workgroup has `lines` of these, and `slices` invocations for each. `half`: words are
    multiplied in float16. The first workgroup stores `kept`, a row on the way to that of the
    product.
    """

    p: QuantisedProduct
    panels: Expr
    slices: int
    lines: int
    half: bool
    kept: Nest | None = None
    emit: Emitter = field(default_factory=Emitter)

    def __post_init__(self) -> None:
        self.slice, self.line = Var("slice", self.slices), Var("line", self.lines)
        self.me = Var("me", self.slices * self.lines)
        self.sums = [
            [self.emit.register(F32.vector(LANES), "acc") for _ in range(FOURS)]
            for _ in self.p.sums
        ]

    def body(self, group: Expr) -> list[Stmt]:
        """What the invocations have of each column, and what is stored of that."""
        panel = Var("panel", self.panels)
        number = group * self.lines + self.line
        ragged = simplify(self.panels % self.lines) is not const(0, I32)
        statistics = Statistics(self.slice, self.slices, self.line, self.lines, emit=self.emit)
        rows = (self.p.a,) if self.kept is None else (self.p.a, self.kept)
        value, *others = statistics.reduce_each([row.value for row in rows])
        return [
            Declare(self.me, self.line * self.slices + self.slice),
            Declare(panel, minimum(number, self.panels - 1) if ragged else number),
            *statistics.out,
            *self._keep(others, statistics, group),
            *(Declare(s, const(0.0, s.dtype)) for line in self.sums for s in line),
            *self._accumulate(panel, value),
            *self._store(group),
        ]

    def _keep(self, values: Sequence[Expr], statistics: Statistics, group: Expr) -> list[Stmt]:
        """The row that others need, stored by one line of invocations."""
        first = logical_and(compare("eq", group, 0), compare("eq", self.line, 0))
        nests = [replace(self.kept, value=v) for v in values if self.kept is not None]
        return [If(first, tuple(statistics.store(n, n.loops))) for n in nests]

    def _accumulate(self, panel: Expr, value: Expr) -> list[Stmt]:
        """Every n-th block of the panel; its scales and offsets count once, at its end."""
        group = Var("group_k", self.p.blocks)
        begin: list[Stmt] = []
        words: list[Stmt] = []
        end: list[Stmt] = []
        together = self.emit.register(F32, "together")
        begin.append(Declare(together, const(0.0, F32)))
        for number, per in enumerate(dict.fromkeys(s.per_word for s in self.p.sums)):
            word = Var(f"word_k{per}", self.p.block // per)
            step: list[Stmt] = []
            at = group * (self.p.block // per) + word
            found = elements(value, self.p.k, at * per, per, self.emit, step)
            if number == 0:
                total: Expr = together
                for element in found:
                    total = call("add", total, element)
                step.append(Assign(together, total))
            run = Pairs(found, self.emit, step) if self.half else Floats(found)
            for s, line in zip(self.p.sums, self.sums, strict=True):
                if s.per_word == per:
                    self._block(s, line, panel, (group, at), run, together, begin, step, end)
            words.append(For(word, const(0, I32), extent_of(word), tuple(step)))
        blocks = const(self.p.blocks, I32)
        return [For(group, self.slice, blocks, (*begin, *words, *end), self.slices)]

    def _block(
        self,
        s: QuantisedSum,
        line: list[Var],
        panel: Expr,
        at: tuple[Expr, Expr],
        run: Floats | Pairs,
        together: Expr,
        begin: list[Stmt],
        step: list[Stmt],
        end: list[Stmt],
    ) -> None:
        """A block of eight columns: what it begins with, does for each word, and ends with.

        `at` is its number and the word's.
        """
        for j, total in enumerate(line):
            column = panel * PANEL + j * LANES
            dot = self.emit.register(F32.vector(LANES), "dot")
            begin.append(Declare(dot, const(0.0, dot.dtype)))
            words = load(s.words, at[1], column, self.emit, step)
            step.append(Assign(dot, run.added(dot, words, s.bits)))
            scale, offset = halves(load(s.scales, at[0], column, self.emit, end))
            offset = run.offset(scale, offset, s.bits)
            term = call("add", call("mul", dot, scale), call("mul", offset, splat(together, LANES)))
            end.append(Assign(total, call("add", total, term)))

    def _store(self, group: Expr) -> list[Stmt]:
        """The slices' sums, added up by an invocation for each column, which stores its result."""
        shared = local("partial", self.lines * self.slices * PANEL * len(self.p.sums))
        out: list[Stmt] = []
        for i, line in enumerate(self.sums):
            for j, total in enumerate(line):
                place = (self.me * len(self.sums) + i) * PANEL + j * LANES
                out.append(Store(shared, simplify(place), total))
        mine, column = Var("mine", self.lines), Var("column", extent_of(self.p.n))
        slice_ = Var("other", self.slices)
        inside: list[Stmt] = [Declare(mine, self.me // PANEL)]
        for i, s in enumerate(self.p.sums):
            owner = mine * self.slices + slice_
            place = (owner * len(self.sums) + i) * PANEL + self.me % PANEL
            step = Assign(s.total, call("add", s.total, Read(shared, simplify(place))))
            inside.append(Declare(s.total, const(0.0, F32)))
            inside.append(For(slice_, const(0, I32), const(self.slices, I32), (step,)))
        at = {self.p.n: column}
        stored = Store(
            self.p.epilogue.out,
            simplify(substitute(self.p.epilogue.offset, at)),
            substitute(self.p.epilogue.value, at),
        )
        first = group * (self.lines * PANEL)
        inside += [Declare(column, first + self.me), stored]
        there = compare("lt", self.me, self.lines * PANEL)
        if simplify(extent_of(self.p.n) % (self.lines * PANEL)) is not const(0, I32):
            there = logical_and(there, compare("lt", first + self.me, extent_of(self.p.n)))
        return [*out, Barrier(), If(there, tuple(inside))]
