"""The largest elements in order, by counting how many others come before each.

Of a long row the count is part of the index's expression, a form that schedules know an algorithm
for (schedule/ranking.py); of a short one it is a tensor of its own, which any schedule computes.
"""

from __future__ import annotations

from collections.abc import Sequence

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    ExprLike,
    cast,
    compare,
    convert,
    logical_and,
    logical_or,
    minimum,
    select,
)
from webkiln.ops.core import Context, Tensor, operator

__all__: list[str] = []

LONG = 512  # elements of a row that are not worth comparing each with each
FEW = 64  # elements taken that schedules keep at hand


@operator("TopK")
def top_k(ctx: Context, x: Tensor, k: Tensor | None = None) -> list[Tensor]:
    """[values, indices], sorted; of equal elements the one with the lower index first."""
    axis = ctx.axis(x, ctx.int("axis", -1))
    size = x.shape[axis]
    taken: ExprLike = k.ints("k")[0] if k is not None else ctx.int("k")
    order = "gt" if ctx.int("largest", 1) else "lt"

    def at(i: Sequence[ExprLike], j: ExprLike) -> tuple[ExprLike, ...]:
        return (*i[:axis], j, *i[axis + 1 :])

    def place(*i: ExprLike) -> Expr:
        own = x[i]

        def before(j: Expr) -> Expr:
            other = x[at(i, j)]
            earlier = logical_and(compare("eq", other, own), compare("lt", j, i[axis]))
            return cast(logical_or(compare(order, other, own), earlier), I32)

        return ctx.reduce("sum", [size], before)

    few = isinstance(size, Const) and size.value > LONG and axis == x.rank - 1
    few = few and isinstance(count := convert(taken), Const) and count.value <= FEW
    places = None if few else ctx.compute(x.shape, place, "int64")

    def index(*i: Expr) -> Expr:
        def match(j: Expr) -> Expr:
            found = place(*at(i, j)) if places is None else places[at(i, j)]
            return select(compare("eq", found, i[axis]), j, 0)

        # NaNs have equal places: stay within the axis
        return minimum(ctx.reduce("sum", [size], match), size - 1)

    shape: list[ExprLike] = [taken if a == axis else e for a, e in enumerate(x.shape)]
    indices = ctx.compute(shape, index, "int64")
    values = ctx.compute(shape, lambda *i: x[at(i, indices[i])], x.dtype)
    return [values, indices]
