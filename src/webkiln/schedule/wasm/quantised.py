"""Products with quantised matrices on WebAssembly: bytes by bytes where activations may be coarse.

A task first stages its rows of A: each block of up to 32 elements as int8, its scale, and its sum
for the offsets. The weights stay packed: 16 bytes of them are four columns of eight (or four)
consecutive weights, masked and shifted into operands of a four-way dot product of bytes.

One row (decoding) streams the weights once, and memory is what it waits for: panels from several
places at a time, since memory serves a few streams better than one. Several rows (a prompt) form
tiles over a panel that stays in the first-level cache. Where 16-bit rows are not multiplied as
bytes, `unpacked.py` has the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Op,
    Var,
    bitcast,
    call,
    cast,
    compare,
    const,
    minimum,
    splat,
)
from webkiln.ir.program import Compute, Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Once, Stmt
from webkiln.lower.layout import PANEL
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import extent_of
from webkiln.schedule.quantised import QuantisedProduct, QuantisedSum, match_quantised
from webkiln.schedule.wasm.panels import INTS, WIDE, Panels
from webkiln.schedule.wasm.staged_rows import StagedRows
from webkiln.schedule.wasm.unpacked import UnpackedRows

__all__ = ["quantised"]

TASKS = 32  # of one row, as far as there are panels: enough to share evenly among a few threads
BLOCK_ROWS = 16  # of several: the weights, in the second-level cache, are read once a block
#: rows of a tile by the bits of A (0: float32) and of a weight: each has one or two sums a column.
TILE_ROWS = {(0, 4): 4, (8, 4): 4, (16, 4): 2, (0, 8): 2, (8, 8): 2, (16, 8): 2}
STACK = 48 * 1024  # of a thread's 64 KiB, for staged rows

#: Panels, far apart, whose weights a single row meets at a time: memory is read at 15 GB/s in four
#: streams, at 11.4 in one.
STREAMS = 4


def quantised(compute: Compute) -> Kernel | None:
    """The kernel for a product with quantised matrices; None for all else."""
    q = match_quantised(compute)
    if q is None or q.block % 16 or len({s.bits for s in q.sums}) > 1:
        return None
    rows = _rows(q)
    if rows is None:
        return None
    kernel = _Builder(q, rows)
    if not kernel.vectorises():
        return None
    if q.m is None:
        return kernel.one_row()
    if q.coarse != 16:
        return kernel.many_rows()
    unpacked = UnpackedRows(q, replace(rows, paired=True)).kernel()
    return unpacked if rows.paired else replace(kernel.many_rows(), paired=unpacked)


def _rows(q: QuantisedProduct) -> StagedRows | None:
    """Staging for as many rows as a task takes, fewer where they are long; None: not one fits."""
    bits = q.sums[0].bits
    tile = TILE_ROWS[q.coarse, bits]
    several = [*range(BLOCK_ROWS, 0, -tile), *range(tile - 1, 0, -1)]
    for count in [1] if q.m is None else several:
        staged = StagedRows(q, count, paired=(q.coarse, bits) == (16, 8))
        if staged.bytes <= STACK:
            return staged
    return None


class _Builder(Panels):
    """Prints one product: weights unpacked for each tile of rows that they meet."""

    # kernels --------------------------------------------------------------------------------------

    def one_row(self) -> Kernel:
        """Decoding: every thread stages the row, then panels one after the other."""
        assert isinstance(self.panels, Const)
        panels = int(self.panels.value)
        reach = -(-panels // max(1, STREAMS // len(self.q.sums)))
        streams = -(-panels // reach)
        count = min(TASKS, reach)
        part, first = Var("part", count), Var("panel", reach)
        start, stop = (simplify(p * reach // count) for p in (part, part + 1))
        stage = Once(tuple(self.staged.row(const(0, I32), self.emit, frozenset())))
        places = [simplify(first + i * reach) for i in range(streams)]
        ragged = places[-1] if reach * streams > panels else None
        read = [minimum(p, panels - 1) if p is ragged else p for p in places]
        cells = [(s, p) for p in read for s in self.q.sums]
        totals, body = self._sums(cells, [const(0, I32)])
        every = iter(totals)
        for place in places:
            store = self.store(place, {}, [next(every)[0] for _ in self.q.sums])
            there = compare("lt", place, panels)
            body.append(If(there, (store,)) if place is ragged else store)
        loops = [Loop(part, const(count, I32), "task")]
        tasks = For(first, start, stop, tuple(body))
        return make_kernel("quantised", self.q.epilogue, loops, [stage, tasks])

    def many_rows(self) -> Kernel:
        """Prompts: blocks of rows, staged, meet every panel in tiles."""
        m, count = self.q.m, self.staged.count
        assert m is not None
        rows = extent_of(m)

        def panels(first: Expr, height: Expr) -> Stmt:
            panel = Var("panel", self.panels)
            tile_rows = min(TILE_ROWS[self.q.coarse, self.q.sums[0].bits], count)
            at = Var("tile", count)
            body = self._tile(panel, first, rows)(at, tile_rows)
            tiles = For(at, const(0, I32), height, tuple(body), tile_rows)
            return For(panel, const(0, I32), self.panels, (tiles,))

        return self.blocks_of_rows(panels)

    def _tile(self, panel: Var, first: Expr, rows: Expr) -> Callable[[Var, int], list[Stmt]]:
        m = self.q.m
        assert m is not None

        def tile(at: Var, count: int) -> list[Stmt]:
            """`count` staged rows from `at` on; those beyond the last are not stored."""
            places = [simplify(at + i) for i in range(count)]
            body: list[Stmt] = []
            totals: list[list[Var]] = []
            for s in self.q.sums:
                (sums,), statements = self._sums([(s, panel)], places)
                body += statements
                totals.append(sums)
            for i, place in enumerate(places):
                row = simplify(first + place)
                store = self.store(panel, {m: row}, [t[i] for t in totals])
                inside = simplify(compare("lt", row, rows))
                body.append(store if isinstance(inside, Const) else If(inside, (store,)))
            return body

        return tile

    # sums -----------------------------------------------------------------------------------------

    def _sums(
        self, cells: Sequence[tuple[QuantisedSum, Expr]], rows: list[Expr]
    ) -> tuple[list[list[Var]], list[Stmt]]:
        """Registers for the sums of the staged `rows` with each panel, and what computes them."""
        block = self.emit.loop("block", self.q.blocks)
        totals: list[list[Var]] = []
        body: list[Stmt] = []
        for s, panel in cells:
            totals.append([self.emit.register(WIDE, "acc") for _ in rows])
            body += self._block(s, panel, block, rows, totals[-1])
        out: list[Stmt] = [Declare(t, const(0, WIDE)) for sums in totals for t in sums]
        return totals, [*out, For(block, const(0, I32), const(self.q.blocks, I32), tuple(body))]

    def _block(
        self, s: QuantisedSum, panel: Expr, block: Var, rows: list[Expr], totals: list[Var]
    ) -> list[Stmt]:
        """One block of weights times each row's."""
        out: list[Stmt] = []
        scale, offset = self.scales(s, panel, block, out)
        parts = self.staged.groups_per_block
        for part in range(parts):
            group = simplify(block * parts + part)
            if not self.q.coarse and len(rows) > 1:
                self._dequantised(s, panel, group, rows, totals, (scale, offset), out)
                continue
            products = (self._products if self.q.coarse else self._exact)(
                s, panel, group, rows, out
            )
            for row, total, p in zip(rows, totals, products, strict=True):
                factor, shift = self.staged.factors(row, group)
                scaled = scale if factor is None else splat(factor, PANEL) * scale
                out.append(Assign(total, total + scaled * p))
                out.append(Assign(total, total + splat(shift, PANEL) * offset))
        return out

    def _products(
        self, s: QuantisedSum, panel: Expr, group: Expr, rows: list[Expr], out: list[Stmt]
    ) -> list[Expr]:
        """Σ a·q over a group, in integers, for each row; as float32."""
        integers = {
            (8, 4): self._nibbles,
            (8, 8): self._bytes,
            (16, 4): self._planes,
            (16, 8): self._pairs,
        }[self.q.coarse, s.bits]
        return [cast(total, WIDE) for total in integers(s, panel, group, rows, out)]

    def _pairs(
        self, s: QuantisedSum, panel: Expr, group: Expr, rows: list[Expr], out: list[Stmt]
    ) -> list[Expr]:
        """Both of 8 and 16 bits: shift by shift, the halves of a word have two weights."""
        totals = [self.emit.register(INTS, "total") for _ in rows]
        out += [Declare(t, const(0, INTS)) for t in totals]
        mask = const(0x00FF00FF, s.words.dtype.vector(PANEL))
        for j, word in self.words(s, panel, group, out):
            for i in range(2):
                moved: Expr = call("shr", word, 8) if i else word
                two = self.emit.register(INTS, "weights")
                out.append(Declare(two, bitcast(call("bitand", moved, mask), INTS)))
                for row, total in zip(rows, totals, strict=True):
                    a = self.staged.pair(row, group, 2 * j + i)
                    out.append(Assign(total, call("dot2", a, two, total)))
        return list(totals)

    def _planes(
        self, s: QuantisedSum, panel: Expr, group: Expr, rows: list[Expr], out: list[Stmt]
    ) -> list[Expr]:
        """Weights of 4 bits are the 7-bit operand of high and of low bytes."""
        both = I32.vector(2 * PANEL)
        totals = [self.emit.register(both, "total") for _ in rows]
        out += [Declare(t, const(0, both)) for t in totals]
        for at, four in self._fours(s, panel, group, out):
            for row, total in zip(rows, totals, strict=True):
                planes = [self.staged.four(row, group, at, p) for p in (0, 1)]
                out.append(Assign(total, Op("dot_planes", (*planes, four, total), both)))
        return [Op("join_planes", (t,), INTS) for t in totals]

    def _nibbles(
        self, s: QuantisedSum, panel: Expr, group: Expr, rows: list[Expr], out: list[Stmt]
    ) -> list[Expr]:
        """Weights of 4 bits are the 7-bit operand: low nibbles of a word, then the high ones."""
        totals = [self.emit.register(INTS, "total") for _ in rows]
        out += [Declare(t, const(0, INTS)) for t in totals]
        for at, four in self._fours(s, panel, group, out):
            for row, total in zip(rows, totals, strict=True):
                a = self.staged.four(row, group, at)
                out.append(_add_products(total, a, four))
        return list(totals)

    def _fours(
        self, s: QuantisedSum, panel: Expr, group: Expr, out: list[Stmt]
    ) -> Iterator[tuple[int, Var]]:
        """Four weights of 4 bits at a time, as bytes, and the first one's place in the group."""
        mask = const(0x0F0F0F0F, s.words.dtype.vector(PANEL))
        for j, word in self.words(s, panel, group, out):
            for half, bits in enumerate((word, call("shr", word, 4))):
                four = self.emit.register(INTS, "weights")
                out.append(Declare(four, bitcast(call("bitand", bits, mask), INTS)))
                yield j * s.per_word + 4 * half, four

    def _bytes(
        self, s: QuantisedSum, panel: Expr, group: Expr, rows: list[Expr], out: list[Stmt]
    ) -> list[Expr]:
        """Weights of 8 bits, less 128, are the signed operand; A's positive and negative elements
        the 7-bit ones. Σ a·128 is where the sum begins.
        """
        signs = [[self.emit.register(INTS, n) for _ in rows] for n in ("plus", "minus")]
        for row, plus, minus in zip(rows, *signs, strict=True):
            out.append(Declare(plus, splat(self.staged.sum(row, group), PANEL)))
            out.append(Declare(minus, const(0, INTS)))
        middle = const(0x80808080, s.words.dtype.vector(PANEL))
        for j, word in self.words(s, panel, group, out):
            four = self.emit.register(INTS, "weights")
            out.append(Declare(four, bitcast(call("bitxor", word, middle), INTS)))
            for i, row in enumerate(rows):
                for sign, totals in enumerate(signs):
                    a = self.staged.four(row, group, j * s.per_word, sign)
                    out.append(_add_products(totals[i], four, a))
        return [plus - minus for plus, minus in zip(*signs, strict=True)]

    def _exact(
        self, s: QuantisedSum, panel: Expr, group: Expr, rows: list[Expr], out: list[Stmt]
    ) -> list[Expr]:
        """Σ a·q over a group, in float32, for each row."""
        sums = [self.emit.register(WIDE, "sum") for _ in rows]
        out += [Declare(r, const(0, WIDE)) for r in sums]
        for k, code in self._codes(s, panel, group, out):
            for row, total in zip(rows, sums, strict=True):
                a = splat(self.staged.one(row, group, k), PANEL)
                out.append(Assign(total, total + a * code))
        return list(sums)

    def _dequantised(
        self,
        s: QuantisedSum,
        panel: Expr,
        group: Expr,
        rows: list[Expr],
        totals: list[Var],
        scales: tuple[Var, Var],
        out: list[Stmt],
    ) -> None:
        """A group of several rows in float32: each weight made once, sums where they stay."""
        scale, offset = scales
        for k, code in self._codes(s, panel, group, out):
            weight = self.emit.register(WIDE, "weight")
            out.append(Declare(weight, offset + code * scale))
            for row, total in zip(rows, totals, strict=True):
                a = splat(self.staged.one(row, group, k), PANEL)
                out.append(Assign(total, total + a * weight))

    def _codes(
        self, s: QuantisedSum, panel: Expr, group: Expr, out: list[Stmt]
    ) -> Iterator[tuple[int, Expr]]:
        """The integers of a group as float32, with their places in it."""
        mask = const((1 << s.bits) - 1, s.words.dtype.vector(PANEL))
        for j, word in self.words(s, panel, group, out):
            for i in range(s.per_word):
                shift = 8 * i if s.bits == 8 else i % 4 * 8 + i // 4 * 4
                moved: Expr = word if shift == 0 else call("shr", word, shift)
                code = cast(bitcast(call("bitand", moved, mask), INTS), WIDE)
                yield j * s.per_word + i, code


def _add_products(total: Var, signed: Expr, small: Expr) -> Assign:
    """Plus products of bytes, `small` ones below 128."""
    return Assign(total, call("dot4", signed, small, total))
