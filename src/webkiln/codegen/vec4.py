"""Which arrays of a kernel can be declared as vec4, and the kernel with offsets that count them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Expr, Op, Read, Var, const, is_const, substitute, transform, walk
from webkiln.ir.program import Kernel
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Declare, For, If, Stmt, Store
from webkiln.schedule.kernel import expressions, map_expressions, statements

__all__ = ["in_vectors", "vector_buffers"]


def vector_buffers(kernel: Kernel) -> frozenset[Buffer]:
    """Buffers to be declared as arrays of vec4.

    Every store to one is four lanes at a multiple of four, so are its vector reads, and it has one
    or the other; single elements may be read, but not stored: that could race with a neighbour.
    """
    aligned: set[Buffer] = set()
    other: set[Buffer] = set()
    fours = _multiples_of_four(kernel)

    def note(buffer: Buffer, offset: Expr, whole: bool) -> None:
        (aligned if whole and _by_four(substitute(offset, fours)) else other).add(buffer)

    for s in statements(kernel.body):
        if isinstance(s, Store):
            note(s.buffer, s.offset, s.value.dtype.lanes == 4 and s.count is None)
        for node in walk(*expressions(s)):
            if isinstance(node, Read) and node.dtype.lanes > 1:
                note(node.buffer, node.args[0], node.dtype.lanes == 4)
    return frozenset(b for b in aligned - other if _by_four(b.size) and not is_const(b.size, 0))


def _multiples_of_four(kernel: Kernel) -> dict[Var, Expr]:
    """Loop variables and indices that are 4·x, as that."""
    found: dict[Var, Expr] = {}
    for s in statements(kernel.body):
        match s:
            case For(var, start, _, _, step) if step % 4 == 0 and _by_four(start):
                found[var] = Var(f"{var.name}_four", 1 << 28) * 4
            case Declare(var, value) if var.extent is not None:
                if _by_four(substitute(value, found)):
                    found[var] = Var(f"{var.name}_four", 1 << 28) * 4
            case _:
                pass
    return found


def in_vectors(body: Sequence[Stmt], buffers: frozenset[Buffer]) -> tuple[Stmt, ...]:
    """Offsets into arrays of vec4 count vec4s; an element is a lane of one."""

    def visit(node: Expr) -> Expr | None:
        if not (isinstance(node, Read) and node.buffer in buffers):
            return None
        offset = node.args[0]
        whole = Read(node.buffer, simplify(offset // 4), 4)
        return (
            whole
            if node.dtype.lanes == 4
            else Op("lane", (whole, simplify(offset % 4)), node.dtype)
        )

    def store(s: Stmt) -> Stmt:
        if isinstance(s, Store) and s.buffer in buffers:
            return replace(s, offset=simplify(s.offset // 4))
        if isinstance(s, For):
            return replace(s, body=tuple(map(store, s.body)))
        if isinstance(s, If):
            return replace(s, body=tuple(map(store, s.body)), orelse=tuple(map(store, s.orelse)))
        return s

    return tuple(map(store, map_expressions(body, lambda e: transform(e, visit))))


def _by_four(e: Expr) -> bool:
    return simplify(e % 4) is const(0, I32)
