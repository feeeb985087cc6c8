"""Every computation of a program scheduled for every target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from webkiln.ir.program import Compute, Kernel, Program, Step
from webkiln.ir.text import kernel_text
from webkiln.log import Progress, debug, debug_level, silent
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
        if compute.out.is_empty:
            continue
        progress("schedule", i, len(program.computes), compute.label)
        kernels = {name: f(compute) for name, f in schedulers.items()}
        steps.append(Step(compute, kernels, flops(compute), bytes_moved(compute)))
        if debug_level() >= 2:
            _show(steps[-1])
    progress("schedule", len(steps), len(steps))
    return steps


def _show(step: Step) -> None:
    for target, kernel in step.kernel.items():
        cost = f"{step.flops!r} flops, {step.bytes!r} bytes"
        debug(2, f"{target}: {kernel.kind}: {step.compute.label} → {step.compute.out!r}, {cost}")
        debug(3, kernel_text(kernel))


def _scheduler(target: str) -> Callable[[Compute], Kernel]:
    if target == "wasm":
        return wasm.schedule
    from webkiln.schedule import webgpu

    return webgpu.schedule
