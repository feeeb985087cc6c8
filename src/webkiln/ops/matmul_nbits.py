"""Weights quantised in blocks along K: MatMulNBits and GatherBlockQuantized of com.microsoft.

A quantised matrix becomes two constants, packed as kernels read them: `words`, uint32 [K / per, N]
with `per` weights a word, and `scales`, uint32 [K / block, N] with two float16 a word, s below m,
so that weight (k, n) is s·q + m. Four bits: the low nibble of byte i of a word is its weight i, the
high one weight 4 + i; so `word & 0x0f0f0f0f` are four consecutive weights a byte each, and so is
`word >> 4 & 0x0f0f0f0f`. Eight bits: byte i is weight i.

Scales are stored times a power of two, one for the whole matrix, which keeps them clear of
float16's ends; the product is multiplied by its inverse.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webkiln.ir.dtypes import F32, I32, U32
from webkiln.ir.expr import (
    Expr,
    ExprLike,
    bitcast,
    call,
    cast,
    compare,
    const,
    select,
)
from webkiln.ir.simplify import simplify
from webkiln.ops.core import Context, Tensor, Unsupported, operator, static
from webkiln.ops.elementwise import broadcast
from webkiln.ops.gather import from_end

__all__ = ["QuantisedMatrix", "weight"]

Array = NDArray[Any]
TOP = 14  # the largest scale or offset becomes 2^14 … 2^15; float16 ends at 2^16


@dataclass(frozen=True, eq=False)
class QuantisedMatrix:
    """A matrix [K, N] as `words` and `scales` (see the module); its values are 2^-`exponent` of
    what those say.
    """

    words: Tensor
    scales: Tensor
    bits: int
    block: int
    exponent: int

    @property
    def per_word(self) -> int:
        """Weights in a word."""
        return 32 // self.bits

    def element(self, group: Expr, word: Expr, inside: Expr, n: ExprLike) -> Expr:
        """Weight `inside` of word `word` of block `group`, in column `n`; without the exponent."""
        words = self.block // self.per_word
        return weight(self.words[group * words + word, n], self.scales[group, n], inside, self.bits)


def weight(word: Expr, pair: Expr, inside: Expr, bits: int) -> Expr:
    """S·q + m for weight `inside` of `word`, `pair` holding s and m."""
    shift = inside * 8 if bits == 8 else inside % 4 * 8 + inside // 4 * 4
    code = call("bitand", call("shr", word, cast(simplify(shift), U32)), (1 << bits) - 1)
    scale, offset = call("half", pair), call("half", call("shr", pair, 16))
    return cast(bitcast(code, I32), F32) * scale + offset


#: by the operator's accuracy_level (2 asks for float16, 4 for int8): the leave to round a row of A
#: to integers of so many bits, which a schedule may take
COARSE = {2: "coarse16", 4: "coarse8"}


@operator("MatMulNBits", domain="com.microsoft")
def matmul_nbits(
    ctx: Context,
    a: Tensor,
    b: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    group_index: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """A · Bᵀ + bias with B's rows in blocks of 4 or 8 bits: w = (q - zero point) · scale.

    `accuracy_level` 4 allows activations of 8 bits, as in ONNX Runtime.
    """
    depth, n = ctx.int("K"), ctx.int("N")
    if group_index is not None:
        raise Unsupported("weights in another order than their blocks' (g_idx)")
    if ctx.int("weight_prepacked", 0):
        raise Unsupported("weights packed for one GPU (weight_prepacked)")
    if static(a.shape[-1], "the length of a row") != depth:
        raise Unsupported(f"rows of {a.shape[-1]!r} for K = {depth}")
    matrix = _matrix(ctx, b, scales, zero_points, depth, n)
    groups, words = -(-depth // matrix.block), matrix.block // matrix.per_word
    whole = depth % matrix.block == 0
    coarse = COARSE.get(ctx.int("accuracy_level", 0))

    def value(*i: Expr) -> Expr:
        *row, column = i

        def term(group: Expr, word: Expr, inside: Expr) -> Expr:
            k = (group * words + word) * matrix.per_word + inside
            x = call(coarse, a[(*row, k)]) if coarse else a[(*row, k)]
            if not whole:  # the last block is filled up
                x = select(compare("lt", k, depth), x, const(0, x.dtype))
            return x * matrix.element(group, word, inside, column)

        total = ctx.reduce("sum", [groups, words, matrix.per_word], term, "k")
        total = total * 2.0**-matrix.exponent
        return total if bias is None else total + broadcast(bias, i)

    return ctx.compute((*a.shape[:-1], n), value, a.dtype)


@operator("GatherBlockQuantized", domain="com.microsoft")
def gather_block_quantized(
    ctx: Context,
    data: Tensor,
    indices: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
) -> Tensor:
    """Rows of a quantised table, as float32.

    `data` is uint8 [N, K·bits/8], or [N, blocks, bytes] as MatMulNBits has it: then the result is
    [..., blocks, block], or [..., K] where `scales` are [N, blocks].
    """
    bits = ctx.int("bits", 4)
    if data.dtype != "uint8":
        raise Unsupported(f"a table of {data.dtype}", hint="uint8 is what is supported")
    if ctx.axis(data, ctx.int("gather_axis", 0)) != 0:
        raise Unsupported("a table that is not gathered by rows")
    axis = ctx.axis(data, ctx.int("quantize_axis", 1))
    if axis not in (1, data.rank - 1) or data.rank not in (2, 3):
        raise Unsupported("a table whose blocks do not run along its rows")
    shape = [static(e, "the table's shape") for e in data.shape]
    depth = shape[1] * (shape[2] if len(shape) == 3 else 1) * 8 // bits
    matrix = _matrix(ctx, data, scales, zero_points, depth, shape[0])
    factor = 2.0**-matrix.exponent
    last = [depth]
    if len(shape) == 3 and scales.rank == 3:
        last = [shape[1], shape[2] * 8 // bits]

    def value(*i: Expr) -> Expr:
        row, at = i[: indices.rank], i[indices.rank :]
        k = at[0] if len(at) == 1 else at[0] * last[1] + at[1]
        n = from_end(indices[row], shape[0])
        group, inside = k // matrix.block, k % matrix.block
        per = matrix.per_word
        return matrix.element(group, inside // per, inside % per, n) * factor

    return ctx.compute((*indices.shape, *last), value, scales.dtype)


# --- packing --------------------------------------------------------------------------------------


def _matrix(
    ctx: Context, data: Tensor, scales: Tensor, zeros: Tensor | None, depth: int, n: int
) -> QuantisedMatrix:
    """The matrix [K, N] of rows `data`, packed once for all who use it."""
    bits, block = ctx.int("bits", 4), ctx.int("block_size", 128)
    if bits not in (4, 8):
        raise Unsupported(f"weights of {bits} bits", hint="4 and 8 bits are supported")
    if block < 16 or block & (block - 1):
        raise Unsupported(f"blocks of {block}", hint="powers of two from 16 on are supported")
    arrays = [_constant(data, "B"), _constant(scales, "scales")]
    if zeros is not None:
        arrays.append(_constant(zeros, "zero_points"))
    key = ("quantised", bits, block, depth, n, *map(_digest, arrays))
    if key not in ctx.shared:
        ctx.shared[key] = _packed(ctx, arrays, bits, block, depth, n, data.buffer.name)
    matrix: QuantisedMatrix = ctx.shared[key]
    return matrix


def _constant(t: Tensor, what: str) -> Array:
    if t.data is None:
        raise Unsupported(f"{what} depends on the input's values", hint="make it a constant")
    return t.data


def _digest(a: Array) -> tuple[str, bytes]:
    return str(a.dtype), hashlib.sha256(np.ascontiguousarray(a).view(np.uint8).data).digest()


def _packed(
    ctx: Context, arrays: list[Array], bits: int, block: int, depth: int, n: int, name: str
) -> QuantisedMatrix:
    data, scales, *zeros = arrays
    groups = -(-depth // block)
    length = groups * block * bits // 8
    if data.size != n * length and data.size == n * depth * bits // 8:  # a row cut at K
        data = np.pad(data.reshape(n, -1), ((0, 0), (0, length - data.size // n)))
    for what, array, size in (("B", data, n * length), ("scales", scales, n * groups)):
        if array.size != size:
            raise Unsupported(f"{what} of {array.size} elements instead of {size}")
    pairs, exponent = _pairs(scales.reshape(n, groups), _zero_points(zeros, bits, n, groups))
    words = _words(data.reshape(n, length), bits)
    return QuantisedMatrix(
        ctx.constant(np.ascontiguousarray(words.T), f"{name}_words"),
        ctx.constant(np.ascontiguousarray(pairs.T), f"{name}_scales"),
        bits,
        block,
        exponent,
    )


def _zero_points(zeros: list[Array], bits: int, n: int, groups: int) -> Array:
    """A zero point a block, float64 [N, groups]: given, packed like B, or the middle."""
    if not zeros:
        return np.full((n, groups), 1 << (bits - 1), np.float64)
    (given,) = zeros
    if given.dtype != np.uint8:
        if given.size != n * groups:
            raise Unsupported(f"zero_points of {given.size} elements instead of {n * groups}")
        return given.reshape(n, groups).astype(np.float64)
    width = -(-groups * bits // 8)
    if given.size != n * width:
        raise Unsupported(f"zero_points of {given.size} bytes instead of {n * width}")
    return _codes(given.reshape(n, width), bits)[:, :groups].astype(np.float64)


def _codes(data: Array, bits: int) -> Array:
    """The weights of packed rows, low bits first."""
    if bits == 8:
        return data
    return np.stack([data & 15, data >> 4], -1).reshape(len(data), -1)


def _words(data: Array, bits: int) -> Array:
    """Rows of bytes as rows of words, each with its weights in the order of this module."""
    if bits == 4:
        eight = _codes(data, 4).reshape(len(data), -1, 2, 4)
        data = (eight[:, :, 0] | eight[:, :, 1] << 4).reshape(len(data), -1)
    return np.ascontiguousarray(data).view("<u4").astype(np.uint32)


def _pairs(scales: Array, zeros: Array) -> tuple[Array, int]:
    """(s, m = -s·zero point) times a power of two, as float16 in one word; and its exponent."""
    s = scales.astype(np.float64)
    m = -s * zeros
    both = np.stack([s, m])
    if not np.isfinite(both).all():
        raise Unsupported("scales or zero points that are not finite")
    largest = float(np.abs(both).max(initial=0.0))
    exponent = TOP - int(np.floor(np.log2(largest))) if largest > 0 else 0
    low, high = (both * 2.0**exponent).astype(np.float16).view(np.uint16).astype(np.uint32)
    return low | high << 16, exponent
