"""What a computation costs: float operations and bytes moved, expressions over the dims."""

from __future__ import annotations

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Expr, Load, Op, Reduce, const, walk
from webkiln.ir.program import Compute
from webkiln.ir.simplify import simplify
from webkiln.schedule.nest import product

__all__ = ["bytes_moved", "flops"]

_FREE = frozenset({"cast", "bitcast", "select", "splat"})


def flops(compute: Compute) -> Expr:
    """Arithmetic on floats, a multiply and an add counted as two; a function as one."""
    total: Expr = const(0, I32)
    size = product(compute.extents)
    for node, repeated in _nodes(compute.value):
        total = total + size * repeated if _counts(node) else total
    return simplify(total)


def bytes_moved(compute: Compute) -> Expr:
    """Every buffer once, the least that memory has to deliver; of a table what is gathered."""
    size = product(compute.extents)
    total = size * compute.out.dtype.bytes
    buffers = dict.fromkeys(n.buffer for n in walk(compute.value) if isinstance(n, Load))
    for buffer in buffers:
        loads = [n for n in walk(compute.value) if isinstance(n, Load) and n.buffer is buffer]
        gathered = any(isinstance(m, Load) for n in loads for a in n.args for m in walk(a))
        total = total + (size if gathered else product(buffer.shape)) * buffer.dtype.bytes
    return simplify(total)


def _counts(node: Expr) -> bool:
    if isinstance(node, Reduce):
        return node.dtype.is_float
    return isinstance(node, Op) and node.dtype.is_float and node.name not in _FREE


def _nodes(value: Expr) -> list[tuple[Expr, Expr]]:
    """Each node with how often one element of the output evaluates it."""
    found: list[tuple[Expr, Expr]] = []
    seen: set[Expr] = set()

    def visit(node: Expr, times: Expr) -> None:
        if node in seen:
            return
        seen.add(node)
        if isinstance(node, Reduce):
            inside = times
            for axis in node.axes:
                assert axis.extent is not None
                inside = inside * axis.extent
            found.append((node, inside))
            visit(node.body, inside)
            return
        found.append((node, times))
        for a in node.args:
            visit(a, times)

    visit(value, const(1, I32))
    return found
