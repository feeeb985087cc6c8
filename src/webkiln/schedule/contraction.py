"""Recognising Σ_k A[m, k] · B[k, n] in a nest: every matmul and most convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Expr, Op, Read, Reduce, Var, const, substitute, walk
from webkiln.ir.simplify import linear
from webkiln.lower.layout import PANEL
from webkiln.schedule.nest import Nest, reduces, strides

__all__ = ["Contraction", "match_contraction", "walks_panels"]


@dataclass(frozen=True, slots=True)
class Contraction:
    """`nest` is epilogue(Σ a·b); `m` (if any) moves `a` and the output, `n` `b` and the output.

    `batch` are the other loops, outermost first. `b` is contiguous along `n` within a panel.
    """

    nest: Nest
    reduce: Reduce
    a: Read
    b: Read
    batch: tuple[Var, ...]
    m: Var | None
    n: Var


def match_contraction(nest: Nest) -> Contraction | None:
    """The contraction that `nest` is, or None where it is none, guarded, or not in panels."""
    reduce = _sum_of_products(nest.value)
    if reduce is None or not nest.loops:
        return None
    assert isinstance(reduce.body, Op)
    n = nest.loops[-1]
    for a, b in (reduce.body.args, reduce.body.args[::-1]):
        if not (isinstance(a, Read) and isinstance(b, Read)):
            return None
        if not _columns(nest, n, a, b):
            continue
        over = (*nest.loops, *reduce.axes)
        if strides(a.args[0], over) is None or not walks_panels(b.args[0], n):
            return None
        rows = [v for v in nest.loops[:-1] if v in set(walk(a.args[0])) and not _uses(b, v)]
        m = rows[-1] if rows else None
        batch = tuple(v for v in nest.loops[:-1] if v is not m)
        return Contraction(nest, reduce, a, b, batch, m, n)
    return None


def _sum_of_products(value: Expr) -> Reduce | None:
    found = reduces(value)
    if len(found) != 1 or found[0].kind != "sum":
        return None
    body = found[0].body
    plain = isinstance(body, Op) and body.name == "mul" and body.dtype.is_float
    return found[0] if plain else None


def _uses(e: Read, v: Var) -> bool:
    return v in set(walk(e.args[0]))


def _columns(nest: Nest, n: Var, a: Read, b: Read) -> bool:
    """Whether n moves B and the output (by one element), and leaves A where it is."""
    out = strides(nest.offset, (n,))
    one = const(1, I32)
    return not _uses(a, n) and _uses(b, n) and out is not None and out.get(n) is one


def walks_panels(offset: Expr, n: Var) -> bool:
    """B moves by one element with n: everywhere, or inside panels of `PANEL` columns."""
    inner = Var(f"{n.name}_lane", PANEL)
    outer = Var(f"{n.name}_panel", 1 << 20)

    parts = linear(substitute(offset, {n: outer * PANEL + inner}), (inner, outer))
    if parts is None:
        return False
    step = parts[0].get(inner)
    return isinstance(step, Const) and step.value == 1
