"""How large a buffer gets: shape expressions evaluated exactly at the bounds of their dims."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Const, Dim, Expr, Op, walk

__all__ = ["align", "bytes_at", "evaluate"]

_OPERATIONS: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "neg": lambda a: -a,
    "lt": lambda a, b: int(a < b),
    "le": lambda a, b: int(a <= b),
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
    "and": lambda a, b: int(bool(a and b)),
    "or": lambda a, b: int(bool(a or b)),
    "not": lambda a: int(not a),
    "select": lambda c, a, b: a if c else b,
}


def evaluate(e: Expr, dims: Mapping[str, int]) -> int:
    """The integer expression `e` over dims, in exact arithmetic (a size may pass 2³¹, a cost will).

    Raises `KeyError` for a dim without a value, `ValueError` for what no shape consists of.
    """
    done: dict[Expr, int] = {}
    for node in walk(e):
        if isinstance(node, Const):
            done[node] = int(node.value)
        elif isinstance(node, Dim):
            done[node] = dims[node.name]
        elif isinstance(node, Op) and node.name in _OPERATIONS:
            done[node] = _OPERATIONS[node.name](*(done[a] for a in node.args))
        else:
            raise ValueError(f"{node} is no part of a size")
    return done[e]


def bytes_at(buffer: Buffer, dims: Mapping[str, int]) -> int:
    """Bytes of `buffer` for these dims, padding of its layout included."""
    return evaluate(buffer.size, dims) * buffer.dtype.bytes


def align(size: int, to: int) -> int:
    """`size` rounded up to a multiple of `to`."""
    return -(-size // to) * to
