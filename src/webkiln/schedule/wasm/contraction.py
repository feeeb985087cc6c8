"""Matrix products and convolutions on WebAssembly: a register tile over packed panels.

Four rows of A by one panel of eight columns of B stay in eight vector registers while k runs; A is broadcast
element by element, B read two vectors at a time. Blocks of rows that fit the first-level cache meet every panel
before the next block is read.
"""

from __future__ import annotations

from collections.abc import Callable

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Expr, Read, Var, call, compare, const, minimum, splat, substitute
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import always_nonneg, poly, simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Stmt, Store
from webkiln.lower.layout import PANEL
from webkiln.schedule.contraction import Contraction, match_contraction
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest
from webkiln.schedule.vectorize import vectorize

__all__ = ["contraction"]

ROWS = 4
BLOCK_BYTES = (
    24 * 1024
)  # of A: half of a 48 KiB first-level cache, the panel of B has the other half
UNROLL = 1


def contraction(nest: Nest) -> Kernel | None:
    """The tiled kernel, where the nest is a contraction whose epilogue vectorises along the columns."""
    c = match_contraction(nest)
    if c is None or _epilogue(c, Emitter().register(c.reduce.dtype.vector(PANEL))) is None:
        return None
    panel = Var("panel", simplify((_extent(c.n) + (PANEL - 1)) // PANEL))
    if c.m is None:
        loops = [Loop(v, _extent(v), "task") for v in (*c.batch, panel)]
        return make_kernel("contraction", nest, loops, _tile(c, panel, (), Emitter()))
    rows = _extent(c.m)
    block_rows = _block_rows(c)
    block = Var("block", simplify((rows + (block_rows - 1)) // block_rows))
    loops = [Loop(v, _extent(v), "task") for v in (*c.batch, block, panel)]
    return make_kernel("contraction", nest, loops, _rows(c, panel, block, block_rows))


def _extent(v: Var) -> Expr:
    assert v.extent is not None
    return v.extent


def _block_rows(c: Contraction) -> int:
    """Rows of A in a block: as many tiles as fit `BLOCK_BYTES`, 1 to 16."""
    depth = 1
    for axis in c.reduce.axes:
        depth *= int(axis.extent.value) if isinstance(axis.extent, Const) else 256
    tiles = BLOCK_BYTES // (depth * 4 * ROWS)
    return ROWS * max(1, min(16, tiles))


def _rows(c: Contraction, panel: Var, block: Var, block_rows: int) -> list[Stmt]:
    """The block's rows, `ROWS` at a time. The last tile starts early enough to be whole: it computes some rows twice."""
    assert c.m is not None
    rows = _extent(c.m)
    first = block * block_rows
    stop = simplify(minimum(rows, first + block_rows))
    at = Var("row", rows)

    def tiled(count: int) -> list[Stmt]:
        start = simplify(minimum(at, rows - count)) if count > 1 else at
        if _divides(count, rows):
            start = at
        body = _tile(c, panel, tuple(start + i for i in range(count)), Emitter())
        return [For(at, simplify(first), stop, tuple(body), count)]

    if isinstance(rows, Const):
        return tiled(min(ROWS, int(rows.value)))
    if always_nonneg(poly(rows - ROWS)):
        return tiled(ROWS)
    return [If(compare("le", ROWS, rows), tuple(tiled(ROWS)), tuple(tiled(1)))]


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

    def term(k: dict[Var, Expr]) -> list[Stmt]:
        wide = emit.register(dtype.vector(PANEL), "b")
        body: list[Stmt] = [Declare(wide, _read(c.b, {c.n: column, **k}, PANEL))]
        for place, total in zip(places, sums, strict=True):
            broadcast = splat(_read(c.a, {**place, **k}, 1), PANEL)
            body.append(Assign(total, call("add", total, call("mul", broadcast, wide))))
        return body

    out.extend(_depth(c, term))
    for place, total in zip(places, sums, strict=True):
        value = _epilogue(c, total)
        assert value is not None
        stored = simplify(substitute(value, place))
        count = _columns_left(c, column)
        out.append(Store(c.nest.out, simplify(substitute(c.nest.offset, place)), stored, count))
    return out


def _read(read: Read, at: dict[Var, Expr], lanes: int) -> Expr:
    return Read(read.buffer, simplify(substitute(read.args[0], dict(at))), lanes)


def _columns_left(c: Contraction, column: Expr) -> Expr | None:
    """How many lanes of the last panel exist; None where every panel is whole."""
    extent = _extent(c.n)
    if simplify(extent % PANEL) is const(0, I32):
        return None
    return simplify(extent - column)


def _depth(c: Contraction, term: Callable[[dict[Var, Expr]], list[Stmt]]) -> list[Stmt]:
    """Loops over k around `term`, the innermost unrolled."""
    *outer, inner = c.reduce.axes
    size = _extent(inner)
    whole = simplify((size // UNROLL) * UNROLL)
    body: list[Stmt] = []
    for i in range(UNROLL):
        body.extend(term({inner: inner + i}))
    loops: list[Stmt] = []
    if whole is not const(0, I32):
        loops.append(For(inner, const(0, I32), whole, tuple(body), UNROLL))
    if whole is not simplify(size):
        loops.append(For(inner, whole, size, tuple(term({}))))
    for axis in reversed(outer):
        loops = [For(axis, const(0, I32), _extent(axis), tuple(loops))]
    return loops


def _epilogue(c: Contraction, total: Var) -> Expr | None:
    """What is stored, in vectors along n, with the sum in register `total`; m and n still to be substituted."""
    return vectorize(c.nest.value, c.n, PANEL, {c.reduce: total})
