"""What convolution and pooling share: where a window lies, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Expr,
    ceildiv,
    compare,
    const,
    logical_and,
    maximum,
    minimum,
)
from webkiln.ir.simplify import simplify
from webkiln.ops.core import Context, Unsupported, static

__all__ = ["Windows", "inside", "same_pads"]


def inside(index: Expr, size: Expr) -> Expr:
    """Whether 0 ≤ index < size."""
    return logical_and(compare("ge", index, 0), compare("lt", index, size))


def same_pads(total: int, lower: bool) -> tuple[int, int]:
    """`total` padding on both sides, the odd one before (SAME_LOWER) or after (SAME_UPPER)."""
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


@dataclass(frozen=True)
class Windows:
    """Windows of `kernel` elements, `dilations` apart, every `strides` along axes of `sizes`."""

    sizes: tuple[Expr, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[int, ...]  # padding before and after each axis
    high: tuple[int, ...]
    ceil: bool = False

    @classmethod
    def of(cls, ctx: Context, sizes: Sequence[Expr], kernel: Sequence[int]) -> Windows:
        """From the attributes that Conv and the pooling operators have in common."""
        rank = len(sizes)
        strides = ctx.ints("strides") or [1] * rank
        dilations = ctx.ints("dilations") or [1] * rank
        mode = ctx.str("auto_pad", "NOTSET")
        pads = ctx.ints("pads") or [0] * (2 * rank)
        if mode == "VALID":
            pads = [0] * (2 * rank)
        elif mode in ("SAME_UPPER", "SAME_LOWER"):
            both = []
            for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
                extent = static(size, f"the input's size with auto_pad {mode}")
                total = (-(-extent // stride) - 1) * stride + (k - 1) * dilation + 1 - extent
                both.append(same_pads(max(total, 0), mode == "SAME_LOWER"))
            pads = [p for p, _ in both] + [p for _, p in both]
        elif mode != "NOTSET":
            raise Unsupported(f"auto_pad {mode!r}")
        return cls(
            tuple(sizes),
            tuple(kernel),
            tuple(strides),
            tuple(dilations),
            tuple(pads[:rank]),
            tuple(pads[rank:]),
            bool(ctx.int("ceil_mode", 0)),
        )

    @property
    def out(self) -> tuple[Expr, ...]:
        """The number of windows along each axis.

        With `ceil` the last one may reach beyond the padding.
        """
        result = []
        for a, size in enumerate(self.sizes):
            room = size + (
                self.low[a] + self.high[a] - (self.kernel[a] - 1) * self.dilations[a] - 1
            )
            stride = self.strides[a]
            if not self.ceil:
                result.append(simplify(room // stride + 1))
                continue
            # but it must begin within the input or the padding before it
            begun = ceildiv(size + self.low[a], stride)
            result.append(simplify(minimum(ceildiv(room, stride) + 1, begun)))
        return tuple(result)

    def at(self, window: Sequence[Expr], k: Sequence[Expr]) -> list[Expr]:
        """Where element `k` of `window` lies in the input."""
        return [
            w * s + e * d - p
            for w, s, e, d, p in zip(window, self.strides, k, self.dilations, self.low, strict=True)
        ]

    def guard(self, where: Sequence[Expr]) -> Expr:
        """Whether position `where` is in the input and not in the padding."""
        return logical_and(
            *(
                inside(p, size)
                for a, (p, size) in enumerate(zip(where, self.sizes, strict=True))
                if self.low[a] or self.high[a] or self.ceil
            )
        )

    def counted(self, window: Sequence[Expr], padding: bool) -> Expr:
        """How many elements of `window` lie in the input (with `padding`: in the padded input)."""
        total: Expr = const(1, I32)
        for a, (w, size) in enumerate(zip(window, self.sizes, strict=True)):
            if not self.ceil and (padding or not (self.low[a] or self.high[a])):
                total = total * self.kernel[a]
                continue
            begin = w * self.strides[a] - self.low[a]
            least = -self.low[a] if padding else 0
            end = size + (self.high[a] if padding else 0)
            first = maximum(ceildiv(const(least, I32) - begin, self.dilations[a]), 0)
            last = minimum(ceildiv(end - begin, self.dilations[a]), self.kernel[a])
            total = total * (last - first)
        return total
