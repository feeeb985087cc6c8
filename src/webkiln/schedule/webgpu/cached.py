"""Attention of one token on WebGPU, in one kernel with what it appends to its cache.

The new key and value are computed by every workgroup that needs them, into its own memory, and
written to the cache by the first of them: none waits for another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from webkiln.ir.dtypes import BOOL, F32, I32
from webkiln.ir.expr import (
    Expr,
    Load,
    Op,
    Read,
    Var,
    cast,
    compare,
    const,
    free_vars,
    logical_and,
    substitute,
)
from webkiln.ir.program import Compute, Kernel
from webkiln.ir.simplify import simplify
from webkiln.lower.attention import match_attention
from webkiln.lower.fuse import inline
from webkiln.schedule.attention import AttentionNest, attention_of, simplest
from webkiln.schedule.nest import drop_units, nest_of, reduces
from webkiln.schedule.webgpu.attention import Update, attention_kernel, shape_of
from webkiln.schedule.webgpu.bindings import within_bindings
from webkiln.targets.webgpu import MAX_WORKGROUP_BYTES, workgroup_bytes

__all__ = ["Parts", "cached_attention"]


@dataclass(frozen=True, slots=True)
class Parts:
    """Attention of one query a head, and the updates in place of its keys and values.

    `inside` are computations that nothing but these uses (norms, rotations), users first.
    """

    attention: Compute
    key: Compute
    value: Compute
    inside: tuple[Compute, ...] = ()


def cached_attention(parts: Parts) -> tuple[Compute, Kernel] | None:
    """One kernel that attends to the cached keys and a new one, and writes that to the cache.

    Also a computation that loads all that the kernel does. None where the new key isn't the last
    one that counts, or there are several.
    """
    attention = parts.attention
    for compute in parts.inside:
        if not reduces(compute.value):
            attention = inline(compute, attention)
    found = match_attention(attention.value)
    if found is None or not isinstance(found.key, Load) or not isinstance(found.value, Load):
        return None
    query = replace(attention, value=found.query)
    key, value = parts.key, parts.value
    for compute in parts.inside:
        query, key, value = (inline(compute, c) for c in (query, key, value))
    new_key, new_value = _written(key, found.key, found.t), _written(value, found.value, found.t)
    if new_key is None or new_value is None or new_key[0] is not new_value[0]:
        return None
    # all by the axes of one nest: the new elements travel beside the attention's value
    new = (query.value, new_key[1], new_value[1], cast(new_key[0], F32))
    whole = replace(attention, value=_beside(attention.value, *new))
    nest = simplest(drop_units(nest_of(whole)))
    own, *others = _apart(nest.value)
    a = attention_of(replace(nest, value=own))
    shape = None if a is None else shape_of(a)
    if a is None or shape is None:
        return None
    update = _update(a, parts, *others)
    kernel = None if update is None else attention_kernel(a, 1, shape[1], update)
    if kernel is None or workgroup_bytes(kernel) > MAX_WORKGROUP_BYTES:
        return None
    if any(c.out in kernel.buffers for c in parts.inside):  # used in more ways than these
        return None
    kernel = within_bindings(kernel)
    return None if kernel is None else (whole, kernel)


def _beside(own: Expr, *others: Expr) -> Expr:
    for other in others:
        own = Op("max", (own, other), own.dtype)
    return own


def _apart(e: Expr) -> tuple[Expr, ...]:
    """What `_beside` put together."""
    others = []
    for _ in range(4):
        e, other = e.args
        others.append(other)
    return (e, *reversed(others))


def _update(
    a: AttentionNest, parts: Parts, query: Expr, key: Expr, value: Expr, place: Expr
) -> Update | None:
    at = place.args[0] if isinstance(place, Op) and place.name == "cast" else place
    loops = {*a.batch, a.d, *(() if a.rows is None else (a.rows,))}
    if not _is_last(a.stop, at) or free_vars(at) & loops or {a.d, a.t} & free_vars(query):
        return None
    along = ((query, a.k), (key, a.k), (value, a.d))
    if any(v in free_vars(r) for e, v in along for r in reduces(e)):
        return None
    first: Expr = const(True, BOOL)
    for v in loops - {a.d}:
        if v not in free_vars(a.parts.key):
            first = logical_and(first, compare("eq", v, 0))
    assert isinstance(a.parts.key, Read)
    if not isinstance(a.parts.value, Read):
        return None
    key_place, value_place = (
        simplify(substitute(r.args[0], {a.t: at})) for r in (a.parts.key, a.parts.value)
    )
    written = (parts.key.out, key_place), (parts.value.out, value_place)
    return Update(at, query, key, written[0], value, written[1], first)


def _written(update: Compute, load: Load, t: Var) -> tuple[Expr, Expr] | None:
    """(which t, the value) that `update` gives to what `load` reads; None if not just one."""
    assert update.at is not None
    axis = load.args.index(t) if t in load.args else -1
    one, zero = const(1, I32), const(0, I32)
    if axis < 0 or update.axes[axis].extent is not one:
        return None
    at: dict[Var, Expr] = {update.axes[axis]: zero}
    for i, (index, own) in enumerate(zip(load.args, update.at, strict=True)):
        if i == axis:
            continue
        unit = update.axes[i].extent is one
        if own is not update.axes[i] and not (unit and own is zero):
            return None
        at[update.axes[i]] = zero if unit else index
    return simplify(substitute(update.at[axis], at)), simplify(substitute(update.value, at))


def _is_last(stop: Expr, at: Expr) -> bool:
    """Whether keys count up to and with number `at`, which is one of the cache's."""
    ends = stop.args if isinstance(stop, Op) and stop.name == "min" else (stop,)
    return any(simplify(e - at) is const(1, I32) for e in ends)
