"""Partial results of several invocations combined in workgroup memory."""

from __future__ import annotations

from collections.abc import Sequence

from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Expr, ExprLike, Read, call, compare
from webkiln.ir.stmt import Barrier, If, Stmt, Store

__all__ = ["combine_shared"]

FOLD = 4  # results that one invocation combines in a step: half the barriers of two


def combine_shared(
    shared: Buffer,
    partials: Sequence[tuple[Expr, ExprLike]],
    combine: str,
    index: Expr,
    count: int,
) -> list[Stmt]:
    """Combines, for each (partial, base), what `count` invocations have as `partial`.

    Invocation `index` (below `count`, a power of 4) owns slot `base + index` of `shared`, as wide
    as its partial. Afterwards slot `base` holds the result. All of the workgroup must get here.
    """

    def slot(base: ExprLike, i: int, lanes: int) -> Expr:
        return (i + index + base) * lanes

    def folded(partial: Expr, base: ExprLike, left: int) -> Store:
        lanes = partial.dtype.lanes
        parts = [Read(shared, slot(base, i * left, lanes), lanes) for i in range(FOLD)]
        total: Expr = parts[0]
        for part in parts[1:]:
            total = call(combine, total, part)
        return Store(shared, slot(base, 0, lanes), total)

    out: list[Stmt] = [Store(shared, slot(base, 0, p.dtype.lanes), p) for p, base in partials]
    left = count
    while left > 1:
        left //= FOLD
        stores = tuple(folded(p, base, left) for p, base in partials)
        out += [Barrier(), If(compare("lt", index, left), stores)]
    out.append(Barrier())
    return out
