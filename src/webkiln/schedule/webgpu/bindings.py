"""Which buffers of a kernel share a binding, of which every adapter has but eight.

Constants lie in one weight space (docs/decisions/003). Where a kernel has more buffers than
bindings, the smallest constants of a type are laid side by side there, and bound as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace

from webkiln.ir.buffer import Buffer, side_by_side
from webkiln.ir.dtypes import DType
from webkiln.ir.expr import Const, Expr, Read, transform
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.simplify import simplify
from webkiln.schedule.kernel import map_expressions
from webkiln.targets.webgpu import MAX_BINDING_BYTES, MAX_STORAGE_BUFFERS

__all__ = ["can_bind", "within_bindings"]


def can_bind(buffers: Collection[Buffer]) -> bool:
    """Whether a kernel may have these buffers."""
    return _shared(buffers) is not None


def within_bindings(kernel: Kernel) -> Kernel | None:
    """`kernel` with at most eight buffers, constants side by side if need be; None: it has more."""
    found = _shared(kernel.buffers)
    if not found:
        return None if found is None else kernel
    wholes = [side_by_side(members) for members in found]
    places = {m: (whole, start) for whole in wholes for m, start in whole.starts.items()}

    def visit(node: Expr) -> Expr | None:
        if not (isinstance(node, Read) and node.buffer in places):
            return None
        whole, start = places[node.buffer]
        return Read(whole, simplify(node.args[0] + start), node.dtype.lanes)

    def moved(e: Expr) -> Expr:
        return transform(e, visit)

    def placed(kernel: Kernel) -> Kernel:
        access = dict(zip(kernel.buffers, kernel.access, strict=True))
        bound = dict.fromkeys(places[b][0] if b in places else b for b in kernel.buffers)
        return replace(
            kernel,
            buffers=tuple(bound),
            access=tuple(access.get(b, "read") for b in bound),
            loops=tuple(Loop(v.var, moved(v.extent), v.binding) for v in kernel.loops),
            body=map_expressions(kernel.body, moved),
            half=None if kernel.half is None else placed(kernel.half),
        )

    return placed(kernel)


def _shared(buffers: Collection[Buffer]) -> list[tuple[Buffer, ...]] | None:
    """The constants that share a binding, for each type: as few and as small ones as will do.

    None where that is not enough.
    """
    single: dict[DType, list[Buffer]] = defaultdict(list)
    for b in buffers:
        if b.role == "constant" and isinstance(b.size, Const):
            single[b.dtype].append(b)
    for alike in single.values():
        alike.sort(key=_bytes, reverse=True)
    shared: dict[DType, list[Buffer]] = defaultdict(list)
    for _ in range(len(buffers) - MAX_STORAGE_BUFFERS):
        more = {dtype: alike[-1 if shared[dtype] else -2 :] for dtype, alike in single.items()}
        possible = [
            dtype
            for dtype, added in more.items()
            if len(shared[dtype]) + len(added) > 1
            and added
            and _bytes(*shared[dtype], *added) <= MAX_BINDING_BYTES
        ]
        if not possible:
            return None
        dtype = min(possible, key=lambda dtype: _bytes(*more[dtype]))
        shared[dtype] += reversed(more[dtype])
        del single[dtype][-len(more[dtype]) :]
    return [tuple(members) for members in shared.values() if members]


def _bytes(*members: Buffer) -> int:
    return sum(int(b.size.value) * b.dtype.bytes for b in members if isinstance(b.size, Const))
