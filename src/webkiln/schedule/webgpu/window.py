"""Depthwise convolutions and pooling over channels-last data on WebGPU.

An invocation computes four channels of several neighbouring places along x. It reads each column
of the input and each weight once for all of them, instead of once for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Op,
    Read,
    Reduce,
    Var,
    call,
    ceildiv,
    compare,
    const,
    minimum,
    splat,
    substitute,
    walk,
)
from webkiln.ir.program import Kernel
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Stmt, Store
from webkiln.schedule.emit import COMBINE, Emitter, bounds_of, initial
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, reduces, strides
from webkiln.schedule.vectorize import unit_stride, vectorize
from webkiln.schedule.webgpu.grid import linear_grid

__all__ = ["window"]

LANES = 4
PLACES = (
    4,
    7,
    5,
    6,
    3,
    2,
)  # along x, the first that divides it; more would need too many registers
MAX_WIDTH = 8  # of a window: it is written out
MAX_STRIDE = 4
MAX_TAPS = 128  # of a window in all


@dataclass(frozen=True, slots=True)
class _Window:
    """A reduction whose axis `tap` and the output's `x` move together over the input."""

    nest: Nest
    reduce: Reduce
    channel: Var
    x: Var
    tap: Var
    places: int


def window(nest: Nest) -> Kernel | None:
    """Several places an invocation, where the nest is one small reduction sliding along x."""
    w = _match(nest)
    if w is None:
        return None
    body = vectorize(w.reduce.body, w.channel, LANES)
    stand_in = Emitter().register(w.reduce.dtype.vector(LANES))
    value = vectorize(nest.value, w.channel, LANES, {w.reduce: stand_in})
    if body is None or value is None:
        return None
    four = Var(f"{w.channel.name}_four", simplify(extent_of(w.channel) // LANES))
    group = Var(f"{w.x.name}_group", simplify(ceildiv(extent_of(w.x), w.places)))
    loops = [group if v is w.x else four if v is w.channel else v for v in nest.loops]
    grid = linear_grid(loops)
    out: list[Stmt] = [Declare(w.channel, four * LANES)]
    first = group * w.places
    whole = _divides(w.places, extent_of(w.x))
    start = first if whole else Var(f"{w.x.name}_start", extent_of(w.x))
    if isinstance(start, Var):  # the last group starts early, and stores what is not yet stored
        out.append(Declare(start, minimum(first, extent_of(w.x) - w.places)))
    places: list[Expr] = [start + i for i in range(w.places)]
    sums = _sums(w, body, places, out)
    for i, (place, total) in enumerate(zip(places, sums, strict=True)):
        stored = substitute(substitute(value, {w.x: place}), {stand_in: total})
        stored = splat(stored, LANES) if stored.dtype.lanes == 1 else stored
        offset = substitute(nest.offset, {w.x: place})
        store = Store(nest.out, simplify(offset), simplify(stored))
        last = whole or i == w.places - 1
        out.append(store if last else If(compare("le", first, place), (store,)))
    return make_kernel("window", nest, grid.loops, grid.around(out))


def _match(nest: Nest) -> _Window | None:
    found = reduces(nest.value)
    if len(found) != 1 or len(nest.loops) < 2 or unit_stride(nest.offset, nest.loops[-1]) != 1:
        return None
    reduce, channel = found[0], nest.loops[-1]
    if simplify(extent_of(channel) % LANES) is not const(0, I32):
        return None
    taps = 1
    for axis in reduce.axes:
        taps *= int(axis.extent.value) if isinstance(axis.extent, Const) else MAX_TAPS + 1
    if taps > MAX_TAPS:
        return None
    for x in reversed(nest.loops[:-1]):
        tap = next((a for a in reduce.axes if _slides(reduce, x, a)), None)
        places = _places(extent_of(x))
        if tap is not None and places > 1 and _rows_alike(reduce, x, tap):
            return _Window(nest, reduce, channel, x, tap, places)
    return None


def _places(size: Expr) -> int:
    """Places an invocation computes: a divisor where there is one; 1 for short or symbolic x."""
    if not isinstance(size, Const):
        return 1
    fallback = PLACES[0] if size.value > PLACES[0] else 1
    return next((p for p in PLACES if size.value % p == 0), fallback)


def _rows_alike(reduce: Reduce, x: Var, tap: Var) -> bool:
    """The bounds of the other axes are the same for all places."""
    outer = tuple(a for a in reduce.axes if a is not tap)
    bounds, _ = bounds_of(Reduce(reduce.kind, outer, reduce.body))
    return not any(x in set(walk(*pair)) or tap in set(walk(*pair)) for pair in bounds.values())


def _slides(reduce: Reduce, x: Var, tap: Var) -> bool:
    """The next place sees with one tap what this one sees with a later tap."""
    if not isinstance(tap.extent, Const) or tap.extent.value > MAX_WIDTH:
        return False
    zero = const(0, I32)
    for read in (n for n in walk(reduce.body) if isinstance(n, Read)):
        moves = strides(read.args[0], (x, tap)) or {}
        along, by = moves.get(x, zero), moves.get(tap, zero)
        if by is not zero and any(simplify(by * s) is along for s in range(1, MAX_STRIDE + 1)):
            return True
    return False


def _divides(width: int, e: Expr) -> bool:
    return simplify(e % width) is const(0, I32)


def _sums(w: _Window, body: Expr, places: Sequence[Expr], out: list[Stmt]) -> list[Var]:
    """A register for each place, after the loops that reduce into it."""
    emit = Emitter()
    wide = w.reduce.dtype.vector(LANES)
    combine = COMBINE[w.reduce.kind]
    sums = [emit.register(wide, "acc") for _ in places]
    start = splat(initial(w.reduce.kind, w.reduce.dtype), LANES)
    out.extend(Declare(s, start) for s in sums)
    outer = tuple(a for a in w.reduce.axes if a is not w.tap)
    bounds, rest = bounds_of(Reduce(w.reduce.kind, outer, body))
    assert isinstance(w.tap.extent, Const)
    terms = [
        (total, simplify(substitute(rest, {w.x: place, w.tap: const(t, I32)})))
        for t in range(int(w.tap.extent.value))
        for total, place in zip(sums, places, strict=True)
    ]
    shared, inside = _share([t for _, t in terms], emit)
    for total, term in terms:
        value = substitute(term, shared)
        value = value if value.dtype.lanes == LANES else splat(value, LANES)
        inside.append(Assign(total, call(combine, total, value)))
    for axis in reversed(outer):
        inside = [For(axis, *bounds[axis], tuple(inside))]
    out.extend(inside)
    return sums


def _share(terms: Sequence[Expr], emit: Emitter) -> tuple[dict[Expr, Var], list[Stmt]]:
    """Registers for what several terms read, guards included."""
    uses = Counter(n for term in terms for n in walk(term))
    guarded = {
        n.args[1]
        for n in uses
        if isinstance(n, Op) and n.name == "select" and isinstance(n.args[1], Read)
    }
    registers: dict[Expr, Var] = {}
    out: list[Stmt] = []
    for node, count in uses.items():
        read = isinstance(node, Read) and node not in guarded
        chosen = isinstance(node, Op) and node.name == "select" and node.args[1] in guarded
        if count > 1 and (read or chosen):
            registers[node] = emit.register(node.dtype, "x")
            out.append(Declare(registers[node], node))
    return registers, out
