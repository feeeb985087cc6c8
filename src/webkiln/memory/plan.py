"""One memory plan for both targets, made before code is printed, which calls kernels by address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from webkiln.errors import UnsupportedModelError
from webkiln.ir.buffer import Buffer
from webkiln.ir.program import Program
from webkiln.memory.arena import pack_arena, verify_arena
from webkiln.memory.liveness import Lifetime, StepIO, lifetimes
from webkiln.memory.size import align, bytes_at
from webkiln.memory.slots import MAX_BINDING, Slots, assign_slots, verify_slots
from webkiln.memory.weights import WeightSpace, lay_out_weights

__all__ = ["DIMS", "MAX_DIMS", "MAX_THREADS", "STACKS", "STACK_BYTES", "MemoryPlan", "plan"]

PAGE = 65536
# The address map of docs/plan.md: the runtime's words in [0, 1024), the module's static data up to
# 64 KiB, a stack a thread, the weight space, the arena.
DIMS = 64
MAX_DIMS = (512 - DIMS) // 4  # the synchronisation words begin at 512
STACKS = PAGE
STACK_BYTES = PAGE
MAX_THREADS = 8
WEIGHTS = STACKS + MAX_THREADS * STACK_BYTES
_MAX_MEMORY = 1 << 32
_SLACK = 64  # a vector load at the end of the last buffer may look beyond it


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where each buffer lies. Sizes in bytes, at the bounds of the dims.

    `wasm[buffer]` is its address, `slots.places[buffer]` its (slot, offset) on WebGPU; `slots` is
    None when that target is not built. `buffers` has all of them in the plan's order: inputs,
    outputs, constants, then the others by first use.
    """

    buffers: tuple[Buffer, ...]
    sizes: dict[Buffer, int]
    lives: dict[Buffer, Lifetime]
    weights: WeightSpace
    wasm: dict[Buffer, int]
    slots: Slots | None
    weights_base: int
    arena_base: int
    arena_bytes: int
    total_bytes: int


def plan(
    program: Program,
    steps: Sequence[StepIO],
    *,
    webgpu: bool = True,
    binding_limit: int = MAX_BINDING,
) -> MemoryPlan:
    """The memory plan of `program` run as `steps`.

    Every dim of `program` has a bound. Constants that no step reads are left out. Raises
    `UnsupportedModelError` when the plan exceeds what WebAssembly or WebGPU can address.
    """
    if len(program.dims) > MAX_DIMS:
        raise UnsupportedModelError(
            f"the model has {len(program.dims)} symbolic dimensions, {MAX_DIMS} are supported",
            hint="fix some of them when exporting the model",
        )
    bounds = {d.name: d.max for d in program.dims if d.max is not None}
    lives = lifetimes(steps, program.inputs, program.outputs)
    used = [b for s in steps for b in s.reads if b.role == "constant"]
    used += [b for b in program.outputs if b.role == "constant"]
    weights = lay_out_weights(program.constants, used)
    sizes = {b: bytes_at(b, bounds) for b in lives}
    arena = pack_arena(sizes, lives)
    verify_arena(arena, sizes, lives)
    slots = assign_slots(sizes, lives, weights, limit=binding_limit) if webgpu else None
    if slots is not None:
        verify_slots(slots, sizes | weights.bytes_of, steps)
    arena_base = align(WEIGHTS + weights.bytes, 256)
    total = align(arena_base + arena.bytes + _SLACK, PAGE)
    if total > _MAX_MEMORY:
        raise UnsupportedModelError(
            f"the model needs {total / 2**30:.1f} GiB ({weights.bytes / 2**30:.1f} of weights); "
            "WebAssembly addresses 4",
            hint="quantize it, or lower the bounds of its dimensions with --max",
        )
    wasm = {b: WEIGHTS + o for b, o in weights.offsets.items()}
    wasm |= {b: arena_base + o for b, o in arena.offsets.items()}
    edges = dict.fromkeys((*program.inputs, *program.outputs))
    return MemoryPlan(
        buffers=tuple(dict.fromkeys((*edges, *weights.offsets, *lives))),
        sizes=sizes | weights.bytes_of,
        lives=lives,
        weights=weights,
        wasm=wasm,
        slots=slots,
        weights_base=WEIGHTS,
        arena_base=arena_base,
        arena_bytes=arena.bytes,
        total_bytes=total,
    )
