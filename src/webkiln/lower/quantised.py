"""Weights quantised in blocks, as expressions: recognised, and laid out in panels.

`ops/matmul_nbits.py` says what they are; both targets' schedules and the layouts ask here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from webkiln.ir.buffer import Buffer, packed
from webkiln.ir.expr import Const, Expr, Load, Op, Read, is_const, rebuffer, walk
from webkiln.ir.program import Program

__all__ = ["BlockWeight", "block_weight", "in_panels"]


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


def in_panels(program: Program, width: int) -> Program:
    """Every quantised matrix [K, N] in panels of `width` columns, for all who read it."""
    found = dict.fromkeys(
        b for c in program.computes for b in _matrices(*c.roots) if b in program.constants
    )
    new: dict[Buffer, Buffer] = {b: replace(b, layout=packed((0, 1), 1, width)) for b in found}
    if not new:
        return program
    constants = {new.get(b, b): data for b, data in program.constants.items()}
    computes = [
        replace(
            c,
            value=rebuffer(c.value, new),
            at=None if c.at is None else tuple(rebuffer(i, new) for i in c.at),
        )
        for c in program.computes
    ]
    return replace(program, constants=constants, computes=computes)


def _matrices(*roots: Expr) -> Iterator[Buffer]:
    for node in walk(*roots):
        weight = block_weight(node)
        if weight is not None:
            yield weight.word.buffer
            yield weight.pair.buffer
