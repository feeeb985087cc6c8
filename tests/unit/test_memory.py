"""Memory planning: no two live buffers overlap, no step reads and writes one GPU buffer."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webkiln.errors import UnsupportedModelError
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import F32, I8, I32
from webkiln.ir.expr import Dim, ceildiv, minimum
from webkiln.ir.program import Program
from webkiln.memory import Lifetime, StepIO, lifetimes, plan
from webkiln.memory.arena import Arena, pack_arena, verify_arena
from webkiln.memory.size import align, bytes_at, evaluate
from webkiln.memory.slots import BASE_BINDING, Slots, assign_slots, verify_slots
from webkiln.memory.weights import WeightSpace


def buffer(name, shape=(4,), role="temporary", dtype=F32):
    return Buffer(name, dtype, shape, role)


def both(steps):
    """The same steps on both targets, of one program."""
    return {"wasm": [steps], "webgpu": [steps]}


def chain(count, width=4):
    """x → t0 → t1 → … → y, one step each."""
    x, y = buffer("x", (width,), "input"), buffer("y", (width,), "output")
    between = [buffer(f"t{k}", (width,)) for k in range(count)]
    line = [x, *between, y]
    return line, [StepIO((a,), (b,)) for a, b in pairwise(line)]


@st.composite
def programs(draw):
    """Random straight-line programs: each step reads some earlier buffers and writes new ones."""
    x = buffer("x", (draw(st.integers(1, 300)),), "input")
    made, steps = [x], []
    for k in range(draw(st.integers(1, 14))):
        reads = draw(st.lists(st.sampled_from(made), max_size=3, unique_by=id))
        writes = [
            buffer(f"t{k}.{j}", (draw(st.integers(0, 3000)),))
            for j in range(draw(st.integers(1, 2)))
        ]
        steps.append(StepIO(tuple(reads), tuple(writes)))
        made += writes
    outputs = draw(st.lists(st.sampled_from(made[1:]), max_size=2, unique_by=id))
    return Program("p", (), (x,), tuple(outputs)), steps


def test_lifetimes_of_a_chain():
    (x, t, y), steps = chain(1)
    assert lifetimes(steps, [x], [y]) == {
        x: Lifetime(-1, 0),
        t: Lifetime(0, 1),
        y: Lifetime(1, 2),
    }


def test_unused_input_still_has_its_place_when_it_is_written():
    a, b, y = buffer("a", role="input"), buffer("b", role="input"), buffer("y", role="output")
    lives = lifetimes([StepIO((a,), (y,))], [a, b], [y])
    assert lives[b] == (-1, -1)
    assert lives[a].overlaps(lives[b])


def test_state_lives_always_and_constants_are_not_planned():
    s, c, y = buffer("s", role="state"), buffer("c", role="constant"), buffer("y", role="output")
    lives = lifetimes([StepIO((), (y,)), StepIO((s, c), (s,))], [], [y])
    assert lives == {y: Lifetime(0, 2), s: Lifetime(-1, 2)}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda t, c, y: [StepIO((t,), (y,))], "reads t before"),
        (lambda t, c, y: [StepIO((), (t,))], "no step writes the output y"),
        (lambda t, c, y: [StepIO((), (c,))], "writes the constant c"),
    ],
)
def test_impossible_programs_name_the_buffer(steps, message):
    t, c, y = buffer("t"), buffer("c", role="constant"), buffer("y", role="output")
    with pytest.raises(ValueError, match=message):
        lifetimes(steps(t, c, y), [], [y])


def test_a_chain_needs_memory_for_two():
    line, steps = chain(20, width=1024)
    memory = plan([Program("p", (), (line[0],), (line[-1],))], both(steps))
    assert memory.arena_bytes == 2 * 4096
    assert [s.bytes for s in memory.slots.slots] == [4096, 4096]


def test_smallest_gap_that_fits_is_taken():
    sizes, lives = {}, {}
    for name, size, life in [
        ("wall", 6400, (0, 9)),
        ("wide", 640, (0, 3)),
        ("fence", 512, (0, 9)),
        ("narrow", 256, (0, 3)),
        ("end", 128, (0, 9)),
        ("late", 64, (5, 6)),
    ]:
        b = buffer(name)
        sizes[b], lives[b] = size, Lifetime(*life)
    arena = pack_arena(sizes, lives)
    at = {b.name: o for b, o in arena.offsets.items()}
    assert at["late"] == at["narrow"]  # not in "wide", which is free then too


@settings(deadline=None, max_examples=60)
@given(programs())
def test_arena_never_overlaps_and_is_no_larger_than_the_sum(drawn):
    program, steps = drawn
    lives = lifetimes(steps, program.inputs, program.outputs)
    sizes = {b: bytes_at(b, {}) for b in lives}
    arena = pack_arena(sizes, lives)
    verify_arena(arena, sizes, lives)
    alive = [
        sum(sizes[b] for b in lives if lives[b].first <= t <= lives[b].last) for t in range(-1, 16)
    ]
    assert max(alive) <= arena.bytes <= sum(align(max(s, 1), 64) for s in sizes.values())
    # the verifier itself, told by brute force
    for a in lives:
        for b in lives:
            if a is not b and lives[a].overlaps(lives[b]) and sizes[a] and sizes[b]:
                apart = (
                    arena.offsets[a] + sizes[a] <= arena.offsets[b]
                    or arena.offsets[b] + sizes[b] <= arena.offsets[a]
                )
                assert apart


@settings(deadline=None, max_examples=60)
@given(programs())
def test_no_step_reads_and_writes_one_slot(drawn):
    program, steps = drawn
    memory = plan([program], both(steps))
    for step in steps:
        places = [memory.slots.places[b] for b in (*step.reads, *step.writes)]
        assert len({slot for slot, _ in places}) == len(places)
    for b, (slot, offset) in memory.slots.places.items():
        assert offset + memory.sizes[b] <= memory.slots.slots[slot].bytes


def test_verifiers_find_what_is_wrong():
    a, b = buffer("a"), buffer("b")
    lives = {a: Lifetime(0, 1), b: Lifetime(1, 2)}
    sizes = {a: 100, b: 100}
    with pytest.raises(ValueError, match="a and b overlap"):
        verify_arena(Arena({a: 0, b: 64}, 256), sizes, lives)
    with pytest.raises(ValueError, match="misaligned"):
        verify_arena(Arena({a: 0, b: 100}, 256), sizes, lives)
    with pytest.raises(ValueError, match="outside"):
        verify_arena(Arena({a: 0, b: 192}, 256), sizes, lives)
    slots = assign_slots({a: 16}, {a: Lifetime(0, 1)}, WeightSpace())
    shared = Slots(slots.slots, {a: (0, 0), b: (0, 0)})
    with pytest.raises(ValueError, match="step 0 reads and writes slot 0"):
        verify_slots(shared, {a: 16, b: 16}, [StepIO((a,), (b,))])
    with pytest.raises(ValueError, match="larger than its slot"):
        verify_slots(shared, {a: 17, b: 16}, [])


def test_an_update_in_place_is_no_conflict():
    s = buffer("s", role="state")
    memory = plan([Program("p", (), (), ())], both([StepIO((s,), (s,))]))
    assert memory.slots.places[s] == (0, 0)


def weight_space(*mebibytes):
    space = WeightSpace()
    for k, size in enumerate(mebibytes):
        c = buffer(f"c{k}", role="constant")
        space.offsets[c], space.bytes_of[c] = space.bytes, size << 20
        space.bytes += size << 20
    return space


def test_constants_share_weight_slots_up_to_128_mib():
    slots = assign_slots({}, {}, weight_space(50, 60, 30, 200, 1, 127, 1))
    shown = [(s.weights >> 20, s.bytes >> 20) for s in slots.slots]
    assert shown == [(0, 110), (110, 30), (140, 200), (340, 128), (468, 1)]
    assert all(s.bytes <= BASE_BINDING for s in slots.slots if s.bytes != 200 << 20)
    assert list(slots.places.values())[:3] == [(0, 0), (0, 50 << 20), (1, 0)]


def test_buffer_beyond_the_limit_is_named_with_its_size():
    with pytest.raises(UnsupportedModelError, match=r"128 MiB at a time; larger: c0 \(200 MiB\)"):
        assign_slots({}, {}, weight_space(200), limit=BASE_BINDING)


def test_model_beyond_4_gib_is_refused():
    line, steps = chain(0, width=1 << 30)
    with pytest.raises(UnsupportedModelError, match=r"8\.0 GiB"):
        plan([Program("p", (), (line[0],), (line[-1],))], {"wasm": [steps]})


def test_too_many_dimensions():
    with pytest.raises(UnsupportedModelError, match="200 symbolic dimensions, 112"):
        plan([Program("p", tuple(Dim(f"d{k}", 4) for k in range(200)), (), ())], both([]))


def test_sizes_are_taken_at_the_bounds():
    n = Dim("n", 100)
    x, y = buffer("x", (n, 3), "input"), buffer("y", (ceildiv(n, 8), 8), "output", I8)
    memory = plan([Program("p", (n,), (x,), (y,))], both([StepIO((x,), (y,))]))
    assert (memory.sizes[x], memory.sizes[y]) == (1200, 104)


def test_evaluate_is_exact_beyond_32_bits():
    n = Dim("n", 1 << 20)
    assert evaluate(n * n * 6 + minimum(n, 5) % 3, {"n": 1 << 20}) == 6 * 2**40 + 2
    with pytest.raises(KeyError):
        evaluate(n, {})


def test_address_map():
    x, y = buffer("x", role="input"), buffer("y", role="output")
    c, unused = buffer("c", role="constant"), buffer("unused", role="constant")
    values = {c: np.ones(4, np.float32), unused: np.zeros(4, np.float32)}
    memory = plan([Program("p", (), (x,), (y,), values)], both([StepIO((x, c), (y,))]))
    assert memory.weights_base == memory.wasm[c] == 9 * 65536
    assert memory.arena_base == memory.weights_base + 256
    assert memory.arena_base in (memory.wasm[x], memory.wasm[y])
    assert memory.total_bytes == 10 * 65536
    assert memory.buffers == (x, y, c)
    assert memory.slots.places[c] == (0, 0)
    assert memory.slots.slots[0].weights == 0


def test_constants_go_in_the_order_of_use_and_equal_ones_once():
    names = "abc"
    x, y = buffer("x", role="input"), buffer("y", role="output")
    a, b, c = (buffer(n, (3,), "constant", I32) for n in names)
    values = {a: np.arange(3), b: np.array([7, 7, 7]), c: np.arange(3)}
    memory = plan([Program("p", (), (x,), (y,), values)], both([StepIO((x, b, a, c), (y,))]))
    assert memory.weights.offsets == {b: 0, a: 256, c: 256}
    data = memory.weights.data()
    assert data[:12].view(np.int32).tolist() == [7, 7, 7]
    assert data[256:268].view(np.int32).tolist() == [0, 1, 2]
    assert memory.weights.bytes == data.size == 268


def test_programs_share_weights_states_and_scratch_memory():
    """Two programs run one at a time: only what they both keep has memory of its own."""
    c, s = buffer("c", role="constant"), buffer("s", (64,), "state")
    values = np.arange(4, dtype=np.float32)
    made = []
    for k in range(2):
        x, t, y = buffer(f"x{k}", (64,), "input"), buffer(f"t{k}", (900,)), buffer(f"y{k}", (8,))
        own = c if k == 0 else buffer("c again", role="constant")
        steps = [StepIO((x, own), (t,)), StepIO((t, s), (s, y))]
        made.append((Program(f"p{k}", (), (x,), (y,), {own: values}, states=(s,)), steps, t, own))
    memory = plan(
        [m[0] for m in made], {target: [m[1] for m in made] for target in ("wasm", "webgpu")}
    )
    (_, _, t0, c0), (_, _, t1, c1) = made
    assert memory.wasm[c0] == memory.wasm[c1]
    assert memory.wasm[t0] == memory.wasm[t1]
    assert memory.slots.places[t0] == memory.slots.places[t1]
    end = memory.wasm[s] + 256
    assert all(
        a >= end or a + memory.sizes[b] <= memory.wasm[s]
        for b, a in memory.wasm.items()
        if b is not s
    )
