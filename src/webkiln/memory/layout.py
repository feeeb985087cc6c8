"""Arrays in a physical layout: what the kernels' index arithmetic expects in memory."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webkiln.ir.buffer import Buffer, Layout
from webkiln.ir.dtypes import DType
from webkiln.memory.size import evaluate

__all__ = ["join", "pack", "store"]

Array = NDArray[Any]


def store(values: Array, dtype: DType) -> Array:
    """`values` in storage type `dtype`. Integers outside its range stop at its ends.

    Models write "to the end" as the largest int64; the largest int32 says the same.
    """
    target = np.dtype("int32" if dtype.kind == "b" else dtype.name)
    values = np.asarray(values)
    if values.dtype == target:
        return values
    if values.dtype.kind in "iu" and target.kind in "iu":
        info, given = np.iinfo(target), np.iinfo(values.dtype)
        values = values.clip(max(info.min, given.min), min(info.max, given.max))
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite there
        return values.astype(target)


def pack(values: Array, buffer: Buffer) -> Array:
    """The elements of constant `buffer` as they lie in memory: one dimension, padding zero.

    `values` has the logical shape and any dtype. Raises `ValueError` when the shapes differ.
    """
    shape = tuple(evaluate(e, {}) for e in buffer.shape)
    if values.shape != shape:
        raise ValueError(f"{buffer.name} has shape {list(shape)}, its values {list(values.shape)}")
    values = store(values, buffer.dtype)
    chains = _chains(buffer.layout, len(shape))
    if chains is None:
        return _scatter(values, buffer)
    return _transpose(values, buffer.layout, chains)


def join(elements: Mapping[Buffer, Array], whole: Buffer) -> Array:
    """The elements of `whole`, given those of its members as `pack` makes them."""
    joined = np.zeros(evaluate(whole.size, {}), whole.dtype.name)
    for member, start in whole.starts.items():
        joined[start : start + elements[member].size] = elements[member]
    return joined


def _chains(layout: Layout, rank: int) -> list[list[int]] | None:
    """For each axis its parts, outermost first, if they are the digits of a mixed-radix number.

    That is: the finest has divisor 1, each coarser one begins where the finer ends, and the
    coarsest is unbounded. None otherwise (overlapping, missing or truncated digits).
    """
    chains: list[list[int]] = []
    for axis in range(rank):
        indices = [k for k, p in enumerate(layout.parts) if p.axis == axis]
        indices.sort(key=lambda k: layout.parts[k].divisor, reverse=True)
        parts = [layout.parts[k] for k in indices]
        if not parts or parts[-1].divisor != 1 or parts[0].modulus is not None:
            return None
        for coarse, fine in pairwise(parts):
            if fine.modulus is None or fine.divisor * fine.modulus != coarse.divisor:
                return None
        chains.append(indices)
    return chains


def _transpose(values: Array, layout: Layout, chains: list[list[int]]) -> Array:
    """Pad every axis to whole parts, split it into them, and put them in the layout's order."""
    split: list[int] = []
    padding: list[tuple[int, int]] = []
    for axis, indices in enumerate(chains):
        size = values.shape[axis]
        outer = layout.parts[indices[0]].divisor
        digits = [-(-size // outer)]
        digits += [m for k in indices[1:] if (m := layout.parts[k].modulus) is not None]
        split += digits
        padding.append((0, digits[0] * outer - size))
    if any(after for _, after in padding):
        values = np.pad(values, padding)
    source = [k for indices in chains for k in indices]  # part of each axis of the split array
    order = [source.index(k) for k in range(len(source))]
    return np.ascontiguousarray(values.reshape(split).transpose(order)).reshape(-1)


def _scatter(values: Array, buffer: Buffer) -> Array:
    """Any layout at all: each element to its offset."""
    extents = [evaluate(e, {}) for e in buffer.layout.extents(buffer.shape)]
    offsets = np.zeros(values.shape, np.int64)
    grid = np.indices(values.shape, np.int64, sparse=True)
    for part, extent in zip(buffer.layout.parts, extents, strict=True):
        digit = grid[part.axis] // part.divisor
        offsets = offsets * extent + (digit if part.modulus is None else digit % part.modulus)
    packed = np.zeros(evaluate(buffer.size, {}), values.dtype)
    packed[offsets.ravel()] = values.ravel()
    return packed
