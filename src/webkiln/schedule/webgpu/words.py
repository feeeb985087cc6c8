"""Words of quantised matrices in WebGPU's registers, and the weights that they hold."""

from __future__ import annotations

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import F32, U32
from webkiln.ir.expr import Expr, Read, Var, call, cast, const
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Declare, Stmt
from webkiln.schedule.emit import Emitter

__all__ = ["LANES", "code_of", "halves", "load", "shift_of"]

LANES = 4  # columns of a vector of words


def shift_of(i: int, bits: int) -> int:
    """The bit of a word where its weight number `i` begins."""
    return i * 8 if bits == 8 else i % 4 * 8 + i // 4 * 4


def code_of(word: Expr, i: int, bits: int) -> Expr:
    """Weight number `i` of `word`, a vector of words, scale and offset aside."""
    mask = const((1 << bits) - 1, word.dtype)
    code = call("bitand", call("shr", word, const(shift_of(i, bits), word.dtype)), mask)
    return cast(code, F32.vector(word.dtype.lanes))


def halves(pair: Expr) -> tuple[Expr, Expr]:
    """Scales and offsets of a vector of pairs."""
    return call("half", pair), call("half", call("shr", pair, const(16, pair.dtype)))


def load(matrix: Buffer, row: Expr, column: Expr, emit: Emitter, out: list[Stmt]) -> Var:
    """A register for row `row` of `matrix`, words or scales, in four columns from `column` on."""
    loaded = emit.register(U32.vector(LANES), "word")
    out.append(Declare(loaded, Read(matrix, simplify(matrix.offset((row, column))), LANES)))
    return loaded
