"""What both printers share: canonical names, and which subexpressions deserve a temporary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Const, Expr, Op, Read, Var, walk

__all__ = ["Names", "temporaries"]


class Names:
    """Names by order of first appearance, so that equal kernels print as equal text."""

    def __init__(self) -> None:
        self._vars: dict[Var, str] = {}
        self._buffers: dict[Buffer, str] = {}

    def var(self, v: Var) -> str:
        """The name of variable `v`, given at its first appearance."""
        return self._vars.setdefault(v, f"v{len(self._vars)}")

    def buffer(self, b: Buffer) -> str:
        """The name of buffer `b`, given at its first appearance."""
        return self._buffers.setdefault(b, f"b{len(self._buffers)}")


def temporaries(roots: Iterable[Expr]) -> list[Expr]:
    """Nodes used more than once that may be computed ahead, operands first.

    A node that reads memory only under a condition must stay there: the read may be out of range.
    """
    roots = tuple(roots)
    uses: Counter[Expr] = Counter(a for node in walk(*roots) for a in node.args)
    safe = _unconditional(roots)
    found: list[Expr] = []
    for node in walk(*roots):
        if uses[node] < 2 or not isinstance(node, Op | Read) or _trivial(node):
            continue
        if all(r in safe for r in _unconditional((node,)) if isinstance(r, Read)):
            found.append(node)
    return found


def _trivial(node: Expr) -> bool:
    return (
        isinstance(node, Op)
        and all(isinstance(a, Var | Const) for a in node.args)
        and (node.dtype.is_int and node.name in ("add", "sub", "mul"))
    )


def _unconditional(roots: tuple[Expr, ...]) -> set[Expr]:
    """The nodes that evaluating `roots` always evaluates: of a select only its condition."""
    seen: set[Expr] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        lazy = isinstance(node, Op) and node.name in ("select", "and", "or")
        stack.extend(node.args[:1] if lazy else node.args)
    return seen
