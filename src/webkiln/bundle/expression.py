"""Integer expressions over dims as the plan carries them: a number, a dim's name, or [op, a, b]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from webkiln.ir.expr import Const, Dim, Expr, Op
from webkiln.ir.simplify import simplify

__all__ = ["Expression", "evaluate", "expr_to_json", "show"]

# int | str | [op, Expression, Expression]; JSON arrays have no better type
Expression: TypeAlias = int | str | list[Any]

_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "min": min,
    "max": max,
    "ceildiv": lambda a, b: -(-a // b),
}
_FROM_IR = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "floordiv": "//",
    "mod": "%",
    "min": "min",
    "max": "max",
}


def expr_to_json(e: Expr, names: Mapping[str, str] | None = None) -> Expression:
    """`e`, an integer expression over dims, simplified; `names` gives dims other names.

    Raises `ValueError` for anything that the plan can't express.
    """
    return _convert(simplify(e), names or {})


def _convert(e: Expr, names: Mapping[str, str]) -> Expression:
    if isinstance(e, Const):
        return int(e.value)
    if isinstance(e, Dim):
        return names.get(e.name, e.name)
    if isinstance(e, Op):
        if e.name == "neg":
            return ["-", 0, _convert(e.args[0], names)]
        if e.name == "floordiv" and (pair := _ceiling(*e.args)) is not None:
            return ["ceildiv", *(_convert(x, names) for x in pair)]
        if e.name in _FROM_IR:
            a, b = (_convert(x, names) for x in e.args)
            if e.name == "add" and isinstance(b, int) and b < 0:
                return ["-", a, -b]
            return [_FROM_IR[e.name], a, b]
    raise ValueError(f"a plan has no expression for {e}")


def _ceiling(numerator: Expr, divisor: Expr) -> tuple[Expr, Expr] | None:
    """(a, n) if the division is (a + n - 1) // n, as `ceildiv` writes it."""
    if not (isinstance(divisor, Const) and isinstance(numerator, Op) and numerator.name == "add"):
        return None
    for a, b in (numerator.args, numerator.args[::-1]):
        if isinstance(b, Const) and int(b.value) == int(divisor.value) - 1:
            return a, divisor
    return None


def evaluate(expression: Expression, dims: Mapping[str, int]) -> int:
    """The value of `expression`. Divisions floor."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, str):
        return dims[expression]
    name, a, b = expression
    return _OPERATIONS[name](evaluate(a, dims), evaluate(b, dims))


def show(expression: Expression) -> str:
    """The expression as a person would write it: `2 * sequence`, `ceildiv(sequence, 8)`."""
    if not isinstance(expression, list):
        return str(expression)
    name, a, b = expression
    if name.isalpha():
        return f"{name}({show(a)}, {show(b)})"
    return " ".join((_operand(a), name, _operand(b)))


def _operand(expression: Expression) -> str:
    text = show(expression)
    return f"({text})" if isinstance(expression, list) and not expression[0].isalpha() else text
