"""The weight space: every constant's bytes, as the kernels read them, one after the other.

Both targets and the download share it: a constant has one offset, wherever the space is put.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webkiln.ir.buffer import CONSTANT_ALIGNMENT, Buffer
from webkiln.memory.layout import join, pack
from webkiln.memory.size import align

__all__ = ["WeightSpace", "lay_out_weights"]


@dataclass(slots=True)
class WeightSpace:
    """Offsets and sizes in bytes of the constants; equal bytes are stored once."""

    offsets: dict[Buffer, int] = field(default_factory=dict)
    bytes_of: dict[Buffer, int] = field(default_factory=dict)
    pieces: dict[int, NDArray[Any]] = field(default_factory=dict)  # offset → elements
    bytes: int = 0

    def data(self) -> NDArray[np.uint8]:
        """The whole space; what lies between constants is zero."""
        space = np.zeros(self.bytes, np.uint8)
        for offset, piece in self.pieces.items():
            space[offset : offset + piece.nbytes] = piece.view(np.uint8)
        return space


def lay_out_weights(
    constants: Mapping[Buffer, NDArray[Any]], order: Iterable[Buffer]
) -> WeightSpace:
    """The weight space of `constants` in the order of their first use.

    That is the order of download, and what a kernel reads together lies together. What is bound
    side by side with others lies there; only what has its place already is stored once more.
    """
    space = WeightSpace()
    seen: dict[bytes, int] = {}
    for buffer in _joined_first(order):
        packed = {m: pack(np.asarray(constants[m]), m) for m in buffer.members or (buffer,)}
        elements = join(packed, buffer) if buffer.members else packed[buffer]
        key = _digest(elements)
        space.bytes_of[buffer] = elements.nbytes
        if key in seen:
            space.offsets[buffer] = seen[key]
            continue
        offset = align(space.bytes, CONSTANT_ALIGNMENT)
        seen[key] = space.offsets[buffer] = offset
        for member, start in buffer.starts.items():
            seen.setdefault(_digest(packed[member]), offset + start * member.dtype.bytes)
        space.pieces[offset] = elements
        # a multiple of 4 because WebGPU binds and copies whole words
        space.bytes = offset + align(max(elements.nbytes, 4), 4)
    return space


def _joined_first(order: Iterable[Buffer]) -> list[Buffer]:
    """In order of first use, where that of a part is that of the whole."""
    used = list(dict.fromkeys(order))
    wholes: dict[Buffer, Buffer] = {}
    for buffer in used:
        for member in buffer.members:
            wholes.setdefault(member, buffer)
    return list(dict.fromkeys(b for own in used for b in (wholes.get(own, own), own)))


def _digest(elements: NDArray[Any]) -> bytes:
    return hashlib.sha256(elements.view(np.uint8).data).digest()
