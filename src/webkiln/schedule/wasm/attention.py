"""Attention on WebAssembly: a few queries against all their keys, in blocks that stay in the cache.

The online softmax of FlashAttention (arXiv 2205.14135): each block's scores go to memory of the
task, their exponentials replace them there, and what the blocks before gave is scaled down when a
larger score turns up. Keys lie in panels of eight, so a vector holds eight scores; rows of one tile
share each vector of keys and of values that is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Op,
    Read,
    Var,
    call,
    ceildiv,
    compare,
    const,
    maximum,
    minimum,
    splat,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import always_nonneg, poly, simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Stmt, Store
from webkiln.lower.attention import KEY_PANEL
from webkiln.schedule.attention import LOWEST, AttentionNest, attention_nest, local
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of
from webkiln.schedule.vectorize import vectorize

__all__ = ["attention"]

ROWS = 6  # of a tile: with eight lanes, twelve of V8's sixteen vector registers
BLOCK = 512  # keys: memory is read in long stretches, and six rows of scores are 12 KiB
REGISTERS = 15  # 128-bit vectors that V8 leaves
SUMS = 12  # of them, for sums of values


def attention(nest: Nest) -> Kernel | None:
    """The kernel, where the nest (its reductions unsplit) is attention."""
    a = attention_nest(nest)
    if a is None:
        return None
    loops = [Loop(v, extent_of(v), "task") for v in a.batch]
    if a.rows is None:
        return make_kernel("attention", a.nest, loops, _Tile(a, const(0, I32), 1).body())
    rows = extent_of(a.rows)
    fewer = isinstance(rows, Const) and int(rows.value) < ROWS
    count = int(rows.value) if isinstance(rows, Const) and fewer else ROWS
    tile = Var("tile", simplify(ceildiv(rows, count)))
    loops.append(Loop(tile, extent_of(tile), "task"))
    return make_kernel("attention", a.nest, loops, _rows(a, rows, tile * count, count))


def _rows(a: AttentionNest, rows: Expr, first: Expr, count: int) -> list[Stmt]:
    """The tile from row `first` on; the last one starts early enough to be whole."""
    whole = simplify(rows % count) is const(0, I32)
    start = first if whole else simplify(minimum(first, rows - count))
    tiled = _Tile(a, start, count).body()
    if whole or always_nonneg(poly(rows - count)):
        return tiled
    at = Var("row", rows)
    single = For(at, simplify(first), rows, tuple(_Tile(a, at, 1).body()))
    return [If(compare("le", count, rows), tuple(tiled), (single,))]


@dataclass
class _Tile:
    """`count` rows from `first` on."""

    a: AttentionNest
    first: Expr
    count: int

    def __post_init__(self) -> None:
        size = extent_of(self.a.d)
        assert isinstance(size, Const)
        self.size = int(size.value)
        self.lanes = next(n for n in (8, 4) if self.size % n == 0)
        self.scores = local(f"scores{self.count}", self.count * BLOCK)
        self.mixed = local(f"mixed{self.count}", self.count * self.size)
        self.largest, self.total, self.scale = (
            local(f"{name}{self.count}", self.count) for name in ("largest", "total", "scale")
        )
        self.emit = Emitter()
        self.row = Var("tile_row", self.count)
        self.base, self.end = Var("base", BLOCK << 12), Var("end", BLOCK << 12)

    def body(self) -> list[Stmt]:
        """All blocks of keys, then the results."""
        low, high = Var("low", None), Var("high", None)
        row = self.first + self.row
        zero = const(0, I32)
        start, stop = self.a.at(self.a.start, row), self.a.at(self.a.stop, row)
        prepare: list[Stmt] = [
            Store(self.largest, self.row, const(LOWEST, F32)),
            Store(self.total, self.row, const(0.0, F32)),
            *self._columns(lambda d: [self._clear(d)], self.lanes),
            Assign(low, minimum(low, start)),
            Assign(high, maximum(high, stop)),
        ]
        block: list[Stmt] = [
            Declare(self.end, minimum(self.base + BLOCK, high)),
            *self._products(),
            For(self.row, zero, const(self.count, I32), tuple(self._softmax(start, stop))),
            *self._mix(),
        ]
        finish = For(self.row, zero, const(self.count, I32), tuple(self._finish(row)))
        return [
            Declare(low, extent_of(self.a.t)),
            Declare(high, zero),
            For(self.row, zero, const(self.count, I32), tuple(prepare)),
            For(self.base, (low // KEY_PANEL) * KEY_PANEL, high, tuple(block), BLOCK),
            finish,
        ]

    def _clear(self, d: Expr) -> Stmt:
        return Store(self.mixed, self.row * self.size + d, const(0.0, F32.vector(self.lanes)))

    def _columns(self, body: Callable[[Expr], list[Stmt]], lanes: int) -> list[Stmt]:
        d = self.a.d
        return [For(d, const(0, I32), const(self.size, I32), tuple(body(d)), lanes)]

    # scores ---------------------------------------------------------------------------------------

    def _products(self) -> list[Stmt]:
        """Queries times keys into `scores`, two panels at a time where registers allow it."""
        vectors = KEY_PANEL // 4
        together = 2 if 2 * vectors * (self.count + 1) + 1 <= REGISTERS else 1
        first = self.base // KEY_PANEL
        stop = ceildiv(self.end, KEY_PANEL)
        if together == 1:
            return [self._product_loop(first, stop, 1)]
        whole = Var("whole", None)
        return [
            Declare(whole, simplify(first + (stop - first) // together * together)),
            self._product_loop(first, whole, together),
            self._product_loop(whole, stop, 1),
        ]

    def _product_loop(self, first: Expr, stop: Expr, together: int) -> Stmt:
        """For every `together` panels: all rows' products with them."""
        panel = Var("panel", BLOCK << 9)
        wide = F32.vector(KEY_PANEL)
        sums = [
            [self.emit.register(wide, "dot") for _ in range(together)] for _ in range(self.count)
        ]
        step: list[Stmt] = []
        keys = [self.emit.register(wide, "key") for _ in range(together)]
        for i, key in enumerate(keys):
            step.append(Declare(key, self.a.key_panel(simplify(panel + i))))
        for i, line in enumerate(sums):
            query = splat(self.a.at(self.a.parts.query, self.first + i), KEY_PANEL)
            for total, key in zip(line, keys, strict=True):
                step.append(Assign(total, call("add", total, call("mul", query, key))))
        out: list[Stmt] = [Declare(s, const(0.0, wide)) for line in sums for s in line]
        out.append(For(self.a.k, const(0, I32), extent_of(self.a.k), tuple(step)))
        for i, line in enumerate(sums):
            for j, total in enumerate(line):
                place = i * BLOCK + (panel + j) * KEY_PANEL - self.base
                out.append(Store(self.scores, simplify(place), total))
        return For(panel, first, stop, tuple(out), together)

    # softmax --------------------------------------------------------------------------------------

    def _softmax(self, start: Expr, stop: Expr) -> list[Stmt]:
        """One row of `scores` becomes exponentials; what does not count becomes 0."""
        t, line = self.a.t, self.row * BLOCK - self.base
        low, high, whole = Var("first", None), Var("last", None), Var("even", None)
        largest, scale = Var("most", None, F32), Var("less", None, F32)
        at = Read(self.scores, simplify(line + t))
        score = self.a.at(self.a.score_of(at), self.first + self.row)
        out: list[Stmt] = [
            Declare(low, maximum(start, self.base)),
            Declare(high, maximum(minimum(stop, self.end), low)),
            Declare(whole, low + (high - low) // KEY_PANEL * KEY_PANEL),
            Declare(largest, Read(self.largest, self.row)),
        ]
        out += self._along(score, "max", largest, low, whole, high)
        before = Read(self.largest, self.row)
        out += [
            Declare(scale, call("exp", before - largest)),
            Store(self.largest, self.row, largest),
            Store(self.scale, self.row, scale),
        ]
        total = Var("sum", None, F32)
        out.append(Declare(total, Read(self.total, self.row) * scale))
        out += self._along(call("exp", at - largest), "add", total, low, whole, high)
        out.append(Store(self.total, self.row, total))
        nothing = Store(self.scores, simplify(line + t), const(0.0, F32))
        out.append(For(t, self.base, minimum(low, self.end), (nothing,)))
        out.append(For(t, high, self.end, (nothing,)))
        return out

    def _along(
        self, value: Expr, combine: str, total: Var, low: Expr, whole: Expr, high: Expr
    ) -> list[Stmt]:
        """`scores` become `value` over low ≤ t < high, and `total` takes all of them in."""
        t = self.a.t
        place = simplify(self.row * BLOCK - self.base + t)
        one = Var(f"{combine}_one", None, F32)
        step: list[Stmt] = [
            Declare(one, value),
            Store(self.scores, place, one),
            Assign(total, call(combine, total, one)),
        ]
        wide = vectorize(value, t, KEY_PANEL)
        if wide is None or wide.dtype.lanes == 1:
            return [For(t, low, high, tuple(step))]
        lanes = F32.vector(KEY_PANEL)
        start = const(float("-inf") if combine == "max" else 0.0, lanes)
        many, part = Var(f"{combine}_many", None, lanes), Var(f"{combine}_part", None, lanes)
        inside: list[Stmt] = [
            Declare(many, wide),
            Store(self.scores, place, many),
            Assign(part, call(combine, part, many)),
        ]
        folded = Op(f"fold_{combine}", (part,), F32)
        return [
            Declare(part, start),
            For(t, low, whole, tuple(inside), KEY_PANEL),
            Assign(total, call(combine, total, folded)),
            For(t, whole, high, tuple(step)),
        ]

    # values ---------------------------------------------------------------------------------------

    def _mix(self) -> list[Stmt]:
        """`mixed`, scaled, and the block's values times the exponentials."""
        widths = (32, 16, 8, 4)
        lanes = next(
            n for n in widths if self.size % n == 0 and (n // 4 * self.count <= SUMS or n == 4)
        )
        wide = F32.vector(lanes)
        value = vectorize(self.a.parts.value, self.a.d, lanes)
        assert value is not None

        def tile(d: Expr) -> list[Stmt]:
            out: list[Stmt] = []
            loaded = self.emit.register(wide, "value")
            step: list[Stmt] = [Declare(loaded, value)]
            for i in range(self.count):
                total = self.emit.register(wide, "mix")
                place = simplify(i * self.size + d)
                scale = splat(Read(self.scale, const(i, I32)), lanes)
                out.append(Declare(total, call("mul", Read(self.mixed, place, lanes), scale)))
                weight = splat(Read(self.scores, simplify(i * BLOCK + self.a.t - self.base)), lanes)
                step.append(Assign(total, call("add", total, call("mul", weight, loaded))))
            totals = [s.var for s in out if isinstance(s, Declare)]
            out.append(For(self.a.t, self.base, self.end, tuple(step)))
            for i, total in enumerate(totals):
                out.append(Store(self.mixed, simplify(i * self.size + d), total))
            return out

        return self._columns(tile, lanes)

    def _finish(self, row: Expr) -> list[Stmt]:
        total = Var("all", None, F32)
        mixed = Var("mixture", None, F32.vector(self.lanes))
        value = self.a.at(self.a.result(self.lanes, mixed, total), row)
        offset = self.a.at(self.a.nest.offset, row)

        def store(d: Expr) -> list[Stmt]:
            place = self.row * self.size + d
            return [
                Declare(mixed, Read(self.mixed, place, self.lanes)),
                Store(self.a.nest.out, offset, value),
            ]

        return [Declare(total, Read(self.total, self.row)), *self._columns(store, self.lanes)]
