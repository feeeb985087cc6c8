"""Which computations share a dispatch on WebGPU, where dispatches are what a single row costs.

Decoding a token, a layer of a transformer is five of them: norm and projections; rotation, cache
and attention; output; norm, gate and what it lets through; down. A norm after a product is part of
the next, which stores the residual.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Const, Load, free_vars
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
Together = tuple[Compute, ...]
Group = tuple[Together, Kernel]


def kernels(program: Program, schedule: Callable[..., Kernel]) -> Iterator[Group]:
    """The program's kernels in order, each with the computations that it stands for.

    `schedule` makes the kernel of one computation, or of one and a row that it keeps for others.
    """
    computes, kept = _with_rows_inside(program)
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
    for product, row in kept.items():
        groups[product] = (product,), schedule(product, row)
    left = [members.get(c, c) for c in computes]
    rest = replace(program, computes=[c for c in left if c is not None])

    def own(compute: Compute) -> Kernel:
        return groups[compute][1] if compute in groups else schedule(compute)

    for together, kernel in grouped(rest, own):
        yield tuple(m for c in together for m in (groups[c][0] if c in groups else (c,))), kernel


def _users(computes: Iterable[Compute]) -> Users:
    users: Users = defaultdict(list)
    for c in computes:
        for buffer in c.loads:
            users[buffer].append(c)
    return users


# --- rows that their products compute themselves --------------------------------------------------


def _with_rows_inside(program: Program) -> tuple[list[Compute], dict[Compute, Compute]]:
    """The computations, norms and gates of a single row inside the products that use them.

    Where others need such a row as well, a residual after a norm say, the first product to use it
    stores it: those products, each with its row.
    """
    products = {c: match_quantised(c) for c in program.computes}
    if not any(p is not None and not p.rows for p in products.values()):
        return list(program.computes), {}
    work = _Rows(_users(program.computes), {c: c for c in program.computes})
    for compute in program.computes:
        work.move(compute)
    left = {original: c for original, c in work.now.items() if c is not None}
    return list(left.values()), {left[original]: row for original, row in work.kept.items()}


@dataclass
class _Rows:
    """`now` is what became of each computation, in order; None: it is inside of others alone.

    `kept` are the products that store a row which they compute inside.
    """

    users: Users
    now: dict[Compute, Compute | None]
    kept: dict[Compute, Compute] = field(default_factory=dict)

    def move(self, original: Compute) -> None:
        """`original` into those that use it, where that can be."""
        row, own = self.now[original], self._left(self.users[original.out])
        if row is None or not own or row.out.role != "temporary" or row.at is not None:
            return
        if original in self.kept or len(own) < len(self.users[original.out]):
            return
        merged = self._first(row, own) or self._all(row, own)
        if not merged:
            return
        self.now |= merged
        self.now[original] = None
        for buffer in row.loads:
            others = {u for u in self.users[buffer] if u is not original} | merged.keys()
            self.users[buffer] = [c for c in self.now if c in others]

    def _left(self, those: list[Compute]) -> dict[Compute, Compute]:
        return {c: now for c in those if (now := self.now[c]) is not None}

    def _first(self, row: Compute, own: dict[Compute, Compute]) -> dict[Compute, Compute]:
        """The first of several users, if it can keep the row for the others."""
        original, product = next(iter(own.items()))
        if len(own) == 1 or original in self.kept or match_quantised(row) is not None:
            return {}
        merged = _inside(row, product, 1, row)
        if merged is None:
            return {}
        self.kept[original] = row
        return {original: merged}

    def _all(self, row: Compute, own: dict[Compute, Compute]) -> dict[Compute, Compute]:
        """The users, if each of them can compute the row."""
        merged: dict[Compute, Compute] = {}
        for original, user in own.items():
            found = _inside(row, user, len(own), self.kept.get(original))
            if found is None:
                return {}
            merged[original] = found
        return merged


def _inside(producer: Compute, user: Compute, count: int, kept: Compute | None) -> Compute | None:
    """`user`, a product with one row, computing `producer` itself; None where it had better not.

    It does so with what makes the row, apart from reductions of the whole of it; or another
    product with the same row, of which it is the only user of `count`. It stores row `kept`.
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
    return merged if has_one_row(merged, kept) else None


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
    inside = _used_by(computes, users, {compute, key, value})
    plain = tuple(c for c in inside if not reduces(c.value))
    for own in dict.fromkeys((inside, plain, ())):
        made = cached_attention(Parts(compute, key, value, own))
        if made is not None:
            whole, kernel = made
            return whole, ((*reversed(own), key, value, compute), kernel)
    return None


def _used_by(computes: list[Compute], users: Users, those: set[Compute]) -> Together:
    """What only `those` use, users first: elements with nothing but sums over their row."""
    found: dict[Compute, None] = {}
    for c in reversed(computes):
        own = c.out.role == "temporary" and c.at is None and c not in those and c.out in users
        if not own or not all(u in those or u in found for u in users[c.out]):
            continue
        if not any({*c.axes[-1:]} & free_vars(r) for r in reduces(c.value)):
            found[c] = None
    return tuple(found)
