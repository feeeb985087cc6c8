"""A Kernel from scheduled statements: its arguments read off what they mention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Dim, Expr, Read, Var, walk
from webkiln.ir.program import Access, Kernel, Loop
from webkiln.ir.stmt import Assign, Declare, For, If, Once, Stmt, Store
from webkiln.schedule.nest import Nest

__all__ = ["expressions", "make_kernel", "map_expressions", "statements"]


def statements(body: Sequence[Stmt]) -> Iterator[Stmt]:
    """Every statement of `body`, those inside loops and conditions too."""
    for s in body:
        yield s
        if isinstance(s, For | If | Once):
            yield from statements(s.body)
        if isinstance(s, If):
            yield from statements(s.orelse)


def expressions(s: Stmt) -> tuple[Expr, ...]:
    """The expressions that `s` itself evaluates."""
    match s:
        case Declare(_, value) | Assign(_, value):
            return (value,)
        case Store(_, offset, value, count):
            return (offset, value) if count is None else (offset, value, count)
        case For(_, start, stop):
            return start, stop
        case If(condition):
            return (condition,)
        case _:
            return ()


def map_expressions(body: Sequence[Stmt], f: Callable[[Expr], Expr]) -> tuple[Stmt, ...]:
    """`body` with `f` applied to every expression that its statements evaluate."""
    out: list[Stmt] = []
    for s in body:
        match s:
            case Declare(var, value):
                out.append(Declare(var, f(value)))
            case Assign(var, value):
                out.append(Assign(var, f(value)))
            case Store(buffer, offset, value, count):
                out.append(Store(buffer, f(offset), f(value), count))
            case For(_, start, stop):
                inner = map_expressions(s.body, f)
                out.append(replace(s, start=f(start), stop=f(stop), body=inner))
            case Once():
                out.append(replace(s, body=map_expressions(s.body, f)))
            case If(condition, inner, orelse):
                parts = map_expressions(inner, f), map_expressions(orelse, f)
                out.append(If(f(condition), *parts))
            case _:
                out.append(s)
    return tuple(out)


def make_kernel(kind: str, nest: Nest, loops: Sequence[Loop], body: Sequence[Stmt]) -> Kernel:
    """The kernel that runs `body` for all `loops`; buffers by first use, the output last."""
    roots = [e for s in statements(body) for e in expressions(s)]
    roots += [loop.extent for loop in loops]
    nodes = list(walk(*roots))
    inputs = dict.fromkeys(
        n.buffer for n in nodes if isinstance(n, Read) and n.buffer.role != "workgroup"
    )
    outputs = dict.fromkeys(
        s.buffer for s in statements(body) if isinstance(s, Store) and s.buffer.role != "workgroup"
    )
    only_read = tuple(b for b in inputs if b not in outputs)
    buffers: tuple[Buffer, ...] = (*only_read, *outputs)
    access: tuple[Access, ...] = tuple(
        "read" if b not in outputs else "read_write" if b in inputs else "write" for b in buffers
    )
    params: list[Var] = sorted({n for n in nodes if isinstance(n, Dim)}, key=lambda v: v.name)
    return Kernel("", kind, buffers, access, tuple(params), tuple(loops), tuple(body))
