"""Normalisations.

Statistics are reductions inside the one computation; each is built once and shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Expr, ExprLike, call, const, maximum, select
from webkiln.ir.simplify import simplify
from webkiln.ops.core import Context, Tensor, Unsupported, operator, static
from webkiln.ops.elementwise import broadcast
from webkiln.ops.reductions import count, over_axes, reciprocal_of
from webkiln.ops.windows import inside

__all__: list[str] = []


def _mean(ctx: Context, x: Tensor, axes: Sequence[int], index: Sequence[ExprLike]) -> Expr:
    size = count([x.shape[a] for a in axes])
    return over_axes(ctx, x, axes, "sum", index) * reciprocal_of(size)


def _variance(
    ctx: Context, x: Tensor, axes: Sequence[int], index: Sequence[ExprLike], mean: Expr
) -> Expr:
    """Mean squared distance from the mean: two passes, as (x² - mean²) would cancel."""
    size = count([x.shape[a] for a in axes])
    squares = over_axes(ctx, x, axes, "sum", index, lambda e: (e - mean) * (e - mean))
    return squares * reciprocal_of(size)


@operator("BatchNormalization")
def batch_normalization(
    ctx: Context, x: Tensor, scale: Tensor, b: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """By the statistics of training.

    (x - mean) · scale / sqrt(variance + epsilon) + b, channel by channel.
    """
    if ctx.int("training_mode", 0) or ctx.outputs > 1:
        raise Unsupported("training_mode", hint="export the model for inference")
    epsilon = ctx.float("epsilon", 1e-5)

    def value(*i: Expr) -> Expr:
        c = i[1] if x.rank > 1 else const(0, I32)
        return (x[i] - mean[c]) * (scale[c] * call("rsqrt", variance[c] + epsilon)) + b[c]

    return ctx.compute(x.shape, value, x.dtype)


@operator("LayerNormalization")
def layer_normalization(
    ctx: Context, x: Tensor, scale: Tensor, b: Tensor | None = None
) -> list[Tensor]:
    """Over all axes from `axis` on (arXiv 1607.06450). Also the mean and 1 / deviation."""
    axes = range(ctx.axis(x, ctx.int("axis", -1)), x.rank)
    return _layer(ctx, x, scale, b, axes, centred=True)


def _layer(
    ctx: Context,
    x: Tensor,
    scale: Tensor,
    b: Tensor | None,
    axes: Sequence[int],
    *,
    centred: bool,
) -> list[Tensor]:
    """[normalised, mean, 1 / deviation] (the mean only of what is centred)."""
    epsilon = ctx.float("epsilon", 1e-5)

    def statistics(i: Sequence[ExprLike]) -> tuple[Expr | None, Expr]:
        mean = _mean(ctx, x, axes, i) if centred else None
        zero = const(0, x.buffer.dtype)
        variance = _variance(ctx, x, axes, i, zero if mean is None else mean)
        return mean, call("rsqrt", variance + epsilon)

    def value(*i: Expr) -> Expr:
        mean, inverse = statistics(i)
        result = (x[i] if mean is None else x[i] - mean) * inverse * broadcast(scale, i)
        return result if b is None else result + broadcast(b, i)

    results = [ctx.compute(x.shape, value, x.dtype)]
    if ctx.outputs > 1:
        shape: list[ExprLike] = [1 if a in axes else e for a, e in enumerate(x.shape)]

        def mean_of(*i: Expr) -> Expr:
            mean = statistics(i)[0]
            return const(0, x.buffer.dtype) if mean is None else mean

        if centred:
            results.append(ctx.compute(shape, mean_of, "float32"))
        results.append(ctx.compute(shape, lambda *i: statistics(i)[1], "float32"))
    return results


@operator("RMSNormalization", "SimplifiedLayerNormalization")
@operator("SimplifiedLayerNormalization", domain="com.microsoft")
def rms_normalization(ctx: Context, x: Tensor, scale: Tensor) -> list[Tensor]:
    """Division by the root mean square (arXiv 1910.07467)."""
    axes = range(ctx.axis(x, ctx.int("axis", -1)), x.rank)
    return _layer(ctx, x, scale, None, axes, centred=False)


def _skip(ctx: Context, x: Tensor, skip: Tensor, bias: Tensor | None) -> Tensor:
    def value(*i: Expr) -> Expr:
        total = x[i] + broadcast(skip, i)
        return total if bias is None else total + broadcast(bias, i)

    return ctx.compute(x.shape, value, x.dtype)


@operator("SkipLayerNormalization", domain="com.microsoft")
def skip_layer_normalization(
    ctx: Context,
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
) -> list[Tensor]:
    """LayerNormalization of x + skip + bias; the fourth output is that sum."""
    total = _skip(ctx, x, skip, bias)
    results = _layer(ctx, total, gamma, beta, [x.rank - 1], centred=True)
    return [*(results * 3)[:3], total] if len(results) < 3 else [*results, total]


@operator("SkipSimplifiedLayerNormalization", domain="com.microsoft")
def skip_rms_normalization(
    ctx: Context, x: Tensor, skip: Tensor, gamma: Tensor, bias: Tensor | None = None
) -> list[Tensor]:
    """RMSNormalization of x + skip + bias; the fourth output is that sum."""
    total = _skip(ctx, x, skip, bias)
    results = _layer(ctx, total, gamma, None, [x.rank - 1], centred=False)
    return [results[0], results[-1], results[-1], total]


def _per_channel(
    ctx: Context,
    x: Tensor,
    groups: int,
    scale: Callable[[Expr, Expr], Expr],
    bias: Callable[[Expr, Expr], Expr],
) -> Tensor:
    """Over spatial axes and each of `groups` of channels; `scale`, `bias` of (channel, group)."""
    epsilon = ctx.float("epsilon", 1e-5)
    channels = static(x.shape[1], "the number of channels")
    if channels % groups:
        raise Unsupported(f"{channels} channels in {groups} groups")
    size = channels // groups
    inverse_size = reciprocal_of(simplify(count(x.shape[2:]) * size))

    def value(n: Expr, c: Expr, *at: Expr) -> Expr:
        group = c // size if size > 1 else c

        def total(term: Callable[[Expr], Expr]) -> Expr:
            def body(*r: Expr) -> Expr:
                if size == 1:
                    return term(x[(n, c, *r)])
                return term(x[(n, group * size + r[0], *r[1:])])

            return ctx.reduce("sum", [*([size] if size > 1 else []), *x.shape[2:]], body)

        mean = total(lambda e: e) * inverse_size
        variance = total(lambda e: (e - mean) * (e - mean)) * inverse_size
        normal = (x[(n, c, *at)] - mean) * call("rsqrt", variance + epsilon)
        return normal * scale(c, group) + bias(c, group)

    return ctx.compute(x.shape, value, x.dtype)


@operator("InstanceNormalization")
def instance_normalization(ctx: Context, x: Tensor, scale: Tensor, b: Tensor) -> Tensor:
    channels = static(x.shape[1], "the number of channels")
    return _per_channel(ctx, x, channels, lambda c, g: scale[c], lambda c, g: b[c])


@operator("GroupNormalization")
def group_normalization(ctx: Context, x: Tensor, scale: Tensor, b: Tensor) -> Tensor:
    """Scale and bias are per channel since opset 21, per group before (arXiv 1803.08494)."""
    groups = ctx.int("num_groups")
    if ctx.opset >= 21:
        return _per_channel(ctx, x, groups, lambda c, g: scale[c], lambda c, g: b[c])
    return _per_channel(ctx, x, groups, lambda c, g: scale[g], lambda c, g: b[g])


@operator("MeanVarianceNormalization")
def mean_variance_normalization(ctx: Context, x: Tensor) -> Tensor:
    axes = [ctx.axis(x, a) for a in ctx.ints("axes", [0, 2, 3]) or []]

    def value(*i: Expr) -> Expr:
        mean = _mean(ctx, x, axes, i)
        variance = _variance(ctx, x, axes, i, mean)
        return (x[i] - mean) / (call("sqrt", variance) + 1e-9)  # 1e-9: ONNX's own

    return ctx.compute(x.shape, value, x.dtype)


@operator("LpNormalization")
def lp_normalization(ctx: Context, x: Tensor) -> Tensor:
    """Division by the 1- or 2-norm along an axis; zeros stay zeros."""
    axis = ctx.axis(x, ctx.int("axis", -1))
    p = ctx.int("p", 2)

    def value(*i: Expr) -> Expr:
        if p == 1:
            norm = over_axes(ctx, x, [axis], "sum", i, lambda e: call("abs", e))
        else:
            norm = call("sqrt", over_axes(ctx, x, [axis], "sum", i, lambda e: e * e))
        return x[i] / maximum(norm, 1e-38)

    return ctx.compute(x.shape, value, x.dtype)


@operator("LRN")
def local_response_normalization(ctx: Context, x: Tensor) -> Tensor:
    """Division by a power of the squares in a window of channels (AlexNet, section 3.3)."""
    size = ctx.int("size")
    alpha, beta, bias = ctx.float("alpha", 1e-4), ctx.float("beta", 0.75), ctx.float("bias", 1.0)
    before = (size - 1) // 2

    def value(n: Expr, c: Expr, *at: Expr) -> Expr:
        def term(k: Expr) -> Expr:
            channel = c + k - before
            element = x[(n, channel, *at)]
            return select(inside(channel, x.shape[1]), element * element, const(0, element.dtype))

        squares = ctx.reduce("sum", [size], term)
        return x[(n, c, *at)] * call("pow", squares * (alpha / size) + bias, -beta)

    return ctx.compute(x.shape, value, x.dtype)
