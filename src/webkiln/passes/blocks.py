"""Weights as small integers in blocks, each block with its own scale: ``w = (q - z) · s``.

The numbers of com.microsoft.MatMulNBits. Scales and ``z · s`` have the 11 bits of half precision:
kernels keep the two in one word of 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Blocks", "from_blocks", "to_blocks"]

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

_CHUNK = 1 << 18  # weights at a time: what is computed with stays in the processor's cache

# Where 4-bit steps are tried, as levels that the block's range is divided into. More than 15 cut
# the outermost weights off, which the finer step of the others pays for.
_LEVELS = (14.0, 15.0, 15.5, 16.0, 16.5, 17.0, 18.0)


@dataclass(frozen=True)
class Blocks:
    """A matrix [N, K] as integers uint8 [N, K/block, block·bits/8].

    Scales and zero points are [N, K/block]. A byte of two integers has the earlier one in its lower
    half. Without zero points the middle of the range, 8 or 128, stands for 0.
    """

    bits: int
    block: int
    integers: U8
    scales: F32
    zero_points: F32 | U8 | None


def to_blocks(weight: npt.NDArray[np.floating], bits: int, block: int) -> Blocks | None:
    """The matrix `weight` [N, K], K a multiple of `block`, in 8 or 4 bits.

    Eight bits are symmetric; four have a zero point of their own a block and are fitted to the
    least squared error. None if the numbers are no weights: not finite, or too large to be squared.
    """
    n, k = weight.shape
    rows = np.ascontiguousarray(weight, dtype=np.float32).reshape(-1, block)
    quantize = _fitted if bits == 4 else _symmetric
    integers = np.empty(rows.shape, np.uint8)
    scales, offsets = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    step = max(1, _CHUNK // block)
    with np.errstate(all="ignore"):  # what isn't finite is looked for at the end
        for at in range(0, len(rows), step):
            part = slice(at, at + step)
            integers[part], scales[part], offsets[part] = quantize(rows[part])
    if not (np.isfinite(scales).all() and np.isfinite(offsets).all()):
        return None
    shape = (n, k // block)
    if bits == 8:
        return Blocks(bits, block, integers.reshape(*shape, block), scales.reshape(shape), None)
    points = _zero_points(scales, offsets, integers)
    packed: U8 = integers[:, 0::2] | integers[:, 1::2] << np.uint8(4)
    return Blocks(
        bits,
        block,
        packed.reshape(*shape, block // 2),
        scales.reshape(shape),
        points.reshape(shape),
    )


def from_blocks(blocks: Blocks, *, as_stored: bool = False) -> F32:
    """The matrix [N, K] that the integers stand for.

    `as_stored`: with scales and offsets rounded as kernels keep them.
    """
    n, count = blocks.scales.shape
    integers = blocks.integers.reshape(n, count, -1)
    if blocks.bits == 4:
        integers = _unpacked(integers)
    points, scales = _points(blocks), blocks.scales.astype(np.float32)
    if as_stored:
        real = integers * _half(scales)[..., None]
        real -= _half(scales * points)[..., None]
    else:
        real = (integers - points[..., None]) * scales[..., None]
    return real.reshape(n, count * blocks.block)


def _points(blocks: Blocks) -> F32:
    """The zero points [N, K/block]; uint8 ones of 4 bits are packed by two along a row."""
    (n, count), points = blocks.scales.shape, blocks.zero_points
    if points is None:
        return np.full((n, count), 1 << (blocks.bits - 1), np.float32)
    if points.dtype == np.uint8 and blocks.bits == 4:
        points = _unpacked(points.astype(np.uint8).reshape(n, -1))[:, :count]
    return points.reshape(n, count).astype(np.float32)


def _unpacked(integers: U8) -> U8:
    halves: U8 = np.stack([integers & 15, integers >> 4], axis=-1)
    return halves.reshape(*integers.shape[:-1], -1)


def _half(x: F32) -> F32:
    """Rounded to the 11 bits of half precision, at any size."""
    digits, exponent = np.frexp(x)
    rounded: F32 = np.ldexp(np.rint(digits * np.float32(2048)) / np.float32(2048), exponent)
    return rounded


def _safe(x: F32) -> F32:
    return np.where(x == 0, np.float32(1), x)


def _symmetric(x: F32) -> tuple[U8, F32, F32]:
    """255 levels around 128. Also the scales and offsets (of which there are none)."""
    scale = _half(np.abs(x).max(axis=1) / np.float32(127))
    q = np.rint(x / _safe(scale)[:, None])
    q = np.clip(q, -127, 127) + np.float32(128)
    return q.astype(np.uint8), scale, np.zeros_like(scale)


def _fitted(x: F32) -> tuple[U8, F32, F32]:
    """16 levels ``q · scale + offset`` that meet `x` [blocks, block] with little squared error."""
    low, high = x.min(axis=1), x.max(axis=1)
    middle, width = (low + high) / 2, high - low
    centred = x - middle[:, None]
    fit = _Fit(centred)
    for levels in _LEVELS:
        fit.try_steps(np.float32(levels) / _safe(width), np.full_like(width, 7.5))
    fit.try_steps(np.float32(1) / _safe(fit.slope), -fit.start / _safe(fit.slope))
    scale = _half(np.where(np.isfinite(fit.error), fit.slope, np.float32(np.nan)))
    constant = scale == 0
    offset = _half(np.where(constant, 0, fit.start) + middle)
    q = (x - offset[:, None]) / _safe(scale)[:, None]
    q = np.where(constant[:, None], np.float32(0), np.clip(np.rint(q), 0, 15))
    return q.astype(np.uint8), scale, offset


class _Fit:
    """The straight line ``q · slope + start`` nearest to each block of `x`, over the q tried."""

    def __init__(self, x: F32) -> None:
        self.x, self.q = x, np.empty_like(x)
        self.mean = x.mean(axis=1)
        self.squares = np.einsum("ij,ij->i", x, x) - x.shape[1] * self.mean**2
        self.slope, self.start = np.zeros_like(self.mean), self.mean.copy()
        self.error = np.full_like(self.mean, np.inf)

    def try_steps(self, steps: F32, start: F32) -> None:
        """Keeps the line through ``q = round(x · steps + start)`` where it is nearer."""
        q, count = self.q, self.x.shape[1]
        np.multiply(self.x, steps[:, None], out=q)
        q += start[:, None]
        np.rint(q, out=q)
        np.clip(q, 0, 15, out=q)
        mean = q.mean(axis=1)
        spread = np.einsum("ij,ij->i", q, q) - count * mean**2
        shared = np.einsum("ij,ij->i", q, self.x) - count * mean * self.mean
        slope = shared / np.where(spread > 0, spread, np.float32(1))
        error = self.squares - slope * shared
        better = error < self.error
        self.error = np.where(better, error, self.error)
        self.slope = np.where(better, slope, self.slope)
        self.start = np.where(better, self.mean - slope * mean, self.start)


def _zero_points(scales: F32, offsets: F32, integers: U8) -> F32:
    """``-offset / scale``; a block of one number has it as its scale, one above its zero point.

    `scales` and `integers` of such blocks are changed to fit.
    """
    constant = scales == 0
    scales[constant], integers[constant] = offsets[constant], 0
    points: F32 = np.where(constant, np.float32(-1), -offsets / _safe(scales))
    return points.astype(np.float32)
