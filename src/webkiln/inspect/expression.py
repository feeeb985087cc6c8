"""Expressions over dims, as plans carry them: a number, a dim's name, or [op, a, b]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from webkiln.errors import InvalidModelError

__all__ = ["Expression", "evaluate", "show"]

Expression = int | float | str | Sequence["Expression"]

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


def evaluate(expression: Expression, dims: Mapping[str, int]) -> int:
    """The value of `expression` at `dims`; raises `InvalidModelError` for a broken one."""
    if isinstance(expression, int | float):
        return int(expression)
    if isinstance(expression, str):
        if expression not in dims:
            raise InvalidModelError(
                f"the plan uses a dimension {expression!r} that it does not declare"
            )
        return dims[expression]
    try:
        name, left, right = expression
        operation = _OPERATIONS[str(name)]
    except (KeyError, ValueError) as error:
        raise InvalidModelError(f"the plan has a broken expression: {expression!r}") from error
    return operation(evaluate(left, dims), evaluate(right, dims))


def show(expression: Expression) -> str:
    """The expression as a person writes it: `ceildiv(sequence, 64)`, `2 * sequence`."""
    text = _show(expression)
    return text[1:-1] if text.startswith("(") else text


def _show(expression: Expression) -> str:
    if isinstance(expression, int | float | str):
        return str(expression)
    name, left, right = (part for part in expression)
    if str(name) in {"min", "max", "ceildiv"}:
        return f"{name}({show(left)}, {show(right)})"
    return f"({_show(left)} {name} {_show(right)})"
