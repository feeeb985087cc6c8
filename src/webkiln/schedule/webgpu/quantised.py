"""Products with quantised matrices on WebGPU; weights become floats in registers.

One row (decoding): memory is all that counts. An invocation reads a word of eight columns, 32
bytes, and its neighbours the words next to it; 64 of them share k and combine their sums. The row,
with the norm or the activation that makes it, is computed once for the workgroup, in its memory.

Many rows (a prompt) are in `quantised_rows.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import extent_of, reduces
from webkiln.schedule.quantised import QuantisedProduct, QuantisedSum, match_quantised
from webkiln.schedule.vectorize import vectorize
from webkiln.schedule.webgpu.grid import at_most, groups_of
from webkiln.schedule.webgpu.quantised_rows import many_rows
from webkiln.schedule.webgpu.rows import RowWork
from webkiln.schedule.webgpu.words import LANES, code_of, halves, load_words
from webkiln.targets.webgpu import MAX_STORAGE_BUFFERS

__all__ = ["has_one_row", "quantised"]

FOURS = PANEL // LANES
#: Invocations that share k, and panels of a workgroup; the latter for `MANY` columns and more.
SHAPES = ((16, 4), (8, 8))
MANY = 4096


def quantised(compute: Compute) -> Kernel | None:
    """The kernel, where `compute` is made of products with quantised matrices."""
    p = _product(compute)
    if p is None:
        return None
    kernel = _one_row(p) if p.m is None else many_rows(p)
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
    return len(loaded) < MAX_STORAGE_BUFFERS


# --- one row --------------------------------------------------------------------------------------


def _one_row(p: QuantisedProduct) -> Kernel | None:
    panels = simplify(ceildiv(extent_of(p.n), PANEL))
    slices, lines = SHAPES[at_most(extent_of(p.n)) >= MANY]
    work = _Vector(p, panels, slices, lines)
    loops, group = groups_of(simplify(ceildiv(panels, lines)))
    body = work.body(group)
    loops += [
        Loop(work.line, const(lines, I32), "local.y"),
        Loop(work.slice, const(slices, I32), "local.x"),
    ]
    return make_kernel("quantised vector", p.epilogue, loops, body)


class _Statistics(RowWork):
    """Reductions of the row, by each line of a workgroup for itself; all add up all parts.

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


@dataclass
class _Vector:
    """A row by one or several quantised matrices, of `panels` panels.

    A workgroup has `lines` of these, and `slices` invocations for each.
    """

    p: QuantisedProduct
    panels: Expr
    slices: int
    lines: int
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
        statistics = _Statistics(self.slice, self.slices, self.line, self.lines, emit=self.emit)
        value = statistics.reduce_all(self.p.a.value)
        return [
            Declare(self.me, self.line * self.slices + self.slice),
            Declare(panel, minimum(number, self.panels - 1) if ragged else number),
            *statistics.out,
            *(Declare(s, const(0.0, s.dtype)) for line in self.sums for s in line),
            *self._accumulate(panel, value),
            *self._store(group),
        ]

    def _accumulate(self, panel: Expr, value: Expr) -> list[Stmt]:
        """Every n-th word of the panel."""
        out: list[Stmt] = []
        for per in dict.fromkeys(s.per_word for s in self.p.sums):
            word = Var(f"index{per}", self.p.depth // per)
            step: list[Stmt] = []
            elements = self._elements(value, word * per, per, step)
            together = self.emit.register(F32, "together")
            total = elements[0]
            for element in elements[1:]:
                total = call("add", total, element)
            step.append(Declare(together, total))
            for s, line in zip(self.p.sums, self.sums, strict=True):
                if s.per_word == per:
                    step += self._word(s, line, panel, word, elements, together)
            out.append(For(word, self.slice, extent_of(word), tuple(step), self.slices))
        return out

    def _elements(self, value: Expr, first: Expr, count: int, out: list[Stmt]) -> list[Expr]:
        """`count` elements of the row from `first` on, four at a time where they are neighbours."""
        k = self.p.k
        wide = vectorize(value, k, LANES)
        found: list[Expr] = []
        for i in range(0, count, LANES):
            if wide is not None and wide.dtype.lanes == LANES:
                four = self.emit.register(F32.vector(LANES), "a")
                out.append(Declare(four, simplify(substitute(wide, {k: first + i}))))
                found += [lane(four, j) for j in range(LANES)]
                continue
            for j in range(i, i + LANES):
                found.append(self.emit.register(F32, "a"))
                out.append(Declare(found[-1], simplify(substitute(value, {k: first + j}))))  # type: ignore[arg-type]
        return found

    def _word(
        self,
        s: QuantisedSum,
        line: list[Var],
        panel: Expr,
        word: Expr,
        elements: Sequence[Expr],
        together: Expr,
    ) -> list[Stmt]:
        """A word of eight columns, times the elements of the row."""
        out: list[Stmt] = []
        for four, total in enumerate(line):
            column = panel * PANEL + four * LANES
            words, pairs = load_words(s, word, column, self.emit, out)
            scale, offset = halves(pairs)
            dot = self._dot(words, elements, s.bits)
            term = call("add", call("mul", dot, scale), call("mul", offset, splat(together, LANES)))
            out.append(Assign(total, call("add", total, term)))
        return out

    def _dot(self, words: Expr, elements: Sequence[Expr], bits: int) -> Expr:
        """Σ element · weight over the weights of `words`, scales and offsets aside."""
        total: Expr | None = None
        for i, element in enumerate(elements):
            term = call("mul", code_of(words, i, bits), splat(element, LANES))
            total = term if total is None else call("add", total, term)
        assert total is not None
        return total

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
