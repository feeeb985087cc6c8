"""Draw a graph beside a table: a row a node, in order, and a lane for each value in flight.

The picture is that of `git log --graph`: a chain is a straight line, a residual connection is a
lane that passes by, so that a graph of hundreds of nodes stays readable and each node keeps its
row's text.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

__all__ = ["Edge", "Rail", "lay_out"]


@dataclass(frozen=True)
class Edge:
    """A value from the row that makes it to a row that reads it, drawn down `lane`."""

    source: int
    target: int
    lane: int


@dataclass(frozen=True)
class Rail:
    """The column of each row's node, the edges between them, and how many lanes there are."""

    columns: list[int]
    edges: list[Edge]
    lanes: int


def lay_out(rows: Sequence[tuple[Sequence[Hashable], Sequence[Hashable]]]) -> Rail:
    """Place `rows` of (values read, values written), given in order of execution.

    A value written twice (in place) belongs to its latest writer from then on. Values that no row
    writes have no edge. A node takes the lowest lane that its last-read inputs leave free.
    """
    spans = _spans(rows)
    busy: dict[int, int] = {}  # lane → the row that reads its value last
    lane_of: dict[tuple[int, Hashable], int] = {}  # (writing row, value) → lane
    columns: list[int] = []
    edges: list[Edge] = []
    writer: dict[Hashable, int] = {}
    lanes = 1
    for row, (reads, writes) in enumerate(rows):
        for value in dict.fromkeys(reads):
            if value in writer:
                source = writer[value]
                edges.append(Edge(source, row, lane_of[source, value]))
        busy = {lane: last for lane, last in busy.items() if last > row}
        column = _lowest_free(busy)
        columns.append(column)
        for value in dict.fromkeys(writes):
            writer[value] = row
            last = spans.get((row, value), row)
            lane = _lowest_free(busy) if last > row else column
            lane_of[row, value] = lane
            if last > row:
                busy[lane] = last
        lanes = max(lanes, column + 1, *(lane + 1 for lane in busy)) if busy else lanes
    return Rail(columns, edges, lanes)


def _spans(
    rows: Sequence[tuple[Sequence[Hashable], Sequence[Hashable]]],
) -> dict[tuple[int, Hashable], int]:
    """The row that last reads each (writing row, value)."""
    last: dict[tuple[int, Hashable], int] = {}
    writer: dict[Hashable, int] = {}
    for row, (reads, writes) in enumerate(rows):
        for value in reads:
            if value in writer:
                last[writer[value], value] = row
        for value in writes:
            writer[value] = row
    return last


def _lowest_free(busy: dict[int, int]) -> int:
    lane = 0
    while lane in busy:
        lane += 1
    return lane
