"""Contractions of matrices: MatMul, Gemm, Einsum and the integer product."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from webkiln.ir.dtypes import I32, STORAGE
from webkiln.ir.expr import Expr, ExprLike, const, is_const
from webkiln.ops.core import Context, Tensor, Unsupported, operator
from webkiln.ops.elementwise import broadcast, merge_shapes, narrow

__all__ = ["is_scalar", "product", "scalar"]


def product(
    ctx: Context,
    a: Tensor,
    b: Tensor,
    dtype: str,
    left: Callable[..., Expr] | None = None,
    right: Callable[..., Expr] | None = None,
) -> Tensor:
    """NumPy's matmul: batch axes broadcast, 1-D operands are a row or a column.

    `left` and `right` read an element in place of `a` and `b` themselves.
    """
    if a.rank == 0 or b.rank == 0:
        raise Unsupported("a product with a scalar")
    if a.shape[-1] is not b.shape[-2 if b.rank > 1 else 0]:
        raise Unsupported(f"shapes {list(a.shape)} and {list(b.shape)} do not multiply")
    rows = () if a.rank == 1 else a.shape[-2:-1]
    columns = () if b.rank == 1 else b.shape[-1:]
    batch = merge_shapes(a.shape[:-2], b.shape[:-2])

    def at(t: Tensor, outer: Sequence[Expr], *inner: Expr) -> tuple[ExprLike, ...]:
        lead = t.shape[: t.rank - len(inner)]
        own = outer[len(outer) - len(lead) :]
        return (*(0 if is_const(s, 1) else i for s, i in zip(lead, own, strict=True)), *inner)

    def value(*i: Expr) -> Expr:
        outer = i[: len(batch)]
        row = i[len(batch) : len(batch) + len(rows)]
        column = i[len(batch) + len(rows) :]

        def term(k: Expr) -> Expr:
            p, q = at(a, outer, *row, k), at(b, outer, k, *column)
            x = a[p] if left is None else left(*p)
            return x * (b[q] if right is None else right(*q))

        return ctx.reduce("sum", [a.shape[-1]], term, "k")

    return ctx.compute((*batch, *rows, *columns), value, dtype)


@operator("MatMul")
def matmul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return product(ctx, a, b, a.dtype)


@operator("FusedMatMul", domain="com.microsoft")
def fused_matmul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Alpha · A · B, each with its last two axes exchanged where the attributes say so."""
    if ctx.int("transBatchA", 0) or ctx.int("transBatchB", 0):
        raise Unsupported("transposed batches")
    alpha = ctx.float("alpha", 1.0)
    a, b = (swapped(ctx, t) if ctx.int(f"trans{n}", 0) else t for t, n in ((a, "A"), (b, "B")))
    result = product(ctx, a, b, a.dtype)
    if alpha == 1.0:
        return result
    return ctx.compute(result.shape, lambda *i: result[i] * alpha, a.dtype)


def swapped(ctx: Context, x: Tensor) -> Tensor:
    """`x` with its last two axes exchanged."""
    if x.rank < 2:
        return x
    shape = (*x.shape[:-2], x.shape[-1], x.shape[-2])
    return ctx.compute(shape, lambda *i: x[(*i[:-2], i[-1], i[-2])], x.dtype)


@operator("MatMulInteger")
def matmul_integer(
    ctx: Context,
    a: Tensor,
    b: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
) -> Tensor:
    """(A - zero of A) · (B - zero of B) in int32; zeros a tensor, a row of A or a column of B."""

    def left(*i: Expr) -> Expr:
        if a_zero is None:
            return a[i]
        return a[i] - (scalar(a_zero) if is_scalar(a_zero) else a_zero[i[-2]])

    def right(*i: Expr) -> Expr:
        if b_zero is None:
            return b[i]
        return b[i] - (scalar(b_zero) if is_scalar(b_zero) else b_zero[i[-1]])

    return product(ctx, a, b, "int32", left, right)


def is_scalar(t: Tensor) -> bool:
    """Whether it has one element, of whatever rank."""
    return all(is_const(e, 1) for e in t.shape)


def scalar(t: Tensor) -> Expr:
    """The one element of a tensor that has one."""
    return t[(0,) * t.rank]


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


@operator("Einsum")
def einsum(ctx: Context, *operands: Tensor) -> Tensor:
    """Einstein's sum over all labels that the output lacks; an ellipsis is broadcast axes."""
    labels, output = parse_einsum(ctx.str("equation", ""), [t.rank for t in operands])
    extents: dict[str, Expr] = {}
    for t, names in zip(operands, labels, strict=True):
        for name, extent in zip(names, t.shape, strict=True):
            if is_const(extents.setdefault(name, extent), 1):
                extents[name] = extent
    inner = [n for n in extents if n not in output]

    def value(*i: Expr) -> Expr:
        def term(*r: Expr) -> Expr:
            at = dict(zip([*output, *inner], [*i, *r], strict=True))
            result: Expr | None = None
            for t, names in zip(operands, labels, strict=True):
                index = [
                    const(0, I32) if is_const(e, 1) else at[n]
                    for n, e in zip(names, t.shape, strict=True)
                ]
                element = t[tuple(index)]
                result = element if result is None else result * element
            assert result is not None
            return result

        return narrow(ctx.reduce("sum", [extents[n] for n in inner], term, "k"), operands[0].dtype)

    return ctx.compute([extents[n] for n in output], value, operands[0].dtype)


def parse_einsum(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Labels of each operand's axes and of the output's; an ellipsis is …, 1, 0."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise Unsupported(f"equation {equation!r} for {len(ranks)} operands")
    widest = 0
    labels = []
    for term, rank in zip(terms, ranks, strict=True):
        before, dots, after = term.partition("...")
        wide = rank - len(before) - len(after)
        if wide < 0 or (wide and not dots):
            raise Unsupported(f"equation {equation!r}: {term!r} for a rank-{rank} operand")
        widest = max(widest, wide)
        labels.append([*before, *(str(k) for k in range(wide - 1, -1, -1)), *after])
    ellipsis = [str(k) for k in range(widest - 1, -1, -1)]
    if not arrow:
        once = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        return labels, [*ellipsis, *once]
    before, dots, after = right.partition("...")
    return labels, [*before, *(ellipsis if dots else []), *after]
