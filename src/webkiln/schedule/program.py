"""Every computation of a program scheduled for a target."""

from __future__ import annotations

from collections.abc import Callable

from webkiln.ir.program import Compute, Kernel, Program, Step
from webkiln.ir.text import kernel_text
from webkiln.log import Progress, debug, debug_level, silent
from webkiln.schedule import wasm
from webkiln.schedule.cost import bytes_moved, flops

__all__ = ["schedule_program"]


def schedule_program(program: Program, target: str, progress: Progress = silent) -> list[Step]:
    """The step list of `program` on `target` (`wasm` or `webgpu`): one step a computation."""
    schedule = _scheduler(target)
    steps: list[Step] = []
    for i, compute in enumerate(program.computes):
        if compute.out.is_empty:
            continue
        progress("schedule", i, len(program.computes), compute.label)
        steps.append(Step(compute.label, schedule(compute), flops(compute), bytes_moved(compute)))
        if debug_level() >= 2:
            _show(target, steps[-1])
    progress("schedule", len(steps), len(steps))
    return steps


def _show(target: str, step: Step) -> None:
    cost = f"{step.flops!r} flops, {step.bytes!r} bytes"
    debug(2, f"{target}: {step.kernel.kind}: {step.label} → {list(step.writes)!r}, {cost}")
    debug(3, kernel_text(step.kernel))


def _scheduler(target: str) -> Callable[[Compute], Kernel]:
    if target == "wasm":
        return wasm.schedule
    from webkiln.schedule import webgpu

    return webgpu.schedule
