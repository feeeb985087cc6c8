"""Every computation of a program scheduled for a target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce as fold
from operator import add

from webkiln.ir.program import Compute, Kernel, Program, Step
from webkiln.ir.simplify import simplify
from webkiln.ir.text import kernel_text
from webkiln.log import Progress, debug, debug_level, silent
from webkiln.schedule import wasm
from webkiln.schedule.cost import bytes_moved, flops
from webkiln.schedule.memo import Memo

__all__ = ["Scheduler", "schedule_program", "scheduler"]

Scheduler = Callable[..., Kernel]  # of one computation, or of several together


def scheduler(target: str) -> Scheduler:
    """How `wasm` or `webgpu` does a computation; it remembers those that it has seen."""
    if target == "wasm":
        return Memo(wasm.schedule)
    from webkiln.schedule import webgpu

    return Memo(webgpu.schedule)


def schedule_program(
    program: Program, target: str, progress: Progress = silent, schedule: Scheduler | None = None
) -> list[Step]:
    """The step list of `program` on `target` (`wasm` or `webgpu`).

    A step is one computation, on WebGPU also several small ones. `schedule` is the target's
    `scheduler`, shared by programs that have computations in common.
    """
    steps: list[Step] = []
    done, total = 0, len(program.computes)
    for computes, kernel in _kernels(program, target, schedule or scheduler(target)):
        label = " + ".join(c.label for c in computes)
        progress("schedule", done, total, label)
        done += len(computes)
        cost = [simplify(fold(add, map(f, computes))) for f in (flops, bytes_moved)]
        steps.append(Step(label, kernel, *cost))
        if debug_level() >= 2:
            _show(target, steps[-1])
    progress("schedule", total, total)
    return steps


def _kernels(
    program: Program, target: str, schedule: Scheduler
) -> Iterable[tuple[tuple[Compute, ...], Kernel]]:
    if target == "wasm":
        return (((c,), schedule(c)) for c in program.computes if not c.out.is_empty)
    from webkiln.schedule import webgpu

    return webgpu.kernels(program, schedule)


def _show(target: str, step: Step) -> None:
    cost = f"{step.flops!r} flops, {step.bytes!r} bytes"
    debug(2, f"{target}: {step.kernel.kind}: {step.label} → {list(step.writes)!r}, {cost}")
    debug(3, kernel_text(step.kernel))
