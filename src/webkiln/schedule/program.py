"""Every computation of a program scheduled for every target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from webkiln.ir.program import Compute, Kernel, Program, Step
from webkiln.log import Progress, debug, silent
from webkiln.schedule import wasm
from webkiln.schedule.cost import bytes_moved, flops

__all__ = ["schedule_program"]


def schedule_program(
    program: Program, targets: Sequence[str], progress: Progress = silent
) -> list[Step]:
    """One step a computation, with a kernel for each of `targets` (`wasm`, `webgpu`)."""
    schedulers = {name: _scheduler(name) for name in targets}
    steps: list[Step] = []
    for i, compute in enumerate(program.computes):
        progress("schedule", i, len(program.computes), compute.label)
        kernels = {name: f(compute) for name, f in schedulers.items()}
        for name, kernel in kernels.items():
            debug(2, f"{name}: {kernel.kind:12} {compute.label} → {compute.out!r}")
        debug(3, f"{compute.out!r} = {compute.value!r}")
        steps.append(Step(compute, kernels, flops(compute), bytes_moved(compute)))
    progress("schedule", len(steps), len(steps))
    return steps


def _scheduler(target: str) -> Callable[[Compute], Kernel]:
    if target == "wasm":
        return wasm.schedule
    from webkiln.schedule import webgpu

    return webgpu.schedule
