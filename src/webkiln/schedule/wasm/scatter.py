"""Scattered sums on WebAssembly: what is there first, in vectors; then one update after another."""

from __future__ import annotations

from dataclasses import replace

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Read, const, substitute
from webkiln.ir.program import Kernel
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Declare, For, Store
from webkiln.lower.scatter import match_scatter
from webkiln.schedule.emit import Emitter
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, collapse, drop_units, extent_of, split_axes
from webkiln.schedule.vectorize import unit_stride, vectorize

__all__ = ["scatter"]

LANES = 16


def scatter(nest: Nest) -> Kernel | None:
    """The kernel, where the nest is a scatter: one task, since updates may meet anywhere."""
    s = match_scatter(nest.value, nest.loops)
    if s is None or unit_stride(nest.offset, s.place) != 1:
        return None
    emit = Emitter(LANES)
    base = collapse(drop_units(split_axes(replace(nest, value=s.base))))
    inner = base.loops[-1]
    wide = unit_stride(base.offset, inner) == 1 and vectorize(base.value, inner, LANES) is not None
    body = emit.loops(base, base.loops, frozenset(), inner if wide else None)
    place = emit.register(I32, "place")
    at = simplify(substitute(nest.offset, {s.place: place}))
    add = Store(nest.out, at, Read(nest.out, at) + s.update)
    k = s.axis
    updates = For(k, const(0, I32), extent_of(k), (Declare(place, s.target), add))
    return make_kernel("scatter", nest, [], [*body, updates])
