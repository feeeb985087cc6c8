"""Scaled dot-product attention (arXiv 1706.03762): scores, softmax and mixing as one computation.

The scores are written out in each of the three reductions that need them (the largest, the sum of
exponentials, the mixed values). That says what is computed; a target's schedule computes them once.
What a mask forbids is no term of any of them, so a mask by position is a loop bound later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from webkiln.ir.dtypes import BOOL, F32, I32
from webkiln.ir.expr import (
    Expr,
    Reduce,
    Var,
    call,
    compare,
    const,
    is_const,
    logical_and,
    maximum,
    select,
    substitute,
)
from webkiln.ir.simplify import simplify
from webkiln.ops.core import Context, Tensor, Unsupported, operator, static
from webkiln.ops.elementwise import broadcast

__all__ = ["Attend", "Heads"]

LOWEST = -3.4028234663852886e38  # of float32: stands for the largest score where there is none

Element = Callable[[Expr, Expr, Expr, Expr], Expr]  # of (batch, head, row, column)


@dataclass(frozen=True)
class Heads:
    """A tensor as (batch, head, row, column), whether it has four axes or heads side by side."""

    tensor: Tensor
    heads: int
    rows: Expr
    size: int

    @classmethod
    def of(cls, x: Tensor, heads: int, what: str) -> Heads:
        """`x` [batch, heads, rows, size] or [batch, rows, heads · size], whose `heads` are given.

        `what` names it in errors.
        """
        if x.rank == 4:
            heads = static(x.shape[1], f"{what}'s number of heads")
            return cls(x, heads, x.shape[2], static(x.shape[3], f"{what}'s head size"))
        if x.rank != 3:
            raise Unsupported(f"{what} of rank {x.rank}", hint="3 or 4 axes")
        width = static(x.shape[2], f"{what}'s hidden size")
        if heads < 1 or width % heads:
            raise Unsupported(f"{what}'s {width} columns in {heads} heads")
        return cls(x, heads, x.shape[1], width // heads)

    def __call__(self, b: Expr, h: Expr, row: Expr, column: Expr) -> Expr:
        if self.tensor.rank == 4:
            return self.tensor[b, h, row, column]
        return self.tensor[b, row, h * self.size + column]

    def shape(self, size: int) -> tuple[Expr, ...]:
        """The shape of a tensor like this one with heads of `size`."""
        batch = self.tensor.shape[0]
        if self.tensor.rank == 4:
            return batch, const(self.heads, I32), self.rows, const(size, I32)
        return batch, self.rows, const(self.heads * size, I32)

    def place(self, size: int, index: tuple[Expr, ...]) -> tuple[Expr, Expr, Expr, Expr]:
        """(batch, head, row, column) of `index` into that tensor."""
        if self.tensor.rank == 4:
            b, h, row, column = index
            return b, h, row, column
        b, row, last = index
        return b, last // size, row, last % size


@dataclass(frozen=True)
class Attend:
    """One attention: Σₜ softmaxₜ(cap(scale · q·kₜ) + biasₜ) · vₜ over the keys that are allowed.

    `keys` and `values` read (batch, head of keys, t, column); several query heads share one of
    theirs. `allowed` and `bias` are of (batch, query head, query, t).
    """

    ctx: Context
    queries: Heads
    keys: Element
    values: Element
    kv_heads: int
    length: Expr  # how many keys there are
    scale: float
    softcap: float
    allowed: Callable[[Expr, Expr, Expr, Expr], Expr]
    bias: Callable[[Expr, Expr, Expr, Expr], Expr | None]

    def __post_init__(self) -> None:
        if self.queries.heads % self.kv_heads:
            raise Unsupported(f"{self.queries.heads} query heads on {self.kv_heads} of keys")

    def score(self, b: Expr, h: Expr, s: Expr, t: Expr, stage: int) -> Expr:
        """At stage 0 the scaled product, at 1 the capped one, at 2 with the bias."""
        kv = h // (self.queries.heads // self.kv_heads)
        size = self.queries.size
        total = self.ctx.reduce(
            "sum", [size], lambda k: self.queries(b, h, s, k) * self.keys(b, kv, t, k), "k"
        )
        total = total * self.scale
        if stage >= 1 and self.softcap:
            total = call("tanh", total * (1 / self.softcap)) * self.softcap
        bias = self.bias(b, h, s, t) if stage >= 2 else None
        return total if bias is None else total + bias

    def _terms(self, b: Expr, h: Expr, s: Expr) -> tuple[Var, Callable[[Expr], Expr], Expr]:
        """A key axis, what multiplies an allowed key's exponential, and Σ of these."""
        t, other = self.ctx.var(self.length, "t"), self.ctx.var(self.length, "t")
        score = self.score(b, h, s, t, 2)
        allowed = self.allowed(b, h, s, t)
        lowest = const(float("-inf"), F32)
        there = {t: other}
        largest = Reduce("max", (other,), substitute(select(allowed, score, lowest), there))
        weight = call("exp", score - maximum(largest, LOWEST))

        def counted(value: Expr) -> Expr:
            return select(allowed, weight, const(0.0, F32)) * value

        return t, counted, Reduce("sum", (t,), counted(const(1.0, F32)))

    def mixed(self, b: Expr, h: Expr, s: Expr, column: Expr) -> Expr:
        """The result; 0 where no key is allowed."""
        t, counted, total = self._terms(b, h, s)
        kv = h // (self.queries.heads // self.kv_heads)
        sums = Reduce("sum", (t,), counted(self.values(b, kv, t, column)))
        return sums / maximum(total, 1e-30)  # at least 1 where a key is allowed

    def probability(self, b: Expr, h: Expr, s: Expr, at: Expr) -> Expr:
        """The softmax itself, at key `at`."""
        t, counted, total = self._terms(b, h, s)
        return substitute(counted(const(1.0, F32)), {t: at}) / maximum(total, 1e-30)


@operator("Attention")
def attention(
    ctx: Context,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
) -> list[Tensor]:
    """Q, K, V with three or four axes, grouped heads, masks, soft caps, windows and past keys.

    Also the keys and values with the past before them, and the scores or probabilities.
    """
    queries = Heads.of(q, ctx.int("q_num_heads", 0), "Q")
    keys = Heads.of(k, ctx.int("kv_num_heads", 0), "K")
    values = Heads.of(v, ctx.int("kv_num_heads", 0), "V")
    if keys.size != queries.size:
        raise Unsupported(f"heads of {queries.size} in Q and {keys.size} in K")
    past = const(0, I32) if past_key is None else past_key.shape[2]
    key, value = (_joined(ctx, x, p) for x, p in ((keys, past_key), (values, past_value)))
    length = simplify(keys.rows + past)
    attend = Attend(
        ctx,
        queries,
        key,
        value,
        keys.heads,
        length,
        ctx.float("scale", 1 / sqrt(queries.size)),
        ctx.float("softcap", 0.0),
        _allowed(ctx, queries, mask, past, lengths),
        _bias(mask),
    )

    def element(*i: Expr) -> Expr:
        return attend.mixed(*queries.place(values.size, i))

    results = [ctx.compute(queries.shape(values.size), element, q.dtype)]
    for x, given in ((key, past_key), (value, past_value)):
        if ctx.outputs > 1 and given is not None:
            results.append(x.tensor)
        else:
            results.append(results[0])  # has no name: an output only of what has a past
    if ctx.outputs > 3:
        results.append(_scores(ctx, attend, q.dtype))
    return results


def _joined(ctx: Context, x: Heads, past: Tensor | None) -> Heads:
    """`past` [batch, heads, rows, size] and behind it `x`, with four axes."""
    if past is None:
        return x
    before = past.shape[2]

    def element(b: Expr, h: Expr, row: Expr, column: Expr) -> Expr:
        new = x(b, h, row - before, column)
        return select(compare("lt", row, before), past[b, h, row, column], new)

    rows = simplify(before + x.rows)
    shape = (x.tensor.shape[0], const(x.heads, I32), rows, const(x.size, I32))
    return Heads(ctx.compute(shape, element, x.tensor.dtype), x.heads, rows, x.size)


def _allowed(
    ctx: Context, queries: Heads, mask: Tensor | None, past: Expr, lengths: Tensor | None
) -> Callable[[Expr, Expr, Expr, Expr], Expr]:
    """Which keys a query may see: by position, by the mask, by how many there are."""
    causal = ctx.int("is_causal", 0)
    left, right = ctx.int("left_window_size", -1), ctx.int("right_window_size", -1)

    def allowed(b: Expr, h: Expr, s: Expr, t: Expr) -> Expr:
        here = s + past  # the query's place among the keys
        conditions: list[Expr] = []
        if lengths is not None:
            here = s + lengths[b] - queries.rows
            conditions.append(compare("lt", t, lengths[b]))
        if causal:
            conditions.append(compare("le", t, here))
        if right >= 0:
            conditions.append(compare("le", t, here + right))
        if left >= 0:
            conditions.append(compare("ge", t, here - left))
        if mask is not None:
            if not is_const(mask.shape[-1], 1):  # a shorter one forbids what it doesn't cover
                conditions.append(compare("lt", t, mask.shape[-1]))
            if mask.dtype == "bool":
                conditions.append(broadcast(mask, (b, h, s, t)))
        return logical_and(const(True, BOOL), *conditions)

    return allowed


def _bias(mask: Tensor | None) -> Callable[[Expr, Expr, Expr, Expr], Expr | None]:
    def bias(b: Expr, h: Expr, s: Expr, t: Expr) -> Expr | None:
        if mask is None or mask.dtype == "bool":
            return None
        return broadcast(mask, (b, h, s, t))

    return bias


def _scores(ctx: Context, attend: Attend, dtype: str) -> Tensor:
    """What the node shows of its scores, [batch, heads, queries, keys]."""
    mode = ctx.int("qk_matmul_output_mode", 0)

    def value(b: Expr, h: Expr, s: Expr, t: Expr) -> Expr:
        if mode == 3:
            return attend.probability(b, h, s, t)
        score = attend.score(b, h, s, t, mode)
        if mode < 2:
            return score
        return select(attend.allowed(b, h, s, t), score, const(float("-inf"), F32))

    heads = const(attend.queries.heads, I32)
    shape = (attend.queries.tensor.shape[0], heads, attend.queries.rows, attend.length)
    return ctx.compute(shape, value, dtype)
