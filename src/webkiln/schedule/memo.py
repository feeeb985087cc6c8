"""Computations that are alike are scheduled once: the layers of a transformer, say.

Alike are computations that differ in the names of their variables and in which buffers they use,
of the same types, shapes and layouts. Their kernel is the same, with other arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace

from webkiln.ir.buffer import Buffer, side_by_side
from webkiln.ir.expr import Const, Dim, Expr, Load, Op, Reduce, Var, walk
from webkiln.ir.program import Compute, Kernel

__all__ = ["Memo", "signature"]


@dataclass(slots=True)
class Memo:
    """A target's scheduler, of one computation or of several together, that remembers."""

    schedule: Callable[..., Kernel]
    known: dict[Hashable, tuple[Kernel, tuple[Buffer, ...]]] = field(default_factory=dict)

    def __call__(self, *computes: Compute) -> Kernel:
        """The kernel of `computes`, perhaps that of others with arguments of its own."""
        key, buffers = signature(*computes)
        if key not in self.known:
            kernel = self.schedule(*computes)
            self.known[key] = kernel, buffers
            return kernel
        kernel, formal = self.known[key]
        actual = dict(zip(formal, buffers, strict=True))
        if not all(m in actual for b in kernel.buffers for m in b.members or (b,)):
            return self.schedule(*computes)  # it made one of its own
        return replace(kernel, arguments=tuple(_argument(b, actual) for b in kernel.buffers))


def _argument(formal: Buffer, actual: Mapping[Buffer, Buffer]) -> Buffer:
    if not formal.members:
        return actual[formal]
    return side_by_side([actual[m] for m in formal.members])


def signature(*computes: Compute) -> tuple[Hashable, tuple[Buffer, ...]]:
    """What decides the kernel of `computes`, and their buffers in the order of their mention."""
    writer = _Writer()
    found: list[Hashable] = []
    for compute in computes:
        out = writer.buffer(compute.out)
        axes = tuple(map(writer.variable, compute.axes))
        roots = tuple(map(writer.expression, compute.roots))
        found.append((out, axes, roots, compute.at is None))
    return (tuple(found), tuple(writer.entries)), tuple(writer.buffers)


@dataclass(slots=True)
class _Writer:
    """A list of entries, each naming earlier ones by their number."""

    entries: list[Hashable] = field(default_factory=list)
    numbers: dict[Expr, int] = field(default_factory=dict)
    buffers: dict[Buffer, int] = field(default_factory=dict)

    def add(self, node: Expr, *entry: Hashable) -> int:
        self.entries.append(entry)
        self.numbers[node] = len(self.entries) - 1
        return self.numbers[node]

    def variable(self, v: Var) -> int:
        if v in self.numbers:
            return self.numbers[v]
        return self.add(v, "dim", v) if isinstance(v, Dim) else self.add(v, "var", v.extent)

    def buffer(self, b: Buffer) -> int:
        if b not in self.buffers:
            self.buffers[b] = len(self.buffers)
            self.entries.append((b.dtype, b.shape, b.role, b.layout))
        return self.buffers[b]

    def expression(self, root: Expr) -> int:
        for node in walk(root):
            if node in self.numbers:
                continue
            args = tuple(self.numbers[a] for a in node.args)
            match node:
                case Const():
                    self.add(node, "const", repr(node.value), node.dtype)
                case Var():
                    self.variable(node)
                case Load():
                    self.add(node, "load", self.buffer(node.buffer), *args)
                case Reduce():
                    axes = tuple(map(self.variable, node.axes))
                    self.add(node, "reduce", node.kind, axes, *args)
                case Op():
                    self.add(node, "op", node.name, node.dtype, *args)
                case _:
                    raise TypeError(f"{type(node).__name__} in a computation")
        return self.numbers[root]
