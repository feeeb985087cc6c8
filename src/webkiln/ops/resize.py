"""Resize and its predecessor Upsample: interpolation at computed positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import (
    Const,
    Expr,
    call,
    cast,
    compare,
    const,
    is_const,
    logical_or,
    maximum,
    minimum,
    select,
)
from webkiln.ir.simplify import simplify
from webkiln.ops.core import Context, Tensor, Unsupported, operator
from webkiln.ops.elementwise import wrap
from webkiln.ops.windows import inside

__all__ = ["cubic_weights"]


@dataclass(frozen=True)
class _Axis:
    """One resized axis: extents before and after, and output elements per input element."""

    size: Expr
    out: Expr
    scale: Expr
    start: float = 0.0  # region of interest, for tf_crop_and_resize
    end: float = 1.0


def _scaled(size: Expr, scale: float) -> Expr:
    """⌊size · scale⌋ in float32, as ONNX Runtime has it; a symbolic size takes a fraction."""
    if isinstance(size, Const):
        return const(int(np.floor(np.float32(size.value) * np.float32(scale))), I32)
    ratio = Fraction(scale).limit_denominator(1024)
    return simplify(size * ratio.numerator // ratio.denominator)


def _ratio(out: Expr, size: Expr) -> Expr:
    if isinstance(out, Const) and isinstance(size, Const):
        return const(float(np.float32(out.value) / np.float32(size.value)), F32)
    quotient = simplify(out // size)
    if isinstance(quotient, Const) and simplify(quotient * size) is out:  # a whole number of times
        return const(float(quotient.value), F32)
    return cast(out, F32) / cast(size, F32)


def _axes(
    ctx: Context, x: Tensor, roi: Tensor | None, scales: Tensor | None, sizes: Tensor | None
) -> dict[int, _Axis]:
    """The axes that change, from `sizes` or `scales`, whichever is given."""
    along = [ctx.axis(x, a) for a in ctx.ints("axes", list(range(x.rank))) or []]
    region = [0.0] * len(along) + [1.0] * len(along)
    if roi is not None and roi.shape != (const(0, I32),):
        region = _floats(roi, "the region of interest")
    result: dict[int, _Axis] = {}
    wanted = sizes.ints("the sizes") if sizes is not None and not _empty(sizes) else None
    if wanted is not None:
        outs = _fitted(ctx, x, along, list(wanted))
        factors = [_ratio(o, x.shape[a]) for a, o in zip(along, outs, strict=True)]
    elif scales is not None and not _empty(scales):
        given = _floats(scales, "the scales")
        outs = [_scaled(x.shape[a], s) for a, s in zip(along, given, strict=True)]
        factors = [const(s, F32) for s in given]
    else:
        raise Unsupported("neither scales nor sizes are given")
    crop = ctx.str("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    for k, axis in enumerate(along):
        begin, end = (region[k], region[k + len(along)]) if crop else (0.0, 1.0)
        if is_const(factors[k], 1.0) and outs[k] is x.shape[axis] and (begin, end) == (0.0, 1.0):
            continue
        result[axis] = _Axis(x.shape[axis], outs[k], factors[k], begin, end)
    return result


def _empty(t: Tensor) -> bool:
    return any(is_const(e, 0) for e in t.shape)


def _floats(t: Tensor, what: str) -> list[float]:
    elements = t.ints(what)
    if not all(isinstance(e, Const) for e in elements):
        raise Unsupported(f"{what} depend on a symbolic dimension")
    return [float(e.value) for e in elements if isinstance(e, Const)]


def _fitted(ctx: Context, x: Tensor, along: Sequence[int], wanted: list[Expr]) -> list[Expr]:
    """Sizes as given, or (keep_aspect_ratio_policy) by one scale that fits or covers them."""
    policy = ctx.str("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return wanted
    pairs = [(w, x.shape[a]) for w, a in zip(wanted, along, strict=True)]
    if not all(isinstance(w, Const) and isinstance(e, Const) for w, e in pairs):
        raise Unsupported(f"keep_aspect_ratio_policy {policy} of a symbolic size")
    ratios = [
        Fraction(int(w.value), int(e.value))
        for w, e in pairs
        if isinstance(w, Const) and isinstance(e, Const)
    ]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    # half up, as ONNX says
    return [
        const(int((int(e.value) * scale * 2 + 1) // 2), I32)
        for _, e in pairs
        if isinstance(e, Const)
    ]


def _over(x: Expr, scale: Expr) -> Expr:
    """X / scale, by multiplication where that is exact: nearest neighbours turn on the last bit."""
    exact = isinstance(scale, Const) and math.frexp(float(scale.value))[0] == 0.5
    return x * (1.0 / scale) if exact else x / scale


def _source(mode: str, axis: _Axis, i: Expr) -> Expr:
    """Where output position `i` lies in the input (coordinate_transformation_mode), float32."""
    at = cast(i, F32)
    size, out = cast(axis.size, F32), cast(axis.out, F32)
    one = is_const(axis.out, 1)
    if mode == "asymmetric":
        return _over(at, axis.scale)
    if mode == "half_pixel":
        return _over(at + 0.5, axis.scale) - 0.5
    if mode == "tf_half_pixel_for_nn":  # of opset 11 alone
        return _over(at + 0.5, axis.scale)
    if mode == "half_pixel_symmetric":
        # keeps the image's centre where ⌊size · scale⌋ rounded
        adjustment = out / (axis.scale * size)
        centre = size * 0.5
        return centre - centre * adjustment + _over(at + 0.5, axis.scale) - 0.5
    if mode == "pytorch_half_pixel":
        if one:
            return const(0.0, F32)
        moved = _over(at + 0.5, axis.scale) - 0.5
        return (
            moved if isinstance(axis.out, Const) else select(compare("gt", axis.out, 1), moved, 0.0)
        )
    if mode == "align_corners":
        if one:
            return const(0.0, F32)
        divisor = maximum(axis.out - 1, 1)
        return at * (cast(axis.size - 1, F32) / cast(divisor, F32))
    if mode == "tf_crop_and_resize":
        begin, end = axis.start, axis.end
        if one:
            return (size - 1) * (0.5 * (begin + end))
        return (size - 1) * begin + at * ((size - 1) * (end - begin) / (out - 1))
    raise Unsupported(f"coordinate_transformation_mode {mode!r}")


_NEAREST: dict[str, Callable[[Expr], Expr]] = {
    "floor": lambda p: call("floor", p),
    "ceil": lambda p: call("ceil", p),
    "round_prefer_floor": lambda p: call("ceil", p - 0.5),
    "round_prefer_ceil": lambda p: call("floor", p + 0.5),
}


def cubic_weights(t: Expr, a: float) -> list[Expr]:
    """Weights of the four neighbours for fraction t (Keys 1981, doi 10.1109/TASSP.1981.1163711)."""

    def near(d: Expr) -> Expr:  # |distance| ≤ 1
        return ((d * (a + 2) - (a + 3)) * d) * d + 1

    def far(d: Expr) -> Expr:  # 1 < |distance| < 2
        return ((d * a - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1), near(t), near(1.0 - t), far(2.0 - t)]


Taps = list[tuple[Expr, Expr | None]]  # (position, weight); None: the only one, of weight 1


def _taps(ctx: Context, kind: str, axis: _Axis, position: Expr) -> Taps:
    """The input positions along an axis and their weights."""
    last = axis.size - 1

    def clamp(p: Expr) -> Expr:
        return minimum(maximum(p, 0), last)

    if kind == "nearest":
        rounding = ctx.str("nearest_mode", "round_prefer_floor")
        if rounding not in _NEAREST:
            raise Unsupported(f"nearest_mode {rounding!r}")
        return [(clamp(cast(_NEAREST[rounding](position), I32)), None)]
    if kind == "linear":
        position = maximum(minimum(position, cast(last, F32)), 0.0)
        base = call("floor", position)
        t = position - base
        first = cast(base, I32)
        return [(clamp(first), 1.0 - t), (clamp(first + 1), t)]
    base = call("floor", position)
    first = cast(base, I32)
    weights = cubic_weights(position - base, ctx.float("cubic_coeff_a", -0.75))
    places = [first + (k - 1) for k in range(4)]
    if ctx.int("exclude_outside", 0):
        zero = const(0.0, F32)
        weights = [
            select(inside(p, axis.size), w, zero) for p, w in zip(places, weights, strict=True)
        ]
        total = weights[0] + weights[1] + weights[2] + weights[3]
        weights = [w / total for w in weights]
    return [(clamp(p), w) for p, w in zip(places, weights, strict=True)]


def _blend(x: Tensor, index: list[Expr], taps: Sequence[tuple[int, Taps]]) -> Expr:
    """Σ of x over the taps of each axis, axis by axis so that weights of an axis are used once."""
    if not taps:
        return x[tuple(index)]
    (axis, first), rest = taps[0], taps[1:]
    total: Expr | None = None
    for position, weight in first:
        index[axis] = position
        inner = _blend(x, list(index), rest)
        part = inner if weight is None else cast(inner, F32) * weight
        total = part if total is None else total + part
    assert total is not None
    return total


def _resize(ctx: Context, x: Tensor, axes: dict[int, _Axis], kind: str, coordinates: str) -> Tensor:
    if kind not in ("nearest", "linear", "cubic"):
        raise Unsupported(f"mode {kind!r}")
    if ctx.int("antialias", 0):
        raise Unsupported("antialias", hint="export without antialiasing")
    outside = coordinates == "tf_crop_and_resize"
    extrapolated = ctx.float("extrapolation_value", 0.0)

    def value(*i: Expr) -> Expr:
        positions = {a: _source(coordinates, axis, i[a]) for a, axis in axes.items()}
        taps = [(a, _taps(ctx, kind, axis, positions[a])) for a, axis in axes.items()]
        result = cast(_blend(x, list(i), taps), x.buffer.dtype)
        if outside:
            beyond: Expr | None = None
            for a, p in positions.items():
                edge = cast(axes[a].size - 1, F32)
                out = logical_or(compare("lt", p, 0.0), compare("gt", p, edge))
                beyond = out if beyond is None else logical_or(beyond, out)
            if beyond is not None:
                result = select(beyond, const(extrapolated, result.dtype), result)
        return wrap(result, x.dtype) if kind != "nearest" else result

    shape = [axes[a].out if a in axes else e for a, e in enumerate(x.shape)]
    image = x.rank == 4
    if image:
        ctx.channels_last.add(x.buffer)
    return ctx.compute(shape, value, x.dtype, channels_last=image)


@operator("Resize")
def resize(ctx: Context, x: Tensor, *rest: Tensor | None) -> Tensor:
    """Opset 10 has (x, scales) and asymmetric floor; later ones (x, roi, scales, sizes)."""
    kind = ctx.str("mode", "nearest")
    if ctx.opset < 11:
        return _opset10(ctx, x, rest[0], kind)
    roi, scales, sizes = (*rest, None, None, None)[:3]
    axes = _axes(ctx, x, roi, scales, sizes)
    return _resize(ctx, x, axes, kind, ctx.str("coordinate_transformation_mode", "half_pixel"))


@operator("Upsample")
def upsample(ctx: Context, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """Resize's predecessor; scales an attribute before opset 9."""
    if scales is None:
        scales = ctx.constant(np.asarray(ctx.attributes.get("scales", []), np.float32))
    return _opset10(ctx, x, scales, ctx.str("mode", "nearest"))


def _opset10(ctx: Context, x: Tensor, scales: Tensor | None, kind: str) -> Tensor:
    ctx.attributes = {"nearest_mode": "floor"}
    return _resize(ctx, x, _axes(ctx, x, None, scales, None), kind, "asymmetric")
