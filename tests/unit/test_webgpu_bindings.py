"""Constants that share a binding: what kernels read of them, and where they lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests import wgpu_runner
from webkiln.interpret.kernel import run_kernel
from webkiln.ir.buffer import Buffer, packed, side_by_side
from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import Expr, Load, Var
from webkiln.ir.program import Compute, Kernel, Program
from webkiln.ir.verify import verify_kernel
from webkiln.lower.layout import PANEL
from webkiln.memory.layout import join, pack
from webkiln.memory.liveness import StepIO
from webkiln.memory.plan import plan
from webkiln.schedule.memo import Memo
from webkiln.schedule.nest import nest_of
from webkiln.schedule.webgpu.bindings import can_bind, within_bindings
from webkiln.schedule.webgpu.loops import elements, fallback
from webkiln.targets.webgpu import MAX_STORAGE_BUFFERS

N = 12


def constants(count: int, **changes: object) -> list[Buffer]:
    """Longer ones first."""
    sizes = [N + 4 * (count - i) for i in range(count)]
    return [replace(Buffer(f"w{i}", F32, (n,), "constant"), **changes) for i, n in enumerate(sizes)]


def added(buffers: list[Buffer]) -> Compute:
    """The sum of `buffers`, as far as they all reach, times the number of each."""
    i = Var("i", N)
    total: Expr = Load(buffers[0], (i,))
    for number, b in enumerate(buffers[1:], 2):
        total = total + Load(b, (i,)) * float(number)
    return Compute(Buffer("y", F32, (N,)), (i,), total)


def within(compute: Compute) -> Kernel:
    nest = nest_of(compute)
    kernel = within_bindings(elements(nest) or fallback(nest))
    assert kernel is not None
    return kernel


def x(number: int = 0) -> Buffer:
    return Buffer(f"x{number}", F32, (N,), "input")


def values_of(buffers: list[Buffer]) -> dict[Buffer, np.ndarray]:
    rng = np.random.default_rng(4)
    return {b: rng.random([int(e.value) for e in b.shape], np.float32) for b in buffers}


@pytest.mark.parametrize("on_adapter", [False, pytest.param(True, marks=pytest.mark.webgpu)])
def test_a_kernel_reads_constants_side_by_side(on_adapter: bool) -> None:
    buffers = [x(), *constants(9)]
    compute = added(buffers)
    kernel = within(compute)
    verify_kernel(kernel, "sharing")
    assert len(kernel.buffers) == MAX_STORAGE_BUFFERS
    (shared,) = (b for b in kernel.buffers if b.members)
    assert set(shared.members) == set(buffers[-4:])  # the smallest
    assert kernel.access == ("read",) * (MAX_STORAGE_BUFFERS - 1) + ("write",)

    values = values_of(buffers)
    flat = values | {shared: join(values, shared)}
    flat[compute.out] = np.zeros(N, np.float32)
    given = {b: flat[b] for b in kernel.buffers}
    if on_adapter:
        given |= wgpu_runner.run_kernel(kernel, given)
    else:
        run_kernel(kernel, given)
    expected = sum((i + 1) * v[:N] for i, v in enumerate(values.values()))
    np.testing.assert_allclose(given[compute.out], expected, rtol=1e-6)


def test_few_buffers_stay_as_they_are() -> None:
    kernel = fallback(nest_of(added([x(), *constants(6)])))
    assert within_bindings(kernel) is kernel


def test_what_cannot_share_is_refused() -> None:
    y = Buffer("y", F32, (N,))
    assert can_bind([*constants(20), y])
    assert not can_bind([*map(x, range(8)), y])  # inputs have places of their own
    kinds = [Buffer(f"i{i}", I32, (N,), "constant") for i in range(1)]
    assert not can_bind([*map(x, range(6)), *constants(1), *kinds, y])  # one of each type
    vast = [Buffer(f"v{i}", F32, (20 << 20,), "constant") for i in range(2)]
    assert can_bind([*map(x, range(6)), vast[0], y])
    assert not can_bind([*map(x, range(6)), *vast, y])  # 160 MiB in one binding


def test_a_use_of_a_remembered_kernel_has_constants_of_its_own() -> None:
    memo = Memo(within)
    layers = [[x(), *constants(9)] for _ in range(2)]
    first, second = (memo(added(buffers)) for buffers in layers)
    assert second.body is first.body
    (whole,) = (b for b in second.bound if b.members)
    assert set(whole.members) <= set(layers[1])


# --- the weight space -----------------------------------------------------------------------------


def laid_out(steps: list[list[Buffer]], values: dict[Buffer, np.ndarray]):
    y = Buffer("y", F32, (N,), "output")
    io = [StepIO((x(), *reads), (y,)) for reads in steps]
    program = Program("p", (), tuple(b for s in io for b in s.reads[:1]), (y,), values)
    return plan([program], {"wasm": [io], "webgpu": [io]})


def test_members_lie_in_the_whole() -> None:
    a = Buffer("a", F32, (3, 9), "constant", packed((0, 1), 1, PANEL))
    b, c = Buffer("b", F32, (5,), "constant"), Buffer("c", F32, (7,), "constant")
    values = values_of([a, b, c])
    whole = side_by_side((a, b))
    memory = laid_out([[c, b], [whole], [a]], values)
    assert whole.starts == {a: 0, b: 64}
    space = memory.weights.offsets
    assert space[c] == 0  # in the order of use
    assert space[whole] == space[a] == 256
    assert space[b] == 512
    data = memory.weights.data()
    for buffer in (a, b, c):
        expected = pack(values[buffer], buffer)
        found = data[space[buffer] :].view(np.float32)[: expected.size]
        np.testing.assert_array_equal(found, expected)
    assert memory.slots.places[whole] == memory.slots.places[a] == (0, 256)
    assert memory.slots.places[b] == (0, 512)


def test_a_member_of_two_is_stored_twice_and_equal_ones_once() -> None:
    a, b, c = (Buffer(n, F32, (4,), "constant") for n in "abc")
    values = values_of([a, b, c])
    ab, bc, again = side_by_side((a, b)), side_by_side((b, c)), side_by_side((a, b))
    memory = laid_out([[ab], [bc], [again], [b], [c]], values)
    space = memory.weights.offsets
    assert space[ab] == space[again] == 0
    assert (space[bc], space[b], space[c]) == (512, 256, 768)
    assert memory.weights.bytes == 1024
