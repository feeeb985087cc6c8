"""GPU buffers for the model's buffers (webgpu): few, reused over time, within the adapter's limits.

WebGPU forbids to bind one GPUBuffer as read-only and as writable in the same dispatch. Buffers that
share a slot are never alive at the same step, so no step reads and writes the same slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from webkiln.errors import UnsupportedModelError
from webkiln.ir.buffer import Buffer
from webkiln.memory.liveness import Lifetime, StepIO
from webkiln.memory.size import align
from webkiln.memory.weights import WeightSpace
from webkiln.targets.webgpu import MAX_BINDING_BYTES

__all__ = ["BASE_BINDING", "MAX_BINDING", "Slot", "Slots", "assign_slots", "verify_slots"]

BASE_BINDING = MAX_BINDING_BYTES  # what every WebGPU adapter binds
MAX_BINDING = (2 << 30) - 4  # what desktop GPUs offer in practice


@dataclass(frozen=True, slots=True)
class Slot:
    """One GPUBuffer. `weights`: it holds the weight space from this byte on, else it is scratch."""

    bytes: int
    weights: int | None = None


@dataclass(frozen=True, slots=True)
class Slots:
    """The GPU buffers, and (slot index, byte offset) of each of the model's buffers."""

    slots: tuple[Slot, ...]
    places: dict[Buffer, tuple[int, int]]


def assign_slots(
    sizes: Mapping[Buffer, int],
    lives: Mapping[Buffer, Lifetime],
    weights: WeightSpace,
    *,
    limit: int = MAX_BINDING,
) -> Slots:
    """Weight slots of at most 128 MiB first, then scratch slots, shared over time.

    Raises `UnsupportedModelError` that names the buffers larger than `limit` bytes.
    """
    _refuse_larger(sizes, weights, limit)
    slots, places = _weight_slots(weights)
    bytes_of: list[int] = []
    users: list[list[Lifetime]] = []
    for buffer in sorted(lives, key=lambda b: (-sizes[b], lives[b].first, b.name)):
        life = lives[buffer]
        free = [k for k, held in enumerate(users) if not any(life.overlaps(h) for h in held)]
        if free:
            chosen = min(free, key=lambda k: (bytes_of[k], k))  # all are large enough: best fit
        else:
            chosen = len(users)
            bytes_of.append(align(max(sizes[buffer], 4), 4))
            users.append([])
        users[chosen].append(life)
        places[buffer] = (len(slots) + chosen, 0)
    return Slots((*slots, *(Slot(b) for b in bytes_of)), places)


def _refuse_larger(sizes: Mapping[Buffer, int], weights: WeightSpace, limit: int) -> None:
    every = [*sizes.items(), *weights.bytes_of.items()]
    large = [f"{b.name} ({n / 2**20:.0f} MiB)" for b, n in every if n > limit]
    if large:
        raise UnsupportedModelError(
            f"WebGPU binds at most {limit / 2**20:.0f} MiB at a time; larger: {', '.join(large)}",
            hint="lower the bounds with --max, quantize, or build for --targets wasm alone",
        )


def _weight_slots(weights: WeightSpace) -> tuple[list[Slot], dict[Buffer, tuple[int, int]]]:
    """Consecutive constants together, up to 128 MiB; a larger one alone."""
    slots: list[Slot] = []
    places: dict[Buffer, tuple[int, int]] = {}
    start = end = 0
    for buffer, offset in sorted(weights.offsets.items(), key=lambda item: item[1]):
        stop = offset + align(max(weights.bytes_of[buffer], 4), 4)
        if not slots or (stop - start > BASE_BINDING and offset >= end):
            slots.append(Slot(0, offset))
            start = offset
        end = max(end, stop)
        slots[-1] = Slot(end - start, start)
        places[buffer] = (len(slots) - 1, offset - start)
    return slots, places


def verify_slots(slots: Slots, sizes: Mapping[Buffer, int], steps: Sequence[StepIO]) -> None:
    """Raise `ValueError` for a step that reads and writes one slot, or a buffer that sticks out."""
    for buffer, (slot, offset) in slots.places.items():
        if offset + sizes.get(buffer, 0) > slots.slots[slot].bytes:
            raise ValueError(f"{buffer.name} is larger than its slot {slot}")
    for time, step in enumerate(steps):
        read = {slots.places[b][0] for b in step.reads if b not in step.writes}
        if shared := read & {slots.places[b][0] for b in step.writes}:
            raise ValueError(f"step {time} reads and writes slot {min(shared)}")
