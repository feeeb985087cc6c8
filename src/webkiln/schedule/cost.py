"""What a computation costs: float operations and bytes moved, expressions over the dims."""

from __future__ import annotations

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Expr, Load, Op, Reduce, Var, const, walk
from webkiln.ir.program import Compute
from webkiln.ir.simplify import simplify
from webkiln.lower.quantised import block_weight
from webkiln.schedule.nest import extent_of, product

__all__ = ["bytes_moved", "flops"]

_FREE = frozenset({"cast", "bitcast", "select", "splat"})


def flops(compute: Compute) -> Expr:
    """Arithmetic on floats, a multiply and an add counted as two; a function as one.

    What does not depend on an axis is counted once for all of it, as schedules compute it; a
    quantised weight is read, not computed.
    """
    extents = dict(zip(compute.axes, compute.extents, strict=True))
    free = _free_variables(compute.value)
    total: Expr = const(0, I32)
    stack, seen = [compute.value], set[Expr]()
    while stack:
        node = stack.pop()
        if node in seen or block_weight(node) is not None:
            continue
        seen.add(node)
        variables = free[node]
        if isinstance(node, Reduce):
            extents.update((v, extent_of(v)) for v in node.axes)
            variables = variables | frozenset(node.axes)
        if _counts(node):
            total = total + product([e for v, e in extents.items() if v in variables])
        stack.extend(node.args)
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


def _free_variables(value: Expr) -> dict[Expr, frozenset[Var]]:
    """The variables of each node below `value` that no Reduce inside it binds."""
    found: dict[Expr, frozenset[Var]] = {}
    for node in walk(value):
        inner = frozenset[Var]().union(*(found[a] for a in node.args))
        if isinstance(node, Var):
            inner = frozenset((node,))
        found[node] = inner - frozenset(node.axes) if isinstance(node, Reduce) else inner
    return found
