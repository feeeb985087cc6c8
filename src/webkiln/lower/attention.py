"""Recognising attention in an expression, and keys laid out for it.

The definition (`ops/attention.py`) says Σₜ exp(sₜ - max s)·vₜ / Σₜ exp(sₜ - max s). What of that is
the product of a query and a key, the score made of it, the condition, the value: a layout and the
schedules need them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from webkiln.ir.buffer import Buffer, Layout, Part
from webkiln.ir.dtypes import BOOL, I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Load,
    Op,
    Read,
    Reduce,
    Var,
    const,
    convert,
    free_vars,
    substitute,
    transform,
    walk,
)
from webkiln.ir.program import Compute, Program
from webkiln.ir.simplify import simplify

__all__ = ["KEY_PANEL", "Attention", "key_states", "match_attention", "pack_keys"]

KEY_PANEL = 8  # keys side by side: two 128-bit vectors of scores on wasm, as PANEL of columns


@dataclass(frozen=True, slots=True)
class Attention:
    """Parts of an expression over `mixed` (Σ weight·value) and `total` (Σ weight)."""

    mixed: Reduce
    total: Reduce
    t: Var
    score: Expr  # over `dot`
    dot: Reduce  # Σ query·key over its axes
    query: Expr
    key: Load | Read
    allowed: Expr  # the condition on t
    value: Expr


def match_attention(e: Expr) -> Attention | None:
    """The attention that `e` is made of; None where it is none."""
    outer = _outer_reduces(e)
    if len(outer) != 2 or any(r.kind != "sum" or len(r.axes) != 1 for r in outer):
        return None
    total, mixed = sorted(outer, key=lambda r: isinstance(r.body, Op) and r.body.name == "mul")
    if not (isinstance(mixed.body, Op) and mixed.body.name == "mul"):
        return None
    weight, value = mixed.body.args
    here = substitute(total.body, {total.axes[0]: mixed.axes[0]})
    if here is not weight or _has_reduce(value):
        return None
    allowed: Expr = const(True, BOOL)
    if isinstance(weight, Op) and weight.name == "select":
        allowed, weight = weight.args[0], weight.args[1]
    if not (isinstance(weight, Op) and weight.name == "exp"):
        return None
    difference = weight.args[0]
    if not (isinstance(difference, Op) and difference.name == "sub"):
        return None
    t = mixed.axes[0]
    score, lowest = difference.args
    if t in free_vars(lowest) or not _is_largest(lowest):
        return None
    return _with_product(mixed, total, t, score, allowed, value)


def _with_product(
    mixed: Reduce, total: Reduce, t: Var, score: Expr, allowed: Expr, value: Expr
) -> Attention | None:
    dots = [n for n in walk(score) if isinstance(n, Reduce)]
    if len(dots) != 1 or dots[0].kind != "sum" or len(dots[0].axes) != 1:
        return None
    body = dots[0].body
    if not (isinstance(body, Op) and body.name == "mul"):
        return None
    for query, key in (body.args, body.args[::-1]):
        if t not in free_vars(query) and isinstance(key, Load | Read) and t in free_vars(key):
            return Attention(mixed, total, t, score, dots[0], query, key, allowed, value)
    return None


def _is_largest(e: Expr) -> bool:
    """max(the largest score, the least float)."""
    parts = e.args if isinstance(e, Op) and e.name == "max" else ()
    return any(isinstance(p, Reduce) and p.kind == "max" for p in parts)


def _has_reduce(e: Expr) -> bool:
    return any(isinstance(n, Reduce) for n in walk(e))


def _outer_reduces(e: Expr) -> list[Reduce]:
    """The reductions of `e` that are inside no other."""
    found: dict[Reduce, None] = {}
    stack, seen = [e], set[Expr]()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Reduce):
            found[node] = None
        else:
            stack.extend(node.args)
    return list(found)


# --- layouts --------------------------------------------------------------------------------------


def _panels(rank: int, t: int, depth: int) -> Layout | None:
    """[…][t / panel][depth][t % panel], where depth is the axis after t."""
    if depth != rank - 1 or t != rank - 2:
        return None
    rest = tuple(Part(a) for a in range(rank - 2))
    return Layout((*rest, Part(t, KEY_PANEL), Part(depth), Part(t, 1, KEY_PANEL)))


def key_states(program: Program, known: dict[Buffer, Buffer]) -> Program:
    """The program with every cache of keys in panels, so that vectors run along the keys.

    `known` says what each state of an earlier program of the same model became; it is extended.
    """
    for compute in program.computes:
        found = match_attention(compute.value)
        if found is None or not isinstance(found.key, Load):
            continue
        buffer, index = found.key.buffer, found.key.args
        depth = found.dot.axes[0]
        if buffer.role == "state" and buffer not in known and {found.t, depth} <= set(index):
            layout = _panels(len(index), index.index(found.t), index.index(depth))
            if layout is not None:
                known[buffer] = replace(buffer, layout=layout)
    for buffer in program.states:
        known.setdefault(buffer, buffer)
    renamed = {b: new for b, new in known.items() if new is not b}
    return _with_buffers(program, renamed) if renamed else program


def _with_buffers(program: Program, renamed: dict[Buffer, Buffer]) -> Program:
    computes = [c.on(renamed) for c in program.computes]
    states = tuple(renamed.get(b, b) for b in program.states)
    return replace(program, computes=computes, states=states)


def pack_keys(compute: Compute, name: str) -> tuple[Compute, Compute] | None:
    """A copy of the keys in panels, and `compute` reading that; None where that can't be or is."""
    found = match_attention(compute.value)
    if found is None or not isinstance(found.key, Load) or found.key.buffer.role == "state":
        return None
    t, depth = found.t, found.dot.axes[0]
    outer = _outer_axes(found.key, compute)
    if t.extent is None or depth.extent is None:
        return None
    extents = [*(v.extent for v in outer.values()), t.extent, depth.extent]
    shape = tuple(e for e in extents if e is not None)
    layout = _panels(len(shape), len(shape) - 2, len(shape) - 1)
    assert layout is not None
    copy = Buffer(f"{name}_keys", found.key.dtype, shape, layout=layout)
    axes = tuple(Var(f"{name}_{i}", e) for i, e in enumerate(shape))
    source = substitute(found.key, dict(zip([*outer, t, depth], axes, strict=True)))
    packed = Compute(copy, axes, simplify(source), f"pack for {compute.label}")
    keys = found.key

    def visit(node: Expr) -> Expr | None:
        """The keys at whatever key axis each of the reductions has."""
        if not (isinstance(node, Load) and node.buffer is keys.buffer):
            return None
        place = _same_place(keys, node, t)
        return None if place is None else Load(copy, (*outer, place, depth))

    return packed, replace(compute, value=simplify(transform(compute.value, visit)))


def _same_place(keys: Load, other: Load, t: Var) -> Expr | None:
    """The key axis of `other`, where it is `keys` but for that."""
    if other is keys:
        return t
    for v in (n for n in walk(other) if isinstance(n, Var)):
        if substitute(keys, {t: v}) is other:
            return v
    return None


def _outer_axes(keys: Load, compute: Compute) -> dict[Expr, Var]:
    """What tells one set of keys from another: an axis, or a fixed part `h // c` of one."""
    found: dict[Expr, Var] = {}
    nodes = [n for i in keys.args for n in walk(i)]
    for axis in compute.axes:
        if axis not in nodes:
            continue
        users = [n for n in nodes if axis in n.args]
        first = users[0] if users else None
        shared = (
            first is not None
            and all(u is first for u in users)
            and axis not in keys.args
            and isinstance(first, Op)
            and first.name == "floordiv"
            and isinstance(first.args[1], Const)
        )
        if shared and first is not None:
            extent = simplify(convert(axis.extent or 1, I32) // first.args[1])
            found[first] = Var(f"{axis.name}_of", extent)
        else:
            found[axis] = axis
    return found
