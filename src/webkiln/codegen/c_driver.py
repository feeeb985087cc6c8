"""The driver of a C module: which kernel a step calls, on which addresses, over which tasks.

It defines the functions that wasm_runtime.h asks for: how many steps a program has, one thread's
share of one step, and the weights that are worth reading ahead of a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from webkiln.codegen.c import goes_on, type_name
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Dim, Expr, Op, const, substitute
from webkiln.ir.program import Step
from webkiln.ir.simplify import simplify

__all__ = ["SHARES", "StepCall", "driver"]

#: What a barrier costs in a step's bytes and operations: half a microsecond, more where a thread is
#: late. Steps below that are not worth one, nor claims.
SMALL = 1 << 14

#: Pieces of a thread's share of a step, at most: as evenly as that the threads come to an end.
PIECES = 16

#: Memory is what a step takes time for where it has fewer operations than so many for a byte of its
#: weights: products of one row have two for each weight, and a weight is half a byte or more.
READ_ONCE = 8

#: Stretches of weights that a thread may read ahead are as long at least.
STRETCH = 1 << 14

#: How threads share a step. Kernels include the loop over its parts, so that what they do once is
#: done once a call.
SHARES = f"""
/* A thread's part of a step: tasks from `begin` to `end`, and then what it claims of its share and
 * of others', which have so many pieces each; none where all that it does is fixed. */
typedef struct {{ int begin, end, tasks, pieces, thread, threads; }} Part;

/* Where one of `count` equal shares of `tasks` begins. */
static inline int share(int tasks, int index, int count) {{
  return (int)((long long)tasks * index / count);
}}

/* A part without anything in it yet. */
static __attribute__((noinline)) Part claimed_part(int tasks, int thread, int threads) {{
  int each = (tasks + threads - 1) / threads;
  return (Part){{0, 0, tasks, min_i32(each, {PIECES}), thread, threads}};
}}

static __attribute__((noinline)) Part fixed_part(int tasks, int thread, int threads) {{
  int begin = share(tasks, thread, threads), end = share(tasks, thread + 1, threads);
  return (Part){{begin, end, tasks, 0, thread, threads}};
}}

/* Whether there is more for this thread, and what. */
static __attribute__((noinline)) int next_part(Part *part) {{
  int count = part->pieces * part->threads;
  for (int piece; (piece = webkiln_claim(part->pieces, part->thread, part->threads)) >= 0;) {{
    part->begin = share(part->tasks, piece, count);
    part->end = share(part->tasks, piece + 1, count);
    if (part->begin < part->end) return 1;
  }}
  return 0;
}}
""".strip()


@dataclass(frozen=True, slots=True)
class StepCall:
    """A step of a program as the driver calls it: its kernel is the function `name`.

    `addresses` and `sizes` are the memory plan's, of buffers, in bytes.
    """

    step: Step
    name: str
    addresses: Mapping[Buffer, int]
    sizes: Mapping[Buffer, int]

    @property
    def small(self) -> bool:
        """Whether a barrier would cost as much."""
        cost = simplify(self.step.flops + self.step.bytes)
        return isinstance(cost, Const) and int(cost.value) <= SMALL

    @property
    def weights(self) -> list[tuple[int, int]]:
        """Addresses and sizes of the weights that it reads once, if it does little else."""
        found = [
            (self.addresses[b], self.sizes[b])
            for b in self.step.kernel.bound
            if b.role == "constant" and self.sizes[b] >= STRETCH
        ]
        flops = simplify(self.step.flops)
        limit = READ_ONCE * sum(size for _, size in found)
        return found if isinstance(flops, Const) and int(flops.value) <= limit else []

    def disturbs(self, other: StepCall) -> bool:
        """Whether it touches what `other` writes, or writes what that touches."""
        mine, others = self.step.writes, other.step.writes
        return _meet(self._places(self.step.kernel.bound), other._places(others)) or _meet(
            self._places(mine), other._places(other.step.kernel.bound)
        )

    def _places(self, buffers: Sequence[Buffer]) -> list[range]:
        return [range(self.addresses[b], self.addresses[b] + self.sizes[b]) for b in buffers]


def _meet(some: Sequence[range], others: Sequence[range]) -> bool:
    return any(x.start < y.stop and y.start < x.stop for x in some for y in others)


def driver(programs: Sequence[Sequence[StepCall]], dims: Sequence[Dim]) -> str:
    """`webkiln_steps`, `webkiln_step` and `webkiln_weights`."""
    counts = " : ".join(f"program == {i} ? {len(steps)}" for i, steps in enumerate(programs))
    lines = [f"int webkiln_steps(int program) {{ return {counts} : 0; }}", ""]
    lines.append("int webkiln_step(int program, int step, int thread, int threads) {")
    lines += [f"  const int d{i} = webkiln_dim({i});" for i in range(len(dims))]
    lines += [f"  (void)d{i};" for i in range(len(dims))]
    lines.append("  Part part;")
    lines.append("  switch (program << 16 | step) {")
    names = {d: f"d{i}" for i, d in enumerate(dims)}
    for p, steps in enumerate(programs):
        for i, (call, waits) in enumerate(zip(steps, _waits(steps), strict=True)):
            lines += _case(p << 16 | i, call, waits, names)
    lines += ["  }", "  return 1;", "}", ""]
    return "\n".join([*lines, *_weights(programs)])


def _weights(programs: Sequence[Sequence[StepCall]]) -> list[str]:
    lines = ["unsigned webkiln_weights(int program, int step, int index, unsigned *bytes) {"]
    lines.append("  switch (program << 16 | step) {")
    for p, steps in enumerate(programs):
        for i, call in enumerate(steps):
            if not call.small and call.weights:
                lines.append(f"  case {p << 16 | i}:")
                for index, (address, size) in enumerate(call.weights):
                    lines.append(f"    if (index == {index}) return *bytes = {size}, {address};")
                lines.append("    break;")
    return [*lines, "  }", "  return 0;", "}"]


def _waits(steps: Sequence[StepCall]) -> list[bool]:
    """Whether a barrier follows each of `steps`: none does where steps are small, and the next has
    nothing to do with them. The threads' shares of such steps are fixed.
    """
    out: list[bool] = []
    under_way: list[StepCall] = []
    for step, following in pairwise(steps):
        under_way.append(step)
        out.append(not step.small or any(following.disturbs(s) for s in under_way))
        if out[-1]:
            under_way = []
    return [*out, True][: len(steps)]


def _case(label: int, call: StepCall, waits: bool, dims: Mapping[Dim, str]) -> list[str]:
    kernel = call.step.kernel
    total: Expr = const(1, I32)
    for loop in kernel.loops:
        total = total * substitute(loop.extent, kernel.extents)
    count = _plain(simplify(total), dims)
    arguments = [
        f"({type_name(b.dtype)} *){call.addresses[own]}"
        for b, own in zip(kernel.buffers, kernel.bound, strict=True)
    ]
    arguments += [_plain(e, dims) for e in kernel.extents.values()]
    kind = "fixed" if call.small else "claimed"
    if call.small:
        again = "if (part.begin < part.end)"
    elif goes_on(kernel):
        again = "if (next_part(&part))"
    else:  # where an engine has optimised the function meanwhile, the next call is of that
        again = "while (next_part(&part))"
    return [
        f"  case {label}:",
        f"    part = {kind}_part({count}, thread, threads);",
        f"    {again} {call.name}({', '.join([*arguments, '&part'])});",
        f"    return {int(waits)};",
    ]


def _plain(e: Expr, dims: Mapping[Dim, str]) -> str:
    """An integer expression over dims."""
    if isinstance(e, Const):
        return str(int(e.value))
    if isinstance(e, Dim):
        return dims[e]
    assert isinstance(e, Op)
    a, b = (_plain(x, dims) for x in e.args)
    if e.name in ("min", "max"):
        return f"{e.name}_i32({a}, {b})"
    symbol = {"add": "+", "sub": "-", "mul": "*", "floordiv": "/", "mod": "%"}[e.name]
    return f"({a} {symbol} {b})"
