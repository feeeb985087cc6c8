"""Matrix products and convolutions on WebAssembly: a register tile over packed panels.

Up to six rows of A by one panel of eight columns of B stay in vector registers while k runs: twelve
sums, two vectors of B and one broadcast element of A are 15 of the 16 registers that V8 has on
x86-64. Blocks of rows meet every panel while they, and what they become, are in the second-level
cache.
"""

from __future__ import annotations

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Op,
    Read,
    Var,
    call,
    compare,
    const,
    minimum,
    splat,
    substitute,
    walk,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import always_nonneg, poly, simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Stmt, Store
from webkiln.lower.fuse import EXPENSIVE
from webkiln.lower.layout import PANEL
from webkiln.schedule.contraction import Contraction, match_contraction
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of
from webkiln.schedule.vectorize import vectorize

__all__ = ["contraction"]

#: GFLOP/s that a tile of so many rows reached on the reference machine in V8 (of 57 at peak).
TILE_SPEED = {4: 48.8, 5: 52.2, 6: 54.2}
BLOCK_BYTES = 256 * 1024  # of A and C: a part of a second-level cache
BLOCK_ROWS = 64  # at least: B is read once a block, 2 / rows bytes an operation
UNKNOWN = 256  # stands for a symbolic extent where only cost is at stake


def contraction(nest: Nest) -> Kernel | None:
    """The tiled kernel, where the nest is a contraction whose epilogue vectorises along n."""
    c = match_contraction(nest)
    if c is None or _epilogue(c, Emitter().register(c.reduce.dtype.vector(PANEL))) is None:
        return None
    panel = Var("panel", simplify((extent_of(c.n) + (PANEL - 1)) // PANEL))
    if c.m is None:
        loops = [Loop(v, extent_of(v), "task") for v in (*c.batch, panel)]
        return make_kernel("contraction", nest, loops, _tile(c, panel, (), Emitter()))
    rows = extent_of(c.m)
    tile = _tile_rows(rows)
    block_rows = _block_rows(c, tile)
    block = Var("block", simplify((rows + (block_rows - 1)) // block_rows))
    loops = [Loop(v, extent_of(v), "task") for v in (*c.batch, block, panel)]
    return make_kernel("contraction", nest, loops, _rows(c, panel, block, tile, block_rows))


def _size(e: Expr) -> int:
    return int(e.value) if isinstance(e, Const) else UNKNOWN


def _tile_rows(rows: Expr) -> int:
    """Rows of a tile: the fastest choice, what the last tile computes twice included."""
    if not isinstance(rows, Const):
        return max(TILE_SPEED)
    count = int(rows.value)
    if count <= min(TILE_SPEED):
        return count
    return min(TILE_SPEED, key=lambda r: -(-count // r) * r / TILE_SPEED[r])


def _block_rows(c: Contraction, tile: int) -> int:
    """Rows in a block, whole tiles: what `BLOCK_BYTES` hold of A and C, at least `BLOCK_ROWS`."""
    depth = 1
    for axis in c.reduce.axes:
        depth *= _size(extent_of(axis))
    tiles = BLOCK_BYTES // (4 * tile * (depth + _size(extent_of(c.n))))
    return tile * max(-(-BLOCK_ROWS // tile), min(128, tiles))


def _rows(c: Contraction, panel: Var, block: Var, tile: int, block_rows: int) -> list[Stmt]:
    """The block's rows, `tile` at a time.

    The last tile starts early enough to be whole: it computes some rows twice.
    """
    assert c.m is not None
    rows = extent_of(c.m)
    first = block * block_rows
    stop = minimum(rows, first + block_rows)  # also of a single block, so that kernels are alike
    at = Var("row", rows)

    def tiled(count: int) -> list[Stmt]:
        start = at if _divides(count, rows) else simplify(minimum(at, rows - count))
        body = _tile(c, panel, tuple(start + i for i in range(count)), Emitter())
        return [For(at, simplify(first), stop, tuple(body), count)]

    if always_nonneg(poly(rows - tile)):
        return tiled(tile)
    return [If(compare("le", tile, rows), tuple(tiled(tile)), tuple(tiled(1)))]


def _divides(count: int, rows: Expr) -> bool:
    return simplify(rows % count) is const(0, I32)


def _tile(c: Contraction, panel: Var, rows: tuple[Expr, ...], emit: Emitter) -> list[Stmt]:
    """One tile: `rows` (none: the output has no row axis) by one panel."""
    dtype = c.reduce.dtype
    column = panel * PANEL
    places: list[dict[Var, Expr]] = [{c.n: column}]
    if c.m is not None:
        places = [{c.n: column, c.m: row} for row in rows]
    sums = [emit.register(dtype.vector(PANEL), "acc") for _ in places]
    out: list[Stmt] = [Declare(s, const(0, dtype.vector(PANEL))) for s in sums]

    wide = emit.register(dtype.vector(PANEL), "b")
    step: list[Stmt] = [Declare(wide, _read(c.b, {c.n: column}, PANEL))]
    for place, total in zip(places, sums, strict=True):
        broadcast = splat(_read(c.a, place, 1), PANEL)
        step.append(Assign(total, call("add", total, call("mul", broadcast, wide))))
    out.extend(_depth(c, step))
    if len(rows) > 1 and _is_costly(c):
        return [*out, *_one_by_one(c, column, rows, sums, emit)]
    for place, total in zip(places, sums, strict=True):
        out.append(_store(c, place, total))
    return out


def _store(c: Contraction, place: dict[Var, Expr], total: Expr) -> Store:
    """The epilogue of one row of the tile, whose sum is `total`."""
    value = _epilogue(c, total)
    assert value is not None
    stored = simplify(substitute(value, place))
    count = _columns_left(c, place[c.n])
    return Store(c.nest.out, simplify(substitute(c.nest.offset, place)), stored, count)


def _is_costly(c: Contraction) -> bool:
    """Whether the epilogue calls functions: six copies of those run four times slower than a loop.

    Measured for Gelu on 128 × 1536: 0.7 ms more than the product alone, in a loop over rows 0.2 ms.
    """
    return any(isinstance(n, Op) and n.name in EXPENSIVE for n in walk(c.nest.value))


def _one_by_one(
    c: Contraction, column: Expr, rows: tuple[Expr, ...], sums: list[Var], emit: Emitter
) -> list[Stmt]:
    """The sums through memory of the task, then the epilogue in a loop over the tile's rows."""
    assert c.m is not None
    dtype = c.reduce.dtype
    tile = Buffer("tile", dtype, (const(len(rows) * PANEL, I32),), "workgroup")
    out: list[Stmt] = [Store(tile, const(i * PANEL, I32), total) for i, total in enumerate(sums)]
    row = Var("tile_row", len(rows))
    place: dict[Var, Expr] = {c.n: column, c.m: rows[0] + row}
    total = emit.register(dtype.vector(PANEL), "sum")
    body: list[Stmt] = [Declare(total, Read(tile, row * PANEL, PANEL)), _store(c, place, total)]
    return [*out, For(row, const(0, I32), const(len(rows), I32), tuple(body))]


def _read(read: Read, at: dict[Var, Expr], lanes: int) -> Expr:
    return Read(read.buffer, simplify(substitute(read.args[0], dict(at))), lanes)


def _columns_left(c: Contraction, column: Expr) -> Expr | None:
    """How many lanes of the last panel exist; None where every panel is whole."""
    extent = extent_of(c.n)
    if simplify(extent % PANEL) is const(0, I32):
        return None
    return simplify(extent - column)


def _depth(c: Contraction, body: list[Stmt]) -> list[Stmt]:
    """Loops over k around `body`."""
    for axis in reversed(c.reduce.axes):
        body = [For(axis, const(0, I32), extent_of(axis), tuple(body))]
    return body


def _epilogue(c: Contraction, total: Expr) -> Expr | None:
    """What is stored, in vectors along n, the sum being in `total`; m and n are still free."""
    return vectorize(c.nest.value, c.n, PANEL, {c.reduce: total})
