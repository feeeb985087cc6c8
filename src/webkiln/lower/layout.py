"""Where elements lie: channels-last activations, packed weights, padded and packed copies.

Operators are written in ONNX's logical order; a layout is a property of a buffer, so nothing here
changes what is computed. One choice serves both targets, since they share one set of weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from webkiln.ir.buffer import Buffer, Layout, Part, packed, row_major
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Dim,
    Expr,
    Load,
    Op,
    Reduce,
    Var,
    compare,
    conjuncts,
    const,
    logical_and,
    rebuffer,
    select,
    substitute,
    walk,
)
from webkiln.ir.program import Compute, Program
from webkiln.ir.simplify import linear, simplify
from webkiln.lower.attention import key_states, pack_keys
from webkiln.lower.fuse import is_contraction, replace_computes
from webkiln.lower.quantised import in_panels

__all__ = ["PANEL", "assign_layouts"]

#: columns in a packed panel: two 128-bit vectors on wasm, two vec4 on WebGPU. With four rows that
#: is eight accumulators; six rows spill in V8.
PANEL = 8


def assign_layouts(program: Program, states: dict[Buffer, Buffer] | None = None) -> Program:
    """`program` with a layout for every buffer, and the copies that contractions read.

    `states` is shared by the programs of a model: what each state became, in its one layout.
    """
    program = _channels_last(_copy_outputs(in_panels(program, PANEL)))
    program = key_states(program, {} if states is None else states)
    return _Operands(program).run()


def _copy_outputs(program: Program) -> Program:
    """A windowed operator's output is computed channels-last, then copied to the model's order."""
    computes: list[Compute] = []
    wanted = set(program.channels_last)
    for c in program.computes:
        windowed = c.out in wanted and any(isinstance(n, Reduce) for n in walk(c.value))
        if not (windowed and c.out in program.outputs and len(c.out.shape) > 2):
            computes.append(c)
            continue
        inner = replace(c.out, name=f"{c.out.name}_last", role="temporary")
        wanted.add(inner)
        wanted.discard(c.out)
        computes.append(replace(c, out=inner))
        axes = tuple(Var(f"{v.name}c", v.extent) for v in c.axes)
        computes.append(Compute(c.out, axes, Load(inner, axes), "to the model's layout"))
    return replace(program, computes=computes, channels_last=frozenset(wanted))


def _channels_last(program: Program) -> Program:
    """Batch, space, channels for images and signals; element-wise work keeps what it reads."""
    chosen: set[Buffer] = set()
    for c in program.computes:
        if len(c.out.shape) < 3 or c.out.role != "temporary":
            continue  # the caller, or the next run, knows the others by their rows
        same_rank = {
            n.buffer
            for n in walk(c.value)
            if isinstance(n, Load) and len(n.buffer.shape) == len(c.out.shape)
        }
        if c.out in program.channels_last or (
            same_rank & chosen and not any(isinstance(n, Reduce) for n in walk(c.value))
        ):
            chosen.add(c.out)
    renamed = {b: replace(b, layout=row_major((0, *range(2, len(b.shape)), 1))) for b in chosen}
    return replace(program, computes=[c.on(renamed) for c in program.computes])


@dataclass
class _Operands:
    """Gives each computation, in order, what it reads in the layout that it wants."""

    program: Program

    def run(self) -> Program:
        self.constants: dict[Buffer, NDArray[np.generic]] = dict(self.program.constants)
        self.made: dict[tuple[Buffer, Layout], Buffer] = {}
        self.computes: list[Compute] = []
        for compute in self.program.computes:
            packed = pack_keys(compute, f"{compute.out.name}{len(self.computes)}")
            if packed is not None:
                self.computes.append(packed[0])
            self.computes.append(self._arrange(compute if packed is None else packed[1]))
        return replace_computes(replace(self.program, constants=self.constants), self.computes)

    def _arrange(self, compute: Compute) -> Compute:
        if not compute.axes:
            return compute
        n = compute.axes[compute.out.layout.order[-1]]
        reduce = is_contraction(compute.value)
        if reduce is not None:
            arranged = self._contraction(compute, reduce, n)
            if arranged is not None:
                return arranged
        return self._columns(compute, n)

    # contractions ---------------------------------------------------------------------------------

    def _contraction(self, compute: Compute, reduce: Reduce, n: Var) -> Compute | None:
        """Rows unconditional, columns in panels; None where n does not tell the operands apart."""
        assert isinstance(reduce.body, Op)
        for a, b in (reduce.body.args, reduce.body.args[::-1]):
            if n in set(walk(a)) or n not in set(walk(b)):
                continue
            if not isinstance(b, Load):
                return None
            rows = self._unguarded(a, compute)
            if rows is None:
                return None
            columns = self._panels(rows, b, reduce, n, compute)
            body = Op("mul", (rows, columns), reduce.dtype)
            new = Reduce(reduce.kind, reduce.axes, body)
            return replace(compute, value=simplify(substitute(compute.value, {reduce: new})))
        return None

    def _unguarded(self, a: Expr, compute: Compute) -> Load | None:
        """`a` as a plain load: a guarded one becomes a load from a padded copy."""
        if isinstance(a, Load):
            return a
        if not (isinstance(a, Op) and a.name == "select" and isinstance(a.args[1], Load)):
            return None
        load, outside = a.args[1], a.args[2]
        if not (isinstance(outside, Const) and outside.value == 0):
            return None
        return self._padded(load, a.args[0], compute)

    def _padded(self, load: Load, guard: Expr, compute: Compute) -> Load | None:
        """A copy of what is loaded, with zeros wherever an index may leave it."""
        lows: list[Expr] = []
        shape: list[Expr] = []
        for index, size in zip(load.args, load.buffer.shape, strict=True):
            extremes = _extremes(index)
            if extremes is None:
                return None
            low, high = extremes
            if isinstance(low, Const) and low.value >= 0:
                low = const(0, I32)
            top = simplify(high + 1)
            beyond = simplify(compare("le", top, size))
            high_end = size if isinstance(beyond, Const) and beyond.value else top
            lows.append(low)
            shape.append(simplify(high_end - low))
        needed = [
            c
            for index, size in zip(load.args, load.buffer.shape, strict=True)
            for c in (compare("le", 0, index), compare("lt", index, size))
        ]
        allowed = {simplify(c) for c in needed}
        if any(simplify(c) not in allowed for c in conjuncts(guard)):
            return None
        layout = load.buffer.layout
        if compute.out.layout.order[-1] == 1 and len(load.buffer.shape) == len(compute.out.shape):
            layout = row_major((0, *range(2, len(shape)), 1))
        source = load.buffer
        copy = Buffer(
            f"{source.name}_padded{len(self.computes)}", source.dtype, tuple(shape), layout=layout
        )
        axes = tuple(Var(f"p{len(self.computes)}_{i}", e) for i, e in enumerate(copy.shape))
        inner = [simplify(v + low) for v, low in zip(axes, lows, strict=True)]
        inside = [
            c
            for i, size in zip(inner, source.shape, strict=True)
            for c in (compare("le", 0, i), compare("lt", i, size))
        ]
        value = simplify(select(logical_and(*inside), Load(source, inner), const(0, source.dtype)))
        self.computes.append(Compute(copy, axes, value, f"pad for {compute.label}"))
        return Load(copy, [simplify(i - low) for i, low in zip(load.args, lows, strict=True)])

    def _panels(self, a: Load, b: Load, reduce: Reduce, n: Var, compute: Compute) -> Load:
        """`b` contiguous along n, in panels of `PANEL`: packed at build time, or by a kernel."""
        where = [i for i, index in enumerate(b.args) if n in set(walk(index))]
        if len(where) != 1 or linear(b.args[where[0]], (n,)) is None:
            return b
        axis = where[0]
        order = _order_like(a, b, reduce)
        if b.buffer in self.constants:
            if b.args[axis] is not n:
                return b
            return Load(self._relaid(b.buffer, packed(order, axis, PANEL)), b.args)
        moves = linear(simplify(b.buffer.offset(b.args)), (n,))
        if moves is not None and moves[0].get(n) is const(1, I32):
            return b
        return self._packed_copy(b, reduce, n, compute)

    def _packed_copy(self, b: Load, reduce: Reduce, n: Var, compute: Compute) -> Load:
        """A kernel that packs `b`, which is no constant: [batch …][n / PANEL][k …][n % PANEL]."""
        present = {v for index in b.args for v in walk(index)}
        batch = [v for v in compute.axes if v in present and v is not n]
        depth = [v for v in reduce.axes if v in present]
        variables = [*batch, n, *depth]
        count = len(batch)
        layout = Layout(
            (
                *(Part(i) for i in range(count)),
                Part(count, PANEL),
                *(Part(count + 1 + i) for i in range(len(depth))),
                Part(count, 1, PANEL),
            )
        )
        shape = tuple(v.extent for v in variables if v.extent is not None)
        copy = Buffer(f"{b.buffer.name}_packed{len(self.computes)}", b.dtype, shape, layout=layout)
        axes = tuple(Var(f"q{len(self.computes)}_{i}", e) for i, e in enumerate(shape))
        value = simplify(substitute(b, dict(zip(variables, axes, strict=True))))
        self.computes.append(Compute(copy, axes, value, f"pack for {compute.label}"))
        return Load(copy, variables)

    # everything else ------------------------------------------------------------------------------

    def _columns(self, compute: Compute, n: Var) -> Compute:
        """Constants indexed by the output's innermost axis get that axis last."""
        buffers: dict[Buffer, Buffer] = {}
        for node in walk(compute.value):
            if not (isinstance(node, Load) and node.buffer in self.constants):
                continue
            where = [i for i, index in enumerate(node.args) if index is n]
            if len(where) == 1 and where[0] != len(node.args) - 1:
                order = [i for i in range(len(node.args)) if i != where[0]]
                buffers[node.buffer] = self._relaid(node.buffer, row_major((*order, where[0])))
        return replace(compute, value=rebuffer(compute.value, buffers)) if buffers else compute

    def _relaid(self, buffer: Buffer, layout: Layout) -> Buffer:
        """The constant in another layout; users with the same wish share it."""
        if buffer.layout == layout:
            return buffer
        key = buffer, layout
        if key not in self.made:
            new = replace(buffer, layout=layout)
            self.made[key] = new
            self.constants[new] = self.constants[buffer]
        return self.made[key]


def _extremes(index: Expr) -> tuple[Expr, Expr] | None:
    """The smallest and largest value of an index that grows linearly with its variables."""
    variables = [v for v in walk(index) if isinstance(v, Var) and not isinstance(v, Dim)]
    parts = linear(index, variables)
    if parts is None:
        return None
    low = high = parts[1]
    for v, factor in parts[0].items():
        if not isinstance(factor, Const) or factor.value < 0 or v.extent is None:
            return None
        high = high + (v.extent - 1) * factor
    return simplify(low), simplify(high)


def _order_like(a: Load, b: Load, reduce: Reduce) -> tuple[int, ...]:
    """B's axes so that k moves through it as through a: what moves a farthest comes first."""
    parts = linear(simplify(a.buffer.offset(a.args)), reduce.axes)

    def distance(i: int) -> tuple[int, int]:
        index = b.args[i]
        if parts is None or not isinstance(index, Var) or index not in reduce.axes:
            return 0, i
        move = parts[0].get(index, const(0, I32))
        return 1, -int(move.value) if isinstance(move, Const) else -(1 << 40)

    return tuple(sorted(range(len(b.args)), key=distance))
