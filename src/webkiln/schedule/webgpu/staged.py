"""Large matrix products on WebGPU: blocks of A and B staged in workgroup memory.

A workgroup of 8 × 8 invocations computes 32 rows by 64 columns. For every 16 steps of k its
invocations fetch both blocks together, each element once, then multiply from workgroup memory: an
invocation loads 6 vec4 from global memory, where the plain tile loads 48. Rows of A lie 20 floats
apart and panels of B 132, so that the invocations of a wave read from different banks.
"""

from __future__ import annotations

from dataclasses import dataclass

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Read,
    Var,
    call,
    compare,
    const,
    lane,
    logical_and,
    minimum,
    splat,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Stmt, Store
from webkiln.schedule.contraction import Contraction, match_contraction
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, product
from webkiln.schedule.vectorize import unit_stride
from webkiln.schedule.webgpu.contraction import epilogue_vectorises, read_at, readable, store
from webkiln.schedule.webgpu.grid import at_most, unflatten
from webkiln.targets.webgpu import MAX_GROUPS

__all__ = ["staged"]

LANES = 4
SIDE = 8  # invocations along each direction of a workgroup
ROWS = 4  # of an invocation's tile: its y, y + 8, …
COLUMNS = 8  # of an invocation's tile: a panel
DEPTH = 16  # steps of k staged at once
A_STRIDE = DEPTH + LANES  # floats from row to row: four more than needed, for the banks
B_STRIDE = DEPTH * COLUMNS + LANES  # floats from panel to panel, likewise
#: Rows, columns, depth from which fetching together pays for the barriers. Many rows, since a
#: text's length is mostly far below its bound, and B is then read only once or twice anyway.
LEAST = (1024, 128, 256)


@dataclass(frozen=True, slots=True)
class _Block:
    """What one workgroup works on: `row` and `column` are its first."""

    c: Contraction
    m: Var
    row: Expr
    column: Expr
    across: Var
    down: Var
    a: Buffer
    b: Buffer


def staged(nest: Nest) -> Kernel | None:
    """The kernel, where the nest is a contraction large enough in every direction."""
    c = match_contraction(nest)
    if c is None or c.m is None or not _large(c, c.m) or not epilogue_vectorises(c):
        return None
    batch = product([extent_of(v) for v in c.batch])
    if at_most(batch) > MAX_GROUPS:
        return None
    rows, columns = ROWS * SIDE, COLUMNS * SIDE
    plane = Var("batch", batch)
    down = Var("group_m", simplify((extent_of(c.m) + (rows - 1)) // rows))
    across = Var("group_n", simplify((extent_of(c.n) + (columns - 1)) // columns))
    if max(at_most(extent_of(down)), at_most(extent_of(across))) > MAX_GROUPS:
        return None
    local = Var("local_n", SIDE), Var("local_m", SIDE)
    loops = [Loop(plane, batch, "workgroup.z")] if c.batch else []
    loops += [
        Loop(down, extent_of(down), "workgroup.y"),
        Loop(across, extent_of(across), "workgroup.x"),
        Loop(local[1], const(SIDE, I32), "local.y"),
        Loop(local[0], const(SIDE, I32), "local.x"),
    ]
    dtype = c.reduce.dtype
    shared = (
        Buffer("a_block", dtype, (const(rows * A_STRIDE, I32),), "workgroup"),
        Buffer("b_block", dtype, (const(SIDE * B_STRIDE, I32),), "workgroup"),
    )
    block = _Block(c, c.m, down * rows, across * columns, *local, *shared)
    return make_kernel("contraction", nest, loops, [*unflatten(plane, c.batch), *_body(block)])


def _large(c: Contraction, m: Var) -> bool:
    inner = c.reduce.axes[-1]
    depth = extent_of(inner)
    whole = isinstance(depth, Const) and depth.value % DEPTH == 0
    sizes = at_most(extent_of(m)), at_most(extent_of(c.n)), at_most(depth)
    return (
        whole
        and all(size >= least for size, least in zip(sizes, LEAST, strict=True))
        and simplify(extent_of(c.n) % COLUMNS) is const(0, I32)
        and readable(c)
        and unit_stride(c.a.args[0], inner) == 1
    )


def _body(w: _Block) -> list[Stmt]:
    emit = Emitter()
    wide = w.c.reduce.dtype.vector(LANES)
    sums = [[emit.register(wide, "acc") for _ in range(COLUMNS // LANES)] for _ in range(ROWS)]
    out: list[Stmt] = [Declare(s, const(0, wide)) for line in sums for s in line]
    *outer, inner = w.c.reduce.axes
    trip = Var(f"{inner.name}_block", simplify(extent_of(inner) // DEPTH))
    inside = [Barrier(), *_fetch(w, trip * DEPTH), Barrier(), *_multiply(w, sums, emit)]
    loops: list[Stmt] = [For(trip, const(0, I32), extent_of(trip), tuple(inside))]
    for axis in reversed(outer):
        loops = [For(axis, const(0, I32), extent_of(axis), tuple(loops))]
    return [*out, *loops, *_stores(w, sums)]


def _fetch(w: _Block, k: Expr) -> list[Stmt]:
    """Both blocks at `k`; neighbouring invocations read neighbouring memory."""
    inner = w.c.reduce.axes[-1]
    me = Var("me", SIDE * SIDE)
    out: list[Stmt] = [Declare(me, w.down * SIDE + w.across)]
    fours = DEPTH // LANES
    for i in range(ROWS * SIDE * fours // (SIDE * SIDE)):
        slot = me + i * SIDE * SIDE
        row, four = slot // fours, slot % fours
        m = minimum(w.row + row, extent_of(w.m) - 1)
        value = read_at(w.c.a, {w.m: m, inner: k + four * LANES}, LANES)
        out.append(Store(w.a, row * A_STRIDE + four * LANES, value))
    each = DEPTH * COLUMNS // LANES
    last = simplify(extent_of(w.c.n) - COLUMNS)
    for i in range(SIDE * each // (SIDE * SIDE)):
        slot = me + i * SIDE * SIDE
        panel, four = slot // each, slot % each
        half = four % (COLUMNS // LANES)
        step = four // (COLUMNS // LANES)
        n = minimum(w.column + panel * COLUMNS, last)
        value = read_at(w.c.b, {w.c.n: n + half * LANES, inner: k + step}, LANES)
        out.append(Store(w.b, panel * B_STRIDE + four * LANES, value))
    return out


def _multiply(w: _Block, sums: list[list[Var]], emit: Emitter) -> list[Stmt]:
    """The blocks' product: a vec4 of each row of A, and a panel of B for each of its steps."""
    wide = w.c.reduce.dtype.vector(LANES)
    four = Var("four", DEPTH // LANES)
    body: list[Stmt] = []
    rows: list[Var] = []
    for i in range(ROWS):
        rows.append(emit.register(wide, "a"))
        place = (w.down + i * SIDE) * A_STRIDE + four * LANES
        body.append(Declare(rows[-1], Read(w.a, place, LANES)))
    for step in range(LANES):
        for j in range(COLUMNS // LANES):
            place = w.across * B_STRIDE + (four * LANES + step) * COLUMNS + j * LANES
            vector = emit.register(wide, "b")
            body.append(Declare(vector, Read(w.b, place, LANES)))
            for line, row in zip(sums, rows, strict=True):
                term = call("mul", splat(lane(row, step), LANES), vector)
                body.append(Assign(line[j], call("add", line[j], term)))
    return [For(four, const(0, I32), extent_of(four), tuple(body))]


def _stores(w: _Block, sums: list[list[Var]]) -> list[Stmt]:
    column = Var("column", extent_of(w.c.n))
    out: list[Stmt] = []
    for i, line in enumerate(sums):
        row = Var(f"row{i}", extent_of(w.m))
        inside = [
            s for j, total in enumerate(line) for s in store(w.c, row, column + j * LANES, total)
        ]
        exists = logical_and(
            compare("lt", row, extent_of(w.m)), compare("lt", column, extent_of(w.c.n))
        )
        out.append(Declare(row, w.row + w.down + i * SIDE))
        out.append(If(exists, tuple(inside)))
    return [Declare(column, w.column + w.across * COLUMNS), *out]
