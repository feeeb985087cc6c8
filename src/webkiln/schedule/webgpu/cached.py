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
from webkiln.schedule.attention import AttentionNest, attention_nest
from webkiln.schedule.nest import drop_units, nest_of, reduces
from webkiln.schedule.webgpu.attention import Update, attention_kernel, shape_of
from webkiln.targets.webgpu import MAX_STORAGE_BUFFERS

__all__ = ["Parts", "cached_attention"]


@dataclass(frozen=True, slots=True)
class Parts:
    """Attention of one query a head, and the updates in place of its keys and values."""

    attention: Compute
    key: Compute
    value: Compute


def cached_attention(parts: Parts) -> tuple[Compute, Kernel] | None:
    """One kernel that attends to the cached keys and a new one, and writes that to the cache.

    Also a computation that loads all that the kernel does. None where the new key isn't the last
    one that counts, or there are several.
    """
    found = match_attention(parts.attention.value)
    if found is None or not isinstance(found.key, Load) or not isinstance(found.value, Load):
        return None
    key = _written(parts.key, found.key, found.t)
    value = _written(parts.value, found.value, found.t)
    if key is None or value is None or key[0] is not value[0]:
        return None
    # all by the axes of one nest: the new elements travel beside the attention's value
    beside = _beside(parts.attention.value, key[1], value[1], cast(key[0], F32))
    whole = replace(parts.attention, value=beside)
    a = attention_nest(drop_units(nest_of(whole)))
    shape = None if a is None else shape_of(a)
    if a is None or shape is None:
        return None
    own, new_key, new_value, place = _apart(a.nest.value)
    at = place.args[0] if isinstance(place, Op) and place.name == "cast" else place
    a = replace(a, nest=replace(a.nest, value=own))
    update = _update(a, parts, at, new_key, new_value)
    kernel = None if update is None else attention_kernel(a, 1, shape[1], update)
    if kernel is None or len(kernel.buffers) > MAX_STORAGE_BUFFERS:
        return None
    return whole, kernel


def _beside(own: Expr, *others: Expr) -> Expr:
    for other in others:
        own = Op("max", (own, other), own.dtype)
    return own


def _apart(e: Expr) -> tuple[Expr, Expr, Expr, Expr]:
    """What `_beside` put together."""
    others = []
    for _ in range(3):
        e, other = e.args
        others.append(other)
    return (e, *reversed(others))  # type: ignore[return-value]


def _update(a: AttentionNest, parts: Parts, at: Expr, key: Expr, value: Expr) -> Update | None:
    loops = {*a.batch, a.d, *(() if a.rows is None else (a.rows,))}
    if not _is_last(a.stop, at) or free_vars(at) & loops or reduces(key) or reduces(value):
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
    return Update(at, key, (parts.key.out, key_place), value, (parts.value.out, value_place), first)


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
