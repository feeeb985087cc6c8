"""Schedules for WebGPU: rules in order, the first that fits wins, the last always does."""

from __future__ import annotations

from collections.abc import Callable

from webkiln.ir.program import Compute, Kernel
from webkiln.schedule.nest import Nest, collapse, drop_units, nest_of, split_axes
from webkiln.schedule.webgpu.attention import attention
from webkiln.schedule.webgpu.columns import columns
from webkiln.schedule.webgpu.contraction import contraction
from webkiln.schedule.webgpu.groups import kernels
from webkiln.schedule.webgpu.loops import elements, fallback
from webkiln.schedule.webgpu.matvec import matvec
from webkiln.schedule.webgpu.quantised import quantised
from webkiln.schedule.webgpu.rows import rows
from webkiln.schedule.webgpu.scatter import scatter
from webkiln.schedule.webgpu.staged import staged
from webkiln.schedule.webgpu.topk import topk
from webkiln.schedule.webgpu.window import window

__all__ = ["RULES", "kernels", "schedule"]

Rule = Callable[[Nest], Kernel | None]

#: each with whether axes are split where an index divides them: contractions know panels whole
RULES: tuple[tuple[Rule, bool], ...] = (
    (matvec, False),
    (staged, False),
    (contraction, False),
    (contraction, True),
    (rows, True),
    (columns, True),
    (window, True),
    (elements, True),
    (fallback, True),
)


def schedule(compute: Compute, kept: Compute | None = None) -> Kernel:
    """The kernel for `compute`, by the first rule that takes it.

    `kept` is a row that a product computes inside and stores as well, see `groups.py`.
    """
    if kept is not None:
        kernel = quantised(compute, kept)
        assert kernel is not None, "it was asked for by who knows that there is one"
        return kernel
    whole = drop_units(nest_of(compute))
    kernel = attention(whole) or quantised(compute) or topk(whole) or scatter(whole)
    if kernel is not None:
        return kernel
    nests = {False: collapse(whole), True: collapse(drop_units(split_axes(whole)))}
    for rule, split in RULES:
        kernel = rule(nests[split])
        if kernel is not None:
            return kernel
    raise AssertionError("the fallback rule takes every nest")
