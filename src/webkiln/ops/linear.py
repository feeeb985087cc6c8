"""Contractions: MatMul, Gemm, and convolution over any number of spatial axes."""

from __future__ import annotations

from webkiln.ir.dtypes import STORAGE
from webkiln.ir.expr import Expr, compare, const, logical_and, select
from webkiln.ops.core import Context, Tensor, Unsupported, operator, static
from webkiln.ops.elementwise import broadcast

__all__: list[str] = []


@operator("MatMul")
def matmul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """NumPy's matmul: batch axes broadcast, 1-D operands are a row or a column."""
    if a.rank == 0 or b.rank == 0:
        raise Unsupported("MatMul of a scalar")
    a_rows = a.shape[:-1] if a.rank == 1 else a.shape[-2:-1]
    b_columns = () if b.rank == 1 else b.shape[-1:]
    rows = () if a.rank == 1 else a_rows
    batch_rank = max(a.rank - 2, b.rank - 2, 0)
    batch = []
    for axis in range(batch_rank):
        extents = [
            t.shape[axis - batch_rank + t.rank - 2]
            for t in (a, b)
            if t.rank > 2 and axis - batch_rank + t.rank - 2 >= 0
        ]
        batch.append(next((e for e in extents if repr(e) != "1"), extents[0]))

    def at(t: Tensor, outer: tuple[Expr, ...], inner: tuple[Expr, ...]) -> Expr:
        lead = t.shape[: t.rank - len(inner)]
        own = outer[len(outer) - len(lead) :]
        index = tuple(
            const(0, i.dtype) if repr(s) == "1" else i for s, i in zip(lead, own, strict=True)
        )
        return t[(*index, *inner)]

    def value(*i: Expr) -> Expr:
        outer = i[:batch_rank]
        row = i[batch_rank : batch_rank + len(rows)]
        column = i[batch_rank + len(rows) :]
        return ctx.reduce(
            "sum",
            [a.shape[-1]],
            lambda k: at(a, outer, (*row, k)) * at(b, outer, (k, *column)),
            "k",
        )

    return ctx.compute((*batch, *rows, *b_columns), value, a.dtype)


@operator("Gemm")
def gemm(ctx: Context, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Alpha · op(A) · op(B) + beta · C."""
    alpha, beta = ctx.float("alpha", 1.0), ctx.float("beta", 1.0)
    ta, tb = ctx.int("transA", 0), ctx.int("transB", 0)
    m, depth = (a.shape[1], a.shape[0]) if ta else a.shape
    n = b.shape[0] if tb else b.shape[1]
    dtype = STORAGE[a.dtype]

    def value(i: Expr, j: Expr) -> Expr:
        total = ctx.reduce(
            "sum",
            [depth],
            lambda k: (a[k, i] if ta else a[i, k]) * (b[j, k] if tb else b[k, j]),
            "k",
        )
        total = total * const(alpha, dtype)
        return total if c is None else total + broadcast(c, (i, j)) * const(beta, dtype)

    return ctx.compute((m, n), value, a.dtype)


def spatial_pads(
    ctx: Context, sizes: list[int], effective: list[int], strides: list[int]
) -> list[int]:
    """ONNX `pads` (begins, then ends), from `auto_pad` where that is set."""
    rank = len(effective)
    mode = ctx.str("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return ctx.ints("pads") or [0] * (2 * rank)
    if mode == "VALID":
        return [0] * (2 * rank)
    begins, ends = [], []
    for size, kernel, stride in zip(sizes, effective, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(large if mode == "SAME_LOWER" else small)
        ends.append(small if mode == "SAME_LOWER" else large)
    return begins + ends


def inside(index: Expr, size: Expr) -> Expr:
    """Whether 0 ≤ index < size."""
    return logical_and(compare("ge", index, 0), compare("lt", index, size))


@operator("Conv")
def conv(ctx: Context, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Cross-correlation, grouped and dilated, of any spatial rank (ONNX Conv)."""
    rank = x.rank - 2
    kernel = [static(s, "a convolution's kernel size") for s in w.shape[2:]]
    strides = ctx.ints("strides") or [1] * rank
    dilations = ctx.ints("dilations") or [1] * rank
    groups = ctx.int("group", 1)
    effective = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    automatic = ctx.str("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    sizes = [static(s, "auto_pad's input size") for s in x.shape[2:]] if automatic else []
    pads = spatial_pads(ctx, sizes, effective, strides)
    out = [
        (s + (pads[i] + pads[i + rank] - effective[i])) // strides[i] + 1
        for i, s in enumerate(x.shape[2:])
    ]
    channels = w.shape[1]
    per_group = static(w.shape[0], "a convolution's output channels") // groups
    dtype = STORAGE[x.dtype]

    def value(n: Expr, o: Expr, *at: Expr) -> Expr:
        def term(c: Expr, *k: Expr) -> Expr:
            where = [at[i] * strides[i] + k[i] * dilations[i] - pads[i] for i in range(rank)]
            group = o // per_group if groups > 1 else const(0, o.dtype)
            guards = [
                inside(p, s)
                for p, s, lo, hi in zip(where, x.shape[2:], pads[:rank], pads[rank:], strict=True)
                if lo or hi
            ]
            element = x[(n, group * channels + c, *where)]
            element = select(logical_and(*guards), element, const(0, dtype)) if guards else element
            return element * w[(o, c, *k)]

        total = ctx.reduce("sum", [channels, *kernel], term, "k")
        return total if b is None else total + b[o]

    result = ctx.compute((x.shape[0], w.shape[0], *out), value, x.dtype, channels_last=True)
    ctx.channels_last.add(x.buffer)
    return result
