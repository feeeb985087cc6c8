"""Activations: element-wise functions with attributes, as ONNX and com.microsoft define them."""

from __future__ import annotations

from webkiln.ir.dtypes import F32
from webkiln.ir.expr import Expr, ExprLike, call, cast, compare, const, maximum, minimum, select
from webkiln.ops.core import Context, Tensor, operator
from webkiln.ops.elementwise import elementwise

__all__ = ["erf_gelu", "logistic", "softplus", "tanh_gelu"]


def logistic(a: Expr) -> Expr:
    """1 / (1 + e^-a). Where e^-a overflows to infinity its reciprocal is the right 0."""
    return 1.0 / (call("exp", -a) + 1)


def softplus(a: Expr) -> Expr:
    """log(1 + e^a), from the side where e^ does not overflow."""
    return maximum(a, 0) + call("log", call("exp", -call("abs", a)) + 1)


def tanh_gelu(a: Expr) -> Expr:
    """Gaussian error linear unit by its tanh approximation (arXiv 1606.08415)."""
    root = 0.7978845608028654  # sqrt(2 / pi)
    return a * 0.5 * (call("tanh", (a + a * a * a * 0.044715) * root) + 1)


def erf_gelu(a: Expr) -> Expr:
    """Gaussian error linear unit (arXiv 1606.08415)."""
    return a * 0.5 * (call("erf", a * 0.7071067811865476) + 1)  # 1 / sqrt(2)


def exp_minus_one(a: Expr, scale: ExprLike) -> Expr:
    """Scale · (e^a - 1) for a ≤ 0, else 0."""
    return (call("exp", minimum(a, 0)) - 1) * scale


@operator("Relu")
def relu(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, lambda a: maximum(a, 0), x)


@operator("Sigmoid")
def sigmoid(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, logistic, x)


@operator("Softplus")
def softplus_operator(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, softplus, x)


@operator("Softsign")
def softsign(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, lambda a: a / (call("abs", a) + 1), x)


@operator("Gelu")
def gelu(ctx: Context, x: Tensor) -> Tensor:
    tanh = ctx.str("approximate", "none") == "tanh"
    return elementwise(ctx, tanh_gelu if tanh else erf_gelu, x)


@operator("Gelu", domain="com.microsoft")
def microsoft_gelu(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, erf_gelu, x)


@operator("BiasGelu", domain="com.microsoft")
def bias_gelu(ctx: Context, x: Tensor, bias: Tensor) -> Tensor:
    return elementwise(ctx, lambda a, b: erf_gelu(a + b), x, bias)


@operator("FastGelu", domain="com.microsoft")
def fast_gelu(ctx: Context, x: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is None:
        return elementwise(ctx, tanh_gelu, x)
    return elementwise(ctx, lambda a, b: tanh_gelu(a + b), x, bias)


@operator("QuickGelu", domain="com.microsoft")
def quick_gelu(ctx: Context, x: Tensor) -> Tensor:
    alpha = ctx.float("alpha", 1.702)
    return elementwise(ctx, lambda a: a * logistic(a * alpha), x)


@operator("Swish")
def swish(ctx: Context, x: Tensor) -> Tensor:
    alpha = ctx.float("alpha", 1.0)
    return elementwise(ctx, lambda a: a * logistic(a * alpha), x)


@operator("Mish")
def mish(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, lambda a: a * call("tanh", softplus(a)), x)


@operator("LeakyRelu")
def leaky_relu(ctx: Context, x: Tensor) -> Tensor:
    alpha = ctx.float("alpha", 0.01)
    return elementwise(ctx, lambda a: select(compare("lt", a, 0), a * alpha, a), x)


@operator("PRelu")
def prelu(ctx: Context, x: Tensor, slope: Tensor) -> Tensor:
    return elementwise(ctx, lambda a, s: select(compare("lt", a, 0), a * s, a), x, slope)


@operator("Elu")
def elu(ctx: Context, x: Tensor) -> Tensor:
    alpha = ctx.float("alpha", 1.0)
    return elementwise(ctx, lambda a: select(compare("lt", a, 0), exp_minus_one(a, alpha), a), x)


@operator("Selu")
def selu(ctx: Context, x: Tensor) -> Tensor:
    """Defaults are the fixed point of arXiv 1706.02515."""
    alpha = ctx.float("alpha", 1.67326319217681884765625)
    gamma = ctx.float("gamma", 1.05070102214813232421875)
    return elementwise(
        ctx,
        lambda a: select(compare("lt", a, 0), exp_minus_one(a, alpha * gamma), a * gamma),
        x,
    )


@operator("Celu")
def celu(ctx: Context, x: Tensor) -> Tensor:
    alpha = ctx.float("alpha", 1.0)
    return elementwise(
        ctx, lambda a: select(compare("lt", a, 0), exp_minus_one(a * (1 / alpha), alpha), a), x
    )


@operator("HardSigmoid")
def hard_sigmoid(ctx: Context, x: Tensor) -> Tensor:
    alpha, beta = ctx.float("alpha", 0.2), ctx.float("beta", 0.5)
    return elementwise(ctx, lambda a: minimum(maximum(a * alpha + beta, 0), 1), x)


@operator("HardSwish")
def hard_swish(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, lambda a: a * minimum(maximum(a * (1 / 6) + 0.5, 0), 1), x)


@operator("ThresholdedRelu")
def thresholded_relu(ctx: Context, x: Tensor) -> Tensor:
    alpha = ctx.float("alpha", 1.0)
    return elementwise(ctx, lambda a: select(compare("gt", a, alpha), a, 0.0), x)


@operator("Shrink")
def shrink(ctx: Context, x: Tensor) -> Tensor:
    """Towards zero by `bias` beyond ±`lambd`, zero within."""
    lambd, bias = ctx.float("lambd", 0.5), ctx.float("bias", 0.0)
    integral = not x.buffer.dtype.is_float

    def value(a: Expr) -> Expr:
        f = cast(a, F32)
        zero = const(0.0, F32)
        low = select(compare("lt", f, -lambd), f + bias, zero)
        result = select(compare("gt", f, lambd), f - bias, low)
        return cast(result, a.dtype) if integral else result

    return elementwise(ctx, value, x)
