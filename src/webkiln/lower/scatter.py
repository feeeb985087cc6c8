"""Recognising scattered sums: what is added goes to the few places that a tensor names."""

from __future__ import annotations

from dataclasses import dataclass

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Expr, Op, Reduce, Var, const, free_vars, walk

__all__ = ["Scatter", "match_scatter"]


@dataclass(frozen=True, slots=True)
class Scatter:
    """A value at `place` that is `base` + Σ_axis of the `update`s whose `target` that place is.

    `target` and `update` depend on nothing but `axis`, which is shorter than the range of `place`.
    """

    place: Var
    base: Expr
    sum: Reduce
    target: Expr
    update: Expr

    @property
    def axis(self) -> Var:
        """Runs over the updates."""
        return self.sum.axes[0]

    @property
    def updates(self) -> int:
        """How many updates there are."""
        assert isinstance(self.axis.extent, Const)
        return int(self.axis.extent.value)


def match_scatter(value: Expr, axes: tuple[Var, ...]) -> Scatter | None:
    """The scatter that `value` over `axes` is, if those are one; None for all else."""
    if len(axes) != 1 or not (isinstance(value, Op) and value.name == "add"):
        return None
    (place,) = axes
    for total, base in (value.args, value.args[::-1]):
        parts = None if _has_reduce(base) else _one_place(total, place)
        if parts is None:
            continue
        assert isinstance(total, Reduce)
        few, many = total.axes[0].extent, place.extent
        if isinstance(few, Const) and isinstance(many, Const) and few.value < many.value:
            return Scatter(place, base, total, *parts)
    return None


def _has_reduce(e: Expr) -> bool:
    return any(isinstance(n, Reduce) for n in walk(e))


def _one_place(total: Expr, place: Var) -> tuple[Expr, Expr] | None:
    """Σ_k select(target(k) = place, update(k), 0): the target and the update."""
    if not (isinstance(total, Reduce) and total.kind == "sum" and len(total.axes) == 1):
        return None
    body = total.body
    if not (isinstance(body, Op) and body.name == "select") or _has_reduce(body):
        return None
    test, update, other = body.args
    if other is not const(0, body.dtype) or not (isinstance(test, Op) and test.name == "eq"):
        return None
    for target, here in (test.args, test.args[::-1]):
        fixed = place not in free_vars(target) and place not in free_vars(update)
        if here is place and fixed and target.dtype == I32:
            return target, update
    return None
