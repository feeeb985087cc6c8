"""Elements read or written at positions that other tensors hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Expr,
    ExprLike,
    cast,
    compare,
    const,
    logical_and,
    maximum,
    minimum,
    select,
)
from webkiln.ops.core import Context, Tensor, Unsupported, operator, static
from webkiln.ops.elementwise import narrow
from webkiln.ops.windows import inside

__all__ = ["from_end"]


def from_end(index: Expr, size: ExprLike) -> Expr:
    """A position that counts from the end when negative, as one from the front."""
    index = cast(index, I32)
    return select(compare("lt", index, 0), index + size, index)


@operator("Gather")
def gather(ctx: Context, x: Tensor, indices: Tensor) -> Tensor:
    axis = ctx.axis(x, ctx.int("axis", 0))
    end = axis + indices.rank

    def value(*i: Expr) -> Expr:
        at = from_end(indices[i[axis:end]], x.shape[axis])
        return x[(*i[:axis], at, *i[end:])]

    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return ctx.compute(shape, value, x.dtype)


@operator("GatherElements")
def gather_elements(ctx: Context, x: Tensor, indices: Tensor) -> Tensor:
    axis = ctx.axis(x, ctx.int("axis", 0))

    def value(*i: Expr) -> Expr:
        return x[(*i[:axis], from_end(indices[i], x.shape[axis]), *i[axis + 1 :])]

    return ctx.compute(indices.shape, value, x.dtype)


@operator("GatherND")
def gather_nd(ctx: Context, x: Tensor, indices: Tensor) -> Tensor:
    """Each row of `indices` is a position in the axes of `x` after `batch_dims`."""
    batch = ctx.int("batch_dims", 0)
    depth = static(indices.shape[-1], "the length of an index")
    outer = indices.rank - 1

    def value(*i: Expr) -> Expr:
        row = i[:outer]
        at = [from_end(indices[(*row, k)], x.shape[batch + k]) for k in range(depth)]
        return x[(*i[:batch], *at, *i[outer:])]

    shape = (*indices.shape[:-1], *x.shape[batch + depth :])
    return ctx.compute(shape, value, x.dtype)


@operator("ReverseSequence")
def reverse_sequence(ctx: Context, x: Tensor, lengths: Tensor) -> Tensor:
    """The first `lengths[batch]` elements along the time axis backwards, the others as they are."""
    time, batch = ctx.axis(x, ctx.int("time_axis", 0)), ctx.axis(x, ctx.int("batch_axis", 1))

    def value(*i: Expr) -> Expr:
        length, t = cast(lengths[i[batch]], I32), i[time]
        turned = select(compare("lt", t, length), length - 1 - t, t)
        return x[(*i[:time], turned, *i[time + 1 :])]

    return ctx.compute(x.shape, value, x.dtype)


# --- scatter: every element of the result looks for the updates that meet it ----------------------

_COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "max": maximum,
    "min": minimum,
}
_KIND = {"add": "sum", "mul": "prod", "max": "max", "min": "min"}


def _meet(
    ctx: Context,
    old: Expr,
    extents: Sequence[ExprLike],
    hit: Callable[..., Expr],
    update: Callable[..., Expr],
) -> Expr:
    """`old` combined with the updates over `extents` that hit it, or the last one of them."""
    reduction = ctx.str("reduction", "none")
    if reduction in _COMBINE:
        neutral = {"add": const(0, old.dtype), "mul": const(1, old.dtype)}.get(reduction, old)
        found = ctx.reduce(
            _KIND[reduction], extents, lambda *k: select(hit(*k), update(*k), neutral)
        )
        return _COMBINE[reduction](old, found)
    if reduction != "none":
        raise Unsupported(f"reduction {reduction!r}")

    def number(*k: Expr) -> Expr:
        flat: Expr = const(0, I32)
        for e, extent in zip(k, extents, strict=True):
            flat = flat * extent + e
        return select(hit(*k), flat, -1)

    last = ctx.reduce("max", extents, number)
    at: list[Expr] = []
    rest = maximum(last, 0)
    for extent in reversed(extents[1:]):
        at.insert(0, rest % extent)
        rest = rest // extent
    if extents:
        at.insert(0, rest)
    return select(compare("ge", last, 0), update(*at), old)


@operator("ScatterElements", "Scatter")
def scatter_elements(ctx: Context, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis = ctx.axis(x, ctx.int("axis", 0))

    def value(*i: Expr) -> Expr:
        old = x[i]
        others = [a for a in range(x.rank) if a != axis]
        covered = logical_and(*(inside(i[a], indices.shape[a]) for a in others))

        def at(k: Expr) -> tuple[Expr, ...]:
            return (*i[:axis], k, *i[axis + 1 :])

        def hit(k: Expr) -> Expr:
            return compare("eq", from_end(indices[at(k)], x.shape[axis]), i[axis])

        met = _meet(ctx, old, [indices.shape[axis]], hit, lambda k: updates[at(k)])
        return narrow(select(covered, met, old), x.dtype)

    return ctx.compute(x.shape, value, x.dtype)


@operator("ScatterND")
def scatter_nd(ctx: Context, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    depth = static(indices.shape[-1], "the length of an index")
    outer = indices.shape[:-1]

    def value(*i: Expr) -> Expr:
        def hit(*row: Expr) -> Expr:
            return logical_and(
                *(
                    compare("eq", from_end(indices[(*row, k)], x.shape[k]), i[k])
                    for k in range(depth)
                )
            )

        met = _meet(ctx, x[i], outer, hit, lambda *row: updates[(*row, *i[depth:])])
        return narrow(met, x.dtype)

    return ctx.compute(x.shape, value, x.dtype)


@operator("TensorScatter")
def tensor_scatter(
    ctx: Context, past: Tensor, update: Tensor, starts: Tensor | None = None
) -> Tensor:
    """A cache with `update` written along `axis` from each batch's start on, maybe around it."""
    axis = ctx.axis(past, ctx.int("axis", -2))
    circular = ctx.str("mode", "linear") == "circular"
    size, length = past.shape[axis], update.shape[axis]
    if past.buffer in ctx.updatable:

        def place(*i: Expr) -> tuple[Expr, ...]:
            start = const(0, I32) if starts is None else starts[i[0]]
            at = i[axis] + start
            return (*i[:axis], at % size if circular else at, *i[axis + 1 :])

        return ctx.update(past, update.shape, place, lambda *i: update[i])

    def value(*i: Expr) -> Expr:
        start = const(0, I32) if starts is None else starts[i[0]]
        offset = i[axis] - start
        offset = offset % size if circular else offset
        return select(inside(offset, length), update[(*i[:axis], offset, *i[axis + 1 :])], past[i])

    return ctx.compute(past.shape, value, past.dtype)
