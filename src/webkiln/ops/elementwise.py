"""Element-wise operators with broadcasting: a table of scalar functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from webkiln.ir.expr import Const, Expr, ExprLike, call, compare, const, maximum, minimum
from webkiln.ops.core import Context, Tensor, Unsupported, operator

__all__ = ["broadcast", "broadcast_shape", "elementwise"]


def broadcast_shape(*tensors: Tensor) -> tuple[Expr, ...]:
    """The NumPy broadcast of the tensors' shapes; symbolic extents must be equal or meet a 1."""
    rank = max((t.rank for t in tensors), default=0)
    shape: list[Expr] = []
    for axis in range(rank):
        extents = [t.shape[axis - rank + t.rank] for t in tensors if axis - rank + t.rank >= 0]
        wide = list(
            dict.fromkeys(e for e in extents if not (isinstance(e, Const) and e.value == 1))
        )
        if len(wide) > 1:
            raise Unsupported(
                f"shapes {', '.join(str(list(t.shape)) for t in tensors)} do not broadcast"
            )
        shape.append(wide[0] if wide else const(1, extents[0].dtype))
    return tuple(shape)


def broadcast(t: Tensor, index: Sequence[ExprLike]) -> Expr:
    """The element of `t` for `index` of the broadcast result."""
    own = index[len(index) - t.rank :]
    return t[
        tuple(
            0 if isinstance(s, Const) and s.value == 1 else i
            for s, i in zip(t.shape, own, strict=True)
        )
    ]


def elementwise(ctx: Context, f: Callable[..., Expr], *xs: Tensor, dtype: str = "") -> Tensor:
    """`f` of the broadcast elements of `xs`, of ONNX type `dtype` (default: the first input's)."""
    return ctx.compute(
        broadcast_shape(*xs),
        lambda *i: f(*(broadcast(x, i) for x in xs)),
        dtype or xs[0].dtype,
    )


@operator("Relu")
def relu(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, lambda a: maximum(a, 0), x)


@operator("Add")
def add(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, lambda x, y: x + y, a, b)


@operator("Sub")
def sub(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, lambda x, y: x - y, a, b)


@operator("Mul")
def mul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, lambda x, y: x * y, a, b)


@operator("Div")
def div(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Floats divide; integers truncate towards zero (ONNX follows C)."""
    if "float" in a.dtype:
        return elementwise(ctx, lambda x, y: x / y, a, b)
    return elementwise(ctx, lambda x, y: call("truncdiv", x, y), a, b)


@operator("Clip")
def clip(ctx: Context, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    def value(a: Expr, *bounds: Expr) -> Expr:
        rest = iter(bounds)
        if low is not None:
            a = maximum(a, next(rest))
        return a if high is None else minimum(a, next(rest))

    return elementwise(ctx, value, x, *(t for t in (low, high) if t is not None))


@operator("Equal")
def equal(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, lambda x, y: compare("eq", x, y), a, b, dtype="bool")


@operator("Gelu")
def gelu(ctx: Context, x: Tensor) -> Tensor:
    """Gaussian error linear unit, exact or by its tanh approximation (arXiv 1606.08415)."""
    if ctx.str("approximate", "none") == "tanh":
        k = 0.7978845608028654  # sqrt(2 / pi)
        return elementwise(
            ctx, lambda a: a * 0.5 * (call("tanh", (a + a * a * a * 0.044715) * k) + 1), x
        )
    return elementwise(ctx, lambda a: a * 0.5 * (call("erf", a * 0.7071067811865476) + 1), x)


@operator("Sigmoid")
def sigmoid(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, lambda a: 1.0 / (call("exp", -a) + 1), x)
