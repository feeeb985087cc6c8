"""Matrix products and convolutions on WebGPU: a register tile an invocation over packed panels.

Each invocation keeps `rows` × `columns` of the output in vec4 registers. Four steps of k make one
trip: a vec4 of each row of A, and of B one vec4 for every four columns and step, so four rows by
eight columns do 32 multiply-adds of vec4 with 12 loads. Neighbours' loads meet in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from webkiln.ir.dtypes import I32
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
    lane,
    logical_and,
    minimum,
    splat,
    substitute,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Stmt, Store
from webkiln.schedule.contraction import Contraction, match_contraction
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, product
from webkiln.schedule.vectorize import unit_stride, vectorize
from webkiln.schedule.webgpu.grid import GROUP, at_most, unflatten
from webkiln.targets.webgpu import MAX_GROUPS

__all__ = [
    "Tile",
    "contraction",
    "depth_loops",
    "epilogue_vectorises",
    "read_at",
    "readable",
    "store",
    "tile_of",
]

LANES = 4
UNROLL = 4  # steps of k in one trip: a vec4 of A
#: (rows, columns) of an invocation's tile, the most reuse first.
TILES = ((4, 8), (4, 4))
ENOUGH = 512  # invocations, below which a smaller tile that makes more of them is better


@dataclass(frozen=True, slots=True)
class Tile:
    """What one invocation computes, and how 64 of them lie in a workgroup."""

    rows: int
    columns: int
    across: int  # invocations along the columns

    @property
    def down(self) -> int:
        """Invocations along the rows."""
        return GROUP // self.across


def tile_of(c: Contraction) -> Tile | None:
    """The tile for the contraction's extents; None where B can't be read four columns at a time."""
    if not readable(c):
        return None
    n = extent_of(c.n)
    whole = _divides(LANES, n)
    m = 1 if c.m is None else at_most(extent_of(c.m))
    height = min(m, TILES[0][0])
    choices = [(height, columns) for _, columns in TILES if not whole or _divides(columns, n)]
    batch = at_most(product([extent_of(v) for v in c.batch]))
    work = m * at_most(n) * batch
    rows, columns = next((t for t in choices if work // (t[0] * t[1]) >= ENOUGH), choices[-1])
    fixed = c.m is None or isinstance(extent_of(c.m), Const)
    widths = (8, 16, 4, 32, 2, 64, 1) if fixed else (16, 8, 32, 4)  # a text may be short
    return Tile(rows, columns, _across(-(-m // rows), -(-at_most(n) // columns), widths))


def _across(down: int, across: int, widths: Sequence[int]) -> int:
    """Width of a workgroup on `down` × `across` tiles: the first that leaves fewest idle."""

    def covered(width: int) -> int:
        height = GROUP // width
        return (-(-across // width) * width) * (-(-down // height) * height)

    return min(widths, key=covered)


def readable(c: Contraction) -> bool:
    """Four columns of B can be read at once: all exist, or the last panel is padded."""
    padded = any(p.modulus is not None for p in c.b.buffer.layout.parts)
    return padded or _divides(LANES, extent_of(c.n))


def epilogue_vectorises(c: Contraction) -> bool:
    """What is stored can be computed four columns at once."""
    return vectorize(c.nest.value, c.n, LANES, {c.reduce: _stand_in(c)}) is not None


def _divides(width: int, e: Expr) -> bool:
    return simplify(e % width) is const(0, I32)


def contraction(nest: Nest) -> Kernel | None:
    """The tiled kernel, where the nest is a contraction whose epilogue vectorises along n."""
    c = match_contraction(nest)
    if c is None or not epilogue_vectorises(c):
        return None
    tile = tile_of(c)
    batch = product([extent_of(v) for v in c.batch])
    if tile is None or at_most(batch) > MAX_GROUPS:
        return None
    columns = _Side("n", extent_of(c.n), tile.columns, tile.across, "x")
    rows = _Side("m", const(1, I32) if c.m is None else extent_of(c.m), tile.rows, tile.down, "y")
    if max(at_most(rows.groups), at_most(columns.groups)) > MAX_GROUPS:
        return None
    plane = Var("batch", batch)
    loops = [*rows.loops(), *columns.loops()]
    if c.batch:
        loops = [Loop(plane, batch, "workgroup.z"), *loops]
    inside = logical_and(*(side.inside() for side in (rows, columns) if side.ragged()))
    body = _tile(c, tile, rows.tile * tile.rows, columns.tile * tile.columns)
    guarded = body if isinstance(inside, Const) else [If(inside, tuple(body))]
    indices = [*unflatten(plane, c.batch), *rows.index(), *columns.index()]
    return make_kernel("contraction", nest, loops, [*indices, *guarded])


def _stand_in(c: Contraction) -> Var:
    return Emitter().register(c.reduce.dtype.vector(LANES))


class _Side:
    """One direction of the output: `extent` in tiles of `width`, `count` of them in a workgroup."""

    def __init__(self, name: str, extent: Expr, width: int, count: int, axis: str) -> None:
        self.extent, self.width, self.count, self.axis = extent, width, count, axis
        self.tiles = simplify(ceildiv(extent, width))
        self.groups = simplify(ceildiv(extent, width * count))
        self.group = Var(f"group_{name}", self.groups)
        self.local = Var(f"local_{name}", count)
        self.tile = Var(f"tile_{name}", self.tiles)

    def loops(self) -> list[Loop]:
        group = Loop(self.group, self.groups, f"workgroup.{self.axis}")  # type: ignore[arg-type]
        local = Loop(self.local, const(self.count, I32), f"local.{self.axis}")  # type: ignore[arg-type]
        return [group, local]

    def index(self) -> list[Stmt]:
        return [Declare(self.tile, self.group * self.count + self.local)]

    def ragged(self) -> bool:
        """Some workgroup reaches beyond the last tile."""
        return not _divides(self.count, self.tiles)

    def inside(self) -> Expr:
        return compare("lt", self.tile, self.tiles)


def _tile(c: Contraction, tile: Tile, row: Expr, column: Expr) -> list[Stmt]:
    """One invocation's tile from (`row`, `column`) on."""
    emit = Emitter()
    wide = c.reduce.dtype.vector(LANES)
    fours = [simplify(column + j) for j in range(0, tile.columns, LANES)]
    rows = [simplify(row + i) for i in range(tile.rows)]
    sums = [[emit.register(wide, "acc") for _ in fours] for _ in rows]
    out: list[Stmt] = [Declare(s, const(0, wide)) for line in sums for s in line]
    places = _row_places(c, rows, out)
    out.extend(depth_loops(c, lambda k, n: _step(c, places, fours, sums, k, n, emit)))
    for i, (place, line) in enumerate(zip(rows, sums, strict=True)):
        stores = [
            s for four, total in zip(fours, line, strict=True) for s in store(c, place, four, total)
        ]
        if c.m is None or i == 0 or _divides(tile.rows, extent_of(c.m)):
            out.extend(stores)
        else:
            out.append(If(compare("lt", place, extent_of(c.m)), tuple(stores)))
    return out


def _row_places(c: Contraction, rows: Sequence[Expr], out: list[Stmt]) -> list[dict[Var, Expr]]:
    """Where each row reads A: one beyond the last reads the last again, and is not stored."""
    if c.m is None:
        return [{} for _ in rows]
    if _divides(len(rows), extent_of(c.m)):
        return [{c.m: row} for row in rows]
    places: list[dict[Var, Expr]] = []
    for i, row in enumerate(rows):
        clamped = Var(f"row{i}", extent_of(c.m))
        out.append(Declare(clamped, minimum(row, extent_of(c.m) - 1)))
        places.append({c.m: clamped})
    return places


def depth_loops(c: Contraction, step: Callable[[Expr, int], list[Stmt]]) -> list[Stmt]:
    """Loops over k around `step(k, count)`, the innermost in trips of `UNROLL`, then one by one."""
    *outer, inner = c.reduce.axes
    size = extent_of(inner)
    whole = simplify((size // UNROLL) * UNROLL)
    loops: list[Stmt] = []
    if whole is not const(0, I32):
        fours = Var(f"{inner.name}_four", simplify(size // UNROLL))
        body = step(fours * UNROLL, UNROLL)
        loops.append(For(fours, const(0, I32), extent_of(fours), tuple(body)))
    if whole is not simplify(size):
        loops.append(For(inner, whole, size, tuple(step(inner, 1))))
    for axis in reversed(outer):
        loops = [For(axis, const(0, I32), extent_of(axis), tuple(loops))]
    return loops


def _step(
    c: Contraction,
    rows: Sequence[dict[Var, Expr]],
    columns: Sequence[Expr],
    sums: Sequence[Sequence[Var]],
    k: Expr,
    count: int,
    emit: Emitter,
) -> list[Stmt]:
    """`count` steps of k for the whole tile."""
    out: list[Stmt] = []
    axis = c.reduce.axes[-1]
    contiguous = count == LANES and unit_stride(c.a.args[0], axis) == 1
    a = [_row_of_a(c, place, k, count, contiguous, out, emit) for place in rows]
    for i in range(count):
        at = {axis: simplify(k + i)}
        b: list[Var] = []
        for column in columns:
            b.append(emit.register(c.reduce.dtype.vector(LANES), "b"))
            out.append(Declare(b[-1], read_at(c.b, {**at, c.n: column}, LANES)))
        for line, elements in zip(sums, a, strict=True):
            for total, vector in zip(line, b, strict=True):
                product_ = call("mul", splat(elements[i], LANES), vector)
                out.append(Assign(total, call("add", total, product_)))
    return out


def _row_of_a(
    c: Contraction,
    place: dict[Var, Expr],
    k: Expr,
    count: int,
    contiguous: bool,
    out: list[Stmt],
    emit: Emitter,
) -> list[Expr]:
    """`count` elements of one row of A, in one vec4 where they are neighbours."""
    axis = c.reduce.axes[-1]
    if contiguous:
        vector = emit.register(c.reduce.dtype.vector(LANES), "a")
        out.append(Declare(vector, read_at(c.a, {**place, axis: k}, LANES)))
        return [lane(vector, i) for i in range(count)]
    elements: list[Expr] = []
    for i in range(count):
        scalar = emit.register(c.reduce.dtype, "a")
        out.append(Declare(scalar, read_at(c.a, {**place, axis: simplify(k + i)}, 1)))
        elements.append(scalar)
    return elements


def read_at(read: Read, at: dict[Var, Expr], lanes: int) -> Read:
    """`read` with variables replaced, `lanes` wide."""
    return Read(read.buffer, simplify(substitute(read.args[0], dict(at))), lanes)


def store(c: Contraction, row: Expr, column: Expr, total: Expr) -> list[Stmt]:
    """The epilogue of four columns and their store; singly where the last ones may not exist."""
    at: dict[Expr, Expr] = {c.n: column}
    if c.m is not None:
        at[c.m] = row
    stand_in = _stand_in(c)
    value = vectorize(c.nest.value, c.n, LANES, {c.reduce: stand_in})
    assert value is not None, "checked by the rule"
    if value.dtype.lanes == 1:
        value = splat(value, LANES)
    offset = simplify(substitute(c.nest.offset, at))
    whole = Store(c.nest.out, offset, simplify(substitute(value, {**at, stand_in: total})))
    extent = extent_of(c.n)
    if _divides(LANES, extent):
        return [whole]
    i = Var("lane", LANES)
    at[c.n] = column + i
    element = Op("lane", (total, i), c.reduce.dtype)
    value = substitute(c.nest.value, {c.reduce: element})
    single = simplify(substitute(value, at))
    one = Store(c.nest.out, simplify(substitute(c.nest.offset, at)), single)
    rest = For(i, const(0, I32), simplify(minimum(extent - column, LANES)), (one,))
    return [If(compare("le", column + LANES, extent), (whole,), (rest,))]
