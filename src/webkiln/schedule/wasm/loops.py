"""All but contractions on WebAssembly: vectors along the innermost axis where that works."""

from __future__ import annotations

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Var, const, minimum
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import For, Stmt
from webkiln.schedule.emit import Emitter, vectorises
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, reduces
from webkiln.schedule.vectorize import unit_stride

__all__ = ["columns", "scalar"]

ENOUGH_TASKS = 32  # to share evenly among a handful of threads
CHUNK = 4096  # elements of one task of a single long loop


def columns(nest: Nest) -> Kernel | None:
    """Vectors along the innermost output axis; its reductions have an accumulator a lane."""
    if not nest.loops or unit_stride(nest.offset, nest.loops[-1]) != 1:
        return None
    var = nest.loops[-1]
    lanes = _lanes(var)
    if lanes == 0 or not vectorises(nest.value, var, lanes):
        return None
    return _kernel("columns" if reduces(nest.value) else "elementwise", nest, Emitter(lanes), var)


def scalar(nest: Nest) -> Kernel:
    """One element at a time, for what nothing else takes.

    Reductions along contiguous memory still vectorise.
    """
    return _kernel("reduction" if reduces(nest.value) else "gather", nest, Emitter(4), None)


def _lanes(var: Var) -> int:
    """16 lanes are four 128-bit vectors: enough independent sums to hide the latency of one."""
    if not isinstance(var.extent, Const):
        return 8
    size = int(var.extent.value)
    return next(
        (n for n in (16, 8, 4) if size % n == 0), 8 if size >= 32 else 4 if size >= 4 else 0
    )


def _kernel(kind: str, nest: Nest, emit: Emitter, vector: Var | None) -> Kernel:
    """Outer loops become tasks until there are enough to share; the rest run inside."""
    count = 1
    taken = 0
    inner = nest.loops[-1] if nest.loops else None
    for v in nest.loops:
        if v is inner and (vector is not None or taken > 0) or count >= ENOUGH_TASKS:
            break
        count *= int(v.extent.value) if isinstance(v.extent, Const) else ENOUGH_TASKS
        taken += 1
    tasks, rest = nest.loops[:taken], nest.loops[taken:]
    loops = [Loop(v, extent_of(v), "task") for v in tasks]
    if len(rest) == 1 and rest[0] is inner and vector is inner and count < ENOUGH_TASKS:
        assert inner is not None
        return _chunked(kind, nest, emit, loops, inner)
    body = emit.loops(nest, rest, frozenset(tasks), vector)
    return make_kernel(kind, nest, loops, body)


def _chunked(kind: str, nest: Nest, emit: Emitter, loops: list[Loop], var: Var) -> Kernel:
    """One long vector loop cut into tasks of `CHUNK` elements."""
    extent = extent_of(var)
    chunk = Var("chunk", simplify((extent + (CHUNK - 1)) // CHUNK))
    start = chunk * CHUNK
    stop = simplify(minimum(extent, start + CHUNK))
    bound = frozenset(v.var for v in loops) | {chunk}
    out: list[Stmt] = []
    value = emit.hoist(nest.value, bound, out)
    inner = Nest(nest.out, nest.loops, nest.offset, value, nest.label)
    whole = simplify(start + ((stop - start) // emit.lanes) * emit.lanes)
    out.append(
        For(var, start, whole, tuple(emit.vector_body(inner, var, bound, emit.lanes)), emit.lanes)
    )
    if simplify(extent % emit.lanes) is not const(0, I32):
        out.append(For(var, whole, stop, tuple(emit.loops(inner, (), bound | {var}))))
    return make_kernel(kind, nest, [*loops, Loop(chunk, extent_of(chunk), "task")], out)
