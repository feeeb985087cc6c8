"""Fusion: which values exist in memory, and which only as part of the kernel that uses them.

Every computation is either materialised (a buffer and a kernel) or inlined where it is loaded. The
rules, in order: what only moves or picks elements is inlined; so is cheap arithmetic, where it
would not be repeated for each column of a contraction; element-wise work after a reduction joins it
as its epilogue, when it is the only user and reads each element once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Const,
    Expr,
    Load,
    Op,
    Reduce,
    Var,
    const,
    free_vars,
    substitute,
    transform,
    walk,
)
from webkiln.ir.program import Compute, Program
from webkiln.ir.simplify import simplify
from webkiln.lower.quantised import is_product, is_row
from webkiln.lower.scatter import match_scatter

__all__ = ["EXPENSIVE", "fuse", "inline", "is_contraction", "replace_computes"]

# scalar operations that cost as much as a dozen others
EXPENSIVE = frozenset(
    [
        "exp",
        "log",
        "pow",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "erf",
        "atan2",
        "fmod",
    ]
)
CHEAP = 6  # operations that are worth repeating instead of a trip through memory
PARALLEL = 256  # reductions side by side that keep any target busy
MAX_LOADS = 6  # distinct buffers a fused kernel reads; WebGPU binds 8, one is the output


def fuse(program: Program) -> Program:
    """`program` with fewer, larger computations. Labels name all that each one stands for."""
    state = _State({c.out: c for c in program.computes}, frozenset(program.outputs))
    state.channels_last = set(program.channels_last)
    live = _reachable(program)
    order = [c for c in program.computes if c.out in live]
    state.users = _count_users(order)
    for compute in order:
        state.done[compute.out] = _absorb(compute, state)
    done = list(state.done.values())
    kept = _reachable(replace_computes(program, done))
    fused = replace_computes(program, [c for c in done if c.out in kept])
    return replace(fused, channels_last=frozenset(state.channels_last))


def replace_computes(program: Program, computes: list[Compute]) -> Program:
    """The program with other computations and only the constants that they load."""
    used = set(program.outputs).union(*(c.loads for c in computes))
    constants = {b: d for b, d in program.constants.items() if b in used}
    return replace(program, computes=computes, constants=constants)


@dataclass
class _State:
    original: Mapping[Buffer, Compute]
    outputs: frozenset[Buffer]
    users: dict[Buffer, set[Buffer]] = field(default_factory=dict)
    done: dict[Buffer, Compute] = field(default_factory=dict)
    channels_last: set[Buffer] = field(default_factory=set)


def _reachable(program: Program) -> set[Buffer]:
    by_out = {c.out: c for c in program.computes}
    stack, seen = [*program.outputs, *program.states], set[Buffer]()
    while stack:
        buffer = stack.pop()
        if buffer in seen:
            continue
        seen.add(buffer)
        if buffer in by_out:
            stack.extend(by_out[buffer].loads)
    return seen


def _count_users(computes: list[Compute]) -> dict[Buffer, set[Buffer]]:
    users: dict[Buffer, set[Buffer]] = defaultdict(set)
    for c in computes:
        for buffer in c.loads:
            users[buffer].add(c.out)
    return users


def is_contraction(e: Expr) -> Reduce | None:
    """The sum of products over an axis inside `e`, if there is one."""
    for node in walk(e):
        if isinstance(node, Reduce) and node.kind == "sum" and not _has_reduce(node.body):
            body = node.body
            if isinstance(body, Op) and body.name == "mul" and body.args[0] is not body.args[1]:
                return node
    return None


@lru_cache(maxsize=1 << 12)
def _has_reduce(e: Expr) -> bool:
    return any(isinstance(n, Reduce) for n in walk(e))


def cost(e: Expr) -> int:
    """Scalar float operations to evaluate `e` once; index arithmetic is free."""
    total = 0
    for node in walk(e):
        if isinstance(node, Op) and not node.dtype.is_int and node.name not in ("cast", "select"):
            total += 12 if node.name in EXPENSIVE else 1
    return total


def _absorb(compute: Compute, state: _State) -> Compute:
    """`compute` with every producer inlined that the rules allow, until none is left to try."""
    refused: set[Buffer] = set()
    while True:
        loads = [n for n in walk(*compute.roots) if isinstance(n, Load)]
        producers = dict.fromkeys(
            n.buffer for n in loads if n.buffer in state.done and n.buffer not in refused
        )
        if not producers:
            return compute
        # the last producer first: it is the one whose epilogue this may become
        buffer = list(producers)[-1]
        producer = state.done[buffer]
        if _may_inline(producer, compute, state):
            if buffer in state.channels_last and len(buffer.shape) == len(compute.out.shape):
                state.channels_last.add(compute.out)
            compute = inline(producer, compute)
            _hand_over(producer, compute, state)
        else:
            refused.add(buffer)


def _hand_over(producer: Compute, consumer: Compute, state: _State) -> None:
    """What only `producer` used, `consumer` alone uses now, if nobody else needs the producer."""
    if state.users[producer.out] != {consumer.out} or producer.out in state.outputs:
        return
    for buffer in _buffers(producer.value):
        state.users[buffer].discard(producer.out)
        state.users[buffer].add(consumer.out)


def _may_inline(producer: Compute, consumer: Compute, state: _State) -> bool:
    if producer.out.role == "state" or consumer.out in _buffers(producer.value):
        return False  # memory that changes: what reads it does so when its turn has come
    if producer.out in _buffers(*(consumer.at or ())):
        return not _has_reduce(producer.value)
    if len(_buffers(producer.value) | _buffers(consumer.value)) > MAX_LOADS + 1:
        return False
    sites = [n for n in walk(consumer.value) if isinstance(n, Load) and n.buffer is producer.out]
    if _is_row_of_product(producer, consumer, sites, state):
        return True
    if _has_reduce(producer.value) and _is_second_product(producer, consumer, sites, state):
        return True
    if _has_reduce(producer.value):
        return _is_pick(producer, consumer, state) or _is_epilogue(producer, consumer, sites, state)
    if is_contraction(consumer.value) is not None and _inside_reduce(consumer.value, producer.out):
        return _is_plain_view(producer.value) or _is_condition(producer)
    work = cost(producer.value)
    if work == 0:
        return True
    alone = len(state.users[producer.out]) == 1 and producer.out not in state.outputs
    if _inside_reduce(consumer.value, producer.out):
        return alone and (work <= CHEAP or _used_once(consumer, sites))
    if work > CHEAP and any(_spreads(consumer, site) for site in sites):
        return False
    return (alone or work <= 2) and len(sites) * work <= 4 * CHEAP + 24 * (len(sites) == 1)


def _used_once(consumer: Compute, sites: list[Load]) -> bool:
    """Whether the consumer's reduction looks at each element once, and leaves work to share.

    The updates of a scatter are such elements too: schedules don't go through them for each place.
    """
    if len(sites) != 1:
        return False
    (site,) = sites
    scatter = match_scatter(consumer.value, consumer.axes)
    if scatter is not None:
        return site not in walk(scatter.base) and site not in walk(scatter.target)
    around = [n for n in walk(consumer.value) if isinstance(n, Reduce) and site in walk(n.body)]
    axes = {*consumer.axes, *(a for r in around for a in r.axes)}
    shared = [v.extent.value for v in consumer.axes if isinstance(v.extent, Const)]
    enough = len(shared) == len(consumer.axes) and prod(shared) >= PARALLEL
    return enough and len(set(site.args)) == len(site.args) and axes == set(site.args)


def _is_row_of_product(
    producer: Compute, consumer: Compute, sites: list[Load], state: _State
) -> bool:
    """Whether products with quantised matrices alone use it, and each can compute it by rows.

    They keep a row at hand in any case, as bytes or in memory of the workgroup. A norm before
    several products is computed by each of them: cheaper than a kernel of its own.
    """
    if not (is_row(producer) and is_product(consumer)):
        return False
    users = [state.original[u] for u in state.users[producer.out]]
    n = consumer.axes[-1]
    outside = set(consumer.axes[:-1])
    rows = (all(free_vars(i) <= outside for i in s.args[:-1]) for s in sites)
    return all(rows) and n not in {v for s in sites for v in s.args} and all(map(is_product, users))


def _is_second_product(
    producer: Compute, consumer: Compute, sites: list[Load], state: _State
) -> bool:
    """Whether both are products of one row and quantised matrices: a gate and what passes it."""
    if state.users[producer.out] != {consumer.out} or producer.out in state.outputs:
        return False
    if len(sites) != 1 or len(sites[0].args) != len(consumer.axes):
        return False
    one, zero = const(1, I32), const(0, I32)
    places = zip(sites[0].args, consumer.axes, strict=True)
    aligned = all(i is v or (i is zero and v.extent is one) for i, v in places)
    return aligned and _has_reduce(consumer.value) and is_product(inline(producer, consumer))


def _spreads(consumer: Compute, site: Load) -> bool:
    """Whether one element that `site` loads goes to many of the consumer's (a broadcast)."""
    used = {n for i in site.args for n in walk(i)}
    one = const(1, I32)
    return any(v not in used and v.extent is not one for v in consumer.axes)


@lru_cache(maxsize=1 << 12)
def _buffers(*roots: Expr) -> frozenset[Buffer]:
    return frozenset(n.buffer for n in walk(*roots) if isinstance(n, Load))


def _is_plain_view(e: Expr) -> bool:
    """Only another place to load from: no condition, so a contraction can still walk it."""
    return isinstance(e, Load) and not any(
        isinstance(a, Op) and a.name == "select" for a in walk(e)
    )


def _is_condition(producer: Compute) -> bool:
    """A mask that follows from positions: a few comparisons, later maybe bounds of a loop."""
    operations = [n for n in walk(producer.value) if isinstance(n, Op)]
    return producer.out.model_dtype == "bool" and not any(
        n.dtype.is_float or any(a.dtype.is_float for a in n.args) for n in operations
    )


def _inside_reduce(e: Expr, buffer: Buffer) -> bool:
    return any(
        isinstance(n, Reduce)
        and any(isinstance(m, Load) and m.buffer is buffer for m in walk(n.body))
        for n in walk(e)
    )


def _is_pick(producer: Compute, consumer: Compute, state: _State) -> bool:
    """Of what nobody else reads, the consumer only takes a part: the rest need not be computed."""
    if len(state.users[producer.out]) != 1 or producer.out in state.outputs:
        return False
    if not (isinstance(consumer.value, Load) and consumer.value.buffer is producer.out):
        return False
    one = const(1, I32)
    axes = {v for v in consumer.axes if v.extent is not one}
    moved = [i for i in consumer.value.args if i in axes]
    fixed = [i for i in consumer.value.args if i not in axes]
    return set(moved) == axes and len(moved) == len(axes) and axes.isdisjoint(walk(*fixed))


def _is_epilogue(producer: Compute, consumer: Compute, sites: list[Load], state: _State) -> bool:
    """The consumer is element-wise, the only user, and reads each element exactly once."""
    if len(state.users[producer.out]) != 1 or producer.out in state.outputs:
        return False
    if _has_reduce(consumer.value) or len(sites) != 1:
        return False
    index = sites[0].args
    variables = [i for i in index if isinstance(i, Var)]
    if len(set(variables)) != len(variables):
        return False
    fixed = [i for i in index if not isinstance(i, Var)]
    if any(
        not (isinstance(i, Const) and _extent(producer, k) == 1)
        for k, i in enumerate(index)
        if i in fixed
    ):
        return False
    spread = [v for v in consumer.axes if v not in variables]
    if any(not (isinstance(v.extent, Const) and v.extent.value == 1) for v in spread):
        return False
    guarded = any(isinstance(n, Op) and n.name == "select" for n in walk(consumer.value))
    return not guarded or all(
        simplify(a) is simplify(b)
        for a, b in zip(
            [v.extent for v in variables if v.extent is not None],
            [s for s, i in zip(producer.out.shape, index, strict=True) if isinstance(i, Var)],
            strict=True,
        )
    )


def _extent(producer: Compute, axis: int) -> int | None:
    size = producer.out.shape[axis]
    return int(size.value) if isinstance(size, Const) else None


def inline(producer: Compute, consumer: Compute) -> Compute:
    """`consumer` with what it loads of `producer` written out."""

    def visit(node: Expr) -> Expr | None:
        if isinstance(node, Load) and node.buffer is producer.out:
            return substitute(producer.value, dict(zip(producer.axes, node.args, strict=True)))
        return None

    labels = Counter([*producer.label.split(" + "), *consumer.label.split(" + ")])
    at = consumer.at and tuple(simplify(transform(i, visit)) for i in consumer.at)
    return replace(
        consumer,
        at=at,
        value=simplify(transform(consumer.value, visit)),
        label=" + ".join(x for x in labels if x),
    )
