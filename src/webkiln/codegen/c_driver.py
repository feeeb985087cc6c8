"""The driver of a C module: which kernel a step calls, on which addresses, over which tasks.

It defines the two functions that wasm_runtime.h asks for: how many steps a program has, and one
thread's share of one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from webkiln.codegen.c import type_name
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Dim, Expr, Op, const, substitute
from webkiln.ir.program import Step
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Once

__all__ = ["SHARES", "StepCall", "driver"]

#: What a barrier costs in a step's bytes and operations: half a microsecond, more where a thread is
#: late. Steps below that are not worth one, nor claims.
SMALL = 1 << 14

#: Calls of a kernel for a thread's share of a step: where an engine has optimised the function
#: meanwhile, the next call is of that.
PIECES = 8

#: How threads share a step. Kernels include the loop over its parts, so that what they do once is
#: done once a call.
SHARES = """
/* A thread's part of a step: tasks from `begin` to `end`, piece by piece until `last`, then what it
 * claims of the rest. */
typedef struct { int begin, end, last, piece, claimed, tasks, chunk; } Part;

/* Where thread `thread`'s part of `tasks` begins. */
static inline int share(int tasks, int thread, int threads) {
  return (int)((long long)tasks * thread / threads);
}

/* `fixed` tasks are shared out beforehand; the others go to whoever is ready. */
static __attribute__((noinline)) Part part_of(int tasks, int fixed, int pieces, int thread,
                                              int threads) {
  int begin = share(fixed, thread, threads), last = share(fixed, thread + 1, threads);
  int piece = (last - begin + pieces - 1) / pieces, chunk = tasks / (16 * threads);
  return (Part){begin, begin + piece, last, piece, fixed, tasks, chunk < 1 ? 1 : chunk};
}

/* How many are shared out of many: a thread reads memory in one long stretch, and meets again what
 * it wrote. The rest evens out that cores differ, and that other programs use them too. */
static inline int most_of(int tasks, int threads) {
  return threads == 1 ? tasks : (int)(tasks * 3LL / 4);
}

/* What is next for this thread. Whether the same call does it; else another does, if `any_part`. */
static __attribute__((noinline)) int claim_part(Part *part) {
  if (part->end < part->last) {
    part->begin = part->end;
    part->end = min_i32(part->begin + part->piece, part->last);
    return 0;
  }
  part->begin = part->claimed;
  if (part->claimed < part->tasks) part->begin += webkiln_claim() * part->chunk;
  part->end = min_i32(part->begin + part->chunk, part->tasks);
  return part->begin < part->end;
}

static inline int any_part(Part *part) { return part->begin < part->end; }
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
    """`webkiln_steps` and `webkiln_step`."""
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
    return "\n".join([*lines, "  }", "  return 1;", "}"])


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
    fixed = count if call.small else f"most_of({count}, threads)"
    pieces = 1 if any(isinstance(s, Once) for s in kernel.body) else PIECES
    return [
        f"  case {label}:",
        f"    part = part_of({count}, {fixed}, {pieces}, thread, threads);",
        "    if (any_part(&part) || claim_part(&part))",
        f"      do {call.name}({', '.join([*arguments, '&part'])}); while (any_part(&part));",
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
