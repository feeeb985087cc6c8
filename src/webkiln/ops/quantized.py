"""Linear quantisation: real = (integer - zero point) · scale."""

from __future__ import annotations

from collections.abc import Sequence

from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import Expr, ExprLike, call, cast, const, maximum, minimum
from webkiln.ir.simplify import simplify
from webkiln.ops.core import Context, Tensor, Unsupported, operator, static, stored
from webkiln.ops.linear import is_scalar, product, scalar
from webkiln.ops.logic import dtype_name

__all__ = ["quantize"]

_LIMITS = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
}


def quantize(real: Expr, scale: Expr, zero: Expr, dtype: str) -> Expr:
    """Round half to even, shift, saturate."""
    if dtype not in _LIMITS:
        raise Unsupported(f"quantisation to {dtype}")
    low, high = _LIMITS[dtype]
    shifted = call("round", real / scale) + cast(zero, F32)
    return cast(minimum(maximum(shifted, float(low)), float(high)), I32)


def _parameter(ctx: Context, x: Tensor, p: Tensor, index: Sequence[Expr]) -> Expr:
    """Scale or zero point for an element of x: per tensor, per axis or per block of the axis."""
    if is_scalar(p):
        return scalar(p)
    axis = ctx.axis(x, ctx.int("axis", 1))
    if p.rank == 1:
        return p[index[axis]]
    block = ctx.int("block_size", 0) or static(
        simplify((x.shape[axis] + p.shape[axis] - 1) // p.shape[axis]), "the block size"
    )
    where: list[ExprLike] = list(index)
    where[axis] = index[axis] // block
    return p[tuple(where)]


@operator("DequantizeLinear")
@operator("DequantizeLinear", domain="com.microsoft")
def dequantize_linear(ctx: Context, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    def value(*i: Expr) -> Expr:
        integer = x[i] if zero is None else x[i] - _parameter(ctx, x, zero, i)
        return cast(integer, F32) * _parameter(ctx, x, scale, i)

    return ctx.compute(x.shape, value, scale.dtype)


@operator("QuantizeLinear")
@operator("QuantizeLinear", domain="com.microsoft")
def quantize_linear(ctx: Context, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    code = ctx.int("output_dtype", 0)
    dtype = zero.dtype if zero is not None else dtype_name(code) if code else "uint8"
    stored(dtype)

    def value(*i: Expr) -> Expr:
        at = const(0, I32) if zero is None else _parameter(ctx, x, zero, i)
        return quantize(cast(x[i], F32), _parameter(ctx, x, scale, i), at, dtype)

    return ctx.compute(x.shape, value, dtype)


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(ctx: Context, x: Tensor) -> list[Tensor]:
    """To uint8 by the tensor's own range, which includes 0: [y, scale, zero point]."""

    def bounds() -> tuple[Expr, Expr]:
        low = minimum(ctx.reduce("min", x.shape, lambda *k: x[k]), 0.0)
        high = maximum(ctx.reduce("max", x.shape, lambda *k: x[k]), 0.0)
        return low, (high - low) / 255.0

    scale = ctx.compute((), lambda: bounds()[1], "float32")

    def zero_point() -> Expr:
        low, step = bounds()
        at = call("round", (0.0 - low) / step)
        return cast(minimum(maximum(at, 0.0), 255.0), I32)

    zero = ctx.compute((), zero_point, "uint8")
    y = ctx.compute(x.shape, lambda *i: quantize(x[i], scale[()], zero[()], "uint8"), "uint8")
    return [y, scale, zero]


@operator("QLinearMatMul")
def qlinear_matmul(
    ctx: Context,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """The integer product, then requantised.

    Scales of A per tensor or row, of B per tensor or column.
    """

    def of(p: Tensor, i: Expr) -> Expr:
        return scalar(p) if is_scalar(p) else p[(0,) * (p.rank - 1) + (i,)]

    total = product(
        ctx,
        a,
        b,
        "int32",
        lambda *i: a[i] - of(a_zero, i[-2]),
        lambda *i: b[i] - of(b_zero, i[-1]),
    )

    def value(*i: Expr) -> Expr:
        real = cast(total[i], F32) * (of(a_scale, i[-2]) * of(b_scale, i[-1]))
        return quantize(real, of(y_scale, i[-1]), of(y_zero, i[-1]), y_zero.dtype)

    return ctx.compute(total.shape, value, y_zero.dtype)
