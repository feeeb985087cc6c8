"""Tables: constants of which a run reads only the rows that its inputs name, as of embeddings.

A browser runs the model when the rows of the first run are there; the others arrive later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Const, Load, walk
from webkiln.ir.program import Program
from webkiln.ir.simplify import simplify
from webkiln.memory.weights import WeightSpace
from webkiln.ops.gather import from_end

__all__ = ["Table", "find_tables"]

#: Bytes. A smaller table arrives as fast as anybody could ask for its rows.
_LEAST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` from byte `offset` of the weight space on, each `group` of them in `group_bytes`.

    A run of the k-th program reads the rows that its inputs (k, input) hold the numbers of; a
    negative number counts from the end.
    """

    offset: int
    rows: int
    group: int
    group_bytes: int
    named_by: tuple[tuple[int, Buffer], ...]

    @property
    def end(self) -> int:
        """The byte after the last one."""
        return self.offset + -(-self.rows // self.group) * self.group_bytes


def find_tables(
    programs: Sequence[Program], weights: WeightSpace, least_bytes: int = _LEAST_BYTES
) -> tuple[Table, ...]:
    """The tables of at least `least_bytes` bytes, in the order in which they lie."""
    places = _places(weights)
    lookups: dict[tuple[int, int, int, int], dict[tuple[int, Buffer], None]] = {}
    whole: set[int] = set()
    for k, program in enumerate(programs):
        whole |= {places[b] for b in program.outputs if b in places}
        loads = (n for c in program.computes for root in c.roots for n in walk(root))
        for load in loads:
            if not isinstance(load, Load) or load.buffer not in places:
                continue
            offset, port = places[load.buffer], _named_by(load)
            if port is None:
                whole.add(offset)
            else:
                lookups.setdefault((offset, *_rows(load.buffer)), {})[k, port] = None
    # Equal bytes are stored once: whoever reads them otherwise needs all of them.
    places_of = [offset for offset, *_ in lookups]
    tables = [
        Table(*shape, tuple(ports))
        for shape, ports in sorted(lookups.items(), key=lambda item: item[0])
        if shape[0] not in whole and places_of.count(shape[0]) == 1
    ]
    return tuple(t for t in tables if t.end - t.offset >= least_bytes)


def _places(weights: WeightSpace) -> Mapping[Buffer, int]:
    """Where constants begin, those too that lie inside of another."""
    places = dict(weights.offsets)
    for buffer, offset in weights.offsets.items():
        for member, start in buffer.starts.items():
            places.setdefault(member, offset + start * member.dtype.bytes)
    return places


def _named_by(load: Load) -> Buffer | None:
    """The input whose value is the row that is read: where an element is along what varies last."""
    table = load.buffer
    if not table.shape:
        return None
    axis = table.layout.parts[0].axis
    row = load.args[axis]
    for node in walk(row):
        if isinstance(node, Load) and node.buffer.role == "input":
            wrapped = simplify(from_end(node, table.shape[axis]))
            return node.buffer if simplify(row) in (node, wrapped) else None
    return None


def _rows(table: Buffer) -> tuple[int, int, int]:
    """How many rows there are, how many lie together, and in how many bytes those."""
    outer = table.layout.parts[0]
    extents = [int(e.value) for e in table.layout.extents(table.shape) if isinstance(e, Const)]
    rows = table.shape[outer.axis]
    assert isinstance(rows, Const), "constants have fixed shapes"
    return int(rows.value), outer.divisor, prod(extents[1:]) * table.dtype.bytes
