"""A vector by a matrix on WebGPU: the invocations of a workgroup share k.

With one row there is nothing to reuse, and reading B once is all the work. Sixteen invocations take
every sixteenth k of a panel, so that neighbours read neighbouring memory, and combine their sums in
workgroup memory.
"""

from __future__ import annotations

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Expr, Read, Var, call, ceildiv, compare, const, splat
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Stmt
from webkiln.schedule.contraction import Contraction, match_contraction
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, product
from webkiln.schedule.webgpu.contraction import epilogue_vectorises, read_at, readable, store
from webkiln.schedule.webgpu.grid import at_most, unflatten
from webkiln.schedule.webgpu.tree import combine_shared
from webkiln.targets.webgpu import MAX_GROUPS

__all__ = ["matvec"]

LANES = 4
SLICES = 16  # invocations that share k
PANELS = 4  # groups of eight columns in a workgroup
FOURS = 2  # vec4 of a group
DEEP = 64  # shorter sums are left to the tiled rule


def matvec(nest: Nest) -> Kernel | None:
    """The kernel, where the nest is a contraction without rows, deep enough to share."""
    c = match_contraction(nest)
    if c is None or c.m is not None or not readable(c) or not epilogue_vectorises(c):
        return None
    batch = product([extent_of(v) for v in c.batch])
    depth = product([extent_of(a) for a in c.reduce.axes])
    if at_most(depth) < DEEP or at_most(batch) > MAX_GROUPS:
        return None
    width = LANES * FOURS
    panels = simplify(ceildiv(extent_of(c.n), width))
    groups = simplify(ceildiv(panels, PANELS))
    plane, group = Var("batch", batch), Var("group", groups)
    local = Var("slice", SLICES), Var("local_panel", PANELS)
    panel = Var("panel", panels)
    loops = [
        Loop(group, groups, "workgroup.x"),
        Loop(local[1], const(PANELS, I32), "local.y"),
        Loop(local[0], const(SLICES, I32), "local.x"),
    ]
    if c.batch:
        loops = [Loop(plane, batch, "workgroup.z"), *loops]
    body = [
        *unflatten(plane, c.batch),
        Declare(panel, group * PANELS + local[1]),
        *_work(c, panel, panels, *local),
    ]
    return make_kernel("matvec", nest, loops, body)


def _work(c: Contraction, panel: Var, panels: Expr, piece: Var, row: Var) -> list[Stmt]:
    """The sums of one panel over one slice of k, combined; the first invocations store."""
    emit = Emitter()
    wide = c.reduce.dtype.vector(LANES)
    columns = [simplify(panel * (LANES * FOURS) + i * LANES) for i in range(FOURS)]
    sums = [emit.register(wide, "acc") for _ in columns]
    out: list[Stmt] = [Declare(s, const(0, wide)) for s in sums]
    inside = compare("lt", panel, panels)
    out.append(If(inside, tuple(_slice(c, columns, sums, piece, emit))))
    slots = FOURS * PANELS * SLICES
    shared = Buffer("partial", c.reduce.dtype, (const(slots * LANES, I32),), "workgroup")
    bases = [(row * FOURS + i) * SLICES for i in range(FOURS)]
    partials = list(zip(sums, bases, strict=True))
    out += combine_shared(shared, partials, "add", piece, SLICES)
    for i, (column, base) in enumerate(zip(columns, bases, strict=True)):
        mine = call("and", inside, compare("eq", piece, i))
        if not _starts_inside(c, i):
            mine = call("and", mine, compare("lt", column, extent_of(c.n)))
        total = emit.register(wide, "total")
        stores = store(c, const(0, I32), column, total)
        out.append(If(mine, (Declare(total, Read(shared, base * LANES, LANES)), *stores)))
    return out


def _starts_inside(c: Contraction, four: int) -> bool:
    """Every panel has the columns of vec4 number `four`."""
    whole = simplify(extent_of(c.n) % (LANES * FOURS)) is const(0, I32)
    return four == 0 or whole


def _slice(
    c: Contraction, columns: list[Expr], sums: list[Var], piece: Var, emit: Emitter
) -> list[Stmt]:
    """Every sixteenth k from `piece` on."""
    *outer, inner = c.reduce.axes
    element = emit.register(c.reduce.dtype, "a")
    body: list[Stmt] = [Declare(element, read_at(c.a, {}, 1))]
    for column, total in zip(columns, sums, strict=True):
        term = call("mul", splat(element, LANES), read_at(c.b, {c.n: column}, LANES))
        body.append(Assign(total, call("add", total, term)))
    loops: list[Stmt] = [For(inner, piece, extent_of(inner), tuple(body), SLICES)]
    for axis in reversed(outer):
        loops = [For(axis, const(0, I32), extent_of(axis), tuple(loops))]
    return loops
