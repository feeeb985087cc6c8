"""When each buffer holds a value that somebody still reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from webkiln.ir.buffer import Buffer

__all__ = ["Lifetime", "StepIO", "lifetimes"]


@dataclass(frozen=True, eq=False, slots=True)
class StepIO:
    """The buffers that one step reads and writes; one that it updates in place is in both."""

    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]


class Lifetime(NamedTuple):
    """The steps `first … last`, both included, over which a buffer's memory is its own.

    -1 is the time before the first step, when the caller writes the inputs; the number of steps is
    the time after the last, when it reads the outputs.
    """

    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


def lifetimes(
    steps: Sequence[StepIO], inputs: Sequence[Buffer], outputs: Sequence[Buffer]
) -> dict[Buffer, Lifetime]:
    """The lifetime of every buffer but the constants, in order of birth.

    Inputs live from -1 to their last use, outputs from their first write to `len(steps)`, state
    always. A step's reads and writes are all alive during it, so they never share memory.
    Raises `ValueError` for a temporary that is read before any step wrote it.
    """
    end = len(steps)
    first: dict[Buffer, int] = dict.fromkeys(inputs, -1)
    last: dict[Buffer, int] = dict.fromkeys(inputs, -1)
    for time, step in enumerate(steps):
        for buffer in step.reads:
            if buffer.role == "constant":
                continue
            if buffer not in first:
                if buffer.role != "state" and not buffer.is_empty:
                    raise ValueError(f"step {time} reads {buffer.name} before a step wrote it")
                first[buffer] = -1
            last[buffer] = time
        for buffer in step.writes:
            if buffer.role == "constant":
                raise ValueError(f"step {time} writes the constant {buffer.name}")
            first.setdefault(buffer, time)
            last[buffer] = time
    for buffer in outputs:
        if buffer.role == "constant":
            continue
        if buffer not in first and not buffer.is_empty:
            raise ValueError(f"no step writes the output {buffer.name}")
        first.setdefault(buffer, -1)
        last[buffer] = end
    return {
        b: Lifetime(-1, end) if b.role == "state" else Lifetime(first[b], last[b]) for b in first
    }
