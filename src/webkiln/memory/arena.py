"""One block of memory for all that lives only during a run (wasm)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from webkiln.ir.buffer import Buffer
from webkiln.memory.liveness import Lifetime
from webkiln.memory.size import align

__all__ = ["ALIGNMENT", "Arena", "pack_arena", "verify_arena"]

ALIGNMENT = 64  # a cache line: threads that write neighbouring buffers don't share one


@dataclass(frozen=True, slots=True)
class Arena:
    """Byte offsets of the buffers, and how many bytes they take together."""

    offsets: dict[Buffer, int]
    bytes: int


def pack_arena(sizes: Mapping[Buffer, int], lives: Mapping[Buffer, Lifetime]) -> Arena:
    """Offsets such that no two buffers alive at one time overlap; greedy by size, best fit.

    The largest buffer goes first; each next one takes the smallest gap between those placed that
    are alive with it, or the end (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural
    Net Inference", 2020: within a few percent of the lower bound on real networks).
    """
    order = sorted(lives, key=lambda b: (-sizes[b], lives[b].first, b.name))
    placed: list[tuple[int, int, Lifetime]] = []  # start, end, lifetime; sorted by start
    offsets: dict[Buffer, int] = {}
    for buffer in order:
        size = align(max(sizes[buffer], 1), ALIGNMENT)
        offset = _best_fit(placed, lives[buffer], size)
        offsets[buffer] = offset
        placed.append((offset, offset + size, lives[buffer]))
        placed.sort(key=lambda p: p[:2])
    return Arena(offsets, max((end for _, end, _ in placed), default=0))


def _best_fit(placed: list[tuple[int, int, Lifetime]], life: Lifetime, size: int) -> int:
    best, best_gap, free = -1, -1, 0
    for start, end, other in placed:
        if not life.overlaps(other):
            continue
        gap = start - free
        if gap >= size and (best < 0 or gap < best_gap):
            best, best_gap = free, gap
        free = max(free, end)
    return free if best < 0 else best


def verify_arena(
    arena: Arena, sizes: Mapping[Buffer, int], lives: Mapping[Buffer, Lifetime]
) -> None:
    """Raise `ValueError` that names two buffers alive at one time whose bytes overlap."""
    entries = sorted(((arena.offsets[b], sizes[b], b) for b in lives), key=lambda e: e[0])
    for k, (start, size, buffer) in enumerate(entries):
        if start % ALIGNMENT or start + size > arena.bytes:
            raise ValueError(f"{buffer.name} at {start} is misaligned or outside the arena")
        for other_start, _, other in entries[k + 1 :]:
            if other_start >= start + size:
                break
            if lives[buffer].overlaps(lives[other]):
                raise ValueError(f"{buffer.name} and {other.name} overlap while both are alive")
