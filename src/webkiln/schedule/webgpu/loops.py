"""Nests without work to share between invocations: each computes some of the output on its own."""

from __future__ import annotations

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Expr, Var, const, free_vars, substitute
from webkiln.ir.program import Kernel
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Declare, Stmt
from webkiln.schedule.emit import Emitter, bounds_of
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, reduces
from webkiln.schedule.vectorize import unit_stride, vectorize
from webkiln.schedule.webgpu.grid import linear_grid

__all__ = ["elements", "fallback", "vectorises"]

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


def vectorises(value: Expr, var: Var, lanes: int) -> bool:
    """Whether `value`, and every reduction in it that depends on `var`, has a vector form."""
    stand_ins: dict[Expr, Expr] = {}
    for i, reduce in enumerate(reduces(value)):
        if var not in free_vars(reduce):
            continue
        _, body = bounds_of(reduce, var)
        if reduces(body) or vectorize(body, var, lanes) is None:
            return False
        stand_ins[reduce] = Var(f"sum{i}", None, reduce.dtype)
    return vectorize(substitute(value, stand_ins), var, lanes) is not None
