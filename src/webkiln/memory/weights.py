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

from webkiln.ir.buffer import Buffer
from webkiln.memory.layout import pack
from webkiln.memory.size import align

__all__ = ["WEIGHT_ALIGNMENT", "WeightSpace", "lay_out_weights"]

WEIGHT_ALIGNMENT = 256  # minStorageBufferOffsetAlignment of WebGPU's base limits


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

    That is the order of download, and what a kernel reads together lies together.
    """
    space = WeightSpace()
    seen: dict[bytes, int] = {}
    for buffer in dict.fromkeys(order):
        elements = pack(np.asarray(constants[buffer]), buffer)
        key = hashlib.sha256(elements.view(np.uint8).data).digest()
        space.bytes_of[buffer] = elements.nbytes
        if key in seen:
            space.offsets[buffer] = seen[key]
            continue
        offset = align(space.bytes, WEIGHT_ALIGNMENT)
        seen[key] = space.offsets[buffer] = offset
        space.pieces[offset] = elements
        # a multiple of 4 because WebGPU binds and copies whole words
        space.bytes = offset + align(max(elements.nbytes, 4), 4)
    return space
