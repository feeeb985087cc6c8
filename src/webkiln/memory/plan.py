"""One memory plan for both targets, made before code is printed, which calls kernels by address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from webkiln.errors import UnsupportedModelError
from webkiln.ir.buffer import Buffer
from webkiln.ir.program import Program
from webkiln.memory.arena import Arena, pack_arena, verify_arena
from webkiln.memory.liveness import Lifetime, StepIO, lifetimes
from webkiln.memory.size import align, bytes_at
from webkiln.memory.slots import MAX_BINDING, Slots, assign_slots, verify_slots
from webkiln.memory.tables import Table, find_tables
from webkiln.memory.weights import WeightSpace, lay_out_weights

__all__ = ["DIMS", "MAX_DIMS", "MAX_THREADS", "STACKS", "STACK_BYTES", "MemoryPlan", "plan"]

PAGE = 65536
# The address map of docs/plan.md: the runtime's words in [0, 1536), the module's static data up to
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
    None when that target is not built. A buffer that one target's kernels alone use has a place
    there alone. Of `tables` a run needs some rows. `buffers` has all buffers in the plan's order:
    inputs, outputs, constants, then the others by first use.
    """

    buffers: tuple[Buffer, ...]
    sizes: dict[Buffer, int]
    weights: WeightSpace
    wasm: dict[Buffer, int]
    slots: Slots | None
    tables: tuple[Table, ...]
    weights_base: int
    arena_base: int
    arena_bytes: int
    total_bytes: int


def plan(
    programs: Sequence[Program],
    steps: Mapping[str, Sequence[Sequence[StepIO]]],
    *,
    binding_limit: int = MAX_BINDING,
) -> MemoryPlan:
    """The memory plan of `programs`, run one at a time, over one set of weights and states.

    `steps[target][k]` are what the k-th program's steps read and write on `wasm` or `webgpu`. Every
    dim has a bound. Constants that no step reads are left out. Raises `UnsupportedModelError` when
    the plan exceeds what WebAssembly or WebGPU can address.
    """
    dims = dict.fromkeys(d for p in programs for d in p.dims)
    if len(dims) > MAX_DIMS:
        raise UnsupportedModelError(
            f"the model has {len(dims)} symbolic dimensions, {MAX_DIMS} are supported",
            hint="fix some of them when exporting the model",
        )
    bounds = {d.name: d.max for d in dims if d.max is not None}
    lives = {target: _timeline(programs, lists) for target, lists in steps.items()}
    every = [io for lists in steps.values() for list_ in lists for io in list_]
    used = [b for io in every for b in io.reads if b.role == "constant"]
    used += [b for p in programs for b in p.outputs if b.role == "constant"]
    values = {b: data for p in programs for b, data in p.constants.items()}
    weights = lay_out_weights(values, used)
    sizes = {b: bytes_at(b, bounds) for target in lives.values() for b in target}
    arena = Arena({}, 0)
    if "wasm" in lives:
        arena = pack_arena(sizes, lives["wasm"])
        verify_arena(arena, sizes, lives["wasm"])
    slots = None
    if "webgpu" in lives:
        slots = assign_slots(sizes, lives["webgpu"], weights, limit=binding_limit)
        for list_ in steps["webgpu"]:
            verify_slots(slots, sizes | weights.bytes_of, list_)
    arena_base = align(WEIGHTS + weights.bytes, 256)
    total = align(arena_base + arena.bytes + _SLACK, PAGE)
    if "wasm" in lives and total > _MAX_MEMORY:
        raise UnsupportedModelError(
            f"the model needs {total / 2**30:.1f} GiB ({weights.bytes / 2**30:.1f} of weights); "
            "WebAssembly addresses 4",
            hint="quantize it, or lower the bounds of its dimensions with --max",
        )
    wasm = {b: WEIGHTS + o for b, o in weights.offsets.items()}
    wasm |= {b: arena_base + o for b, o in arena.offsets.items()}
    edges = dict.fromkeys(b for p in programs for b in (*p.inputs, *p.outputs))
    return MemoryPlan(
        buffers=tuple(dict.fromkeys((*edges, *weights.offsets, *sizes))),
        sizes=sizes | weights.bytes_of,
        weights=weights,
        wasm=wasm,
        slots=slots,
        tables=find_tables(programs, weights),
        weights_base=WEIGHTS,
        arena_base=arena_base,
        arena_bytes=arena.bytes,
        total_bytes=total,
    )


def _timeline(
    programs: Sequence[Program], steps: Sequence[Sequence[StepIO]]
) -> dict[Buffer, Lifetime]:
    """Lifetimes when the programs run one after the other; state lives all the time."""
    lives: dict[Buffer, Lifetime] = {}
    start = 0
    for program, list_ in zip(programs, steps, strict=True):
        for buffer, life in lifetimes(list_, program.inputs, program.outputs).items():
            lives[buffer] = Lifetime(start + life.first, start + life.last)
        start += len(list_) + 2  # the caller's writing before and reading after
    for buffer in lives:
        if buffer.role == "state":
            lives[buffer] = Lifetime(-1, start)
    return lives
