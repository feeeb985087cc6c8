"""Runs of a row's elements in WebGPU's registers, and their products with words of weights.

In float16, for adapters that have it, a run is divided by the power of two at or below its largest
element. That rounds nothing, and keeps products in range whatever the row holds: elements are below
2, codes at most 128. What a run adds up to is float16, what follows float32, where the power of two
comes back.

Codes become float16 by bit operations on a word, two at a time, instead of conversions, which GPUs
do slowly: a code in the low bits of 1024 makes it that much larger (Kim et al., "Who Says Elephants
Can't Run: Bringing Large Scale MoE Models into Cloud Scale Production", arXiv 2211.10017).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from webkiln.ir.dtypes import F16, F32, U32
from webkiln.ir.expr import (
    Expr,
    Op,
    Var,
    bitcast,
    call,
    cast,
    const,
    lane,
    maximum,
    splat,
    substitute,
    vector,
)
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Declare, Stmt
from webkiln.schedule.emit import Emitter
from webkiln.schedule.vectorize import vectorize
from webkiln.schedule.webgpu.words import LANES, code_of, shift_of

__all__ = ["Floats", "Halves", "Pairs", "elements"]

EXPONENT: Final = 0x7F800000  # of a float32
TWICE_BIAS: Final = 0x7F000000  # less the exponent of 2^n: the bits of 2^-n
THOUSAND: Final = 0x6400  # 1024 in float16, whose lowest bit counts 1


def elements(
    value: Expr, k: Var, first: Expr, count: int, emit: Emitter, out: list[Stmt]
) -> list[Expr]:
    """`value` for k = `first`, …: `count` of them, four at a time where they are neighbours."""
    wide = vectorize(value, k, LANES)
    found: list[Expr] = []
    for i in range(0, count, LANES):
        if wide is not None and wide.dtype.lanes == LANES:
            four = emit.register(F32.vector(LANES), "a")
            out.append(Declare(four, simplify(substitute(wide, {k: first + i}))))
            found += [lane(four, j) for j in range(LANES)]
            continue
        for j in range(i, i + LANES):
            one = emit.register(F32, "a")
            out.append(Declare(one, simplify(substitute(value, {k: first + j}))))
            found.append(one)
    return found


class Floats:
    """A run as long as a word has weights, in float32."""

    def __init__(self, run: Sequence[Expr]) -> None:
        self.run = run

    def added(self, total: Expr, words: Expr, bits: int) -> Expr:
        """`total` plus the products with `words`, one a column."""
        for i, element in enumerate(self.run):
            term = call("mul", code_of(words, i, bits), splat(element, LANES))
            total = call("add", total, term)
        return total

    def offset(self, scale: Expr, offset: Expr, bits: int) -> Expr:
        """What counts for each element beside its product: a weight is `scale`·code + `offset`."""
        return offset


class Halves:
    """A run in float16, over `factor`, a power of two.

    Elements are below 2^127. Zeros stay zeros; what is not finite makes its run's sum so.
    """

    def __init__(self, run: Sequence[Expr], emit: Emitter, out: list[Stmt]) -> None:
        self.run = run
        top, exponent = emit.register(F32, "top"), emit.register(U32, "exponent")
        self.inverse, self.factor = emit.register(F32, "inverse"), emit.register(F32, "factor")
        largest = call("abs", run[0])
        for element in run[1:]:
            largest = maximum(largest, call("abs", element))
        out += [
            Declare(top, largest),
            Declare(exponent, call("bitand", bitcast(top, U32), EXPONENT)),
            Declare(self.inverse, bitcast(call("sub", const(TWICE_BIAS, U32), exponent), F32)),
            Declare(self.factor, bitcast(exponent, F32)),
        ]

    def chosen(self, *which: int) -> Expr:
        """These elements as a vector."""
        found = vector([self.run[i] for i in which])
        return cast(call("mul", found, splat(self.inverse, len(which))), F16.vector(len(which)))


class Pairs(Halves):
    """A run as long as a word has weights, as pairs that meet the halves of a shifted word.

    Codes count from the middle one: their products are smaller, and errors with them.
    """

    def __init__(self, run: Sequence[Expr], emit: Emitter, out: list[Stmt]) -> None:
        super().__init__(run, emit, out)
        self.pairs = {i: emit.register(F16.vector(2), "pair") for i in range(len(run)) if i % 4 < 2}
        out += [Declare(pair, self.chosen(i, i + 2)) for i, pair in self.pairs.items()]

    def added(self, total: Expr, words: Expr, bits: int) -> Expr:
        """`total` plus the products with `words`, one a column."""
        sums: list[Expr] = [const(0.0, F16.vector(2))] * LANES
        middle = const(1024 + (1 << bits - 1), F16.vector(2))
        for i, pair in self.pairs.items():
            codes = call("shr", words, const(shift_of(i, bits), words.dtype))
            codes = call("bitand", codes, _both((1 << bits) - 1))
            codes = call("bitor", codes, _both(THOUSAND))
            for j in range(LANES):
                code = call("sub", bitcast(lane(codes, j), F16.vector(2)), middle)
                sums[j] = call("add", sums[j], call("mul", code, pair))
        whole = vector([Op("fold_add", (s,), F16) for s in sums])
        product = call("mul", cast(whole, F32.vector(LANES)), splat(self.factor, LANES))
        return call("add", total, product)

    def offset(self, scale: Expr, offset: Expr, bits: int) -> Expr:
        """What counts for each element beside its product: a weight is `scale`·code + `offset`."""
        middle = const(float(1 << bits - 1), scale.dtype)
        return call("add", offset, call("mul", scale, middle))


def _both(half: int) -> Expr:
    """A vector of words of `half` twice."""
    return const(half << 16 | half, U32.vector(LANES))
