"""Pooling over windows and over whole images."""

from __future__ import annotations

from collections.abc import Callable

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Expr, call, compare, const, select
from webkiln.ops.core import Context, Tensor, operator
from webkiln.ops.reductions import count, over_axes, reciprocal_of
from webkiln.ops.windows import Windows

__all__: list[str] = []

_FAR = 2**31 - 1


def _lowest(x: Tensor) -> Expr:
    """What no element is below, in place of the padding."""
    storage = x.buffer.dtype
    if storage.is_float:
        return const(-3.4028234663852886e38, storage)  # the least finite float32
    return const(0 if storage.kind == "u" else -_FAR - 1, storage)


def _windows(ctx: Context, x: Tensor) -> Windows:
    return Windows.of(ctx, x.shape[2:], ctx.ints("kernel_shape") or [])


@operator("MaxPool")
def max_pool(ctx: Context, x: Tensor) -> list[Tensor]:
    """The largest element of each window and, if asked for, its position in the flattened input."""
    windows = _windows(ctx, x)
    shape = (*x.shape[:2], *windows.out)

    def largest(n: Expr, c: Expr, *at: Expr) -> Expr:
        def term(*k: Expr) -> Expr:
            where = windows.at(at, k)
            return select(windows.guard(where), x[(n, c, *where)], _lowest(x))

        return ctx.reduce("max", windows.kernel, term, "k")

    ctx.channels_last.add(x.buffer)
    result = ctx.compute(shape, largest, x.dtype, channels_last=True)
    if ctx.outputs < 2:
        return [result]
    column_major = ctx.int("storage_order", 0)

    def position(n: Expr, c: Expr, *at: Expr) -> Expr:
        top = largest(n, c, *at)

        def term(*k: Expr) -> Expr:
            where = windows.at(at, k)
            flat: Expr = const(0, I32)
            spatial = list(zip(where, x.shape[2:], strict=True))
            for p, size in reversed(spatial) if column_major else spatial:
                flat = flat * size + p
            plane = (n * x.shape[1] + c) * count(x.shape[2:])
            hit = compare("eq", x[(n, c, *where)], top)
            return select(windows.guard(where), select(hit, plane + flat, _FAR), _FAR)

        return ctx.reduce("min", windows.kernel, term, "k")

    return [result, ctx.compute(shape, position, "int64")]


@operator("AveragePool")
def average_pool(ctx: Context, x: Tensor) -> Tensor:
    windows = _windows(ctx, x)
    padding = bool(ctx.int("count_include_pad", 0))

    def value(n: Expr, c: Expr, *at: Expr) -> Expr:
        def term(*k: Expr) -> Expr:
            where = windows.at(at, k)
            element = x[(n, c, *where)]
            return select(windows.guard(where), element, const(0, element.dtype))

        total = ctx.reduce("sum", windows.kernel, term, "k")
        return total * reciprocal_of(windows.counted(at, padding))

    ctx.channels_last.add(x.buffer)
    return ctx.compute((*x.shape[:2], *windows.out), value, x.dtype, channels_last=True)


def _power(p: int) -> tuple[Callable[[Expr], Expr], Callable[[Expr], Expr]]:
    """|x|^p and its inverse."""
    if p == 1:
        return lambda x: call("abs", x), lambda s: s
    if p == 2:
        return lambda x: x * x, lambda s: call("sqrt", s)
    return (
        lambda x: call("pow", call("abs", x), float(p)),
        lambda s: call("pow", s, 1 / p),
    )


@operator("LpPool")
def lp_pool(ctx: Context, x: Tensor) -> Tensor:
    windows = _windows(ctx, x)
    raised, root = _power(ctx.int("p", 2))

    def value(n: Expr, c: Expr, *at: Expr) -> Expr:
        def term(*k: Expr) -> Expr:
            where = windows.at(at, k)
            element = raised(x[(n, c, *where)])
            return select(windows.guard(where), element, const(0, element.dtype))

        return root(ctx.reduce("sum", windows.kernel, term, "k"))

    ctx.channels_last.add(x.buffer)
    return ctx.compute((*x.shape[:2], *windows.out), value, x.dtype, channels_last=True)


def _global(
    kind: str, term: Callable[[Expr], Expr], finish: Callable[[Expr, Expr], Expr]
) -> Callable[[Context, Tensor], Tensor]:
    def definition(ctx: Context, x: Tensor) -> Tensor:
        axes = range(2, x.rank)
        size = count(x.shape[2:])
        ctx.channels_last.add(x.buffer)
        return ctx.compute(
            (*x.shape[:2], *[1] * len(axes)),
            lambda *i: finish(over_axes(ctx, x, axes, kind, i, term), size),
            x.dtype,
        )

    return definition


operator("GlobalAveragePool")(_global("sum", lambda e: e, lambda s, n: s * reciprocal_of(n)))
operator("GlobalMaxPool")(_global("max", lambda e: e, lambda s, n: s))


@operator("GlobalLpPool")
def global_lp_pool(ctx: Context, x: Tensor) -> Tensor:
    raised, root = _power(ctx.int("p", 2))
    return _global("sum", raised, lambda s, n: root(s))(ctx, x)
