"""Pointers that walk with a loop, instead of an index computed in each iteration.

In an inner loop of vector arithmetic every instruction that is no arithmetic costs: with one
pointer for all that is read at fixed distances, V8 folds the distances into the loads. Measured
on a 128 × 1536 × 384 product: 54 GFLOP/s of 57 with cursors, 46 with indices.
"""

from __future__ import annotations

from dataclasses import dataclass

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Expr, Op, Read, const, walk
from webkiln.ir.simplify import linear, simplify
from webkiln.ir.stmt import Assign, Declare, For
from webkiln.schedule.kernel import expressions

__all__ = ["Cursor", "cursors"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A pointer to `buffer` from element `start`, moving by `step` elements an iteration.

    `reads` gives the distance from it, in elements, of each Read that it serves.
    """

    buffer: Buffer
    start: Expr
    step: Expr
    reads: dict[Read, int]


def cursors(loop: For) -> list[Cursor] | None:
    """The cursors of an innermost loop that only accumulates vectors; None for other loops.

    Every Read that moves with the loop must move evenly.
    """
    if not all(isinstance(s, Declare | Assign) for s in loop.body):
        return None
    roots = [e for s in loop.body for e in expressions(s)]
    nodes = list(walk(*roots))
    if all(n.dtype.lanes == 1 for n in nodes) or any(
        isinstance(n, Op) and n.name == "select" for n in nodes
    ):
        return None
    found: dict[tuple[Buffer, Expr, Expr], Cursor] = {}
    for node in nodes:
        if not isinstance(node, Read):
            continue
        parts = linear(node.args[0], (loop.var,))
        if parts is None:
            return None
        move = parts[0].get(loop.var)
        if move is None:
            continue
        base, distance = _distance(parts[1])
        key = node.buffer, base, move
        if key not in found:
            start = simplify(base + loop.start * move)
            found[key] = Cursor(node.buffer, start, simplify(move * loop.step), {})
        found[key].reads[node] = distance
    return list(found.values()) or None


def _distance(offset: Expr) -> tuple[Expr, int]:
    """An offset as (what varies, its constant part)."""
    if isinstance(offset, Const):
        return const(0, I32), int(offset.value)
    if isinstance(offset, Op) and offset.name in ("add", "sub"):
        last = offset.args[1]
        if isinstance(last, Const):
            return offset.args[0], int(last.value) * (1 if offset.name == "add" else -1)
    return offset, 0
