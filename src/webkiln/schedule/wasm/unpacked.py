"""Several rows of 16 bits times a quantised matrix: weights unpacked once for a block of rows.

Products of two pairs of int16, added up in int32, are one instruction of SIMD. For it a group of
weights is unpacked into memory of the task: that of two cells, a cell being a panel of one of the
matrices. Tiles of two rows then run over the group, a pair an iteration: 16 columns wide, since a
row's pair costs an address and a load for all its columns, and eight 128-bit sums, with which all
that is live fits in 16 registers. The sums of the groups are added up in memory.

Measured in V8 on Zen 4, 16 × 576 × 1536: 36 G multiply-adds/s, tiles of four rows and one cell 35,
two pairs an iteration 33, four 33, all 16 of them 24: V8 keeps an address for each distance.
"""

from __future__ import annotations

from collections.abc import Sequence

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32, DType
from webkiln.ir.expr import (
    Const,
    Expr,
    Read,
    Var,
    bitcast,
    call,
    cast,
    compare,
    const,
    minimum,
    splat,
)
from webkiln.ir.program import Kernel
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Stmt, Store
from webkiln.lower.layout import PANEL
from webkiln.schedule.quantised import QuantisedSum
from webkiln.schedule.wasm.panels import INTS, WIDE, Panels

__all__ = ["UnpackedRows"]

CELLS = 2  # together: a panel of two matrices, or two of one
TILE_ROWS = 2
#: by the bits of a weight: the shifts that bring its pairs, in the order in which rows have them,
#: to where the mask has ones
PAIRS = {4: ((0, 8, 4, 12), 0x000F000F), 8: ((0, 8), 0x00FF00FF)}


class UnpackedRows(Panels):
    """Prints one product of several rows, which are staged in pairs."""

    def kernel(self) -> Kernel:
        """Blocks of rows, each of which meets every panel, one or two at a time."""
        return self.blocks_of_rows(self._panels)

    def _panels(self, first: Expr, height: Expr) -> Stmt:
        assert isinstance(self.panels, Const)
        panels = int(self.panels.value)
        width = min(panels, max(1, CELLS // len(self.q.sums)))
        panel = Var("panel", panels)
        places = [simplify(panel + i) for i in range(width)]
        ragged = places[-1] if panels % width else None
        read = [minimum(p, panels - 1) if p is ragged else p for p in places]
        cells = [(s, p) for p in read for s in self.q.sums]
        totals = _memory("totals", WIDE, len(cells), self.staged.count)
        body = self._sums(cells, totals, height)
        row = Var("result", self.staged.count)
        results: list[Stmt] = []
        for i, place in enumerate(places):
            store = self._result(place, row, first, i * len(self.q.sums), totals, results)
            there = compare("lt", place, panels)
            results.append(If(there, (store,)) if place is ragged else store)
        body.append(For(row, const(0, I32), height, tuple(results)))
        return For(panel, const(0, I32), self.panels, tuple(body), width)

    def _result(
        self, panel: Expr, row: Var, first: Expr, cell: int, totals: Buffer, out: list[Stmt]
    ) -> Store:
        """What becomes of the cells from `cell` on in one row."""
        assert self.q.m is not None
        registers = []
        for i in range(len(self.q.sums)):
            registers.append(self.emit.register(WIDE, "total"))
            out.append(Declare(registers[-1], Read(totals, _at(totals, cell + i, row), PANEL)))
        return self.store(panel, {self.q.m: simplify(first + row)}, registers)

    # sums -----------------------------------------------------------------------------------------

    def _sums(
        self,
        cells: Sequence[tuple[QuantisedSum, Expr]],
        totals: Buffer,
        height: Expr,
    ) -> list[Stmt]:
        """The `totals` of `cells` for every row."""
        row, group = Var("row", self.staged.count), self.emit.loop("group", self.staged.groups)
        zero = [Store(totals, _at(totals, c, row), const(0, WIDE)) for c in range(len(cells))]
        unpacked = _memory("unpacked", INTS, self.staged.group // 2, len(cells))
        body: list[Stmt] = []
        scales = []
        for c, (s, panel) in enumerate(cells):
            block = simplify(group // self.staged.groups_per_block)
            scales.append(self.scales(s, panel, block, body))
            body += self._unpack(s, panel, group, unpacked, c)
        tile, rows = Var("tile", self.staged.count), min(TILE_ROWS, self.staged.count)
        places = [simplify(tile + i) for i in range(rows)]
        inside = self._tile(places, group, unpacked, totals, scales)
        body.append(For(tile, const(0, I32), height, tuple(inside), rows))
        return [
            For(row, const(0, I32), height, tuple(zero)),
            For(group, const(0, I32), const(self.staged.groups, I32), tuple(body)),
        ]

    def _unpack(
        self, s: QuantisedSum, panel: Expr, group: Expr, unpacked: Buffer, cell: int
    ) -> list[Stmt]:
        """A group of weights as pairs of int16."""
        shifts, ones = PAIRS[s.bits]
        mask = const(ones, s.words.dtype.vector(PANEL))
        out: list[Stmt] = []
        for j, word in self.words(s, panel, group, out):
            for i, shift in enumerate(shifts):
                moved: Expr = call("shr", word, shift) if shift else word
                where = unpacked.offset((j * len(shifts) + i, cell, 0))
                pair = bitcast(call("bitand", moved, mask), INTS)
                out.append(Store(unpacked, simplify(where), pair))
        return out

    def _tile(
        self,
        rows: Sequence[Expr],
        group: Expr,
        unpacked: Buffer,
        totals: Buffer,
        scales: Sequence[tuple[Var, Var]],
    ) -> list[Stmt]:
        """A group of several rows times that of the cells, added to `totals`."""
        sums = [[self.emit.register(INTS, "sum") for _ in scales] for _ in rows]
        pair = self.emit.loop("pair", self.staged.group // 2)
        twos = [self.emit.register(INTS, "two") for _ in rows]
        step: list[Stmt] = [
            Declare(two, self.staged.pair(row, group, pair))
            for two, row in zip(twos, rows, strict=True)
        ]
        for c in range(len(scales)):
            weights = self.emit.register(INTS, "weights")
            where = simplify(unpacked.offset((pair, c, 0)))
            step.append(Declare(weights, Read(unpacked, where, PANEL)))
            for two, line in zip(twos, sums, strict=True):
                step.append(Assign(line[c], call("dot2", two, weights, line[c])))
        out: list[Stmt] = [Declare(s, const(0, INTS)) for line in sums for s in line]
        out.append(For(pair, const(0, I32), const(self.staged.group // 2, I32), tuple(step)))
        for row, line in zip(rows, sums, strict=True):
            factor, shift = self.staged.factors(row, group)
            assert factor is not None
            for c, (scale, offset) in enumerate(scales):
                where = _at(totals, c, row)
                total = Read(totals, where, PANEL) + splat(factor, PANEL) * scale * cast(
                    line[c], WIDE
                )
                out.append(Store(totals, where, total + splat(shift, PANEL) * offset))
        return out


def _memory(name: str, dtype: DType, *shape: int) -> Buffer:
    """Vectors in memory of the task."""
    extents = tuple(const(n, I32) for n in (*shape, dtype.lanes))
    return Buffer(name, dtype.scalar, extents, "workgroup")


def _at(totals: Buffer, cell: int, row: Expr) -> Expr:
    return simplify(totals.offset((cell, row, 0)))
