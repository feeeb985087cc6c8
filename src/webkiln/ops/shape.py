"""Operators that only say anew which element lies where: no arithmetic on elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Expr, ExprLike, cast, compare, const, convert, is_const
from webkiln.ir.simplify import simplify
from webkiln.ops.core import Context, Tensor, Unsupported, operator, stored
from webkiln.ops.elementwise import broadcast, merge_shapes
from webkiln.ops.logic import dtype_name
from webkiln.ops.reductions import count

__all__ = ["regroup", "reshape_to"]


@operator("Identity")
def identity(ctx: Context, x: Tensor) -> Tensor:
    return x


@operator("Dropout")
def dropout(
    ctx: Context, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> list[Tensor]:
    """The identity, as always in inference, with a mask of ones."""
    if training is not None and any(training.constants("training_mode")):
        raise Unsupported("training_mode", hint="export the model for inference")
    if ctx.outputs < 2:
        return [x]
    return [x, ctx.compute(x.shape, lambda *i: const(1, I32), "bool")]


@operator("Shape")
def shape(ctx: Context, x: Tensor) -> Tensor:
    part = x.shape[slice(ctx.int("start", 0), ctx.attributes.get("end"))]
    return ctx.known(_objects(part))


@operator("Size")
def size(ctx: Context, x: Tensor) -> Tensor:
    return ctx.known(_objects([count(x.shape)]).reshape(()))


def _objects(elements: Sequence[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    array = np.empty(len(elements), object)
    array[:] = list(elements)
    return array


# --- constants ------------------------------------------------------------------------------------


@operator("Constant")
def constant(ctx: Context) -> Tensor:
    if "value" in ctx.attributes:
        return ctx.constant(np.asarray(ctx.attributes["value"]))
    types = {"value_float": np.float32, "value_floats": np.float32}
    types |= {"value_int": np.int64, "value_ints": np.int64}  # type: ignore[dict-item]
    for name, dtype in types.items():
        if name in ctx.attributes:
            return ctx.constant(np.asarray(ctx.attributes[name], dtype))
    raise Unsupported("a sparse or string constant")


@operator("ConstantOfShape")
def constant_of_shape(ctx: Context, extents: Tensor) -> Tensor:
    value = np.asarray(ctx.attributes.get("value", np.zeros(1, np.float32))).reshape(-1)
    filled = ctx.constant(value)
    return ctx.compute(extents.ints("the shape"), lambda *i: filled[0], filled.dtype)


@operator("EyeLike")
def eye_like(ctx: Context, x: Tensor) -> Tensor:
    code = ctx.attributes.get("dtype")
    dtype = x.dtype if code is None else dtype_name(int(code))
    k = ctx.int("k", 0)
    return ctx.compute(x.shape, lambda i, j: cast(compare("eq", j - i, k), stored(dtype)), dtype)


# --- reshaping ------------------------------------------------------------------------------------


def reshape_to(ctx: Context, x: Tensor, shape: Sequence[ExprLike]) -> Tensor:
    """`x` in row-major order under another shape of as many elements."""
    target = [simplify(convert(e, I32)) for e in shape]
    return ctx.compute(target, lambda *i: x[regroup(i, target, x.shape)], x.dtype)


def regroup(
    index: Sequence[Expr], shape: Sequence[Expr], source: Sequence[Expr]
) -> tuple[Expr, ...]:
    """The index into `source` of the element at `index` of `shape`, both in row-major order.

    Works on the smallest runs of axes with equal products, so that an axis that stays costs
    nothing.
    """
    out: list[Expr] = []
    a = b = 0
    while a < len(source) or b < len(shape):
        a_end, b_end = _run(source, a, shape, b)
        flat: Expr = const(0, I32)
        for i, extent in zip(index[b:b_end], shape[b:b_end], strict=True):
            flat = flat * extent + i
        out.extend(_digits(flat, source[a:a_end]))
        a, b = a_end, b_end
    return tuple(out)


def _digits(flat: Expr, extents: Sequence[Expr]) -> list[Expr]:
    """The row-major index over `extents` of linear position `flat`, which lies within them."""
    out: list[Expr] = []
    inner: Expr = const(1, I32)
    for k in range(len(extents) - 1, -1, -1):
        if is_const(extents[k], 1):
            out.append(const(0, I32))
            continue
        digit = flat // inner
        outermost = all(is_const(e, 1) for e in extents[:k])
        out.append(digit if outermost else digit % extents[k])
        inner = inner * extents[k]
    return out[::-1]


def _run(a: Sequence[Expr], i: int, b: Sequence[Expr], j: int) -> tuple[int, int]:
    """The ends of the shortest runs of `a` from i and `b` from j with equal products."""
    for length in range(1, len(a) - i + len(b) - j + 1):
        for take in range(max(0, length - (len(b) - j)), min(length, len(a) - i) + 1):
            x = simplify(count(a[i : i + take]))
            y = simplify(count(b[j : j + length - take]))
            if x is y:
                return i + take, j + length - take
    return len(a), len(b)


@operator("Reshape")
def reshape(ctx: Context, x: Tensor, target: Tensor | None = None) -> Tensor:
    """0 keeps the input's extent (unless `allowzero`), one -1 takes what is left."""
    given: Sequence[ExprLike] = (
        target.ints("the shape") if target is not None else ctx.ints("shape") or []
    )
    wanted = [convert(e, I32) for e in given]
    if not ctx.int("allowzero", 0):
        wanted = [x.shape[k] if is_const(e, 0) else e for k, e in enumerate(wanted)]
    total = simplify(count(x.shape))
    if any(is_const(e, -1) for e in wanted):
        rest = simplify(count([e for e in wanted if not is_const(e, -1)]))
        left = const(0, I32) if is_const(rest, 0) else simplify(total // rest)
        wanted = [left if is_const(e, -1) else e for e in wanted]
    product = simplify(count(wanted))
    if isinstance(total, Const) and isinstance(product, Const) and total is not product:
        raise Unsupported(f"{list(x.shape)} can't take the shape {wanted}")
    return reshape_to(ctx, x, wanted)


@operator("Flatten")
def flatten(ctx: Context, x: Tensor) -> Tensor:
    axis = ctx.int("axis", 1)
    axis += x.rank if axis < 0 else 0
    return reshape_to(ctx, x, [count(x.shape[:axis]), count(x.shape[axis:])])


def _axes(ctx: Context, axes: Tensor | None) -> list[int]:
    """From the input since opset 13, from the attribute before."""
    return axes.constants("the axes") if axes is not None else ctx.ints("axes") or []


@operator("Squeeze")
def squeeze(ctx: Context, x: Tensor, axes: Tensor | None = None) -> Tensor:
    drop = {ctx.axis(x, a) for a in _axes(ctx, axes)}
    if not drop and axes is None:
        drop = {a for a, e in enumerate(x.shape) if is_const(e, 1)}
    kept = [a for a in range(x.rank) if a not in drop]

    def value(*i: Expr) -> Expr:
        position = dict(zip(kept, i, strict=True))
        return x[tuple(position.get(a, const(0, I32)) for a in range(x.rank))]

    return ctx.compute([x.shape[a] for a in kept], value, x.dtype)


@operator("Unsqueeze")
def unsqueeze(ctx: Context, x: Tensor, axes: Tensor | None = None) -> Tensor:
    given = _axes(ctx, axes)
    rank = x.rank + len(given)
    new = {a % rank for a in given}
    extents = iter(x.shape)
    wide: list[ExprLike] = [1 if a in new else next(extents) for a in range(rank)]
    return ctx.compute(
        wide, lambda *i: x[tuple(e for a, e in enumerate(i) if a not in new)], x.dtype
    )


@operator("Transpose")
def transpose(ctx: Context, x: Tensor) -> Tensor:
    order = ctx.ints("perm") or list(range(x.rank))[::-1]
    return ctx.compute(
        [x.shape[a] for a in order],
        lambda *i: x[tuple(i[order.index(a)] for a in range(x.rank))],
        x.dtype,
    )


@operator("Expand")
def expand(ctx: Context, x: Tensor, target: Tensor) -> Tensor:
    wide = merge_shapes(x.shape, target.ints("the shape"))
    return ctx.compute(wide, lambda *i: broadcast(x, i), x.dtype)


@operator("Tile")
def tile(ctx: Context, x: Tensor, repeats: Tensor) -> Tensor:
    times = repeats.ints("the repeats")
    return ctx.compute(
        [e * t for e, t in zip(x.shape, times, strict=True)],
        lambda *i: x[
            tuple(i[a] if is_const(times[a], 1) else i[a] % e for a, e in enumerate(x.shape))
        ],
        x.dtype,
    )


def _blocks(ctx: Context, x: Tensor) -> tuple[int, Expr, Expr, Expr, Expr]:
    if x.rank != 4:
        raise Unsupported(f"a rank-{x.rank} tensor", hint="4-D images only")
    return ctx.int("blocksize"), *x.shape  # type: ignore[return-value]


@operator("DepthToSpace")
def depth_to_space(ctx: Context, x: Tensor) -> Tensor:
    """Channels to blocks of pixels; DCR: the channel counts blocks first, CRD: depth first."""
    b, n, channels, h, w = _blocks(ctx, x)
    depth = channels // (b * b)
    crd = ctx.str("mode", "DCR") == "CRD"

    def value(i: Expr, c: Expr, y: Expr, z: Expr) -> Expr:
        block = (y % b) * b + z % b
        channel = c * (b * b) + block if crd else block * depth + c
        return x[i, channel, y // b, z // b]

    return ctx.compute((n, depth, h * b, w * b), value, x.dtype, channels_last=True)


@operator("SpaceToDepth")
def space_to_depth(ctx: Context, x: Tensor) -> Tensor:
    """Blocks of pixels to channels, the inverse of DepthToSpace in either order."""
    b, n, channels, h, w = _blocks(ctx, x)
    crd = ctx.str("mode", "DCR") == "CRD"

    def value(i: Expr, c: Expr, y: Expr, z: Expr) -> Expr:
        block, channel = (c % (b * b), c // (b * b)) if crd else (c // channels, c % channels)
        return x[i, channel, y * b + block // b, z * b + block % b]

    return ctx.compute((n, channels * (b * b), h // b, w // b), value, x.dtype, channels_last=True)
