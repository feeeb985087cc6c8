"""Weights quantised in blocks, as expressions: recognised, fused with, and laid out in panels.

`ops/matmul_nbits.py` says what they are; fusion, layouts and both targets' schedules ask here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from webkiln.ir.buffer import Buffer, packed
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    COMPARISONS,
    Const,
    Expr,
    Load,
    Op,
    Read,
    Reduce,
    Var,
    const,
    free_vars,
    is_const,
    substitute,
    walk,
)
from webkiln.ir.program import Compute, Program
from webkiln.ir.simplify import simplify

__all__ = [
    "BlockWeight",
    "Term",
    "block_weight",
    "in_panels",
    "is_product",
    "is_row",
    "product_terms",
]


@dataclass(frozen=True, slots=True)
class BlockWeight:
    """S·q + m: q are `bits` bits of `word` from bit `shift` on, s and m the halves of `pair`."""

    word: Load | Read
    pair: Load | Read
    shift: Expr
    bits: int


def block_weight(e: Expr) -> BlockWeight | None:
    """`e` as a quantised weight, or None where it is something else."""
    code = scale = offset = None
    if _is(e, "add") and _is(e.args[0], "mul"):
        (code, scale), offset = e.args[0].args, e.args[1]
    if code is None or scale is None or not (_is(code, "cast") and _is(scale, "half")):
        return None
    masked = code.args[0].args[0] if _is(code.args[0], "bitcast") else None
    if masked is None or offset is None or not (_is(masked, "bitand") and _is(offset, "half")):
        return None
    shifted, mask = masked.args
    pair, above = scale.args[0], offset.args[0]
    if not (_is(above, "shr") and above.args[0] is pair and is_const(above.args[1], 16)):
        return None
    if not (_is(shifted, "shr") and isinstance(shifted.args[0], Load | Read)):
        return None
    if not (isinstance(pair, Load | Read) and isinstance(mask, Const)):
        return None
    return BlockWeight(shifted.args[0], pair, shifted.args[1], int(mask.value).bit_length())


def _is(e: Expr, name: str) -> bool:
    return isinstance(e, Op) and e.name == name


# --- products -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """`reduce` is Σ_k a[k] · w[k, n], w being `bits` bits a weight in blocks of `block`.

    `coarse`: a may be rounded to so many bits (8 or 16) a block; 0: it may not.
    """

    reduce: Reduce
    a: Expr
    coarse: int
    words: Load
    scales: Load
    bits: int
    block: int
    depth: int


def product_terms(value: Expr, n: Var) -> tuple[list[Term], Expr, Var] | None:
    """The quantised sums in `value`, and the one row `a` over an axis k that all of them multiply.

    None where there is no such sum, where their rows or blocks differ, and where something else
    is reduced outside of the row.
    """
    found = (_term(r, n) for r in walk(value) if isinstance(r, Reduce))
    terms = [t for t in found if t is not None]
    if not terms:
        return None
    k = Var("k", terms[0].depth)
    rows = {_in_order(t, k) for t in terms}
    if len(rows) > 1 or len({(t.block, t.depth, t.coarse) for t in terms}) > 1:
        return None
    rest = substitute(value, {t.reduce: const(0, t.reduce.dtype) for t in terms})
    if any(isinstance(node, Reduce) for node in walk(rest)):
        return None
    return terms, rows.pop(), k


def is_product(compute: Compute) -> bool:
    """Whether it is an epilogue of products of one row with quantised matrices."""
    return bool(compute.axes) and product_terms(compute.value, compute.axes[-1]) is not None


def _term(reduce: Reduce, n: Var) -> Term | None:
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
        if weight is None or n in free_vars(a):
            continue
        words, pair = weight.word, weight.pair
        if not (isinstance(words, Load) and isinstance(pair, Load)):
            return None
        if simplify(words.args[0] - (group * sizes[1] + word)) is not const(0, I32):
            return None
        if pair.args != (group, n) or words.args[1] is not n or 32 // weight.bits != sizes[2]:
            return None
        coarse = next((bits for bits in (8, 16) if _is(a, f"coarse{bits}")), 0)
        a = a.args[0] if coarse else a
        block = sizes[1] * sizes[2]
        return Term(reduce, a, coarse, words, pair, weight.bits, block, block * sizes[0])
    return None


def _in_order(term: Term, k: Var) -> Expr:
    """The term's `a` by one index k for block, word and weight."""
    group, word, inside = term.reduce.axes
    per = 32 // term.bits
    at: dict[Var, Expr] = {
        group: k // term.block,
        word: k // per % (term.block // per),
        inside: k % per,
    }
    return simplify(substitute(term.a, at))


def is_row(compute: Compute) -> bool:
    """Whether each element follows from those beside it and from sums over the row.

    So a product's kernel can compute the row once, in vectors, instead of reading it: a norm, a
    gate, an activation. Sums must not differ along the row, nor elements come from elsewhere.
    """
    if not compute.axes or compute.at is not None:
        return False
    k = compute.axes[-1]
    for node in walk(compute.value):
        if isinstance(node, Reduce) and k in free_vars(node):
            return False
        if isinstance(node, Op) and (node.name == "select" or node.name in COMPARISONS):
            return False
        if isinstance(node, Load):
            along = [i for i in node.args if k in free_vars(i)]
            if along and (len(along) > 1 or along[0] is not k or node.args[-1] is not k):
                return False
        elif k in node.args:  # the place itself as a number
            return False
    return True


# --- layout ---------------------------------------------------------------------------------------


def in_panels(program: Program, width: int) -> Program:
    """Every quantised matrix [K, N] in panels of `width` columns, for all who read it."""
    found = dict.fromkeys(
        b for c in program.computes for b in _matrices(*c.roots) if b in program.constants
    )
    new: dict[Buffer, Buffer] = {b: replace(b, layout=packed((0, 1), 1, width)) for b in found}
    if not new:
        return program
    constants = {new.get(b, b): data for b, data in program.constants.items()}
    return replace(program, constants=constants, computes=[c.on(new) for c in program.computes])


def _matrices(*roots: Expr) -> Iterator[Buffer]:
    for node in walk(*roots):
        weight = block_weight(node)
        if weight is not None:
            yield weight.word.buffer
            yield weight.pair.buffer
