"""Buffers: named, typed, shaped memory, and the layout that says where each element lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from webkiln.ir.dtypes import I32, DType
from webkiln.ir.expr import Const, Expr, ExprLike, ceildiv, const, convert

__all__ = [
    "CONSTANT_ALIGNMENT",
    "Buffer",
    "Layout",
    "Part",
    "Role",
    "packed",
    "row_major",
    "side_by_side",
]

#: Bytes: constants begin at multiples of it, the minStorageBufferOffsetAlignment of WebGPU's base
#: limits, so that each can be bound.
CONSTANT_ALIGNMENT = 256

#: `workgroup`: memory of one workgroup, inside a kernel and no argument of it
Role = Literal["input", "output", "constant", "temporary", "state", "workgroup"]


@dataclass(frozen=True, slots=True)
class Part:
    """One physical dimension: `index[axis] // divisor % modulus`; no modulus: the outermost."""

    axis: int
    divisor: int = 1
    modulus: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Physical dimensions, outermost first: splits of the logical axes, in some order."""

    parts: tuple[Part, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Logical axes in the order in which they first vary, outermost first."""
        return tuple(dict.fromkeys(p.axis for p in self.parts))

    def extents(self, shape: Sequence[Expr]) -> tuple[Expr, ...]:
        """The size of each part for a buffer of logical `shape`."""
        return tuple(
            const(p.modulus, I32) if p.modulus is not None else ceildiv(shape[p.axis], p.divisor)
            for p in self.parts
        )

    def offset(self, shape: Sequence[Expr], index: Sequence[Expr]) -> Expr:
        """The linear element offset of logical `index` in a buffer of logical `shape`."""
        total: Expr = const(0, I32)
        for part, extent in zip(self.parts, self.extents(shape), strict=True):
            digit = index[part.axis] // part.divisor
            total = total * extent + (digit if part.modulus is None else digit % part.modulus)
        return total


def row_major(order: int | Sequence[int]) -> Layout:
    """Axes in `order` (a rank: 0, 1, …), the last one contiguous."""
    axes = range(order) if isinstance(order, int) else order
    return Layout(tuple(Part(a) for a in axes))


def packed(order: Sequence[int], axis: int, width: int) -> Layout:
    """Panels of `width` along `axis`: [axis / width][the other axes in order][axis % width]."""
    rest = tuple(Part(a) for a in order if a != axis)
    return Layout((Part(axis, width), *rest, Part(axis, 1, width)))


@dataclass(frozen=True, eq=False, slots=True)
class Buffer:
    """Memory for a tensor of logical `shape`. Identity is the object: two buffers are never equal.

    `model_dtype` is the ONNX dtype (NumPy name) that it stands for at the model's edge. `members`
    are the constants that it holds, if it is made of several (see `side_by_side`).
    """

    name: str
    dtype: DType
    shape: tuple[Expr, ...]
    role: Role = "temporary"
    layout: Layout = field(default=Layout(()))
    model_dtype: str = ""
    members: tuple[Buffer, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(convert(s, I32) for s in self.shape))
        if not self.layout.parts and self.shape:
            object.__setattr__(self, "layout", row_major(len(self.shape)))
        if not self.model_dtype:
            object.__setattr__(self, "model_dtype", self.dtype.name)

    def offset(self, index: Sequence[ExprLike]) -> Expr:
        """The linear element offset of logical `index`."""
        return self.layout.offset(self.shape, [convert(i, I32) for i in index])

    @property
    def is_empty(self) -> bool:
        """Whether a fixed extent is 0: there is nothing to compute, to write or to read."""
        return any(isinstance(e, Const) and e.value == 0 for e in self.shape)

    @property
    def size(self) -> Expr:
        """Elements, padding of a packed layout included."""
        total: Expr = const(1, I32)
        for extent in self.layout.extents(self.shape):
            total = total * extent
        return total

    @property
    def starts(self) -> dict[Buffer, int]:
        """The element at which each member begins."""
        found, end = {}, 0
        for member in self.members:
            found[member] = end
            end += _room(member)
        return found

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(repr, self.shape))}]"


def side_by_side(members: Sequence[Buffer]) -> Buffer:
    """Constants of one dtype as one: a kernel binds it once and reads all of them.

    Each begins at a multiple of `CONSTANT_ALIGNMENT`, so that others may bind it alone.
    """
    name, size = ", ".join(m.name for m in members), sum(map(_room, members))
    dtype = members[0].dtype
    return Buffer(name, dtype, (const(size, I32),), "constant", members=tuple(members))


def _room(member: Buffer) -> int:
    """Elements from a member's first to that of the next."""
    assert isinstance(member.size, Const), "constants have fixed shapes"
    unit = CONSTANT_ALIGNMENT // member.dtype.bytes
    return -(-int(member.size.value) // unit) * unit
