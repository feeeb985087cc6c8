"""Rotary position embedding (arXiv 2104.09864), as ONNX and com.microsoft define it."""

from __future__ import annotations

from webkiln.ir.expr import Expr, compare, is_const, select
from webkiln.ir.simplify import simplify
from webkiln.ops.core import Context, Tensor, Unsupported, operator, static

__all__: list[str] = []


@operator("RotaryEmbedding")
def rotary_embedding(
    ctx: Context, x: Tensor, cosine: Tensor, sine: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Caches [maximum, half] with `positions` [batch, sequence], or [batch, sequence, half]."""
    return _rotate(ctx, x, cosine, sine, positions)


@operator("RotaryEmbedding", domain="com.microsoft")
def microsoft_rotary_embedding(
    ctx: Context, x: Tensor, positions: Tensor, cosine: Tensor, sine: Tensor
) -> Tensor:
    """`positions` is [batch, sequence], or [1]: that of the first token."""
    if ctx.float("scale", 1.0) != 1.0 or ctx.int("is_packed_batching", 0):
        raise Unsupported("a scale or packed batches")
    return _rotate(ctx, x, cosine, sine, positions)


def _rotate(
    ctx: Context, x: Tensor, cosine: Tensor, sine: Tensor, positions: Tensor | None
) -> Tensor:
    """Pairs of x [batch, heads, sequence, size] or [batch, sequence, heads · size] turned."""
    heads = ctx.int("num_heads", 0)
    rotary = ctx.int("rotary_embedding_dim", 0)
    whole = 2 * static(cosine.shape[-1], "half the rotary dimension")
    if x.rank == 4:
        size = static(x.shape[3], "the head size")
    else:  # without num_heads the whole head is turned
        size = static(simplify(x.shape[2] // heads), "the head size") if heads else whole
    rotary = rotary or size
    half = rotary // 2
    interleaved = ctx.int("interleaved", 0)

    def angle(cache: Tensor, b: Expr, s: Expr, k: Expr) -> Expr:
        if positions is None:
            return cache[b, s, k]
        if positions.rank == 1:
            return cache[positions[0] + s, k]
        return cache[positions[0 if is_const(positions.shape[0], 1) else b, s], k]

    def value(*i: Expr) -> Expr:
        b, s, last = i[0], i[2 if x.rank == 4 else 1], i[-1]
        d = last if x.rank == 4 else last % size
        base = last - d

        def element(k: Expr) -> Expr:
            return x[(*i[:-1], base + k)]

        if interleaved:
            first, k = compare("eq", d % 2, 0), d // 2
            partner = select(first, d + 1, d - 1)
        else:
            first = compare("lt", d, half)
            k, partner = select(first, d, d - half), select(first, d + half, d - half)
        turned = element(partner) * angle(sine, b, s, k)
        result = element(d) * angle(cosine, b, s, k)
        result = select(first, result - turned, result + turned)
        return result if rotary == size else select(compare("lt", d, rotary), result, element(d))

    return ctx.compute(x.shape, value, x.dtype)
