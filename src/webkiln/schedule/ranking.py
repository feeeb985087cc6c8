"""Recognising TopK: the index of the element that so many others come before."""

from __future__ import annotations

from dataclasses import dataclass

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Expr, Op, Reduce, Var, compare, const, substitute, walk
from webkiln.schedule.nest import Nest, reduces

__all__ = ["Ranking", "match_ranking"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """`nest` stores what it makes of `index`, the place of element number `rank` of each row.

    `element` is the element at `item`, which runs over `size`. The order is from the largest down
    (`largest`) or from the smallest up; of equal elements the first comes first.
    """

    nest: Nest
    index: Reduce
    rank: Var
    item: Var
    element: Expr
    largest: bool

    @property
    def size(self) -> int:
        """Elements of a row."""
        return _fixed(self.item)

    @property
    def taken(self) -> int:
        """How many of them are asked for."""
        return _fixed(self.rank)

    @property
    def rows(self) -> tuple[Var, ...]:
        """The other loops."""
        return tuple(v for v in self.nest.loops if v is not self.rank)

    def comes_before(self, a: Expr, b: Expr) -> Expr:
        """Whether element `a` precedes `b`, their places apart."""
        return compare("gt" if self.largest else "lt", a, b)


def match_ranking(nest: Nest) -> Ranking | None:
    """The ranking that `nest` is, with a fixed size and few taken, or None."""
    for index in reduces(nest.value):
        parts = _matching(index, nest.loops)
        if parts is None:
            continue
        rank, (element, largest) = parts
        others = reduces(substitute(nest.value, {index: const(0, I32)}))
        sizes = [v.extent for v in (rank, index.axes[0])]
        if others or not all(isinstance(s, Const) for s in sizes):
            return None
        return Ranking(nest, index, rank, index.axes[0], element, largest)
    return None


def _fixed(v: Var) -> int:
    assert isinstance(v.extent, Const)
    return int(v.extent.value)


def _matching(index: Reduce, loops: tuple[Var, ...]) -> tuple[Var, tuple[Expr, bool]] | None:
    """Σ_i select(count(i) = rank, i, 0): the loop `rank`, and what is counted."""
    body = index.body
    if index.kind != "sum" or len(index.axes) != 1 or not _is(body, "select"):
        return None
    test, chosen, other = body.args
    if chosen is not index.axes[0] or other is not const(0, I32) or not _is(test, "eq"):
        return None
    for count, rank in (test.args, test.args[::-1]):
        if isinstance(count, Reduce) and isinstance(rank, Var) and rank in loops:
            counted = _counted(count, index.axes[0])
            return None if counted is None or rank in walk(count) else (rank, counted)
    return None


def _counted(count: Reduce, item: Var) -> tuple[Expr, bool] | None:
    """Σ_j (x_j before x_i, or equal to it and j < i): x_i, and whether larger ones are before."""
    if count.kind != "sum" or len(count.axes) != 1 or not _is(count.body, "cast"):
        return None
    other_item = count.axes[0]
    either = count.body.args[0]
    if not _is(either, "or"):
        return None
    ahead, tie = either.args
    if not (_is(ahead, "lt") and _is(tie, "and") and _is(tie.args[0], "eq")):
        return None
    largest = item in set(walk(ahead.args[0]))
    own, other = ahead.args if largest else ahead.args[::-1]
    alike = other is substitute(own, {item: other_item}) and set(tie.args[0].args) == {own, other}
    return (own, largest) if alike and tie.args[1] is compare("lt", other_item, item) else None


def _is(e: Expr, name: str) -> bool:
    return isinstance(e, Op) and e.name == name
