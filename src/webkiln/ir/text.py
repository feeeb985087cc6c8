"""Kernel IR as text, for people, golden tests and `WEBKILN_DEBUG`."""

from __future__ import annotations

from webkiln.ir.expr import Const, Expr, Load, Op, Read, Reduce, Var

__all__ = ["expr_text"]

_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floordiv": "//",
    "mod": "%",
    "lt": "<",
    "le": "<=",
    "eq": "==",
    "ne": "!=",
    "and": "and",
    "or": "or",
}


def expr_text(e: Expr) -> str:
    """One line; operands in parentheses unless they are names, literals or calls."""
    if isinstance(e, Const):
        return repr(e.value)
    if isinstance(e, Var):
        return e.name
    if isinstance(e, Load):
        return f"{e.buffer.name}[{', '.join(map(expr_text, e.args))}]"
    if isinstance(e, Read):
        lanes = f":{e.dtype.lanes}" if e.dtype.lanes > 1 else ""
        return f"{e.buffer.name}@({expr_text(e.args[0])}){lanes}"
    if isinstance(e, Reduce):
        axes = ", ".join(f"{a.name} < {a.extent!r}" for a in e.axes)
        return f"{e.kind}({axes}: {expr_text(e.body)})"
    assert isinstance(e, Op)
    if e.name in _INFIX:
        left, right = (_operand(a) for a in e.args)
        return f"{left} {_INFIX[e.name]} {right}"
    name = e.dtype.name if e.name == "cast" else e.name
    return f"{name}({', '.join(map(expr_text, e.args))})"


def _operand(e: Expr) -> str:
    text = expr_text(e)
    return f"({text})" if isinstance(e, Op) and e.name in _INFIX else text
