"""Rows of A in memory of the task: what a product with a quantised matrix reads of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import F32, I8, I32, DType
from webkiln.ir.expr import (
    Const,
    Expr,
    ExprLike,
    Op,
    Read,
    Var,
    bitcast,
    call,
    cast,
    compare,
    const,
    lane,
    maximum,
    select,
    splat,
    substitute,
)
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Declare, For, Stmt, Store
from webkiln.lower.layout import PANEL
from webkiln.schedule.emit import Emitter
from webkiln.schedule.nest import reduces
from webkiln.schedule.quantised import QuantisedProduct
from webkiln.schedule.vectorize import vectorize

__all__ = ["SHIFT", "StagedRows"]

LANES = 16  # staged at once: four vectors
GROUP = 32  # elements that share a scale, at most a block of weights
WORDS = 4  # of a vector in memory
#: bytes of a row that is kept in vectors: half of a first-level cache that weights stream through.
SPREAD = 16 * 1024
#: scales are kept this much too large, since those of the weights are 2^112 too small and their
#: product should stay a normal number.
SHIFT = 2.0**60
MOST = {8: 127, 16: 127 * 256 + 127}  # by bits; of int16 the high byte, rounded, is at most 127


@dataclass(frozen=True)
class StagedRows:
    """`count` rows of `q`'s A: as int8 or int16 with a scale and a sum a group where `q` is coarse,
    else as float32 with the sum.

    Beside weights of 8 bits, which take the signed operand of a dot product, int8 are split into
    two planes, what is positive and what is negative, 7 bits each. Beside weights of 4 bits, int16
    are split into planes of their high and their low bytes, both signed. `paired` int16 lie in
    pairs instead, the halves of an int32, in the order in which the halves of a word of weights
    meet them.
    """

    q: QuantisedProduct
    count: int
    paired: bool = False

    @property
    def spread(self) -> bool:
        """Whether each word of integers fills a vector of memory: a load at a distance is one
        instruction for V8 then, where one that also repeats a word takes an address of its own.
        """
        words = self.planes * self.q.depth // (2 if self.paired else 4)
        return self.count == 1 and bool(self.q.coarse) and words * WORDS * 4 <= SPREAD

    @property
    def copies(self) -> int:
        """Of each word of integers, one after the other."""
        return WORDS if self.spread else 1

    @property
    def group(self) -> int:
        """Elements that share a scale."""
        return min(GROUP, self.q.block)

    @property
    def groups_per_block(self) -> int:
        """Groups in a block of weights."""
        return self.q.block // self.group

    @property
    def groups(self) -> int:
        """Groups in a row."""
        return self.q.depth // self.group

    @property
    def planes(self) -> int:
        """Planes of bytes; 1 where there are no bytes."""
        split = (self.q.coarse, self.q.sums[0].bits) in ((8, 8), (16, 4))
        return 2 if split and not self.paired else 1

    @property
    def signed_weights(self) -> bool:
        """Whether weights, less 128, take the signed operand: sums of the elements are wanted."""
        return self.q.coarse == 8 and self.q.sums[0].bits == 8

    @property
    def bytes(self) -> int:
        """Memory of the task."""
        buffers = self.elements, self.scales, *((self.sums,) if self.signed_weights else ())
        sizes = ((b.size, b.dtype.bytes) for b in buffers)
        return sum(int(n.value) * width for n, width in sizes if isinstance(n, Const))

    @cached_property
    def elements(self) -> Buffer:
        """[rows, planes, depth], pairs [rows, 1, depth / 2]; times `copies`."""
        if self.paired:
            return self._memory("elements", I32, 1, self.q.depth // 2 * self.copies)
        kind = I8 if self.q.coarse else F32
        return self._memory("elements", kind, self.planes, self.q.depth * self.copies)

    @cached_property
    def scales(self) -> Buffer:
        """[rows, groups, 2]: scale, and scale times the sum; without scales the sums alone."""
        return self._memory("factors", F32, self.groups, 2 if self.q.coarse else 1)

    @cached_property
    def sums(self) -> Buffer:
        """[rows, groups]: 128 times the sum of the int8, for signed weights."""
        return self._memory("sums", I32, self.groups)

    def _memory(self, name: str, dtype: DType, *shape: int) -> Buffer:
        extents = tuple(const(n, I32) for n in (self.count, *shape))
        return Buffer(name, dtype, extents, "workgroup")

    # reading --------------------------------------------------------------------------------------

    def four(self, row: Expr, group: Expr, at: int, plane: int = 0) -> Expr:
        """Four elements of a plane from the group's `at`-th on: the bytes of each lane."""
        place = (group * self.group + at) * self.copies
        where = simplify(self.elements.offset((row, plane, place)))
        word = Read(self.elements, where, 4 * self.copies)
        return splat(bitcast(word, I32.vector(self.copies)), PANEL)

    def pair(self, row: Expr, group: Expr, at: ExprLike) -> Expr:
        """The group's `at`-th pair: the halves of each lane."""
        place = (group * (self.group // 2) + at) * self.copies
        where = simplify(self.elements.offset((row, 0, place)))
        return splat(Read(self.elements, where, self.copies), PANEL)

    def sum(self, row: Expr, group: Expr) -> Expr:
        """128 times the sum of the group's int8, for signed weights."""
        return Read(self.sums, simplify(self.sums.offset((row, group))))

    def one(self, row: Expr, group: Expr, at: int) -> Expr:
        """The group's `at`-th element."""
        where = simplify(self.elements.offset((row, 0, group * self.group + at)))
        return Read(self.elements, where)

    def factors(self, row: Expr, group: Expr) -> tuple[Expr | None, Expr]:
        """The group's scale (None: there is none) and its sum, both times `SHIFT`."""

        def read(which: int) -> Expr:
            return Read(self.scales, simplify(self.scales.offset((row, group, which))))

        return (read(0), read(1)) if self.q.coarse else (None, read(0))

    # writing --------------------------------------------------------------------------------------

    def vectorises(self) -> bool:
        """Whether a group can be computed in vectors along the row."""
        value, group = self._without_reductions(), Var("group", self.groups)
        return all(self._part(value, group, p) is not None for p in range(self._parts))

    @property
    def _parts(self) -> int:
        return self.group // LANES

    def _without_reductions(self) -> Expr:
        value = self.q.a.value
        found = [r for r in reduces(value) if self.q.k not in r.axes]
        stand_ins = {r: Var(f"r{i}", None, r.dtype) for i, r in enumerate(found)}
        return substitute(value, stand_ins)

    def row(
        self,
        place: Expr,
        emit: Emitter,
        bound: frozenset[Var],
        at: Mapping[Var, Expr] | None = None,
    ) -> list[Stmt]:
        """Statements that stage row `at` of A as row `place`; `bound` are the loops around."""
        out: list[Stmt] = []
        value = simplify(substitute(self.q.a.value, dict(at or {})))
        value = emit.hoist(value, bound, out)
        group = emit.loop("group", self.groups)
        body = (self._coarse if self.q.coarse else self._exact)(value, place, group, emit)
        return [*out, For(group, const(0, I32), const(self.groups, I32), tuple(body))]

    def _part(self, value: Expr, group: Expr, part: int) -> Expr | None:
        lane = Var("lane", LANES)
        k = group * self.group + (lane + part * LANES)
        wide = vectorize(simplify(substitute(value, {self.q.k: k})), lane, LANES)
        if wide is None:
            return None
        wide = simplify(substitute(wide, {lane: const(0, I32)}))
        return splat(wide, LANES) if wide.dtype.lanes == 1 else wide

    def _load(self, value: Expr, group: Expr, emit: Emitter, out: list[Stmt]) -> list[Var]:
        """The group in registers."""
        parts = []
        for p in range(self._parts):
            wide = self._part(value, group, p)
            assert wide is not None
            register = emit.register(F32.vector(LANES), "part")
            out.append(Declare(register, wide))
            parts.append(register)
        return parts

    def _exact(self, value: Expr, place: Expr, group: Expr, emit: Emitter) -> list[Stmt]:
        out: list[Stmt] = []
        parts = self._load(value, group, emit, out)
        where = simplify(self.elements.offset((place, 0, group * self.group)))
        shifted = [p * SHIFT for p in parts]
        for p, x in enumerate(shifted):
            out.append(Store(self.elements, simplify(where + p * LANES), x))
        total = _fold("add", shifted)
        out.append(Store(self.scales, simplify(self.scales.offset((place, group, 0))), total))
        return out

    def _coarse(self, value: Expr, place: Expr, group: Expr, emit: Emitter) -> list[Stmt]:
        """Symmetric around zero: scale = max |x| / `MOST`, q = round(x / scale)."""
        most = MOST[self.q.coarse]
        out: list[Stmt] = []
        parts = self._load(value, group, emit, out)
        top, inverse, scale = (emit.register(F32, n) for n in ("top", "inverse", "scale"))
        out.append(Declare(top, _fold("max", [call("abs", p) for p in parts])))
        some = compare("lt", 0.0, top)
        out.append(Declare(inverse, select(some, float(most) / top, const(0, F32))))
        out.append(Declare(scale, top * (SHIFT / most)))
        codes = []
        for p, x in enumerate(parts):
            code = emit.register(F32.vector(LANES), "code")
            out.append(Declare(code, call("round", x * splat(inverse, LANES))))
            codes.append(code)
            store = self._store_pairs if self.paired else self._store_codes
            out += store(code, place, group * self.group + p * LANES, emit)
        at = self.scales.offset((place, group, 0))
        total = emit.register(F32, "total")
        out.append(Declare(total, _fold("add", codes)))
        out.append(Store(self.scales, simplify(at), scale))
        out.append(Store(self.scales, simplify(at + 1), scale * total))
        if self.signed_weights:
            where = simplify(self.sums.offset((place, group)))
            out.append(Store(self.sums, where, cast(total * 128.0, I32)))
        return out

    def _store_pairs(self, code: Var, place: Expr, at: Expr, emit: Emitter) -> list[Stmt]:
        """A word of weights has elements i and i + 2 of each four in its halves."""
        codes = emit.register(I32.vector(LANES), "codes")
        out: list[Stmt] = [Declare(codes, cast(code, codes.dtype))]
        start = self.elements.offset((place, 0, simplify(at // 2 * self.copies)))
        for i, (low, high) in enumerate(self._pairs()):
            a, b = (lane(codes, k) for k in (low, high))
            both = call("bitor", call("bitand", a, 0xFFFF), call("shl", b, 16))
            there = simplify(start + i * self.copies)
            out.append(Store(self.elements, there, splat(both, self.copies)))
        return out

    def _pairs(self) -> list[tuple[int, int]]:
        """Of 16 elements, those that meet the halves of words of weights, shift by shift."""
        return [(w + a, w + a + 2) for w in range(0, LANES, 4) for a in (0, 1)]

    def _store_codes(self, code: Var, place: Expr, at: Expr, emit: Emitter) -> list[Stmt]:
        bytes_ = I8.vector(LANES)
        out: list[Stmt] = []
        planes: tuple[Expr, ...] = (code,)
        if self.signed_weights:
            planes = maximum(code, 0.0), maximum(-code, 0.0)
        elif self.planes == 2:
            codes = emit.register(I32.vector(LANES), "codes")
            out.append(Declare(codes, cast(code, codes.dtype)))
            planes = call("shr", codes + 128, const(8, codes.dtype)), codes
        for number, plane in enumerate(planes):
            where = simplify(self.elements.offset((place, number, at * self.copies)))
            if not self.spread:
                out.append(Store(self.elements, where, cast(plane, bytes_)))
                continue
            words = emit.register(I32.vector(WORDS), "words")
            out.append(Declare(words, bitcast(cast(plane, bytes_), words.dtype)))
            for i in range(WORDS):
                copies = bitcast(splat(lane(words, i), WORDS), bytes_)
                out.append(Store(self.elements, simplify(where + i * LANES), copies))
        return out


def _fold(combine: str, parts: list[Expr] | list[Var]) -> Expr:
    total: Expr = parts[0]
    for p in parts[1:]:
        total = call(combine, total, p)
    return Op(f"fold_{combine}", (total,), F32)
