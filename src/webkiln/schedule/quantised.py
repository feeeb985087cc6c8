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
    Const,
    Expr,
    Load,
    Op,
    Reduce,
    Var,
    const,
    free_vars,
    substitute,
)
from webkiln.ir.program import Compute
from webkiln.ir.simplify import simplify
from webkiln.lower.quantised import block_weight
from webkiln.schedule.nest import Nest, nest_of, reduces

__all__ = ["QuantisedProduct", "QuantisedSum", "match_quantised"]


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
    rounded to 8 bits a block.
    """

    epilogue: Nest
    rows: tuple[Var, ...]
    n: Var
    a: Nest
    k: Var
    depth: int
    sums: tuple[QuantisedSum, ...]
    coarse: bool

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


@dataclass(frozen=True, slots=True)
class _Term:
    reduce: Reduce
    a: Expr
    coarse: bool
    words: Load
    scales: Load
    bits: int
    block: int
    depth: int


def match_quantised(compute: Compute) -> QuantisedProduct | None:
    """The product that `compute` is, or None where it is none, or one whose rows differ."""
    if not compute.axes:
        return None
    n = compute.axes[compute.out.layout.order[-1]]
    found = [_term(r, n) for r in reduces(compute.value)]
    terms = [t for t in found if t is not None]
    if not terms:
        return None
    k = Var("k", terms[0].depth)
    inputs = {_in_order(t, k) for t in terms}
    if len(inputs) > 1 or len({(t.block, t.depth, t.coarse) for t in terms}) > 1:
        return None
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
    (a,) = inputs
    return _product(compute, epilogue, a, k, sums, terms[0])


def _product(
    compute: Compute,
    epilogue: Nest,
    a: Expr,
    k: Var,
    sums: tuple[QuantisedSum, ...],
    term: _Term,
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


def _term(reduce: Reduce, n: Var) -> _Term | None:
    """The sum over (block, word in block, weight in word) of an `a` times a weight of column n."""
    body = reduce.body
    if reduce.kind != "sum" or len(reduce.axes) != 3:
        return None
    if not (isinstance(body, Op) and body.name == "mul"):
        return None
    group, word, _ = reduce.axes
    sizes = [int(v.extent.value) for v in reduce.axes if isinstance(v.extent, Const)]
    if len(sizes) < 3:
        return None
    for a, b in (body.args, body.args[::-1]):
        weight = block_weight(b)
        if weight is None or not isinstance(weight.word, Load) or n in free_vars(a):
            continue
        pair = weight.pair
        assert isinstance(pair, Load)
        if simplify(weight.word.args[0] - (group * sizes[1] + word)) is not const(0, I32):
            return None
        if pair.args != (group, n) or weight.word.args[1] is not n or 32 // weight.bits != sizes[2]:
            return None
        coarse = isinstance(a, Op) and a.name == "coarse"
        a = a.args[0] if coarse else a
        block = sizes[1] * sizes[2]
        return _Term(reduce, a, coarse, weight.word, pair, weight.bits, block, block * sizes[0])
    return None


def _in_order(term: _Term, k: Var) -> Expr:
    """The term's `a` by one index k for block, word and weight."""
    group, word, inside = term.reduce.axes
    per = 32 // term.bits
    at: dict[Var, Expr] = {
        group: k // term.block,
        word: k // per % (term.block // per),
        inside: k % per,
    }
    return simplify(substitute(term.a, at))
