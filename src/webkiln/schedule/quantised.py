"""Recognising products with quantised matrices, for both targets.

    value(Σ_k a[row, k] · w₁[k, n], Σ_k a[row, k] · w₂[k, n], …)

with one row-local `a`: a row of memory, or a row normalised, or a product of two. Several sums
are, for example, a gate and what it lets through.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import (
    Expr,
    Var,
    const,
    free_vars,
    substitute,
)
from webkiln.ir.program import Compute
from webkiln.ir.simplify import simplify
from webkiln.lower.quantised import Term, product_terms
from webkiln.schedule.nest import Nest, nest_of, reduces

__all__ = ["QuantisedProduct", "QuantisedSum", "match_quantised", "row_of"]


@dataclass(frozen=True, slots=True)
class QuantisedSum:
    """Σ_k a[k] · w[k, n]: the matrix' constants (see ops/matmul_nbits.py), and `total`, which
    stands for the sum in the epilogue.
    """

    words: Buffer
    scales: Buffer
    bits: int
    block: int
    total: Var

    @property
    def per_word(self) -> int:
        """Weights in a word."""
        return 32 // self.bits


@dataclass(frozen=True)
class QuantisedProduct:
    """`epilogue` stores its value, made of the sums' `total`s, for each of its loops.

    `n` is the last of those loops, `rows` are the others. `a` has loops `rows` and `k`, 0 … `depth`
    - 1; it is what all `sums` multiply. Loops of one iteration are left out. `coarse`: a may be
    rounded to 8 or 16 bits a block.
    """

    epilogue: Nest
    rows: tuple[Var, ...]
    n: Var
    a: Nest
    k: Var
    depth: int
    sums: tuple[QuantisedSum, ...]
    coarse: int

    @property
    def m(self) -> Var | None:
        """The innermost loop over rows; None where there is one row alone."""
        return self.rows[-1] if self.rows else None

    @cached_property
    def blocks(self) -> int:
        """Blocks in a column, each of `block` weights."""
        return self.depth // self.sums[0].block

    @property
    def block(self) -> int:
        """Weights of one block; all sums have the same."""
        return self.sums[0].block


def match_quantised(compute: Compute) -> QuantisedProduct | None:
    """The product that `compute` is, or None where it is none, or one whose rows differ."""
    if not compute.axes:
        return None
    n = compute.axes[compute.out.layout.order[-1]]
    found = product_terms(compute.value, n)
    if found is None:
        return None
    terms, a, k = found
    sums = tuple(
        QuantisedSum(t.words.buffer, t.scales.buffer, t.bits, t.block, Var(f"total{i}", None, F32))
        for i, t in enumerate(terms)
    )
    stand_ins = {t.reduce: s.total for t, s in zip(terms, sums, strict=True)}
    rest = substitute(compute.value, stand_ins)
    if reduces(rest):
        return None
    epilogue = _without_units(nest_of(replace(compute, value=rest)))
    if not epilogue.loops or epilogue.loops[-1] is not n:
        return None
    return _product(compute, epilogue, a, k, sums, terms[0])


def _product(
    compute: Compute,
    epilogue: Nest,
    a: Expr,
    k: Var,
    sums: tuple[QuantisedSum, ...],
    term: Term,
) -> QuantisedProduct | None:
    rows = epilogue.loops[:-1]
    axes = tuple(v for v in compute.axes if v in free_vars(a))
    if compute.axes[compute.out.layout.order[-1]] in axes:
        return None
    shape = tuple(v.extent for v in (*axes, k) if v.extent is not None)
    row = Compute(Buffer("row", F32, shape), (*axes, k), a, compute.label)
    inner = _without_units(nest_of(row))
    return QuantisedProduct(
        epilogue, rows, epilogue.loops[-1], inner, k, term.depth, sums, term.coarse
    )


def row_of(compute: Compute) -> Nest:
    """The nest of a row that a product computes inside, over one axis, as that of its `a`."""
    return _without_units(nest_of(compute))


def _without_units(nest: Nest) -> Nest:
    """Without loops of one iteration, but for the last; axes of reductions stay."""
    units: dict[Var, Expr] = {
        v: const(0, I32) for v in nest.loops[:-1] if v.extent is const(1, I32)
    }
    return replace(
        nest,
        loops=tuple(v for v in nest.loops if v not in units),
        offset=simplify(substitute(nest.offset, units)),
        value=simplify(substitute(nest.value, units)),
    )
