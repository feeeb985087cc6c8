"""Schedules for WebAssembly SIMD: ordered rules, the first that fits wins, the last always does."""

from __future__ import annotations

from collections.abc import Callable

from webkiln.ir.program import Compute, Kernel
from webkiln.schedule.nest import Nest, collapse, drop_units, nest_of, split_axes
from webkiln.schedule.wasm.attention import attention
from webkiln.schedule.wasm.contraction import contraction
from webkiln.schedule.wasm.loops import columns, scalar
from webkiln.schedule.wasm.quantised import quantised
from webkiln.schedule.wasm.scatter import scatter
from webkiln.schedule.wasm.topk import topk
from webkiln.schedule.wasm.window import window

__all__ = ["RULES", "SPECIAL", "schedule"]

RULES: tuple[Callable[[Nest], Kernel | None], ...] = (contraction, window, columns, scalar)


#: they look for their form before axes are split and merged
SPECIAL: tuple[Callable[[Nest], Kernel | None], ...] = (attention, topk, scatter)


def schedule(compute: Compute) -> Kernel:
    """The kernel for `compute`, by the first rule that takes it."""
    whole = nest_of(compute)
    for special in SPECIAL:
        kernel = special(drop_units(whole))
        if kernel is not None:
            return kernel
    kernel = quantised(compute)
    if kernel is not None:
        return kernel
    nest = collapse(drop_units(split_axes(whole)))
    for rule in RULES:
        kernel = rule(nest)
        if kernel is not None:
            return kernel
    raise AssertionError("the scalar rule takes every nest")
