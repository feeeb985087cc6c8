"""The C printer: what it spells, its golden texts, and that a text is the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.graphs import lower, parse
from webkiln.codegen.c import kernel_source
from webkiln.codegen.c_driver import StepCall
from webkiln.codegen.c_module import module_source
from webkiln.codegen.unique import unique
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import BOOL, F32, I32, U32
from webkiln.ir.expr import (
    Const,
    Expr,
    Read,
    Var,
    bitcast,
    call,
    cast,
    compare,
    const,
    lane,
    select,
    splat,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.stmt import Assign, Declare, For, If, Store, register
from webkiln.lower.fuse import fuse
from webkiln.lower.layout import assign_layouts
from webkiln.memory.size import bytes_at
from webkiln.schedule.program import schedule_program
from webkiln.schedule.wasm import schedule

GOLDEN = Path(__file__).parent.parent / "golden" / "c"

X, Y = Buffer("x", F32, (64,), "input"), Buffer("y", F32, (64,), "output")
T = Var("t", 8)
ELEMENT = Read(X, T)


def body(*statements: object) -> list[str]:
    """The lines inside of the loop over tasks."""
    loops = (Loop(T, const(8, I32), "task"),)
    kernel = Kernel("", "test", (X, Y), ("read", "write"), (), loops, statements)
    lines = kernel_source(kernel, "k").splitlines()
    assert "KERNEL void k(const f32 *restrict b0, f32 *restrict b1, Part *part) {" in lines
    start = next(i for i, line in enumerate(lines) if line.strip().startswith("const int v0"))
    return [line.strip() for line in lines[start + 1 : -2]]


def test_a_variant_compiles_one_of_two_forms() -> None:
    loops = (Loop(T, const(8, I32), "task"),)
    bytes_, pairs = (
        Kernel("", "test", (X, Y), ("read", "write"), (), loops, (Store(Y, T, ELEMENT + i),))
        for i in (1.0, 2.0)
    )
    both = kernel_source(replace(bytes_, paired=pairs), "k")
    forms = kernel_source(bytes_, "k"), kernel_source(pairs, "k")
    assert both == "#ifdef WEBKILN_DOT4\n{}\n#else\n{}\n#endif".format(*forms)


def spelled(e: Expr) -> str:
    """How the right side of a store prints."""
    return body(Store(Y, T, e))[-1].partition(" = ")[2].removesuffix(";")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (const(1, F32), "1.0f"),
        (const(1e-12, F32), "1e-12f"),
        (const(float("inf"), F32), "__builtin_inff()"),
        (const(float("-inf"), F32), "-__builtin_inff()"),
        (const(float("nan"), F32), '__builtin_nanf("")'),
        (ELEMENT + 1.0, "((b0 + v0)[0] + 1.0f)"),
        (Read(X, T + 3), "(b0 + v0)[3]"),
        (Read(X, const(3, I32)), "b0[3]"),
        (call("max", ELEMENT, 0.0), "max_f32((b0 + v0)[0], 0.0f)"),
        (cast(T // 2, F32), "((f32)((v0 / 2)))"),
        (cast((T - 5) // 2, F32), "((f32)(floordiv_i32((v0 - 5), 2)))"),
        (select(compare("lt", T, 3), ELEMENT, 0.0), "((v0 < 3) ? (b0 + v0)[0] : 0.0f)"),
        (lane(Read(X, T, 4), 2), "(*(const f32x4 *)((b0 + v0) + 0))[2]"),
    ],
    ids=str,
)  # fmt: skip
def test_spelling(value: Expr, text: str) -> None:
    assert spelled(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Const(-(2**31), I32), "(-2147483647 - 1)"),
        (Const(7, U32), "7u"),
        (Const(True, BOOL), "1"),
        (Const(True, BOOL.vector(4)), "splat_i32x4(-1)"),
        (splat(compare("lt", T, 3), 4), "splat_i32x4(-((v0 < 3)))"),
    ],
)
def test_literals(value: Expr, text: str) -> None:
    var = register("r", value.dtype)
    assert body(Declare(var, value))[-1].endswith(f" = {text};")


def test_vectors() -> None:
    wide, total = Read(X, T * 8, 8), register("r", F32.vector(8))
    lines = body(
        Declare(total, splat(const(0, F32), 8)),
        For(Var("k", 4), const(0, I32), const(8, I32), (Assign(total, total + wide),), 4),
        Store(Y, T * 8, total, const(5, I32)),
        Store(Y, T * 8, call("max", total, splat(ELEMENT, 8))),
    )
    assert lines[0] == "f32x8 v1 = splat_f32x8(pool[0]);"
    assert "for (int v2 = 0; v2 < 8; v2 += 4) {" in lines
    assert any(line.startswith("store_f32x8(") and line.endswith(", v1, 5);") for line in lines)
    assert lines[-1].startswith("*(f32x8 *)(")
    assert lines[-1].endswith("= max_f32x8(v1, splat_f32x8((b0 + v0)[0]));")


def test_vectors_of_a_number_are_read_from_the_pool() -> None:
    """Zeros too: one that V8 makes keeps a register from the sums of a product before a ReLU."""
    row = Read(X, T * 8, 8)
    clamped = call("min", call("max", row, const(0.0, row.dtype)), const(6.0, row.dtype))
    kernel = Kernel("", "test", (X, Y), ("read", "write"), (), (), (Store(Y, T * 8, clamped),))
    text = kernel_source(kernel, "k")
    assert "k_pool[] = {0.0f, 6.0f};" in text
    assert "splat_f32x8(pool[0])" in text
    assert "splat_f32x8(0.0f)" not in text


def test_masks_are_made_once_a_kernel() -> None:
    words = bitcast(Read(X, T * 8, 8), I32.vector(8))
    low, high = (call("bitand", x, 0x0F0F0F0F) for x in (words, call("shr", words, 4)))
    value = bitcast(call("bitor", low, call("shl", high, 8)), F32.vector(8))
    kernel = Kernel("", "test", (X, Y), ("read", "write"), (), (), (Store(Y, T * 8, value),))
    text = kernel_source(kernel, "k")
    assert text.count("words_128 mask0 = ALL(0xf0f0f0f);") == 1
    assert text.count("repeat_i32x8(mask0)") == 2
    assert "mask1" not in text
    assert ">> splat_i32x8(4)" in text  # shifts want immediates


@pytest.mark.parametrize(
    ("mask", "distance", "halves"),
    [(0x00FF00FF, 8, True), (0x0FFF0FFF, 4, True), (0x000F000F, 12, True), (0x000F000F, 8, False)],
)
def test_a_shift_whose_mask_keeps_halves_apart(mask: int, distance: int, halves: bool) -> None:
    words = bitcast(Read(X, T * 8, 8), I32.vector(8))
    masked = call("bitand", call("shr", words, distance), mask)
    text = spelled(bitcast(masked, F32.vector(8)))
    assert (f", {distance})" in text and "shr_halves_i32x8(" in text) == halves
    assert ("mask0" in text) == (not halves)


def test_a_vector_is_repeated() -> None:
    four = Read(X, T * 4, 4)
    value = bitcast(splat(bitcast(four, I32.vector(4)), 8), F32.vector(8))
    assert "repeat_i32x8(((i32x4)(*(const f32x4 *)" in spelled(value)


def test_what_is_used_twice_is_computed_once() -> None:
    twice = call("sqrt", ELEMENT)
    assert body(Store(Y, T, twice * twice))[-2:] == [
        "const f32 s0 = __builtin_elementwise_sqrt((b0 + v0)[0]);",
        "(b1 + v0)[0] = (s0 * s0);",
    ]


def test_a_guarded_read_is_not_computed_ahead() -> None:
    far = Read(X, T + 60)
    guarded = select(compare("lt", T, 4), far * far, 0.0)
    assert body(Store(Y, T, guarded))[-1].startswith("(b1 + v0)[0] = ((v0 < 4) ? ")


def test_branches() -> None:
    then, orelse = Store(Y, T, ELEMENT), Store(Y, T, const(0, F32))
    lines = body(If(compare("lt", T, 3), (then,), (orelse,)))
    assert lines == [
        "if ((v0 < 3)) {",
        "(b1 + v0)[0] = (b0 + v0)[0];",
        "} else {",
        "(b1 + v0)[0] = 0.0f;",
        "}",
    ]


def test_functions_without_an_instruction_are_written_out() -> None:
    for name in ("exp", "erf", "tanh", "sin"):
        assert f"{name}(" not in spelled(call(name, ELEMENT))


def test_equal_kernels_are_one() -> None:
    graph = """g (float[2,4] x, float[2,4] z) => (float[2,4] y, float[2,4] v) {
        y = Relu(x)
        v = Relu(z)
    }"""
    kernels = [schedule(c) for c in lower(graph).computes]
    merged = unique(kernels, kernel_source)
    assert merged.of_step == [0, 0]
    assert list(merged.sources) == ["k0"]


def driver_of(graph: str, moved: dict[int, int] | None = None) -> tuple[str, str]:
    """The driver's switches over steps and their weights. Buffer i in the order of use is at
    4096 (i + 1), or where `moved` has it.
    """
    program = lower(graph)
    steps = schedule_program(program, "wasm")
    buffers = dict.fromkeys(b for step in steps for b in step.kernel.bound)
    addresses = {b: (moved or {}).get(i, 4096 * (i + 1)) for i, b in enumerate(buffers)}
    sizes = {b: bytes_at(b, {"n": 100}) for b in buffers}
    names = unique([s.kernel for s in steps], kernel_source)
    calls = [
        StepCall(s, names.names[k], addresses, sizes)
        for s, k in zip(steps, names.of_step, strict=True)
    ]
    text = module_source(names.sources, names.kernels, [calls], program.dims)
    _, steps_, weights = text.split("switch (program << 16 | step) {")
    return steps_, weights


def driven(graph: str, moved: dict[int, int] | None = None) -> list[str]:
    """The driver's cases for a graph's steps."""
    return driver_of(graph, moved)[0].split("case ")[1:]


def test_the_driver_passes_dims_and_shares_tasks() -> None:
    (case,) = driven("g (float[2,n] x) => (float[2,n] y) { y = Relu(x) }")
    tasks = "((d0 + 2047) / 2048)"
    assert f"part = claimed_part({tasks}, thread, threads);" in case
    assert "while (next_part(&part)) k0((f32 *)4096, (f32 *)8192, d0, &part);" in case
    assert "return 1;" in case


@pytest.mark.parametrize(("rows", "ahead"), [(1, True), (64, False)])
def test_weights_that_a_step_reads_once_can_be_read_ahead(rows: int, ahead: bool) -> None:
    graph = f"""g (float[{rows},256] x) => (float[{rows},128] y)
        <float[256,128] w = {{{", ".join(["1"] * 256 * 128)}}}> {{ y = MatMul(x, w) }}"""
    weights = driver_of(graph)[1]
    assert ("if (index == 0) return *bytes = 131072" in weights) is ahead
    assert "index == 1" not in weights


BRANCHES = """g (float[2,{n}] x, float[2,{n}] z) => (float[2,{n}] y) {{
    a = Relu(x)
    b = Relu(z)
    y = Add(a, b)
}}"""


def waits(cases: list[str]) -> list[bool]:
    return ["return 1;" in case for case in cases]


def test_no_barrier_between_small_steps_that_do_not_depend_on_each_other() -> None:
    cases = driven(BRANCHES.format(n=4))
    assert waits(cases) == [False, True, True]
    assert "claimed" not in "".join(cases)  # nothing is claimed where others may be a step ahead


def test_a_barrier_after_a_step_that_is_not_small() -> None:
    assert waits(driven(BRANCHES.format(n=40000))) == [True, True, True]
    assert waits(driven(BRANCHES.format(n="n"))) == [True, True, True]  # who knows


def test_a_barrier_before_a_step_that_writes_where_others_read_or_write() -> None:
    graph = BRANCHES.format(n=4)
    assert waits(driven(graph, {3: 4096})) == [True, True, True]  # b where x is
    assert waits(driven(graph, {3: 8192 + 16})) == [True, True, True]  # in a's last bytes
    assert waits(driven(graph, {3: 8192 + 32})) == [False, True, True]  # right behind a


# --- golden texts ---------------------------------------------------------------------------------

GOLDENS = {
    "matmul_bias_relu": """g (float[n,96] x, float[96,128] w, float[128] wb) => (float[n,128] y) {
        p = MatMul(x, w)
        a = Add(p, wb)
        y = Relu(a)
    }""",
    "depthwise": """g (float[1,32,14,14] x, float[32,32,1,1] w0, float[32,1,3,3] w1)
        => (float[1,32,14,14] y) {
        a = Conv(x, w0)
        y = Conv<group=32, pads=[1,1,1,1]>(a, w1)
    }""",
    "softmax": "g (float[12,n] x) => (float[12,n] y) { y = Softmax(x) }",
}


def kernels_of(name: str) -> str:
    program = assign_layouts(fuse(lower(parse(GOLDENS[name]))))
    kernels = [schedule(c) for c in program.computes]
    return "\n\n".join(kernel_source(k, f"k{i}") for i, k in enumerate(kernels)) + "\n"


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str) -> None:
    """The printed kernels. `WEBKILN_UPDATE_GOLDEN=1` accepts a change that you have read."""
    text = kernels_of(name)
    path = GOLDEN / f"{name}.c"
    if os.environ.get("WEBKILN_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_a_text_is_the_same_in_every_process() -> None:
    """Compiled modules are cached by it."""
    program = "from tests.unit.test_c import *; print(''.join(map(kernels_of, GOLDENS)), end='')"
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in (1, 2)
    }
    assert texts == {"".join(map(kernels_of, GOLDENS))}
