"""What all products with a quantised matrix share: panels of it, and blocks of staged rows.

A panel is eight columns: 16 bytes of weights are four of them, eight (or four) consecutive weights
each. One word of scales is a block's two float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import Expr, Read, Var, bitcast, call, const, minimum, substitute
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Declare, For, Stmt, Store
from webkiln.lower.layout import PANEL
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import extent_of
from webkiln.schedule.quantised import QuantisedProduct, QuantisedSum
from webkiln.schedule.vectorize import vectorize
from webkiln.schedule.wasm.staged_rows import SHIFT, StagedRows

__all__ = ["INTS", "WIDE", "Panels"]

WIDE = F32.vector(PANEL)
INTS = I32.vector(PANEL)
HALF_BITS = 0x8FFFE000 - (1 << 32)  # sign, and the rest of a float16 three bits further down
UNBIAS = 2.0**112 / SHIFT  # float16's bits as float32's are 2^(15 - 127) of what they stand for


@dataclass
class Panels:
    """Prints parts of one product; registers are numbered by `emit`."""

    q: QuantisedProduct
    staged: StagedRows

    def __post_init__(self) -> None:
        self.emit = Emitter()
        self.panels = simplify((extent_of(self.q.n) + (PANEL - 1)) // PANEL)

    def vectorises(self) -> bool:
        """Whether rows can be staged and results stored in vectors."""
        totals = [self.emit.register(WIDE) for _ in self.q.sums]
        return self.value(totals) is not None and self.staged.vectorises()

    def blocks_of_rows(self, panels: Callable[[Expr, Expr], Stmt]) -> Kernel:
        """Blocks of rows, staged, and `panels(first, height)`: all that a block then meets."""
        m = self.q.m
        assert m is not None
        rows, count = extent_of(m), self.staged.count
        block = Var("block", simplify((rows + (count - 1)) // count))
        first = simplify(block * count)
        height = simplify(minimum(rows - first, count))
        batch = tuple(v for v in self.q.rows if v is not m)
        place = Var("staged_row", count)
        bound = frozenset((*batch, block, place))
        staging = self.staged.row(place, self.emit, bound, {m: simplify(first + place)})
        loops = [Loop(v, extent_of(v), "task") for v in (*batch, block)]
        stage = For(place, const(0, I32), height, tuple(staging))
        return make_kernel("quantised", self.q.epilogue, loops, [stage, panels(first, height)])

    def scales(self, s: QuantisedSum, panel: Expr, block: Expr, out: list[Stmt]) -> tuple[Var, Var]:
        """The block's s and m for a panel: float16's bits where float32's are, `UNBIAS` too small.

        Half of a conversion: the other half is a factor of the sum.
        """
        pair = self.emit.register(INTS, "pair")
        where = simplify(s.scales.offset((block, panel * PANEL)))
        out.append(Declare(pair, bitcast(Read(s.scales, where, PANEL), INTS)))
        registers = []
        for name, bits in (("scale", call("shl", pair, _ints(16))), ("offset", pair)):
            moved = call("bitand", call("shr", bits, _ints(3)), _ints(HALF_BITS))
            register = self.emit.register(WIDE, name)
            out.append(Declare(register, bitcast(moved, WIDE)))
            registers.append(register)
        return registers[0], registers[1]

    def words(
        self, s: QuantisedSum, panel: Expr, group: Expr, out: list[Stmt]
    ) -> Iterator[tuple[int, Var]]:
        """The words of a group of weights one by one, each in a register."""
        count = self.staged.group // s.per_word
        for j in range(count):
            word = self.emit.register(s.words.dtype.vector(PANEL), "word")
            where = simplify(s.words.offset((group * count + j, panel * PANEL)))
            out.append(Declare(word, Read(s.words, where, PANEL)))
            yield j, word

    def value(self, totals: list[Var]) -> Expr | None:
        pairs = zip(self.q.sums, totals, strict=True)
        known: dict[Expr, Expr] = {s.total: t * UNBIAS for s, t in pairs}
        return vectorize(self.q.epilogue.value, self.q.n, PANEL, known)

    def store(self, panel: Expr, place: dict[Var, Expr], totals: list[Var]) -> Store:
        """What becomes of one row's sums; of the last panel only the columns that exist."""
        value = self.value(totals)
        assert value is not None
        column = panel * PANEL
        at = {**place, self.q.n: column}
        extent = extent_of(self.q.n)
        whole = simplify(extent % PANEL) is const(0, I32)
        return Store(
            self.q.epilogue.out,
            simplify(substitute(self.q.epilogue.offset, at)),
            simplify(substitute(value, at)),
            None if whole else simplify(extent - column),
        )


def _ints(value: int) -> Expr:
    return const(value, INTS)
