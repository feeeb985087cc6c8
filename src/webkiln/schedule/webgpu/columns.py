"""Long reductions with few, neighbouring results on WebGPU: pooling over a text or an image.

One invocation for four results would leave most of a GPU idle, so the invocations of a workgroup
share the reduction: 8 along the results, whose reads are neighbours, by 16 along the longest axis.
"""

from __future__ import annotations

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Expr,
    Read,
    Reduce,
    Var,
    call,
    ceildiv,
    compare,
    const,
    free_vars,
    splat,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Stmt, Store
from webkiln.schedule.emit import COMBINE, Emitter, bounds_of, initial
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, product, reduces
from webkiln.schedule.vectorize import unit_stride, vectorize
from webkiln.schedule.webgpu.grid import at_most, groups_of, unflatten
from webkiln.schedule.webgpu.tree import combine_shared

__all__ = ["columns"]

LANES = 4
ACROSS = 8  # invocations along the results: the 128 bytes of a line of cache
SLICES = 16  # invocations along the reduction
LONG = 64  # steps of a reduction that are worth sharing
FEW = 8192  # vec4 of results that are enough work without


def columns(nest: Nest) -> Kernel | None:
    """A workgroup for 32 neighbouring results, where the nest is one long reduction over them."""
    found = reduces(nest.value)
    if len(found) != 1 or not nest.loops or not _worth_sharing(nest, found[0]):
        return None
    reduce, inner = found[0], nest.loops[-1]
    wide = reduce.dtype.vector(LANES)
    total = Emitter().register(wide, "total")
    value = vectorize(nest.value, inner, LANES, {reduce: total})
    bounds, body = bounds_of(reduce)
    term = vectorize(body, inner, LANES)
    if value is None or term is None:
        return None
    fours = simplify(extent_of(inner) // LANES)
    block = Var("block", simplify(ceildiv(fours, ACROSS)))
    outer = (*nest.loops[:-1], block)
    loops, group = groups_of(product([extent_of(v) for v in outer]))
    if len(loops) > 1:
        return None
    across, piece, four = Var("across", ACROSS), Var("slice", SLICES), Var("four", fours)
    partial = Emitter().register(wide, "part")
    combine = COMBINE[reduce.kind]
    step = Assign(partial, call(combine, partial, _four(term)))
    shared = Buffer("partial", reduce.dtype, (const(ACROSS * SLICES * LANES, I32),), "workgroup")
    slot = across * SLICES
    exists = compare("lt", four, fours)
    out: list[Stmt] = [
        *unflatten(group, outer),
        Declare(four, block * ACROSS + across),
        Declare(inner, four * LANES),
        Declare(partial, splat(initial(reduce.kind, reduce.dtype), LANES)),
        If(exists, (_strided(reduce, bounds, piece, step),)),
        *combine_shared(shared, [(partial, slot)], combine, piece, SLICES),
    ]
    result = Declare(total, Read(shared, slot * LANES, LANES))
    stores = (result, Store(nest.out, nest.offset, _four(value)))
    out.append(If(call("and", exists, compare("eq", piece, 0)), stores))
    local = [
        Loop(piece, const(SLICES, I32), "local.y"),
        Loop(across, const(ACROSS, I32), "local.x"),
    ]
    return make_kernel("columns", nest, [*loops, *local], out)


def _worth_sharing(nest: Nest, reduce: Reduce) -> bool:
    """Few results, four of them at a time, each of many steps."""
    inner = nest.loops[-1]
    steps = at_most(product([extent_of(a) for a in reduce.axes]))
    results = at_most(product([extent_of(v) for v in nest.loops])) // LANES
    return (
        unit_stride(nest.offset, inner) == 1
        and simplify(extent_of(inner) % LANES) is const(0, I32)
        and inner in free_vars(reduce)
        and steps >= LONG
        and results <= FEW
    )


def _strided(reduce: Reduce, bounds: dict[Var, tuple[Expr, Expr]], piece: Var, step: Stmt) -> Stmt:
    """The loops of the reduction, of the longest axis only every sixteenth step from `piece` on."""
    longest = max(reduce.axes, key=lambda a: at_most(extent_of(a)))
    for axis in (longest, *(a for a in reversed(reduce.axes) if a is not longest)):
        start, stop = bounds[axis]
        if axis is longest:
            step = For(axis, simplify(start + piece), stop, (step,), SLICES)
        else:
            step = For(axis, start, stop, (step,))
    return step


def _four(e: Expr) -> Expr:
    return splat(e, LANES) if e.dtype.lanes == 1 else e
