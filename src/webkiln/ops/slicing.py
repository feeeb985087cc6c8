"""Parts of tensors and tensors of parts: Slice, Split, Concat, Pad, triangles, ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    ExprLike,
    cast,
    ceildiv,
    compare,
    const,
    is_const,
    logical_and,
    maximum,
    minimum,
    select,
)
from webkiln.ir.simplify import always_nonneg, poly, simplify
from webkiln.ops.core import Context, Tensor, Unsupported, operator, static, stored
from webkiln.ops.windows import inside

__all__: list[str] = []

_FAR = 2**31 - 1  # what ONNX exporters write for "to the end"


# --- Slice and Split ------------------------------------------------------------------------------


def _from_front(position: Expr, size: Expr) -> Expr:
    """A possibly negative position as one from the front.

    A symbolic one of unknown sign counts from there.
    """
    negative = always_nonneg(poly(const(-1, I32) - position))
    return simplify(position + size) if negative else position


def _bounds(start: Expr, end: Expr, step: int, size: Expr) -> tuple[Expr, Expr]:
    """The first position and the number of them, clamped as Python's slices are."""
    first, last = _from_front(start, size), _from_front(end, size)
    if step > 0:
        first = minimum(maximum(first, 0), size)
        last = size if is_const(end, _FAR) else minimum(maximum(last, 0), size)
        return simplify(first), simplify(maximum(ceildiv(last - first, step), 0))
    first = size - 1 if is_const(start, _FAR) else minimum(maximum(first, 0), size - 1)
    # an end below the front (-size - 1, INT_MIN) means: the front included
    far = isinstance(end, Const) and end.value <= -_FAR
    last = const(-1, I32) if far else minimum(maximum(last, -1), size - 1)
    return simplify(first), simplify(maximum(ceildiv(first - last, -step), 0))


@operator("Slice")
def slice_operator(
    ctx: Context,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Bounds are inputs since opset 10, attributes before; they may be symbolic."""

    def given(t: Tensor | None, name: str) -> Sequence[Expr] | None:
        if t is not None:
            return t.ints(name)
        values = ctx.ints(name)
        return (
            None if values is None else [const(max(-_FAR - 1, min(v, _FAR)), I32) for v in values]
        )

    first, last = given(starts, "starts"), given(ends, "ends")
    if first is None or last is None:
        raise Unsupported("starts and ends are missing")
    along = given(axes, "axes") or [const(a, I32) for a in range(len(first))]
    stride = [
        static(s, "a slice's step") for s in given(steps, "steps") or [const(1, I32)] * len(first)
    ]
    shape: list[Expr] = list(x.shape)
    origin: list[Expr] = [const(0, I32)] * x.rank
    pace = [1] * x.rank
    for k, axis in enumerate(ctx.axis(x, static(a, "a slice's axis")) for a in along):
        origin[axis], shape[axis] = _bounds(first[k], last[k], stride[k], x.shape[axis])
        pace[axis] = stride[k]
    return ctx.compute(
        shape,
        lambda *i: x[tuple(o + e * p for e, o, p in zip(i, origin, pace, strict=True))],
        x.dtype,
    )


@operator("Split")
def split(ctx: Context, x: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
    """Sizes from the input, the attribute, or equal but for a smaller last one."""
    axis = ctx.axis(x, ctx.int("axis", 0))
    extent = x.shape[axis]
    attribute = ctx.ints("split")
    parts: Sequence[Expr]
    if sizes is not None:
        parts = sizes.ints("the sizes")
    elif attribute is not None:
        parts = [const(s, I32) for s in attribute]
    else:
        n = ctx.int("num_outputs", ctx.outputs)
        part = simplify(ceildiv(extent, n)) if isinstance(extent, Const) else simplify(extent // n)
        parts = [part] * (n - 1) + [simplify(extent - part * (n - 1))]
    results = []
    origin: Expr = const(0, I32)
    for part in parts:
        results.append(_part(ctx, x, axis, origin, part))
        origin = simplify(origin + part)
    return results


def _part(ctx: Context, x: Tensor, axis: int, origin: Expr, extent: Expr) -> Tensor:
    shape = [*x.shape[:axis], extent, *x.shape[axis + 1 :]]
    return ctx.compute(shape, lambda *i: x[(*i[:axis], i[axis] + origin, *i[axis + 1 :])], x.dtype)


@operator("Concat")
def concat(ctx: Context, *xs: Tensor) -> Tensor:
    """A chain of selections along the axis: the first part whose end is beyond the index."""
    axis = ctx.axis(xs[0], ctx.int("axis", 1))
    ends: list[Expr] = []
    for x in xs:
        ends.append(simplify((ends[-1] if ends else 0) + x.shape[axis]))
    starts = [const(0, I32), *ends[:-1]]

    def value(*i: Expr) -> Expr:
        def part(k: int) -> Expr:
            return xs[k][(*i[:axis], i[axis] - starts[k], *i[axis + 1 :])]

        result = part(len(xs) - 1)
        for k in range(len(xs) - 2, -1, -1):
            if not is_const(xs[k].shape[axis], 0):
                result = select(compare("lt", i[axis], ends[k]), part(k), result)
        return result

    return ctx.compute(
        [*xs[0].shape[:axis], ends[-1], *xs[0].shape[axis + 1 :]], value, xs[0].dtype
    )


# --- Pad ------------------------------------------------------------------------------------------


def _mirror(index: Expr, size: Expr, low: Expr, high: Expr) -> Expr:
    """Reflection without repeating the edge, over and over where the padding is wide."""
    once = all(always_nonneg(poly(size - 1 - p)) for p in (low, high))
    if isinstance(size, Const) and not once:
        period = max(2 * (int(size.value) - 1), 1)
        folded = index % period
        return minimum(folded, period - folded) if size.value > 1 else const(0, I32)
    index = maximum(index, -index)
    return minimum(index, (size - 1) * 2 - index)


@operator("Pad")
def pad(
    ctx: Context,
    x: Tensor,
    pads: Tensor | None = None,
    filling: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Modes constant, reflect, edge and wrap; negative pads crop. Attributes before opset 11."""
    mode = ctx.str("mode", "constant")
    over = [ctx.axis(x, a) for a in axes.constants("axes")] if axes else list(range(x.rank))
    attribute = ctx.ints("pads") or ctx.ints("paddings") or []
    amounts = pads.ints("the padding") if pads is not None else [const(p, I32) for p in attribute]
    low: list[Expr] = [const(0, I32)] * x.rank
    high = list(low)
    for k, axis in enumerate(over):
        low[axis], high[axis] = amounts[k], amounts[k + len(over)]
    storage = stored(x.dtype)
    shape = [simplify(e + lo + hi) for e, lo, hi in zip(x.shape, low, high, strict=True)]

    def fill() -> Expr:
        if filling is None:
            return const(ctx.float("value", 0.0), storage)
        return filling[(0,) * filling.rank]

    def value(*i: Expr) -> Expr:
        where = [e - lo for e, lo in zip(i, low, strict=True)]
        padded = [a for a in range(x.rank) if not (is_const(low[a], 0) and is_const(high[a], 0))]
        if mode == "constant":
            within = logical_and(*(inside(where[a], x.shape[a]) for a in padded))
            empty = cast(fill(), x[tuple(where)].dtype)
            return select(within, x[tuple(where)], empty)
        for a in padded:
            where[a] = _outside(mode, where[a], x.shape[a], low[a], high[a])
        return x[tuple(where)]

    return ctx.compute(shape, value, x.dtype)


def _outside(mode: str, index: Expr, size: Expr, low: Expr, high: Expr) -> Expr:
    if mode == "edge":
        return maximum(minimum(index, size - 1), 0)
    if mode == "wrap":
        return index % size
    if mode == "reflect":
        return _mirror(index, size, low, high)
    raise Unsupported(f"padding mode {mode!r}")


# --- made from positions --------------------------------------------------------------------------


@operator("Trilu")
def trilu(ctx: Context, x: Tensor, k: Tensor | None = None) -> Tensor:
    """The upper (or lower) triangle of the last two axes from diagonal k on, zeros elsewhere."""
    upper = ctx.int("upper", 1)

    def value(*i: Expr) -> Expr:
        diagonal = const(0, I32) if k is None else k[(0,) * k.rank]
        order = "ge" if upper else "le"
        kept = compare(order, i[-1] - i[-2], diagonal)
        element = x[i]
        return select(kept, element, const(0, element.dtype))

    return ctx.compute(x.shape, value, x.dtype)


@operator("Range")
def range_operator(ctx: Context, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Start, start + delta, … below limit; of integers they may be symbolic."""
    storage = stored(start.dtype)
    (first,), (end,), (step,) = (
        t.ints(what) for t, what in [(start, "start"), (limit, "limit"), (delta, "delta")]
    )
    if storage.is_float:
        if not all(isinstance(e, Const) for e in (first, end, step)):
            raise Unsupported("a Range of floats that depend on a symbolic dimension")
        a, b, c = (np.float64(e.value) for e in (first, end, step) if isinstance(e, Const))
        extent: Expr = const(max(math.ceil((b - a) / c), 0), I32)
    else:
        pace = static(step, "a Range's delta")
        if pace == 0:
            raise Unsupported("a Range with delta 0")
        gap = end - first if pace > 0 else first - end
        extent = maximum(ceildiv(cast(gap, I32), abs(pace)), 0)
    return ctx.compute([extent], lambda i: first + cast(i, storage) * step, start.dtype)


@operator("OneHot")
def one_hot(ctx: Context, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """`values[1]` where the position along the new axis is the index (negative: from the end)."""
    extent = cast(depth.ints("the depth")[0], I32)
    rank = indices.rank + 1
    axis = ctx.int("axis", -1) % rank
    shape: list[ExprLike] = [*indices.shape[:axis], extent, *indices.shape[axis:]]

    def value(*i: Expr) -> Expr:
        index = cast(indices[(*i[:axis], *i[axis + 1 :])], I32)
        index = select(compare("lt", index, 0), index + extent, index)
        return select(compare("eq", index, i[axis]), values[1], values[0])

    return ctx.compute(shape, value, values.dtype)
