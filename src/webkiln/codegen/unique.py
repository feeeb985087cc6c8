"""Equal kernels become one: the text decides, since printers name things by order of appearance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from webkiln.ir.program import Kernel

__all__ = ["KernelSet", "unique"]

_PLACEHOLDER = "KERNEL_NAME"  # until it has one; no other word of a printed kernel


@dataclass(slots=True)
class KernelSet:
    """The distinct kernels of a bundle for one target, and which of them each step runs."""

    names: list[str] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)  # one for each name
    sources: dict[str, str] = field(default_factory=dict)  # name → printed kernel
    of_step: list[int] = field(default_factory=list)


def unique(kernels: Sequence[Kernel], source: Callable[[Kernel, str], str]) -> KernelSet:
    """`kernels`, one a step, printed by `source(kernel, name)`; those of equal text are merged."""
    result = KernelSet()
    seen: dict[str, int] = {}
    printed: dict[int, int] = {}  # by the identity of a body that several uses share
    for kernel in kernels:
        if id(kernel.body) not in printed:
            printed[id(kernel.body)] = _number(kernel, source, result, seen)
        result.of_step.append(printed[id(kernel.body)])
    return result


def _number(
    kernel: Kernel, source: Callable[[Kernel, str], str], result: KernelSet, seen: dict[str, int]
) -> int:
    """Of the kernel's text, which is added where it is new."""
    text = own = source(kernel, _PLACEHOLDER)
    if kernel.half is not None:  # kernels that are equal in one form may differ in the other
        text += source(kernel.half, _PLACEHOLDER)
    if text not in seen:
        seen[text] = len(result.names)
        name = f"k{len(result.names)}"
        result.names.append(name)
        result.kernels.append(kernel)
        result.sources[name] = own.replace(_PLACEHOLDER, name)
    return seen[text]
