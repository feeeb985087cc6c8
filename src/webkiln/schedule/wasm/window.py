"""Depthwise convolution and pooling on WebAssembly: neighbouring outputs share what they read.

Vectors run along the channels. Four outputs along x keep their sums in registers while the window
moves over them, so each weight is loaded once for four products. Outputs at the edge, whose window
reaches into the padding, go one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Reduce,
    Var,
    call,
    const,
    free_vars,
    minimum,
    splat,
    substitute,
    walk,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import linear, simplify
from webkiln.ir.stmt import Assign, Declare, For, Stmt, Store
from webkiln.schedule.emit import COMBINE, Emitter, bounds_of, guarded, initial, nested, slack
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import Nest, extent_of, reduces
from webkiln.schedule.vectorize import unit_stride, vectorize

__all__ = ["window"]

TILE = 4  # outputs along x: with eight lanes, eight vector registers of sums
LANES = 8
MAX_TAPS = 256  # a larger reduction is no window


@dataclass(frozen=True, slots=True)
class _Window:
    """A window along `x` and `channel`: low ≤ x < high needs no guard, and `body` has none."""

    nest: Nest
    reduce: Reduce
    x: Var
    channel: Var
    low: int
    high: int
    body: Expr


def window(nest: Nest) -> Kernel | None:
    """The tiled kernel, for one reduction over a small window along the nest's last two loops."""
    w = _match(nest)
    if w is None:
        return None
    loops = [Loop(v, extent_of(v), "task") for v in nest.loops[:-2]]
    body = [*_edge(w, const(0, I32), const(w.low, I32))]
    tile = Var("tile", -(-(w.high - w.low) // TILE))
    first = simplify(minimum(tile * TILE + w.low, w.high - TILE))
    channels = For(
        w.channel, const(0, I32), extent_of(w.channel), tuple(_together(w, first)), LANES
    )
    body.append(For(tile, const(0, I32), extent_of(tile), (channels,)))
    body += _edge(w, const(w.high, I32), extent_of(w.x))
    return make_kernel("window", nest, loops, body)


def _size(v: Var) -> int:
    assert isinstance(v.extent, Const)
    return int(v.extent.value)


def _match(nest: Nest) -> _Window | None:
    found = reduces(nest.value)
    if len(nest.loops) < 3 or len(found) != 1:
        return None
    *_, x, channel = nest.loops
    reduce = found[0]
    sizes = [a.extent for a in (x, channel, *reduce.axes)]
    if not all(isinstance(s, Const) for s in sizes):
        return None
    width, channels, *taps = (int(s.value) for s in sizes if isinstance(s, Const))
    if channels % LANES or prod(taps) > MAX_TAPS:
        return None
    if not {x, channel} <= free_vars(reduce) or unit_stride(nest.offset, channel) != 1:
        return None
    conditions, rest = guarded(reduce)
    along_x = [c for c in conditions if x in set(walk(c))]
    inside = [i for i in range(width) if all(_holds(c, reduce, x, i) for c in along_x)]
    if len(inside) < TILE:
        return None
    body = rest([c for c in conditions if c not in along_x])
    w = _Window(nest, reduce, x, channel, inside[0], inside[-1] + 1, body)
    return w if _vectorises(w) else None


def _vectorises(w: _Window) -> bool:
    sums: dict[Expr, Expr] = {w.reduce: Var("sum", None, w.reduce.dtype.vector(LANES))}
    _, body = bounds_of(Reduce(w.reduce.kind, w.reduce.axes, w.body), w.channel)
    stored = vectorize(w.nest.value, w.channel, LANES, sums)
    return stored is not None and vectorize(body, w.channel, LANES) is not None


def _holds(condition: Expr, reduce: Reduce, x: Var, at: int) -> bool:
    """Whether `condition` holds for the whole window of output `at`."""
    gap = slack(condition)  # the condition is gap ≥ 0
    parts = None if gap is None else linear(gap, (x, *reduce.axes))
    if gap is None or parts is None:
        return False
    worst: dict[Var, Expr] = {x: const(at, I32)}
    for v, factor in parts[0].items():
        if not isinstance(factor, Const):
            return False
        if v is not x:
            worst[v] = const(0, I32) if factor.value > 0 else extent_of(v) - 1
    least = simplify(substitute(gap, worst))
    return isinstance(least, Const) and least.value >= 0


def _edge(w: _Window, start: Expr, stop: Expr) -> list[Stmt]:
    """Outputs start ≤ x < stop one by one, the window cut where it leaves the input."""
    if start is stop:
        return []
    wide = 2 * LANES if _size(w.channel) % (2 * LANES) == 0 else LANES
    bound = frozenset(w.nest.loops[:-1])
    each = Emitter(wide).loops(w.nest, (w.channel,), bound, w.channel)
    return [For(w.x, start, stop, tuple(each))]


def _together(w: _Window, first: Expr) -> list[Stmt]:
    """`TILE` outputs from `first`, one vector of channels."""
    emit = Emitter(LANES)
    wide = w.reduce.dtype.vector(LANES)
    sums = [emit.register(wide, "acc") for _ in range(TILE)]
    out: list[Stmt] = [
        Declare(s, splat(initial(w.reduce.kind, w.reduce.dtype), LANES)) for s in sums
    ]
    bounds, body = bounds_of(Reduce(w.reduce.kind, w.reduce.axes, w.body), w.channel)
    *outer, inner = w.reduce.axes
    whole = bounds[inner] == (const(0, I32), inner.extent)  # else what is left of it stays a loop
    taps: list[Expr] = [const(k, I32) for k in range(_size(inner))] if whole else [inner]
    step: list[Stmt] = []
    for k in taps:
        for i, total in enumerate(sums):
            at: dict[Var, Expr] = {w.x: first + i, inner: k}
            term = vectorize(simplify(substitute(body, at)), w.channel, LANES)
            assert term is not None
            term = term if term.dtype.lanes == LANES else splat(term, LANES)  # of the padding alone
            step.append(Assign(total, call(COMBINE[w.reduce.kind], total, term)))
    out.extend(nested(outer if whole else w.reduce.axes, bounds, step))
    for i, total in enumerate(sums):
        here: dict[Var, Expr] = {w.x: first + i}
        value = vectorize(w.nest.value, w.channel, LANES, {w.reduce: total})
        assert value is not None
        stored = simplify(substitute(value, here))
        out.append(Store(w.nest.out, simplify(substitute(w.nest.offset, here)), stored))
    return out
