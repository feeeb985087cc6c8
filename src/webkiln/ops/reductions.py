"""Reductions over axes, positions of extremes, cumulative sums, softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from webkiln.ir.dtypes import F32, I32, STORAGE
from webkiln.ir.expr import (
    Const,
    Expr,
    ExprLike,
    call,
    cast,
    compare,
    const,
    maximum,
    minimum,
    select,
)
from webkiln.ops.core import Context, Tensor, operator
from webkiln.ops.elementwise import narrow

__all__ = ["count", "over_axes", "reciprocal_of"]

_LOWEST = -3.4028234663852886e38  # the least finite float32


def count(extents: Sequence[Expr]) -> Expr:
    """The product of `extents`."""
    total: Expr = const(1, I32)
    for e in extents:
        total = total * e
    return total


def reciprocal_of(n: Expr) -> Expr:
    """1 / n as float32, for a positive integer n."""
    return const(1 / n.value, F32) if isinstance(n, Const) and n.value else 1.0 / cast(n, F32)


def over_axes(
    ctx: Context,
    x: Tensor,
    axes: Sequence[int],
    kind: str,
    index: Sequence[ExprLike],
    term: Callable[[Expr], Expr] = lambda e: e,
) -> Expr:
    """`kind` of `term(x)` over `axes` of `x`, the other axes at `index` (which has x's rank)."""

    def body(*r: Expr) -> Expr:
        inner = dict(zip(axes, r, strict=True))
        return term(x[tuple(inner.get(a, i) for a, i in enumerate(index))])

    return ctx.reduce(kind, [x.shape[a] for a in axes], body)


def reduction_axes(ctx: Context, x: Tensor, axes: Tensor | None) -> list[int] | None:
    """Sorted axes from the input (later opsets) or the attribute; None: no reduction at all."""
    given = axes.constants("the axes") if axes is not None else ctx.ints("axes") or []
    if not given and ctx.int("noop_with_empty_axes", 0):
        return None
    return sorted({ctx.axis(x, a) for a in given}) if given else list(range(x.rank))


# name → (kind, what is reduced, what becomes of the result given the number of elements)
_Epilogue = Callable[[Expr, Expr], Expr]
_REDUCTIONS: dict[str, tuple[str, Callable[[Expr], Expr], _Epilogue]] = {
    "ReduceSum": ("sum", lambda x: x, lambda r, n: r),
    "ReduceProd": ("prod", lambda x: x, lambda r, n: r),
    "ReduceMax": ("max", lambda x: x, lambda r, n: r),
    "ReduceMin": ("min", lambda x: x, lambda r, n: r),
    "ReduceL1": ("sum", lambda x: magnitude(x), lambda r, n: r),
    "ReduceL2": ("sum", lambda x: x * x, lambda r, n: through_float("sqrt", r)),
    "ReduceSumSquare": ("sum", lambda x: x * x, lambda r, n: r),
    "ReduceLogSum": ("sum", lambda x: x, lambda r, n: through_float("log", r)),
    "ReduceMean": ("sum", lambda x: x, lambda r, n: average(r, n)),
}


def magnitude(x: Expr) -> Expr:
    return call("abs", x) if x.dtype.is_float else maximum(x, -x)


def through_float(function: str, x: Expr) -> Expr:
    return cast(call(function, cast(x, F32)), x.dtype)


def average(total: Expr, n: Expr) -> Expr:
    if total.dtype.is_float:
        return total * reciprocal_of(n)
    return call("truncdiv", total, cast(n, total.dtype))


def _define(name: str) -> None:
    kind, term, epilogue = _REDUCTIONS[name]

    @operator(name)
    def definition(ctx: Context, x: Tensor, axes: Tensor | None = None) -> Tensor:
        def value(over: Sequence[int], index: Sequence[ExprLike]) -> Expr:
            def element(e: Expr) -> Expr:
                return term(cast(e, I32) if x.dtype == "bool" else e)

            total = over_axes(ctx, x, over, kind, index, element)
            if x.dtype == "bool":  # of nothing: False for max, True for min
                total = maximum(total, 0) if kind == "max" else minimum(total, 1)
            return epilogue(total, count([x.shape[a] for a in over]))

        return reduced(ctx, x, axes, value)


def reduced(
    ctx: Context,
    x: Tensor,
    axes: Tensor | None,
    value: Callable[[Sequence[int], Sequence[ExprLike]], Expr],
) -> Tensor:
    """`value(axes, index)` over the reduced shape of `x`; `index` has x's rank."""
    over = reduction_axes(ctx, x, axes)
    if over is None:
        return ctx.compute(x.shape, lambda *i: narrow(value([], i), x.dtype), x.dtype)
    keep = ctx.int("keepdims", 1)
    kept = [a for a in range(x.rank) if a not in over]
    if keep:
        shape: list[ExprLike] = [1 if a in over else e for a, e in enumerate(x.shape)]
        return ctx.compute(shape, lambda *i: narrow(value(over, i), x.dtype), x.dtype)

    def squeezed(*i: Expr) -> Expr:
        position = dict(zip(kept, i, strict=True))
        return narrow(value(over, [position.get(a, 0) for a in range(x.rank)]), x.dtype)

    return ctx.compute([x.shape[a] for a in kept], squeezed, x.dtype)


for _name in _REDUCTIONS:
    _define(_name)


@operator("ReduceLogSumExp")
def reduce_log_sum_exp(ctx: Context, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """log Σ e^x, shifted by the largest x so that nothing overflows."""

    def value(over: Sequence[int], index: Sequence[ExprLike]) -> Expr:
        top = maximum(over_axes(ctx, x, over, "max", index), _LOWEST)
        total = over_axes(ctx, x, over, "sum", index, lambda e: call("exp", e - top))
        return call("log", total) + top

    return reduced(ctx, x, axes, value)


def _arg(kind: str) -> Callable[[Context, Tensor], Tensor]:
    def definition(ctx: Context, x: Tensor) -> Tensor:
        """The first (or last) index along the axis whose element equals the extreme."""
        axis = ctx.axis(x, ctx.int("axis", 0))
        last, keep = ctx.int("select_last_index", 0), ctx.int("keepdims", 1)
        size = x.shape[axis]

        def value(*i: Expr) -> Expr:
            before, after = i[:axis], i[axis + 1 :] if keep else i[axis:]
            best = ctx.reduce(kind, [size], lambda k: x[(*before, k, *after)])

            def candidate(k: Expr) -> Expr:
                hit = compare("eq", x[(*before, k, *after)], best)
                return select(hit, k, -1 if last else size)

            found = ctx.reduce("max" if last else "min", [size], candidate)
            # a NaN equals nothing: stay within the axis, the index may be used to gather
            return maximum(found, 0) if last else minimum(found, size - 1)

        shape: list[ExprLike] = [*x.shape[:axis], *([1] if keep else []), *x.shape[axis + 1 :]]
        return ctx.compute(shape, value, "int64")

    return definition


operator("ArgMax")(_arg("max"))
operator("ArgMin")(_arg("min"))


def _cumulative(kind: str, neutral: int) -> Callable[[Context, Tensor, Tensor], Tensor]:
    def definition(ctx: Context, x: Tensor, axis: Tensor) -> Tensor:
        along = ctx.axis(x, axis.constants("the axis")[0])
        exclusive, reverse = ctx.int("exclusive", 0), ctx.int("reverse", 0)
        order = {(0, 0): "le", (1, 0): "lt", (0, 1): "ge", (1, 1): "gt"}[exclusive, reverse]

        def value(*i: Expr) -> Expr:
            def term(k: Expr) -> Expr:
                element = x[(*i[:along], k, *i[along + 1 :])]
                return select(compare(order, k, i[along]), element, neutral)

            return narrow(ctx.reduce(kind, [x.shape[along]], term), x.dtype)

        return ctx.compute(x.shape, value, x.dtype)

    return definition


operator("CumSum")(_cumulative("sum", 0))
operator("CumProd")(_cumulative("prod", 1))


# --- softmax --------------------------------------------------------------------------------------


def _softmax_axes(ctx: Context, x: Tensor) -> list[int]:
    """One axis since opset 13; before, all from `axis` on."""
    if ctx.opset >= 13:
        return [ctx.axis(x, ctx.int("axis", -1))]
    axis = ctx.int("axis", 1)
    return [] if axis == x.rank else list(range(ctx.axis(x, axis), x.rank))


@operator("Softmax")
def softmax(ctx: Context, x: Tensor) -> Tensor:
    axes = _softmax_axes(ctx, x)

    def value(*i: Expr) -> Expr:
        top = over_axes(ctx, x, axes, "max", i)
        total = over_axes(ctx, x, axes, "sum", i, lambda e: call("exp", e - top))
        return call("exp", x[i] - top) * (1.0 / total)

    return ctx.compute(x.shape, value, x.dtype)


@operator("LogSoftmax")
def log_softmax(ctx: Context, x: Tensor) -> Tensor:
    axes = _softmax_axes(ctx, x)

    def value(*i: Expr) -> Expr:
        top = over_axes(ctx, x, axes, "max", i)
        total = over_axes(ctx, x, axes, "sum", i, lambda e: call("exp", e - top))
        return x[i] - top - call("log", total)

    return ctx.compute(x.shape, value, x.dtype)


@operator("Hardmax")
def hardmax(ctx: Context, x: Tensor) -> Tensor:
    """1 at the first largest element, else 0."""
    axes = _softmax_axes(ctx, x)

    def value(*i: Expr) -> Expr:
        top = over_axes(ctx, x, axes, "max", i)

        def flat(index: Sequence[Expr]) -> Expr:
            position: Expr = const(0, I32)
            for a, e in zip(axes, index, strict=True):
                position = position * x.shape[a] + e
            return position

        def candidate(*r: Expr) -> Expr:
            at = dict(zip(axes, r, strict=True))
            hit = compare("eq", x[tuple(at.get(a, e) for a, e in enumerate(i))], top)
            return select(hit, flat(r), 2**31 - 1)

        first = ctx.reduce("min", [x.shape[a] for a in axes], candidate)
        here = compare("eq", flat([i[a] for a in axes]), first)
        return cast(here, STORAGE[x.dtype])

    return ctx.compute(x.shape, value, x.dtype)
