"""What lowering yields and scheduling consumes: computations, kernels, steps, programs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Dim, Expr, Load, Var, rebuffer, walk
from webkiln.ir.stmt import Stmt

__all__ = ["Access", "Binding", "Compute", "Kernel", "Loop", "Program", "Step"]


@dataclass(frozen=True, eq=False, slots=True)
class Compute:
    """`out[axes] = value` for all axes: one operator, or several after fusion.

    `label` names the nodes of the model that it stands for. With `at`, which only state has, it is
    `out[at] = value`: an update in place that leaves every other element as it was. The indices
    `at` of different axes differ, and lie inside `out`.
    """

    out: Buffer
    axes: tuple[Var, ...]
    value: Expr
    label: str = ""
    at: tuple[Expr, ...] | None = None

    @property
    def extents(self) -> tuple[Expr, ...]:
        """How far each axis runs: over the whole of `out`, unless it updates a part."""
        if self.at is None:
            return self.out.shape
        return tuple(a.extent for a in self.axes if a.extent is not None)

    @property
    def roots(self) -> tuple[Expr, ...]:
        """The expressions that it evaluates: its value, and where that goes."""
        return (self.value, *(self.at or ()))

    @property
    def loads(self) -> Collection[Buffer]:
        """The buffers that its roots load from, in the order in which they come."""
        return dict.fromkeys(n.buffer for n in walk(*self.roots) if isinstance(n, Load))

    def on(self, buffers: Mapping[Buffer, Buffer]) -> Compute:
        """The same with other buffers in place of those that `buffers` names, result and all."""
        return replace(
            self,
            out=buffers.get(self.out, self.out),
            value=rebuffer(self.value, buffers),
            at=self.at and tuple(rebuffer(i, buffers) for i in self.at),
        )


Access = Literal["read", "write", "read_write"]
Binding = Literal[
    "task",  # wasm: flattened into the range of tasks that threads share
    "workgroup.x",
    "workgroup.y",
    "workgroup.z",
    "local.x",
    "local.y",
    "local.z",
]


@dataclass(frozen=True, slots=True)
class Loop:
    """A parallel loop: `var` runs over `[0, extent)`, on what of the target `binding` says."""

    var: Var
    extent: Expr
    binding: Binding


@dataclass(frozen=True, eq=False, slots=True)
class Kernel:
    """A scheduled loop nest, ready to print.

    `buffers` are its parameters, inputs first, with `access` each; `params` are its int32 ones
    (symbolic extents). `arguments` are the buffers that this use of it has for them, where they
    are others, and `values` what it has for its params: several uses may share loops and body.
    `loops` are the parallel loops, outermost first; `body` is what one iteration does. `half` has a
    body that computes in float16, for devices that can, `paired` one that multiplies pairs of 16
    bits, for engines that have no instruction for products of four bytes: they stand in for this
    kernel, so all that a caller sees is the same.
    """

    name: str
    kind: str  # contraction, window, reduction, elementwise, gather, …: the rule that scheduled it
    buffers: tuple[Buffer, ...]
    access: tuple[Access, ...]
    params: tuple[Var, ...]
    loops: tuple[Loop, ...]
    body: tuple[Stmt, ...]
    arguments: tuple[Buffer, ...] = ()
    values: tuple[Expr, ...] = ()
    half: Kernel | None = None
    paired: Kernel | None = None

    @property
    def bound(self) -> tuple[Buffer, ...]:
        """The buffers that it works on."""
        return self.arguments or self.buffers

    @property
    def extents(self) -> dict[Var, Expr]:
        """What each of its params is here."""
        return dict(zip(self.params, self.values or self.params, strict=True))


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """One kernel of a target's step list; its cost is expressions over the dims."""

    label: str  # the nodes of the model that it stands for
    kernel: Kernel
    flops: Expr
    bytes: Expr

    @property
    def reads(self) -> tuple[Buffer, ...]:
        """The buffers whose values it uses: not what it reads back after it wrote it itself."""
        return self._where(lambda access: access == "read") + tuple(
            b for b in self._where(lambda access: access == "read_write") if b.role == "state"
        )

    @property
    def writes(self) -> tuple[Buffer, ...]:
        """The buffers that it changes."""
        return self._where(lambda access: access != "read")

    def _where(self, chosen: Callable[[Access], bool]) -> tuple[Buffer, ...]:
        pairs = zip(self.kernel.bound, self.kernel.access, strict=True)
        return tuple(buffer for buffer, access in pairs if chosen(access))


@dataclass(eq=False, slots=True)
class Program:
    """A lowered model: every buffer is an input, an output, a constant, a temporary or state.

    `states` live on the device from one run to the next, zero before the first.
    """

    name: str
    dims: tuple[Dim, ...]
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    constants: dict[Buffer, NDArray[np.generic]] = field(default_factory=dict)  # logical order
    computes: list[Compute] = field(default_factory=list)
    channels_last: frozenset[Buffer] = frozenset()  # where an operator asked for it
    states: tuple[Buffer, ...] = ()
