"""Schedules for WebGPU: rules in order, the first that fits wins, the last always does."""

from __future__ import annotations

from collections.abc import Callable

from webkiln.ir.program import Compute, Kernel
from webkiln.schedule.nest import Nest, collapse, nest_of, split_axes
from webkiln.schedule.webgpu.contraction import contraction
from webkiln.schedule.webgpu.loops import elements, fallback

__all__ = ["RULES", "schedule"]

RULES: tuple[Callable[[Nest], Kernel | None], ...] = (contraction, elements, fallback)


def schedule(compute: Compute) -> Kernel:
    """The kernel for `compute`, by the first rule that takes it."""
    nest = collapse(split_axes(nest_of(compute)))
    for rule in RULES:
        kernel = rule(nest)
        if kernel is not None:
            return kernel
    raise AssertionError("the fallback rule takes every nest")
