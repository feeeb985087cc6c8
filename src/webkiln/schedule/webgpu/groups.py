"""Which computations share a dispatch on WebGPU, where dispatches are what a single row costs.

Decoding a token, a layer of a transformer is five of them: norm and projections; rotation, cache
and attention; output; norm, gate and what it lets through; down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Const, Load, free_vars, walk
from webkiln.ir.program import Compute, Kernel, Program
from webkiln.lower.attention import match_attention
from webkiln.lower.fuse import inline
from webkiln.schedule.nest import reduces
from webkiln.schedule.quantised import match_quantised
from webkiln.schedule.webgpu.cached import Parts, cached_attention
from webkiln.schedule.webgpu.quantised import has_one_row
from webkiln.schedule.webgpu.sequence import grouped

__all__ = ["kernels"]

Users = dict[Buffer, list[Compute]]
Group = tuple[tuple[Compute, ...], Kernel]


def kernels(program: Program, schedule: Callable[[Compute], Kernel]) -> Iterator[Group]:
    """The program's kernels in order, each with the computations that it stands for.

    `schedule` makes the kernel of one computation.
    """
    computes = _with_rows_inside(program)
    users = _users(computes)
    groups: dict[Compute, Group] = {}
    members: dict[Compute, Compute] = {}
    for compute in computes:
        found = _cache_group(compute, computes, users)
        if found is not None:
            whole, group = found
            groups[whole] = group
            members.update(dict.fromkeys(group[0]))  # type: ignore[arg-type]
            members[compute] = whole
    left = [members.get(c, c) for c in computes]
    rest = replace(program, computes=[c for c in left if c is not None])

    def own(compute: Compute) -> Kernel:
        return groups[compute][1] if compute in groups else schedule(compute)

    for together, kernel in grouped(rest, own):
        yield tuple(m for c in together for m in (groups[c][0] if c in groups else (c,))), kernel


def _loads(compute: Compute) -> dict[Buffer, None]:
    return dict.fromkeys(n.buffer for n in walk(*compute.roots) if isinstance(n, Load))


def _users(computes: Iterable[Compute]) -> Users:
    users: Users = defaultdict(list)
    for c in computes:
        for buffer in _loads(c):
            users[buffer].append(c)
    return users


# --- rows that their products compute themselves --------------------------------------------------


def _with_rows_inside(program: Program) -> list[Compute]:
    """The computations, norms and gates of a single row inside the products that use them."""
    products = {c: match_quantised(c) for c in program.computes}
    if not any(p is not None and not p.rows for p in products.values()):
        return list(program.computes)
    users = _users(program.computes)
    now: dict[Compute, Compute | None] = {c: c for c in program.computes}  # None: inside others
    for original in program.computes:
        producer = now[original]
        if producer is None or original.out.role != "temporary" or original.at is not None:
            continue
        own = [(u, now[u]) for u in users[original.out]]
        merged = [(u, _inside(producer, c, len(own))) for u, c in own if c is not None]
        if not own or any(m is None for _, m in merged) or len(merged) < len(own):
            continue
        now |= dict(merged)
        now[original] = None
        for buffer in _loads(producer):
            users[buffer] = list(
                dict.fromkeys([u for u in users[buffer] if u is not original] + [u for u, _ in own])
            )
    return [c for c in now.values() if c is not None]


def _inside(producer: Compute, user: Compute, count: int) -> Compute | None:
    """`user`, a product with one row, computing `producer` itself; None where it had better not.

    It does so with what makes the row, apart from reductions of the whole of it; or another
    product with the same row, of which it is the only user of `count`.
    """
    product = match_quantised(user)
    if product is None or product.rows or user.at is not None:
        return None
    gate = match_quantised(producer)
    if gate is None and not _is_row(producer):
        return None
    if gate is not None and (count > 1 or gate.a.value is not product.a.value):
        return None
    merged = inline(producer, user)
    return merged if has_one_row(merged) else None


def _is_row(compute: Compute) -> bool:
    """A row whose elements need nothing but their own place and reductions of the whole row."""
    used = {v for r in reduces(compute.value) for v in free_vars(r)}
    return all(isinstance(v.extent, Const) and v.extent.value == 1 for v in used)


# --- attention with what it appends to its cache --------------------------------------------------


def _cache_group(
    compute: Compute, computes: list[Compute], users: Users
) -> tuple[Compute, Group] | None:
    """Attention for one token, with the updates of its caches and the query's rotation.

    Also all of that as one computation, for its place among the others.
    """
    found = match_attention(compute.value)
    if found is None or not isinstance(found.key, Load) or not isinstance(found.value, Load):
        return None
    caches = found.key.buffer, found.value.buffer
    updates = [next((c for c in computes if c.out is b and c.at is not None), None) for b in caches]
    key, value = updates
    if key is None or value is None or key is value:
        return None
    if any(users[b] != [compute] for b in caches):
        return None
    loaded = _loads(compute)
    queries = [
        c
        for c in computes
        if c.out in loaded
        and c not in (key, value)
        and c.out.role == "temporary"
        and users[c.out] == [compute]
        and not reduces(c.value)
    ]
    for inside in (queries, []):
        merged = compute
        for query in inside:
            merged = inline(query, merged)
        made = cached_attention(Parts(merged, key, value))
        if made is not None:
            whole, kernel = made
            return whole, ((*inside, key, value, compute), kernel)
    return None
