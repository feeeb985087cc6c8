"""Turning a scalar expression into one over several consecutive values of a loop variable."""

from __future__ import annotations

from collections.abc import Mapping

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Op,
    Read,
    Var,
    bitcast,
    call,
    cast,
    const,
    select,
    splat,
    walk,
)
from webkiln.ir.simplify import linear

__all__ = ["unit_stride", "vectorize"]


def unit_stride(offset: Expr, var: Var) -> int | None:
    """1 when `offset` moves by one element with `var`, 0 when not at all, None otherwise."""
    result = linear(offset, (var,))
    if result is None:
        return None
    move = result[0].get(var, const(0, I32))
    return int(move.value) if isinstance(move, Const) and move.value in (0, 1) else None


def vectorize(
    e: Expr, var: Var, lanes: int, known: Mapping[Expr, Expr] | None = None
) -> Expr | None:
    """`e` for var, var + 1, …, var + lanes - 1 at once; None where it has no such form.

    Reads must move by one element or not at all with `var`, and no condition or index may depend on
    it. What does not depend on `var` stays scalar until a vector meets it. `known` gives nodes
    whose vector form exists already (a sum in a register).
    """
    done: dict[Expr, Expr | None] = dict(known or {})
    varying = set(done)
    dependent = {var, *varying}

    def wide(x: Expr) -> Expr:
        return x if x.dtype.lanes == lanes else splat(x, lanes)

    def visit(node: Expr) -> Expr | None:
        if node not in done:
            done[node] = build(node)
        return done[node]

    def build(node: Expr) -> Expr | None:
        if dependent.isdisjoint(walk(node)):
            return node
        if isinstance(node, Read):
            if not varying.isdisjoint(walk(node.args[0])):
                return None  # each lane elsewhere
            stride = unit_stride(node.args[0], var)
            return Read(node.buffer, node.args[0], lanes) if stride == 1 else None
        if not isinstance(node, Op):
            return None  # the index itself as a value
        args = [visit(a) for a in node.args]
        if any(a is None for a in args):
            return None
        parts = [a for a in args if a is not None]
        if node.name == "select":
            condition = parts[0]  # a scalar condition chooses whole vectors, and still guards them
            return select(condition, wide(parts[1]), wide(parts[2]))
        if node.name == "cast":
            return cast(wide(parts[0]), node.dtype.vector(lanes))
        if node.name == "bitcast":
            return bitcast(wide(parts[0]), node.dtype.vector(lanes))
        return call(node.name, *(wide(p) for p in parts))

    return visit(e)
