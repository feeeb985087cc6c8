"""Scattered sums on WebGPU: a workgroup looks once for the updates that meet its elements."""

from __future__ import annotations

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Expr, Read, Var, compare, const, logical_and, substitute
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Stmt, Store
from webkiln.lower.scatter import Scatter, match_scatter
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of
from webkiln.schedule.webgpu.grid import groups_of

__all__ = ["scatter"]

THREADS = 256
EACH = 4  # elements of an invocation
CHUNK = THREADS * EACH
FEW = 1024  # updates: those that meet a workgroup go through all of them


def scatter(nest: Nest) -> Kernel | None:
    """The kernel, where the nest is a scatter with few updates."""
    s = match_scatter(nest.value, nest.loops)
    if s is None or s.updates > FEW:
        return None
    loops, group = groups_of(simplify((extent_of(s.place) + (CHUNK - 1)) // CHUNK))
    local = Var("local", THREADS)
    start = Var("start", extent_of(s.place))
    body = [Declare(start, group * CHUNK), *_chunk(nest, s, start, local)]
    loops = [*loops, Loop(local, const(THREADS, I32), "local.x")]
    return make_kernel("scatter", nest, loops, body)


def _chunk(nest: Nest, s: Scatter, start: Var, local: Var) -> list[Stmt]:
    """Sums of the updates by place in workgroup memory; then the chunk's elements."""
    dtype = nest.value.dtype
    sums = Buffer("sums", dtype, (const(CHUNK, I32),), "workgroup")
    slot, each, k = Var("slot", CHUNK), Var("each", CHUNK), Var("k", s.axis.extent)
    place = Var("place", extent_of(s.place))
    value = simplify(substitute(s.base, {s.place: place})) + Read(sums, each)
    offset = simplify(substitute(nest.offset, {s.place: place}))
    store = If(compare("lt", place, extent_of(s.place)), (Store(nest.out, offset, value),))
    end = const(CHUNK, I32)
    return [
        For(slot, local, end, (Store(sums, slot, const(0, dtype)),), THREADS),
        Barrier(),
        For(k, local, extent_of(k), tuple(_update(s, k, start, sums)), THREADS),
        Barrier(),
        For(each, local, end, (Declare(place, start + each), store), THREADS),
    ]


def _update(s: Scatter, k: Var, start: Var, sums: Buffer) -> list[Stmt]:
    """If update `k` is for this chunk, the sum of all for its place: alike for those that share it.

    Updates of 0, which fill up a list of a fixed length, change nothing.
    """
    emit = Emitter(1)
    at, total = emit.register(I32, "at"), emit.register(s.update.dtype, "total")
    other = Var("other", s.axis.extent)

    def of(e: Expr, index: Var) -> Expr:
        return substitute(e, {s.axis: index})

    same = compare("eq", of(s.target, other), at)
    add = If(same, (Assign(total, total + of(s.update, other)),))
    found: list[Stmt] = [
        Declare(total, const(0, total.dtype)),
        For(other, const(0, I32), extent_of(other), (add,)),
        Store(sums, simplify(at - start), total),
    ]
    here = logical_and(compare("le", start, at), compare("lt", at, start + CHUNK))
    here = logical_and(here, compare("ne", of(s.update, k), 0.0))
    return [Declare(at, of(s.target, k)), If(here, tuple(found))]
