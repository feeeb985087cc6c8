"""Tensor types of GGUF files as the quantised weights that the compiler knows.

The layouts are those of ggml's ``block_*`` structures. Every one of them says
``w = scale · q + offset`` with unsigned integers q; a *block* is the run of weights that shares a
scale. The integers are moved, never rounded anew, so nothing of the file's precision is lost. See
docs/quantisation.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from webkiln.errors import InvalidModelError
from webkiln.frontends.quantised import QuantisedMatrix

__all__ = ["BLOCK_TYPES", "FLOAT_TYPES", "SUPPORTED_TYPES", "float_tensor", "quantised_matrix"]

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class BlockType:
    """One quantised type of ggml: its bytes, and how to read them."""

    size: int  # weights in one record
    bytes: int  # of one record
    block: int  # weights that share a scale
    bits: int  # of the container that q goes into: 4 or 8
    quants: Callable[[Bytes], Bytes]
    """records uint8 [n, bytes] → q uint8 [n, size]"""
    scales: Callable[[Bytes], tuple[Floats, Floats | None]]
    """records uint8 [n, bytes] → scale and offset float32 [n, size / block]; no offset means that
    the container's middle stands for 0"""


def _half(records: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of each record, as float32 [n, 1]."""
    return np.ascontiguousarray(records[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """[..., n] bytes → [..., 2 n]: first all low halves, then all high ones."""
    return np.concatenate([packed & 0x0F, packed >> 4], axis=-1)


def _fifth_bits(records: Bytes, at: int) -> Bytes:
    """32 bits from byte `at` on, least significant first, as 0 or 16: [n, 32]."""
    bits = np.unpackbits(records[:, at : at + 4], axis=1, bitorder="little")
    return bits << np.uint8(4)


def _q4(at: int) -> Callable[[Bytes], Bytes]:
    return lambda records: _nibbles(records[:, at : at + 16])


def _q5(at: int, middle: int) -> Callable[[Bytes], Bytes]:
    """Four bytes of fifth bits, then nibbles; `middle` moves a signed type's 0 to 128."""

    def quants(records: Bytes) -> Bytes:
        q: Bytes = _nibbles(records[:, at + 4 : at + 20]) | _fifth_bits(records, at)
        return q + np.uint8(middle)

    return quants


def _q8(records: Bytes) -> Bytes:
    return records[:, 2:] ^ np.uint8(0x80)  # two's complement → 128 for 0


def _scale(records: Bytes) -> tuple[Floats, None]:
    return _half(records, 0), None


def _scale_and_min(records: Bytes) -> tuple[Floats, Floats]:
    return _half(records, 0), _half(records, 2)


def _k_scales(records: Bytes) -> tuple[Floats, Floats]:
    """Q4_K and Q5_K: eight 6-bit scales and mins in 12 bytes, times a float16 each.

    Bytes 0-3 hold scales 0-3 and bytes 4-7 mins 0-3 in their low six bits; bytes 8-11 hold the
    low four bits of scales and mins 4-7, whose upper two are the top bits of the first eight.
    """
    low, mid, high = records[:, 4:8], records[:, 8:12], records[:, 12:16]
    scale = np.concatenate([low & 0x3F, (high & 0x0F) | ((low >> 2) & 0x30)], axis=1)
    least = np.concatenate([mid & 0x3F, (high >> 4) | ((mid >> 2) & 0x30)], axis=1)
    return _half(records, 0) * scale, -(_half(records, 2) * least)


def _q4_k(records: Bytes) -> Bytes:
    """Four times 32 bytes: 32 weights in the low halves, the next 32 in the high ones."""
    return _nibbles(records[:, 16:144].reshape(-1, 4, 32)).reshape(-1, 256)


def _q5_k(records: Bytes) -> Bytes:
    low = _nibbles(records[:, 48:176].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    shift = np.arange(8, dtype=np.uint8)[:, None]  # bit i of byte j belongs to weight j of block i
    high = (records[:, None, 16:48] >> shift) & np.uint8(1)
    q: Bytes = low | (high << np.uint8(4))
    return q.reshape(-1, 256)


def _q6_k(records: Bytes) -> Bytes:
    """Per 128 weights, 64 bytes of low halves and 32 bytes of two upper bits four times over."""
    low = _nibbles(records[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    shift = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = (records[:, 128:192].reshape(-1, 2, 1, 32) >> shift) & np.uint8(3)
    q: Bytes = low | (high << np.uint8(4))
    return (q + np.uint8(128 - 32)).reshape(-1, 256)  # ggml's 0 is 32


def _q6_k_scales(records: Bytes) -> tuple[Floats, None]:
    scales = np.ascontiguousarray(records[:, 192:208]).view(np.int8)
    return _half(records, 208) * scales, None


BLOCK_TYPES = {
    "Q4_0": BlockType(32, 18, 32, 4, _q4(2), _scale),
    "Q4_1": BlockType(32, 20, 32, 4, _q4(4), _scale_and_min),
    "Q5_0": BlockType(32, 22, 32, 8, _q5(2, 128 - 16), _scale),
    "Q5_1": BlockType(32, 24, 32, 8, _q5(4, 0), _scale_and_min),
    "Q8_0": BlockType(32, 34, 32, 8, _q8, _scale),
    "Q4_K": BlockType(256, 144, 32, 4, _q4_k, _k_scales),
    "Q5_K": BlockType(256, 176, 32, 8, _q5_k, _k_scales),
    "Q6_K": BlockType(256, 210, 16, 8, _q6_k, _q6_k_scales),
}
FLOAT_TYPES = ("F32", "F16", "BF16")
SUPPORTED_TYPES = (*FLOAT_TYPES, *BLOCK_TYPES)


def quantised_matrix(kind: str, rows: Bytes) -> QuantisedMatrix:
    """A matrix of type `kind` from its bytes, uint8 [N, bytes of a row].

    The integers are read from `rows` each time that they are asked for, so that a memory-mapped
    file stays on disk. Where a block's scale is 0 its offset takes the scale's place: w = 1 · min.
    """
    form = BLOCK_TYPES[kind]
    count = rows.shape[1] // form.bytes
    n, blocks = rows.shape[0], count * form.size // form.block

    def records() -> Bytes:
        return rows.reshape(n * count, form.bytes)

    scale, offset = (
        None if part is None else part.reshape(n, blocks) for part in form.scales(records())
    )
    assert scale is not None
    points = None
    flat = np.zeros((0,), dtype=bool)
    if offset is not None:
        flat = scale == 0
        points = np.where(flat, np.float32(-1), -offset / np.where(flat, np.float32(1), scale))
        scale = np.where(flat, offset, scale)

    def integers() -> ir.TensorProtocol:
        q = form.quants(records()).reshape(n, blocks, form.block)
        if flat.any():
            q[flat] = 0
        return ir.tensor(q if form.bits == 8 else q[..., 0::2] | (q[..., 1::2] << 4))

    return QuantisedMatrix(
        n,
        count * form.size,
        form.bits,
        form.block,
        ir.LazyTensor(
            integers,
            dtype=ir.DataType.UINT8,
            shape=ir.Shape([n, blocks, form.block * form.bits // 8]),
        ),
        ir.tensor(scale),
        None if points is None else ir.tensor(points),
    )


def float_tensor(kind: str, data: NDArray[np.generic], name: str) -> ir.TensorProtocol:
    """A tensor of one of `FLOAT_TYPES` as it lies in the file (BF16 comes as bytes)."""
    if kind == "BF16":
        data = data.view(ml_dtypes.bfloat16)
    elif kind not in FLOAT_TYPES:
        raise InvalidModelError(
            f"tensor {name!r} is of type {kind}; a vector like this should be of type F32",
            hint="convert the model again",
        )
    return ir.Tensor(data, name=name)
