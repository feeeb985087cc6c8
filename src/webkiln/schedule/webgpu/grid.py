"""Spreading loops over workgroups and invocations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Dim,
    Expr,
    Var,
    ceildiv,
    compare,
    const,
    convert,
    logical_and,
    substitute,
    walk,
)
from webkiln.ir.program import Loop
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Declare, If, Stmt
from webkiln.schedule.nest import extent_of, product
from webkiln.targets.webgpu import MAX_GROUPS

__all__ = [
    "GROUP",
    "Grid",
    "at_most",
    "groups_of",
    "linear_grid",
    "unflatten",
]

#: Invocations of a workgroup where nothing else decides: one or two waves on any hardware.
GROUP = 64


def at_most(e: Expr) -> int:
    """The largest value of `e`, which grows with each dim, for dims within their bounds."""
    dims = [n for n in walk(e) if isinstance(n, Dim)]
    bounded = substitute(e, {d: const(d.max or MAX_GROUPS, I32) for d in dims})
    largest = simplify(bounded)
    return int(largest.value) if isinstance(largest, Const) else 2**31 - 1


@dataclass(frozen=True, slots=True)
class Grid:
    """Parallel loops, what each invocation's indices are, and whether those exist."""

    loops: tuple[Loop, ...]
    indices: tuple[Stmt, ...]
    inside: Expr

    def around(self, body: Sequence[Stmt]) -> list[Stmt]:
        """`body` for the invocations inside the grid."""
        if isinstance(self.inside, Const):
            return [*self.indices, *body]
        return [*self.indices, If(self.inside, tuple(body))]


def groups_of(count: Expr) -> tuple[list[Loop], Expr]:
    """Loops over `count` workgroups, and the workgroup's number, which may exceed `count` - 1.

    More than 65,535 of them are folded into two dimensions.
    """
    most = at_most(count)
    if most <= MAX_GROUPS:
        x = Var("group", count)
        return [Loop(x, count, "workgroup.x")], x
    rows = -(-most // MAX_GROUPS)
    width = convert(-(-most // rows), I32)
    y = Var("group_y", simplify(ceildiv(count, width)))
    x = Var("group_x", width)
    return [Loop(y, extent_of(y), "workgroup.y"), Loop(x, width, "workgroup.x")], y * width + x


def unflatten(index: Expr, variables: Sequence[Var]) -> list[Stmt]:
    """`index` taken apart into `variables`, the last one fastest."""
    out: list[Stmt] = []
    rest = index
    for i, v in enumerate(reversed(variables)):
        last = i == len(variables) - 1
        out.append(Declare(v, simplify(rest if last else rest % extent_of(v))))
        rest = rest // extent_of(v)
    return out


def linear_grid(variables: Sequence[Var], size: int = GROUP) -> Grid:
    """One invocation for each combination of `variables`, neighbours along the last."""
    count = product([extent_of(v) for v in variables])
    loops, group = groups_of(simplify(ceildiv(count, size)))
    local = Var("local", size)
    flat = group * size + local
    index = Var("index", count)
    whole = simplify(count % size) is const(0, I32) and len(loops) == 1
    inside = const(True, convert(True).dtype) if whole else compare("lt", index, count)
    indices = [Declare(index, flat), *unflatten(index, variables)]
    loops = [*loops, Loop(local, const(size, I32), "local.x")]
    return Grid(tuple(loops), tuple(indices), logical_and(inside))
