"""Kernel IR as text, for people, golden tests and `WEBKILN_DEBUG`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from webkiln.ir.buffer import Buffer
from webkiln.ir.nodes import Const, Expr, Load, Op, Read, Reduce, Var
from webkiln.ir.program import Kernel, Program
from webkiln.ir.stmt import Assign, Declare, For, If, Once, Stmt, Store

__all__ = ["expr_text", "kernel_text", "program_text"]

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


def program_text(program: Program) -> str:
    """The program, one computation a line: what it writes, over which axes, and its value."""
    lines = [f"{b.role} {b!r}" for b in (*program.inputs, *program.states, *program.constants)]
    for c in program.computes:
        axes = ", ".join(a.name for a in c.axes)
        lines.append(f"{c.out!r}{_layout_text(c.out)}  # {c.label}")
        at = "" if c.at is None else f" at [{', '.join(map(expr_text, c.at))}]"
        lines.append(f"  [{axes}]{at} = {expr_text(c.value)}")
    return "\n".join(lines)


def _layout_text(buffer: Buffer) -> str:
    """The order in memory, outermost first, where it is not the logical one: ` in (0, 2, 1)`."""
    parts = buffer.layout.parts
    if all(p.axis == i and p.divisor == 1 and p.modulus is None for i, p in enumerate(parts)):
        return ""
    shown = [
        f"{p.axis}{f'/{p.divisor}' * (p.divisor > 1)}{f'%{p.modulus}' if p.modulus else ''}"
        for p in parts
    ]
    return f" in ({', '.join(shown)})"


def kernel_text(kernel: Kernel) -> str:
    """The kernel's arguments, its parallel loops, and its statements."""
    head = [f"{access} {b!r}" for b, access in zip(kernel.buffers, kernel.access, strict=True)]
    head += [f"param {p.name}" for p in kernel.params]
    head += [f"{loop.binding} {loop.var.name} < {loop.extent!r}" for loop in kernel.loops]
    return "\n".join([*head, *_block(kernel.body, 1)])


def _block(body: Sequence[Stmt], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for s in body:
        match s:
            case Declare(var, value):
                yield f"{pad}{var.dtype} {var.name} = {value!r}"
            case Assign(var, value):
                yield f"{pad}{var.name} = {value!r}"
            case Store(buffer, offset, value, count):
                lanes = f":{value.dtype.lanes}" if value.dtype.lanes > 1 else ""
                only = "" if count is None else f" where < {count!r}"
                yield f"{pad}{buffer.name}@({offset!r}){lanes} = {value!r}{only}"
            case For(var, start, stop, inner, step):
                by = f" by {step}" if step > 1 else ""
                yield f"{pad}for {var.name} = {start!r} to {stop!r}{by}:"
                yield from _block(inner, depth + 1)
            case Once(inner):
                yield f"{pad}once:"
                yield from _block(inner, depth + 1)
            case If(condition, then, orelse):
                yield f"{pad}if {condition!r}:"
                yield from _block(then, depth + 1)
                if orelse:
                    yield f"{pad}else:"
                    yield from _block(orelse, depth + 1)
            case _:
                yield f"{pad}barrier"
