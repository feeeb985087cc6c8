"""Kernels that differ in numbers alone become one, which takes those numbers as parameters.

The 1×1 convolutions of a network are the same loops over other extents. As one function they are
less to download and to compile; and since engines optimise a function once it was busy, its later
calls are fast within the very first run.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Dim, Expr, Op, Read, Var, const, walk
from webkiln.ir.program import Kernel, Loop, Step
from webkiln.ir.stmt import Assign, Declare, For, If, Once, Stmt, Store
from webkiln.schedule.kernel import expressions

__all__ = ["share"]

#: Their time is in loops that are long enough, so that numbers in registers cost nothing.
KINDS = frozenset({"contraction", "window"})
#: Operations whose integers are immediates of instructions.
_IMMEDIATE = frozenset({"lane", "shl", "shr"})

Numbers = tuple[int, ...]  # those at one place of several kernels


def share(programs: Sequence[Sequence[Step]]) -> list[list[Step]]:
    """The steps of `programs` with kernels that share a body, where they are of one form and their
    kind is one of `KINDS`: each has `values` of its own.
    """
    kernels = {id(s.kernel.body): s.kernel for steps in programs for s in steps}
    forms: dict[Hashable, list[Kernel]] = {}
    table: dict[Hashable, int] = {}
    for kernel in kernels.values():
        if kernel.kind in KINDS and kernel.paired is None:
            forms.setdefault(_Form(kernel, table).whole(), []).append(kernel)
    common: dict[int, Kernel] = {}
    for group in forms.values():
        if len(group) > 1:
            common |= {id(k.body): one for k, one in zip(group, _merged(group), strict=True)}

    def with_body_in_common(step: Step) -> Step:
        one = common.get(id(step.kernel.body))
        return replace(step, kernel=replace(one, arguments=step.kernel.bound)) if one else step

    return [list(map(with_body_in_common, steps)) for steps in programs]


# --- what kernels have in common ------------------------------------------------------------------


@dataclass
class _Form:
    """A kernel without its integers and its names; parts of it are numbered by a `table`."""

    kernel: Kernel
    table: dict[Hashable, int]
    known: dict[Expr, int] = field(default_factory=dict)
    variables: dict[Var, int] = field(default_factory=dict)
    memory: dict[Buffer, int] = field(default_factory=dict)  # of the task

    def whole(self) -> Hashable:
        """Equal for kernels of one form."""
        k = self.kernel
        buffers = tuple((b.dtype, access) for b, access in zip(k.buffers, k.access, strict=True))
        loops = tuple((self._variable(o.var), self._of(o.extent), o.binding) for o in k.loops)
        return k.kind, buffers, k.params, loops, tuple(map(self._statement, k.body))

    def _statement(self, s: Stmt) -> Hashable:
        own: Hashable = None
        match s:
            case For():
                own = self._variable(s.var), s.step
            case Declare() | Assign():
                own = self._variable(s.var)
            case Store():
                own = self._buffer(s.buffer)
        evaluated = tuple(map(self._of, expressions(s)))
        inside = tuple(tuple(map(self._statement, body)) for body in _bodies(s))
        return type(s), own, evaluated, inside

    def _variable(self, v: Var) -> Hashable:
        if v not in self.variables:
            self.variables[v] = len(self.variables)
        extent = None if v.extent is None else self._of(v.extent)
        return self.variables[v], v.dtype, extent

    def _buffer(self, b: Buffer) -> Hashable:
        if b in self.kernel.buffers:
            return self.kernel.buffers.index(b)
        return self.memory.setdefault(b, len(self.memory)), b.dtype, repr(b.size)

    def _of(self, root: Expr) -> int:
        for node in walk(root):
            if node not in self.known:
                entry = self._entry(node), *(self.known[a] for a in node.args)
                self.known[node] = self.table.setdefault(entry, len(self.table))
        return self.known[root]

    def _entry(self, node: Expr) -> Hashable:
        match node:
            case Const():
                return node.dtype, None if node.dtype == I32 else repr(node.value)
            case Dim():
                return node
            case Var():
                return self._variable(node)
            case Read():
                return self._buffer(node.buffer), node.dtype
            case Op():
                fixed = node.args[1:] if node.name in _IMMEDIATE else ()
                return node.name, node.dtype, *map(repr, fixed)
            case _:
                raise TypeError(f"{type(node).__name__} in a kernel")


def _bodies(s: Stmt) -> tuple[tuple[Stmt, ...], ...]:
    match s:
        case For() | Once():
            return (s.body,)
        case If():
            return s.body, s.orelse
        case _:
            return ()


# --- one for all ----------------------------------------------------------------------------------


def _merged(group: Sequence[Kernel]) -> list[Kernel]:
    """Kernels of one form with a body in common."""
    numbers = _Parameters()
    _Merger(group, numbers).whole()  # shows all there are, before some are made parameters
    numbers.settle()
    loops, body = _Merger(group, numbers).whole()
    first = group[0]
    one = replace(first, loops=loops, body=body, params=(*first.params, *numbers.params))
    return [
        replace(one, values=(*first.params, *(const(n[i], I32) for n in numbers.params.values())))
        for i in range(len(group))
    ]


@dataclass
class _Parameters:
    """The numbers in which kernels differ: a few parameters, and what follows from them."""

    params: dict[Dim, Numbers] = field(default_factory=dict)
    known: dict[Numbers, Expr] = field(default_factory=dict)

    def expression(self, numbers: Numbers) -> Expr:
        """What stands for `numbers`; before `settle` the first of them."""
        same = const(numbers[0], I32)
        return same if len(set(numbers)) == 1 else self.known.setdefault(numbers, same)

    def settle(self) -> None:
        """Chooses the parameters, small ones first: others are multiples of them, and sums."""
        for numbers in sorted(self.known, key=lambda n: (sum(map(abs, n)), n)):
            self.known[numbers] = self._derived(numbers) or self._parameter(numbers)

    def _parameter(self, numbers: Numbers) -> Expr:
        shift = min(0, min(numbers) - 1)  # a Dim is positive
        param = Dim(f"#{len(self.params)}", max(numbers) - shift)
        self.params[param] = tuple(n - shift for n in numbers)
        return param + shift

    def _terms(self) -> Iterator[tuple[Expr, Numbers]]:
        yield from self.params.items()
        for (a, m), (b, n) in itertools.combinations_with_replacement(self.params.items(), 2):
            yield a * b, tuple(x * y for x, y in zip(m, n, strict=True))

    def _derived(self, numbers: Numbers) -> Expr | None:
        """`numbers` as factor·term + rest of a parameter or a product of two, the rest a term's
        multiple or a number; the simplest comes first.
        """
        terms = list(self._terms())
        factors = [(e, x) for e, t in terms if (x := _quotient(numbers, t)) is not None]
        if factors:
            # Of all multiples of a number the same one: a step between rows is seen to be that.
            term, factor = min(factors, key=lambda found: abs(found[1]))
            return term * factor
        one = const(1, I32), (1,) * len(numbers)
        for rests in ([one], terms):
            for (e, some), (f, rest) in itertools.product(terms, rests):
                found = _combination(numbers, some, rest)
                if found is not None:
                    return e * found[0] + f * found[1]
        return None


def _quotient(numbers: Numbers, by: Numbers) -> int | None:
    factor, rest = divmod(numbers[0], by[0])
    exact = rest == 0 and all(n == factor * b for n, b in zip(numbers, by, strict=True))
    return factor if exact else None


def _combination(numbers: Numbers, a: Numbers, b: Numbers) -> tuple[int, int] | None:
    """Whole x and y for which `numbers` = x·a + y·b."""
    for i in range(1, len(numbers)):
        scale = a[0] * b[i] - a[i] * b[0]
        if scale:
            x, over = divmod(numbers[0] * b[i] - numbers[i] * b[0], scale)
            y, left = divmod(a[0] * numbers[i] - a[i] * numbers[0], scale)
            fits = all(n == x * p + y * q for n, p, q in zip(numbers, a, b, strict=True))
            return (x, y) if fits and not over and not left else None
    return None


@dataclass
class _Merger:
    """Walks kernels of one form side by side."""

    group: Sequence[Kernel]
    numbers: _Parameters
    done: dict[tuple[Expr, ...], Expr] = field(default_factory=dict)

    def whole(self) -> tuple[tuple[Loop, ...], tuple[Stmt, ...]]:
        """Loops and body for all."""
        loops = tuple(
            replace(own[0], var=self._variable([o.var for o in own]), extent=self._of(extents))
            for own in zip(*(k.loops for k in self.group), strict=True)
            for extents in [[o.extent for o in own]]
        )
        return loops, self._block([k.body for k in self.group])

    def _block(self, bodies: Sequence[tuple[Stmt, ...]]) -> tuple[Stmt, ...]:
        return tuple(self._statement(*own) for own in zip(*bodies, strict=True))

    def _statement(self, *all_: Any) -> Stmt:
        """Statements of one type; what they evaluate and contain, merged."""
        first: Stmt = all_[0]

        def of(name: str) -> Expr:
            return self._of([getattr(s, name) for s in all_])

        def block(name: str) -> tuple[Stmt, ...]:
            return self._block([getattr(s, name) for s in all_])

        match first:
            case Declare() | Assign():
                return replace(first, var=self._variable([s.var for s in all_]), value=of("value"))
            case Store():
                count = None if first.count is None else of("count")
                return replace(first, offset=of("offset"), value=of("value"), count=count)
            case For():
                var = self._variable([s.var for s in all_])
                start, stop = of("start"), of("stop")
                return replace(first, var=var, start=start, stop=stop, body=block("body"))
            case If():
                return If(of("condition"), block("body"), block("orelse"))
            case Once():
                return Once(block("body"))
            case _:
                return first

    def _variable(self, all_: Sequence[Var]) -> Var:
        first = all_[0]
        if first.extent is None:
            return first
        extent = self._of([v.extent for v in all_ if v.extent is not None])
        return Var(first.name, extent, first.dtype)

    def _of(self, all_: Sequence[Expr]) -> Expr:
        key = tuple(all_)
        if key not in self.done:
            self.done[key] = self._expression(key)
        return self.done[key]

    def _expression(self, all_: tuple[Expr, ...]) -> Expr:
        first = all_[0]
        match first:
            case Const():
                if first.dtype != I32:
                    return first
                return self.numbers.expression(tuple(int(c.value) for c in all_))  # type: ignore[attr-defined]
            case Dim():
                return first
            case Var():
                return self._variable(all_)  # type: ignore[arg-type]
        args = tuple(self._of(own) for own in zip(*(e.args for e in all_), strict=True))
        if isinstance(first, Read):
            return Read(first.buffer, args[0], first.dtype.lanes)
        assert isinstance(first, Op)
        return Op(first.name, args, first.dtype)
