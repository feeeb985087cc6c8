"""Small computations one after another in one workgroup: a dispatch instead of a dozen.

On a GPU a dispatch costs as much as tens of thousands of operations (24-71 µs on real devices), so
what is too small to fill it is better done together. The invocations share the work of each stage,
meet at a barrier, and go on; what later stages read is in workgroup memory, what others need goes
to its buffer.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webkiln.ir.buffer import Buffer, row_major
from webkiln.ir.dtypes import I32, DType
from webkiln.ir.expr import (
    Const,
    Expr,
    Load,
    Op,
    Read,
    Reduce,
    Var,
    cast,
    compare,
    const,
    free_vars,
    rebuffer,
    substitute,
    transform,
    walk,
)
from webkiln.ir.program import Compute, Kernel, Loop, Program
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Barrier, Declare, For, If, Stmt, Store
from webkiln.schedule.kernel import make_kernel
from webkiln.schedule.nest import (
    Nest,
    collapse,
    drop_units,
    extent_of,
    nest_of,
    product,
    reduces,
    split_axes,
)
from webkiln.schedule.webgpu.grid import unflatten
from webkiln.schedule.webgpu.rows import RowWork
from webkiln.schedule.webgpu.tree import combine_shared
from webkiln.targets.webgpu import MAX_STORAGE_BUFFERS, MAX_WORKGROUP_BYTES, workgroup_bytes

__all__ = ["grouped", "sequence"]

THREADS = 256
SMALL = 32 * 1024  # operations of a stage: a hundred or so an invocation
SERIAL = 1024  # terms of a reduction that one invocation goes through alone
LONGEST = 24  # stages
#: rules whose work can be shared this way; others know better
KINDS = frozenset({"gather", "elementwise", "rows", "columns", "reduction", "window"})


Group = tuple[tuple[Compute, ...], Kernel]


def grouped(program: Program, schedule: Callable[[Compute], Kernel]) -> Iterator[Group]:
    """The program's computations in groups, each with its kernel, in an order that respects uses.

    Small ones wait for more of their kind, and let others pass that do without them.
    """
    users = _users(program)
    waiting: dict[Compute, Kernel] = {}
    for compute in program.computes:
        if compute.out.is_empty:
            continue
        own = schedule(compute)
        if _is_small(compute, own):
            waiting[compute] = own
            continue
        if not _independent(compute, waiting):
            yield from _together(waiting, users, program)
            waiting = {}
        yield (compute,), own
    yield from _together(waiting, users, program)


def _together(
    waiting: Mapping[Compute, Kernel], users: Mapping[Buffer, Set[Compute]], program: Program
) -> Iterator[Group]:
    """As many of those that are waiting at once as the limits allow, then as many of the rest."""
    rest = list(waiting)
    outlive = {*program.outputs, *program.states}
    while rest:
        count = min(len(rest), LONGEST)
        kernel: Kernel | None = None
        while count > 1 and kernel is None:
            group = rest[:count]
            others = {b for b, u in users.items() if u - set(group)}
            kernel = sequence(group, outlive | others, program.constants)
            count -= kernel is None
        yield tuple(rest[:count]), kernel or waiting[rest[0]]
        rest = rest[count:]


def _users(program: Program) -> dict[Buffer, set[Compute]]:
    """The computations that load each buffer."""
    found: dict[Buffer, set[Compute]] = defaultdict(set)
    for compute in program.computes:
        for buffer in compute.loads:
            found[buffer].add(compute)
    return found


def _independent(compute: Compute, others: Collection[Compute]) -> bool:
    """Whether `compute` may run before the `others`, which come first in the program."""
    needed = any(compute.out in c.loads for c in others)
    return not needed and set(compute.loads).isdisjoint(c.out for c in others)


def _is_small(compute: Compute, kernel: Kernel) -> bool:
    """Whether one workgroup does it about as fast as many would."""
    if compute.out.role == "state" or kernel.kind not in KINDS:
        return False
    fixed = all(isinstance(s, Const) for s in compute.out.shape)
    if not fixed or kernel.params:
        return False
    count = _count(product(compute.out.shape))
    depth = max(
        (_count(product([extent_of(a) for a in r.axes])) for r in _reduces(compute)), default=1
    )
    if count == 1:
        return not _depends(compute)
    return count * depth <= SMALL and depth <= SERIAL


def _count(e: Expr) -> int:
    return int(e.value) if isinstance(e, Const) else SMALL + 1


def _reduces(compute: Compute) -> list[Reduce]:
    return reduces(compute.value)


def _depends(compute: Compute) -> bool:
    """Whether a reduction is another one for each of its terms."""
    axes = {a for r in _reduces(compute) for a in r.axes}
    return any(axes & free_vars(r) for r in _reduces(compute))


# --- one kernel -----------------------------------------------------------------------------------


def sequence(
    computes: Sequence[Compute],
    needed: Set[Buffer],
    constants: Mapping[Buffer, NDArray[np.generic]],
) -> Kernel | None:
    """The kernel of one workgroup for all of `computes`; None where that exceeds the limits.

    `needed` are the results that others read. `constants` gives the values of constants: those that
    count up evenly are computed instead of read, since bindings are few.
    """
    local = Var("local", THREADS)
    work = _Work(local, {b: _progression(d) for b, d in constants.items() if d.ndim == 1})
    loaded = {b for c in computes for b in c.loads}
    for compute in computes:
        work.add(compute, compute.out in needed, compute.out in loaded)
    loops = [Loop(local, const(THREADS, I32), "local.x")]
    nest = nest_of(computes[-1])
    kernel = make_kernel("sequence", nest, loops, work.out)
    fits = len(kernel.buffers) <= MAX_STORAGE_BUFFERS
    return kernel if fits and workgroup_bytes(kernel) <= MAX_WORKGROUP_BYTES else None


def _is_uniform(condition: Expr) -> bool:
    """Whether it is the same for all invocations, and WGSL knows: it depends on inputs alone."""
    reads = [n for n in walk(condition) if isinstance(n, Read)]
    given = all(r.buffer.role in ("input", "constant") for r in reads)
    return given and not free_vars(condition) and not reduces(condition)


def _progression(data: NDArray[Any]) -> tuple[float, float] | None:
    """First element and step, where elements differ from their predecessor by the same number."""
    first = data[:1].tolist()
    steps = {b - a for a, b in itertools.pairwise(data.tolist())} if data.dtype != bool else {1, 2}
    return (first[0], next(iter(steps), 0)) if first and len(steps) <= 1 else None


class _Work(RowWork):
    """Emits the stages: `copies` are results in workgroup memory."""

    def __init__(
        self, local: Var, progressions: Mapping[Buffer, tuple[float, float] | None]
    ) -> None:
        super().__init__(local, THREADS, Var("line", 1), 1)
        self.progressions = progressions
        self.copies: dict[Buffer, Buffer] = {}
        self.scratch: dict[DType, Buffer] = {}

    def add(self, compute: Compute, needed: bool, later: bool) -> None:
        """One computation, its results in its buffer if `needed`, in workgroup memory if they are
        for `later` ones.
        """
        copy = replace(compute.out, role="workgroup", layout=row_major(len(compute.out.shape)))
        value = rebuffer(transform(compute.value, self._counted), self.copies)
        value = simplify(value)
        plain = replace(compute, out=copy if later else compute.out, value=value)
        nest = collapse(drop_units(split_axes(drop_units(nest_of(plain)))))
        if reduces(nest.value) and _count(product([extent_of(v) for v in nest.loops])) == 1:
            self._together(nest)
        else:
            self._shared(nest)
        if not later:
            return
        self.out.append(Barrier())
        self.copies[compute.out] = copy
        if needed:
            self._publish(compute.out, copy)

    def _counted(self, node: Expr) -> Expr | None:
        """An element of a progression as its place makes it."""
        if not isinstance(node, Load):
            return None
        found = self.progressions.get(node.buffer)
        if found is None:
            return None
        first, step = (const(x, node.dtype) for x in found)
        return cast(node.args[0], node.dtype) * step + first

    def _together(self, nest: Nest) -> None:
        """One result: all invocations share its reductions, if it needs them."""
        at = {v: const(0, I32) for v in nest.loops}
        value = simplify(substitute(nest.value, at))
        offset = simplify(substitute(nest.offset, at))
        if not (isinstance(value, Op) and value.name == "select" and _is_uniform(value.args[0])):
            self.out += self._one(nest.out, offset, value)
            return
        condition, *sides = value.args
        then, orelse = (tuple(self._one(nest.out, offset, side)) for side in sides)
        self.out.append(If(condition, then, orelse))

    def _one(self, out: Buffer, offset: Expr, value: Expr) -> list[Stmt]:
        """What leads to one result, and its store."""
        outer, self.out = self.out, []
        store = Store(out, offset, self.reduce_all(value))
        self.out.append(If(compare("eq", self.local, 0), (store,)))
        inner, self.out = self.out, outer
        return inner

    def _shared(self, nest: Nest) -> None:
        """Many results: each invocation has some of its own."""
        count = product([extent_of(v) for v in nest.loops])
        index = self.emit.loop("index", _count(count))
        body = self.emit.loops(nest, (), frozenset(nest.loops))
        inside = (*unflatten(index, nest.loops), *body)
        self.out.append(For(index, self.local, count, inside, THREADS))

    def _publish(self, out: Buffer, copy: Buffer) -> None:
        """What is in workgroup memory, to the buffer, in its layout."""
        axes = tuple(self.emit.loop("axis", _count(s)) for s in out.shape)
        load = Load(copy, axes)
        self._shared(collapse(drop_units(nest_of(Compute(out, axes, load)))))

    def _fold(self, partial: Expr, combine: str) -> Expr:
        """As for rows, in memory that all reductions share, one after the other."""
        slots = (const(THREADS, I32),)
        fresh = Buffer(f"partial_{partial.dtype}", partial.dtype, slots, "workgroup")
        shared = self.scratch.setdefault(partial.dtype, fresh)
        self.out += combine_shared(shared, [(partial, 0)], combine, self.local, THREADS)
        total = self.emit.register(partial.dtype, "total")
        self.out += [Declare(total, Read(shared, const(0, I32))), Barrier()]
        return total
