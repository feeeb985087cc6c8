"""Scalar functions written out in what every target has: arithmetic, select, bit operations.

The C target has no math library, and WGSL's built-ins may be off by thousands of units in the last
place (WGSL specification, "Accuracy of Concrete Floating Point Expressions"). So a target names the
functions that it lacks or distrusts, and `expand` replaces them by those of functions.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from webkiln.ir.dtypes import F16, F32, DType
from webkiln.ir.expr import Const, Expr, Op, Var, call, cast, const, substitute, transform
from webkiln.targets.functions import FLOAT, INTEGER

__all__ = ["EXPANDED", "expand"]

#: every function that has a composition
EXPANDED: Final = frozenset(FLOAT) | {"half"}


def expand(e: Expr, names: frozenset[str]) -> Expr:
    """`e` with every function in `names` (a subset of `EXPANDED`) written out in simpler ones.

    What a composition uses is expanded in turn, if named. float16 is computed in float32.
    """

    def visit(node: Expr) -> Expr | None:
        if not isinstance(node, Op) or node.name not in names:
            return None
        if node.name == "pow" and isinstance(node.args[1], Const):
            power = _constant_power(node.args[0], node.args[1].value)
            if power is not None:
                return expand(power, names)
        if node.args[0].dtype.kind != "f" and node.name not in INTEGER:
            return None
        slots, body = _template(node.name, tuple(a.dtype for a in node.args), names)
        return substitute(body, dict(zip(slots, node.args, strict=True)))

    return transform(e, visit)


@lru_cache(maxsize=1024)
def _template(
    name: str, dtypes: tuple[DType, ...], names: frozenset[str]
) -> tuple[tuple[Var, ...], Expr]:
    """The composition for `name`, expanded once, over placeholders for its operands."""
    slots = tuple(Var(f"operand{i}", None, t) for i, t in enumerate(dtypes))
    wide = F32.vector(dtypes[0].lanes)
    half = dtypes[0].scalar == F16
    rule = INTEGER[name] if dtypes[0].is_int else FLOAT[name]
    body = rule(*(cast(s, wide) for s in slots) if half else slots)
    if half and body.dtype == wide:
        body = cast(body, dtypes[0])
    return slots, expand(body, names)


def _constant_power(x: Expr, y: float) -> Expr | None:
    """Small integer powers by squaring, ±½ by roots; None for the others."""
    if x.dtype.is_float and y in (0.5, -0.5):
        return call("sqrt" if y > 0 else "rsqrt", x)
    if y != int(y) or abs(y) > 16 or (y < 0 and x.dtype.is_int):
        return None
    power: Expr | None = None
    square, n = x, abs(int(y))
    while n:
        if n & 1:
            power = square if power is None else power * square
        square, n = square * square, n >> 1
    if power is None:
        return const(1, x.dtype)
    return power if y > 0 else 1.0 / power
