"""Statements from a nest: the plain way, in which every rule that needs nothing special ends.

Reductions are placed at the outermost loop where all that they use is bound (so a row's mean is
computed once a row, not once an element), conditions on a reduction's own axes become its loop
bounds, and one axis may be vectorised.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from webkiln.ir.dtypes import BOOL, I32, DType
from webkiln.ir.expr import (
    Const,
    Expr,
    Op,
    Read,
    Reduce,
    Var,
    call,
    conjuncts,
    const,
    free_vars,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    select,
    splat,
    substitute,
    walk,
)
from webkiln.ir.simplify import linear, simplify
from webkiln.ir.stmt import Assign, Declare, For, If, Stmt, Store, register
from webkiln.schedule.nest import Nest, reduces
from webkiln.schedule.vectorize import unit_stride, vectorize

__all__ = [
    "COMBINE",
    "Emitter",
    "bounds_of",
    "guarded",
    "initial",
    "nested",
    "slack",
    "vectorises",
]

COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}


def initial(kind: str, dtype: DType) -> Expr:
    """The value of an empty reduction."""
    if kind in ("sum", "prod"):
        return const(0 if kind == "sum" else 1, dtype)
    if dtype.is_float:
        return const(float("-inf") if kind == "max" else float("inf"), dtype)
    low, high = (-(2**31), 2**31 - 1) if dtype == I32 else (0, 2**32 - 1)
    return const(low if kind == "max" else high, dtype)


def bounds_of(
    reduce: Reduce, vector: Var | None = None
) -> tuple[dict[Var, tuple[Expr, Expr]], Expr]:
    """Loop bounds (start, stop) of each axis, and the body they make unconditional.

    A term `select(lo ≤ a·k + b and …, x, neutral)` of a sum is skipped where the condition fails:
    bounds on one axis k at a time leave the body, others stay as they are. So do those that
    differ along `vector`, whose lanes share the loop.
    """
    bounds: dict[Var, tuple[Expr, Expr]] = {}
    for axis in reduce.axes:
        assert axis.extent is not None
        bounds[axis] = const(0, I32), axis.extent
    body = _strip(reduce, bounds, vector)
    return bounds, body


def _strip(reduce: Reduce, bounds: dict[Var, tuple[Expr, Expr]], vector: Var | None) -> Expr:
    """Take from the guard of the body what can be a loop bound."""
    conditions, body = guarded(reduce)
    return body(
        [c for c in conditions if vector in free_vars(c) or not _tighten(c, reduce.axes, bounds)]
    )


def guarded(reduce: Reduce) -> tuple[list[Expr], Callable[[Sequence[Expr]], Expr]]:
    """The conditions under which a term counts, and the body that checks only some of them."""
    guard, wrap = _guard(reduce)
    if guard is None:
        return [], lambda kept: reduce.body
    inner, neutral = guard.args[1:]

    def body(kept: Sequence[Expr]) -> Expr:
        return wrap(select(logical_and(*kept), inner, neutral) if kept else inner)

    return list(conjuncts(guard.args[0])), body


def _guard(reduce: Reduce) -> tuple[Op | None, Callable[[Expr], Expr]]:
    """The select whose untaken side leaves the reduction unchanged, and the body around it."""
    body = reduce.body

    def neutral(node: Expr, by: Expr) -> bool:
        return isinstance(node, Op) and node.name == "select" and node.args[2] is by

    if neutral(body, initial(reduce.kind, body.dtype)):
        assert isinstance(body, Op)
        return body, lambda x: x
    if reduce.kind == "sum" and isinstance(body, Op) and body.name == "mul":
        for side in (0, 1):
            node, other = body.args[side], body.args[1 - side]
            if neutral(node, const(0, node.dtype)):
                assert isinstance(node, Op)
                return node, lambda x, o=other: call("mul", x, o)
    return None, lambda x: x


def slack(condition: Expr) -> Expr | None:
    """What is ≥ 0 exactly where an integer comparison holds; None for other conditions."""
    if not (isinstance(condition, Op) and condition.name in ("lt", "le")):
        return None
    low, high = condition.args
    return simplify(high - low - (1 if condition.name == "lt" else 0)) if low.dtype == I32 else None


def _tighten(condition: Expr, axes: Sequence[Var], bounds: dict[Var, tuple[Expr, Expr]]) -> bool:
    """Fold `a < b` or `a <= b`, linear in one axis, into that axis' bounds, where that is so."""
    gap = slack(condition)
    if gap is None:
        return False
    parts = linear(gap, axes)
    if parts is None or len(parts[0]) != 1:
        return False
    ((axis, factor),) = parts[0].items()
    if not isinstance(factor, Const):
        return False
    start, stop = bounds[axis]
    rest = parts[1]
    if factor.value > 0:  # k ≥ ⌈-rest / factor⌉, where a loop from 0 needs no more than 0
        lower = simplify(const(int(factor.value) - 1, I32) - rest) if factor.value > 1 else -rest
        lower = maximum(lower, 0) // int(factor.value) if factor.value > 1 else simplify(lower)
        bounds[axis] = maximum(start, lower), stop
    else:  # k ≤ ⌊rest / -factor⌋, so k < that + 1
        width = -int(factor.value)
        upper = simplify(rest + width)
        upper = maximum(upper, 0) // width if width > 1 else upper
        bounds[axis] = start, minimum(stop, upper)
    return True


def vectorises(value: Expr, var: Var, lanes: int) -> bool:
    """Whether `value`, and every reduction in it that depends on `var`, has a vector form."""
    sums: dict[Expr, Expr] = {}
    for i, reduce in enumerate(reduces(value)):
        if var not in free_vars(reduce):
            continue
        _, body = bounds_of(reduce, var)
        if reduces(body) or vectorize(body, var, lanes) is None:
            return False
        sums[reduce] = Var(f"sum{i}", None, reduce.dtype.vector(lanes))
    return vectorize(value, var, lanes, sums) is not None


@dataclass
class Emitter:
    """Collects statements; registers get fresh names."""

    lanes: int = 4
    row_lanes: int = 0  # of a reduction along contiguous memory; 0: twice `lanes`
    wide: dict[Expr, Expr] = field(default_factory=dict)  # scalar stand-in → vector register
    _fresh: Iterator[int] = field(default_factory=itertools.count)

    def register(self, dtype: DType, prefix: str = "r") -> Var:
        """A new mutable local of the kernel."""
        return register(f"{prefix}{next(self._fresh)}", dtype)

    def loop(self, name: str, extent: int) -> Var:
        """A new loop variable of the kernel."""
        return Var(f"{name}{next(self._fresh)}", extent)

    def loops(
        self, nest: Nest, loops: Sequence[Var], bound: frozenset[Var], vector: Var | None = None
    ) -> list[Stmt]:
        """The nest's remaining `loops` inside those already `bound`, ending in the store.

        `vector` is one of the loops to run `self.lanes` at a time, with a scalar loop for the rest.
        """
        out: list[Stmt] = []
        value = self.hoist(nest.value, bound, out)
        if value is not nest.value:
            nest = Nest(nest.out, nest.loops, nest.offset, value, nest.label)
        if not loops:
            out.append(Store(nest.out, nest.offset, nest.value))
            return out
        var, rest = loops[0], loops[1:]
        assert var.extent is not None
        if var is vector:
            out.extend(self._vector_loop(nest, var, bound))
        else:
            body = self.loops(nest, rest, bound | {var}, vector)
            out.append(For(var, const(0, I32), var.extent, tuple(body)))
        return out

    def _vector_loop(self, nest: Nest, var: Var, bound: frozenset[Var]) -> list[Stmt]:
        """The innermost loop in vectors, then what is left one by one."""
        assert var.extent is not None
        lanes = self.lanes
        whole = simplify((var.extent // lanes) * lanes)
        out: list[Stmt] = []
        body = self.vector_body(nest, var, bound, lanes)
        out.append(For(var, const(0, I32), whole, tuple(body), lanes))
        if whole is not simplify(var.extent):
            tail = self.loops(nest, (), bound | {var})
            out.append(For(var, whole, var.extent, tuple(tail)))
        return out

    def vector_body(self, nest: Nest, var: Var, bound: frozenset[Var], lanes: int) -> list[Stmt]:
        """One vector of the output: its reductions in vector registers, then the store."""
        out: list[Stmt] = []
        value = self.hoist(nest.value, bound | {var}, out, across=(var, lanes))
        wide = vectorize(value, var, lanes, self.wide)
        assert wide is not None, "the rule checked that the nest vectorises"
        out.append(
            Store(nest.out, nest.offset, splat(wide, lanes) if wide.dtype.lanes == 1 else wide)
        )
        return out

    def hoist(
        self,
        value: Expr,
        bound: frozenset[Var],
        out: list[Stmt],
        across: tuple[Var, int] | None = None,
    ) -> Expr:
        """`value` with a register for each reduction whose variables are bound; `out` sets it."""
        while True:
            ready = [
                r
                for r in reduces(value)
                if all(v in bound or not _is_loop(v) for v in free_vars(r))
                and not any(reduces(a) for a in r.args if _has_ready(a, bound))
            ]
            if not ready:
                return value
            target = ready[0]
            total = self._where_needed(value, target, bound, out, across)
            value = substitute(value, {target: self._scalar(total)})

    def _where_needed(
        self,
        value: Expr,
        target: Reduce,
        bound: frozenset[Var],
        out: list[Stmt],
        across: tuple[Var, int] | None,
    ) -> Var:
        """`target` in a register, computed only where `value` uses it, if that is known here.

        Elsewhere what it reads may be out of range: a select does not evaluate that side.
        """
        condition = simplify(used_if(value, target))
        loops = {v for v in free_vars(condition) if _is_loop(v)}
        vector = across is not None and across[0] in loops
        if isinstance(condition, Const) or vector or not loops <= bound or reduces(condition):
            return self.reduction(target, bound, out, across)
        inside: list[Stmt] = []
        total = self.reduction(target, bound, inside, across)
        result = self.register(total.dtype)
        out.append(Declare(result, splat(initial(target.kind, target.dtype), total.dtype.lanes)))
        out.append(If(condition, (*inside, Assign(result, total))))
        return result

    def _scalar(self, total: Var) -> Var:
        """A vector register stands as a scalar in an expression until that is vectorised."""
        if total.dtype.lanes == 1:
            return total
        stand_in = register(total.name, total.dtype.scalar)
        self.wide[stand_in] = total
        return stand_in

    def reduction(
        self, reduce: Reduce, bound: frozenset[Var], out: list[Stmt], across: tuple[Var, int] | None
    ) -> Var:
        """Loops that compute `reduce` into a register. `across`: a vector axis of the output."""
        bounds, body = bounds_of(reduce, None if across is None else across[0])
        if across is not None and across[0] in free_vars(body):
            return self._reduce_into(reduce, bounds, body, bound, out, across)
        inner = reduce.axes[-1]
        lanes = self.row_lanes or 2 * self.lanes
        if self._row_vectorises(reduce, body, inner, bounds):
            return self._reduce_row(reduce, bounds, body, bound, out, lanes)
        return self._reduce_into(reduce, bounds, body, bound, out, None)

    def _row_vectorises(
        self, reduce: Reduce, body: Expr, inner: Var, bounds: dict[Var, tuple[Expr, Expr]]
    ) -> bool:
        if self.lanes == 1 or reduces(body) or not body.dtype.is_float:
            return False
        lanes = self.row_lanes or 2 * self.lanes
        if isinstance(inner.extent, Const) and inner.extent.value < lanes:
            return False
        whole = bounds[inner] == (const(0, I32), inner.extent)
        moves = [unit_stride(n.args[0], inner) for n in walk(body) if isinstance(n, Read)]
        return whole and 1 in moves and vectorize(body, inner, lanes) is not None

    def _reduce_into(
        self,
        reduce: Reduce,
        bounds: dict[Var, tuple[Expr, Expr]],
        body: Expr,
        bound: frozenset[Var],
        out: list[Stmt],
        across: tuple[Var, int] | None,
    ) -> Var:
        dtype = reduce.dtype if across is None else reduce.dtype.vector(across[1])
        total = self.register(dtype)
        out.append(Declare(total, splat(initial(reduce.kind, reduce.dtype), dtype.lanes)))
        inside: list[Stmt] = []
        term = self.hoist(body, bound | frozenset(reduce.axes), inside, across)
        if across is not None:
            wide = vectorize(term, *across, self.wide)
            assert wide is not None
            term = splat(wide, across[1]) if wide.dtype.lanes == 1 else wide
        inside.append(Assign(total, call(COMBINE[reduce.kind], total, term)))
        out.extend(nested(reduce.axes, bounds, inside))
        return total

    def _reduce_row(
        self,
        reduce: Reduce,
        bounds: dict[Var, tuple[Expr, Expr]],
        body: Expr,
        bound: frozenset[Var],
        out: list[Stmt],
        lanes: int,
    ) -> Var:
        """A reduction along contiguous memory: vector partial results, folded at the end."""
        inner = reduce.axes[-1]
        assert inner.extent is not None
        combine = COMBINE[reduce.kind]
        wide = self.register(reduce.dtype.vector(lanes))
        out.append(Declare(wide, splat(initial(reduce.kind, reduce.dtype), lanes)))
        total = self.register(reduce.dtype)
        tail: list[Stmt] = [Assign(total, call(combine, total, body))]
        whole = simplify((inner.extent // lanes) * lanes)
        term = vectorize(body, inner, lanes)
        assert term is not None
        outer = reduce.axes[:-1]
        step: list[Stmt] = [Assign(wide, call(combine, wide, term))]
        out.extend(nested(outer, bounds, [For(inner, const(0, I32), whole, tuple(step), lanes)]))
        out.append(Declare(total, Op(f"fold_{combine}", (wide,), reduce.dtype)))
        if whole is not simplify(inner.extent):
            rest: list[Stmt] = [For(inner, whole, inner.extent, tuple(tail))]
            out.extend(nested(outer, bounds, rest))
        return total


def used_if(value: Expr, target: Expr) -> Expr:
    """The condition under which evaluating `value` evaluates `target`."""
    memo: dict[Expr, Expr] = {}
    for node in walk(value):
        if node is target:
            memo[node] = const(True, BOOL)
        elif isinstance(node, Op) and node.name == "select" and node.args[0].dtype.lanes == 1:
            test, a, b = node.args
            either = logical_or(logical_and(test, memo[a]), logical_and(logical_not(test), memo[b]))
            memo[node] = logical_or(memo[test], either)
        else:
            used: Expr = const(False, BOOL)
            for a in node.args:
                used = logical_or(used, memo[a])
            memo[node] = used
    return memo[value]


def nested(
    axes: Sequence[Var], bounds: dict[Var, tuple[Expr, Expr]], body: list[Stmt]
) -> list[Stmt]:
    """`body` inside a loop an axis, the first one outermost."""
    for axis in reversed(axes):
        start, stop = bounds[axis]
        body = [For(axis, start, stop, tuple(body))]
    return body


def _is_loop(v: Var) -> bool:
    """A loop variable or a reduction's axis, as against a dim or a register."""
    return v.extent is not None


def _has_ready(e: Expr, bound: frozenset[Var]) -> bool:
    """A reduction inside `e` that could be computed first."""
    return any(all(v in bound or not _is_loop(v) for v in free_vars(r)) for r in reduces(e))
