"""Attention as a nest: what its schedules on every target start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import F32, I32, DType
from webkiln.ir.expr import (
    Const,
    Expr,
    Op,
    Read,
    Reduce,
    Var,
    const,
    free_vars,
    select,
    substitute,
)
from webkiln.ir.simplify import simplify
from webkiln.lower.attention import KEY_PANEL, Attention, match_attention
from webkiln.schedule.contraction import walks_panels
from webkiln.schedule.emit import bounds_of
from webkiln.schedule.nest import Nest, collapse, extent_of, split_axes
from webkiln.schedule.vectorize import unit_stride, vectorize

__all__ = ["LOWEST", "AttentionNest", "attention_nest", "attention_of", "local", "simplest"]

LOWEST = -3.4028234663852886e38  # of float32: the largest score so far, where there is none yet
UNKNOWN = 256  # stands for a symbolic extent where only a choice is at stake


@dataclass(frozen=True, slots=True)
class AttentionNest:
    """`nest` is an epilogue of `parts`, for all `batch` loops, `rows` (if any) and columns `d`.

    Rows share keys and values. Keys `start` ≤ t < `stop`, which may differ from row to row, count;
    `score` (over `parts.dot`) is -inf for those of them that other conditions rule out.
    """

    nest: Nest
    parts: Attention
    batch: tuple[Var, ...]
    rows: Var | None
    d: Var
    start: Expr
    stop: Expr
    score: Expr

    @property
    def t(self) -> Var:
        """The axis of the keys."""
        return self.parts.t

    @property
    def k(self) -> Var:
        """The axis of the product of a query and a key."""
        return self.parts.dot.axes[0]

    def score_of(self, product: Expr) -> Expr:
        """The score of key t from its product with the query."""
        return substitute(self.score, {self.parts.dot: product})

    def key_panel(self, panel: Expr, lanes: int = KEY_PANEL) -> Read:
        """Element k of the first `lanes` keys of panel number `panel`."""
        offset = substitute(self.parts.key.args[0], {self.t: panel * KEY_PANEL})
        return Read(self.parts.key.buffer, simplify(offset), lanes)

    def result(self, lanes: int, mixed: Expr, total: Expr) -> Expr:
        """What is stored at `lanes` columns from d on, from the sums; d is still free."""
        known: dict[Expr, Expr] = {self.parts.mixed: mixed, self.parts.total: total}
        if lanes == 1:
            return substitute(self.nest.value, known)
        value = vectorize(self.nest.value, self.d, lanes, known)
        assert value is not None, "checked when it was recognised"
        return value

    def at(self, e: Expr, row: Expr | None, more: Mapping[Var, Expr] | None = None) -> Expr:
        """`e` for row number `row`."""
        places = dict(more or {})
        if self.rows is not None and row is not None:
            places[self.rows] = row
        return simplify(substitute(e, places))


def attention_nest(nest: Nest) -> AttentionNest | None:
    """The attention that `nest`, with its reductions whole, computes; None for other nests.

    Also None where its keys don't lie in panels, or its columns can't be written four at a time.
    """
    return None if match_attention(nest.value) is None else attention_of(simplest(nest))


def simplest(nest: Nest) -> Nest:
    """`nest` with its loops as few and plain as may be; reductions stay whole."""
    return collapse(split_axes(nest, loops_only=True))


def attention_of(nest: Nest) -> AttentionNest | None:
    """As `attention_nest`, of a nest in its simplest form."""
    parts = match_attention(nest.value)
    if parts is None or not nest.loops or not isinstance(parts.key, Read):
        return None
    d = nest.loops[-1]
    if not _fits(nest, parts, parts.key, d):
        return None
    batch, rows = _loops(nest, parts, d)
    one, none = const(1.0, F32), const(0.0, F32)
    bounds, body = bounds_of(Reduce("sum", (parts.t,), select(parts.allowed, one, none)))
    score = parts.score
    if isinstance(body, Op):  # conditions that are no bounds
        score = select(body.args[0], score, const(float("-inf"), F32))
    return AttentionNest(nest, parts, batch, rows, d, *bounds[parts.t], score)


def _fits(nest: Nest, parts: Attention, key: Read, d: Var) -> bool:
    size = extent_of(d)
    known: dict[Expr, Expr] = {
        parts.mixed: Var("mixed", None, F32.vector(4)),
        parts.total: Var("total", None, F32),
    }
    elsewhere = (parts.query, parts.key, parts.score, parts.allowed)
    return (
        isinstance(size, Const)
        and size.value % 4 == 0
        and unit_stride(nest.offset, d) == 1
        and not any(d in free_vars(e) for e in elsewhere)
        and vectorize(nest.value, d, 4, known) is not None
        and isinstance(vectorize(parts.value, d, 4), Expr)
        and isinstance(extent_of(parts.dot.axes[0]), Const)
        and walks_panels(key.args[0], parts.t)
    )


def _loops(nest: Nest, parts: Attention, d: Var) -> tuple[tuple[Var, ...], Var | None]:
    """The loops outside of the tile, and the one whose iterations share keys and values."""
    shared = free_vars(parts.key) | free_vars(parts.value)
    free = [v for v in nest.loops if v is not d and v not in shared]

    def size(v: Var) -> int:
        extent = extent_of(v)
        return int(extent.value) if isinstance(extent, Const) else UNKNOWN

    rows = max(free, key=size, default=None)
    return tuple(v for v in nest.loops if v is not d and v is not rows), rows


def local(name: str, size: int, dtype: DType = F32) -> Buffer:
    """Memory of one task or workgroup."""
    return Buffer(name, dtype, (const(size, I32),), "workgroup")
