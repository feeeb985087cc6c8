"""Nests without work to share between invocations: each computes some of the output on its own."""

from __future__ import annotations

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Var, const
from webkiln.ir.program import Kernel
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Declare, Stmt
from webkiln.schedule.emit import Emitter, vectorises
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, reduces
from webkiln.schedule.vectorize import unit_stride
from webkiln.schedule.webgpu.grid import linear_grid

__all__ = ["elements", "fallback"]

LANES = 4


def elements(nest: Nest) -> Kernel | None:
    """Four neighbours an invocation: element-wise work, and windows over channels-last data."""
    if not nest.loops or unit_stride(nest.offset, nest.loops[-1]) != 1:
        return None
    inner = nest.loops[-1]
    if simplify(extent_of(inner) % LANES) is not const(0, I32):
        return None
    if not vectorises(nest.value, inner, LANES):
        return None
    four = Var(f"{inner.name}_four", simplify(extent_of(inner) // LANES))
    grid = linear_grid((*nest.loops[:-1], four))
    first: list[Stmt] = [Declare(inner, four * LANES)]
    body = Emitter(LANES, row_lanes=LANES).vector_body(nest, inner, frozenset(nest.loops), LANES)
    kind = "window" if reduces(nest.value) else "elementwise"
    return make_kernel(kind, nest, grid.loops, grid.around([*first, *body]))


def fallback(nest: Nest) -> Kernel:
    """One invocation an element of the output: takes every nest."""
    grid = linear_grid(nest.loops)
    body = Emitter(1).loops(nest, (), frozenset(nest.loops))
    kind = "reduction" if reduces(nest.value) else "gather"
    return make_kernel(kind, nest, grid.loops, grid.around(body))
