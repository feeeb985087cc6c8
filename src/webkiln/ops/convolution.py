"""Convolution and its transpose, grouped and dilated, over any number of spatial axes."""

from __future__ import annotations

from collections.abc import Callable

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Expr, compare, const, logical_and, select
from webkiln.ir.simplify import simplify
from webkiln.ops.core import Context, Tensor, Unsupported, operator, static
from webkiln.ops.linear import is_scalar, scalar
from webkiln.ops.windows import Windows, inside, same_pads

__all__ = ["convolve"]


def convolve(
    ctx: Context,
    x: Tensor,
    w: Tensor,
    dtype: str,
    *,
    bias: Tensor | None = None,
    element: Callable[..., Expr] | None = None,
    weight: Callable[..., Expr] | None = None,
) -> Tensor:
    """Cross-correlation of x [N, groups·C, …] with w [M, C, …].

    `element`, `weight` read in place of both.
    """
    windows = Windows.of(
        ctx, x.shape[2:], [static(s, "a convolution's kernel size") for s in w.shape[2:]]
    )
    groups = ctx.int("group", 1)
    channels = w.shape[1]
    outputs = static(w.shape[0], "a convolution's output channels")
    if simplify(channels * groups) is not x.shape[1] or outputs % groups:
        raise Unsupported(
            f"{groups} groups of {channels!r} to {outputs} channels for an input of {x.shape[1]!r}"
        )

    def value(n: Expr, o: Expr, *at: Expr) -> Expr:
        def term(c: Expr, *k: Expr) -> Expr:
            where = windows.at(at, k)
            group = o // (outputs // groups) if groups > 1 else const(0, I32)
            index = (n, group * channels + c, *where)
            loaded = x[index] if element is None else element(*index)
            loaded = select(windows.guard(where), loaded, const(0, loaded.dtype))
            return loaded * (w[(o, c, *k)] if weight is None else weight(o, c, *k))

        total = ctx.reduce("sum", [channels, *windows.kernel], term, "k")
        return total if bias is None else total + bias[o]

    result = ctx.compute((x.shape[0], w.shape[0], *windows.out), value, dtype, channels_last=True)
    ctx.channels_last.add(x.buffer)
    return result


@operator("Conv")
def conv(ctx: Context, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return convolve(ctx, x, w, x.dtype, bias=b)


@operator("ConvInteger")
def conv_integer(
    ctx: Context,
    x: Tensor,
    w: Tensor,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
) -> Tensor:
    """Convolution of integers less their zero points, in int32."""

    def element(*i: Expr) -> Expr:
        return x[i] if x_zero is None else x[i] - scalar(x_zero)

    def weight(*i: Expr) -> Expr:
        if w_zero is None:
            return w[i]
        return w[i] - (scalar(w_zero) if is_scalar(w_zero) else w_zero[i[0]])

    return convolve(ctx, x, w, "int32", element=element, weight=weight)


@operator("ConvTranspose")
def conv_transpose(ctx: Context, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Every output element gathers the inputs whose windows cover it.

    x [N, C, …], w [C, M / groups, …].
    """
    rank = x.rank - 2
    kernel = [static(s, "a convolution's kernel size") for s in w.shape[2:]]
    strides = ctx.ints("strides") or [1] * rank
    dilations = ctx.ints("dilations") or [1] * rank
    groups = ctx.int("group", 1)
    low, out = _transposed_shape(ctx, x, kernel, strides, dilations)
    per_group = w.shape[1]
    inputs = simplify(x.shape[1] // groups)

    def value(n: Expr, o: Expr, *at: Expr) -> Expr:
        def term(c: Expr, *k: Expr) -> Expr:
            guards, where = [], []
            for a in range(rank):
                spread = at[a] + low[a] - k[a] * dilations[a]  # stride · input position
                position = spread // strides[a]
                if strides[a] > 1:
                    guards.append(compare("eq", spread % strides[a], 0))
                guards.append(inside(position, x.shape[2 + a]))
                where.append(position)
            group = o // per_group if groups > 1 else const(0, I32)
            channel = group * inputs + c
            element = x[(n, channel, *where)]
            element = select(logical_and(*guards), element, const(0, element.dtype))
            return element * w[(channel, o % per_group if groups > 1 else o, *k)]

        total = ctx.reduce("sum", [inputs, *kernel], term, "k")
        return total if b is None else total + b[o]

    shape = (x.shape[0], per_group * groups, *out)
    result = ctx.compute(shape, value, x.dtype, channels_last=True)
    ctx.channels_last.add(x.buffer)
    return result


def _transposed_shape(
    ctx: Context, x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]
) -> tuple[list[int], list[Expr]]:
    """The padding taken off before each spatial axis, and the output's extents."""
    rank = len(kernel)
    extra = ctx.ints("output_padding") or [0] * rank
    pads = ctx.ints("pads") or [0] * (2 * rank)
    mode = ctx.str("auto_pad", "NOTSET")
    wanted = ctx.ints("output_shape")
    full = [
        (size - 1) * strides[a] + extra[a] + (kernel[a] - 1) * dilations[a] + 1
        for a, size in enumerate(x.shape[2:])
    ]
    if mode == "VALID":
        pads = [0] * (2 * rank)
    if wanted is None and mode in ("NOTSET", "VALID"):
        return pads[:rank], [full[a] - pads[a] - pads[a + rank] for a in range(rank)]
    low, out = [], []
    for a in range(rank):
        # output_shape may hold the batch and the channels too
        extent: Expr = const(wanted[a - rank], I32) if wanted else x.shape[2 + a] * strides[a]
        total = max(static(simplify(full[a] - extent), "the padding"), 0)
        low.append(same_pads(total, mode != "SAME_UPPER")[0])
        out.append(extent)
    return low, out
