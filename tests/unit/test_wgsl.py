"""The WGSL printer: literals, operators, vec4 arrays, temporaries, helpers, whole kernels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_ir
import pytest

from tests import wgpu_runner
from tests.ops.cases_quantised import product
from tests.ops.harness import Case, Constant, build
from webkiln.codegen.wgsl import kernel_source, module_source
from webkiln.interpret.kernel import run_kernel
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import BOOL, F16, F32, I8, I32, U32, DType
from webkiln.ir.expr import (
    Const,
    Dim,
    Expr,
    Op,
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
    vector,
)
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Stmt, Store, register
from webkiln.lower.fuse import fuse
from webkiln.lower.graph import lower_graph
from webkiln.lower.layout import assign_layouts
from webkiln.schedule.webgpu import schedule

GOLDEN = Path(__file__).parent.parent / "golden" / "wgsl"
SIZE = 16
x = Buffer("x", F32, (const(SIZE, I32),), "input")
y = Buffer("y", F32, (const(SIZE, I32),), "output")
i = Var("i", SIZE)


def kernel(
    *body: Stmt, buffers: tuple[Buffer, ...] = (x, y), params: tuple[Var, ...] = ()
) -> Kernel:
    """A kernel over `i` < 16 in one workgroup that writes the last of `buffers`."""
    access = (*("read" for _ in buffers[:-1]), "write")
    loops = (Loop(i, const(SIZE, I32), "local.x"),)
    return Kernel("", "test", buffers, access, params, loops, body)  # type: ignore[arg-type]


def source(*body: Stmt, **options: object) -> str:
    return kernel_source(kernel(*body, **options), "k")  # type: ignore[arg-type]


def stored(value: Expr) -> str:
    """What is printed for `value`, stored at i."""
    lines = source(Store(y, i, value)).splitlines()
    return next(
        line.split(" = ", 1)[1].rstrip(";") for line in lines if "k_b" in line and " = " in line
    )


element = Read(x, i)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (const(1.5, F32), "1.5f"),
        (const(1e-8, F32), "1e-08f"),
        (const(0.1, F32), "0.1f"),
        (const(float("inf"), F32), "infinity()"),
        (const(float("-inf"), F32), "(-infinity())"),
        (const(float("nan"), F32), "not_a_number()"),
        (element + 1.0, "(k_b0[v0] + 1.0f)"),
        (call("rsqrt", element), "inverseSqrt(k_b0[v0])"),
        (select(compare("lt", i, 3), element, 2.0), "select(2.0f, k_b0[v0], (v0 < 3))"),
        (cast(i, F32), "f32(v0)"),
        (cast(i // 4, F32), "f32((v0 >> 2u))"),
        (cast(i % 4, F32), "f32((v0 & 3))"),
        (cast(i // 3, F32), "f32((v0 / 3))"),
        (cast((i - 9) // 3, F32), "f32(floor_div((v0 - 9), 3))"),
        (cast((i - 9) % 3, F32), "f32(floor_mod((v0 - 9), 3))"),
        (bitcast(call("shl", i, 23), F32), "bitcast<f32>((v0 << 23u))"),
        (cast(cast(compare("lt", i, 3), I32), F32), "f32(i32((v0 < 3)))"),
        (lane(splat(element, 4), 2), "k_b0[v0]"),
        (lane(vector([element, const(2.0, F32)]), 1), "vec2<f32>(k_b0[v0], 2.0f).y"),
        (
            cast(lane(bitcast(cast(i, U32), F16.vector(2)), 1), F32),
            "f32(vec2<f16>(unpack2x16float(u32(v0))).y)",
        ),
    ],
)  # fmt: skip
def test_expressions(value: Expr, text: str) -> None:
    assert stored(value) == text


def test_the_smallest_integer_is_no_literal() -> None:
    assert "i32(-2147483648)" in source(Store(y, i, cast(call("bitand", i, -(2**31)), F32)))


def test_a_vector_meets_a_scalar_without_a_splat() -> None:
    four = Read(x, i * 4, 4)
    text = source(Store(y, i * 4, four * splat(Read(x, i), 4) + Const(1.0, F32.vector(4))))
    assert "* k_b0[(v0 >> 2u)][(v0 & 3)]) + 1.0f" in text


def test_arrays_of_vec4_where_all_accesses_are_aligned() -> None:
    text = source(Store(y, i * 4, Read(x, i * 4, 4)))
    assert "var<storage, read> k_b0: array<vec4<f32>>" in text or "k_b1: array<vec4<f32>>" in text
    assert text.count("array<vec4<f32>>") == 2


def test_unaligned_vectors_are_read_element_by_element() -> None:
    text = source(Store(y, i * 4, Read(x, i * 4 + 1, 4)))
    assert text.count("array<vec4<f32>>") == 1
    assert "vec4<f32>(" in text


def test_scalar_stores_forbid_vec4_arrays() -> None:
    text = source(Store(y, i * 4, Read(x, i * 4, 4)), Store(y, i, const(0.0, F32)))
    assert text.count("array<vec4<f32>>") == 1


def test_a_buffer_whose_size_is_no_multiple_of_four_is_no_array_of_vec4() -> None:
    odd = Buffer("odd", F32, (const(18, I32),), "input")
    text = source(Store(y, i * 4, Read(odd, i * 4, 4)), buffers=(odd, y))
    assert text.count("array<vec4<f32>>") == 1


def test_shared_work_is_printed_once() -> None:
    """A chain in which every step uses the last one twice: a tree of it would have 2^40 leaves."""
    value: Expr = element
    for _ in range(40):
        value = value * value + 1.0
    assert len(source(Store(y, i, value))) < 5000


@pytest.mark.webgpu
def test_a_loop_keeps_the_bound_that_it_started_with() -> None:
    """Bounds and conditions read a register that their body changes."""
    count, total = register("count", I32), register("total", F32)
    j = Var("j", 64)
    twice = count * count + count * count
    body = (
        Declare(count, i % 3 + 1),
        Declare(total, const(0.0, F32)),
        For(j, const(0, I32), twice, (Assign(count, count + 1), Assign(total, total + 1.0))),
        If(
            compare("lt", 9, twice),
            (Assign(count, count - 1), Assign(total, total + cast(twice, F32))),
        ),
        Store(y, i, total + element),
    )
    made = kernel(*body)
    memory = {x: np.zeros(SIZE, np.float32), y: np.zeros(SIZE, np.float32)}
    result = wgpu_runner.run_kernel(made, memory)[y]
    run_kernel(made, memory)
    np.testing.assert_array_equal(result, memory[y])


def test_equal_kernels_have_equal_text() -> None:
    a, b = Var("apple", SIZE), Var("pear", SIZE)
    texts = set()
    for v in (a, b):
        loops = (Loop(v, const(SIZE, I32), "local.x"),)
        made = Kernel(
            v.name, "test", (x, y), ("read", "write"), (), loops, (Store(y, v, Read(x, v)),)
        )
        texts.add(kernel_source(made, "k"))
    assert len(texts) == 1


def test_params_are_one_uniform_of_vec4() -> None:
    dims = tuple(Dim(f"d{n}", 8) for n in range(5))
    total: Expr = const(0, I32)
    for d in dims:
        total = total + d
    text = source(Store(y, i, cast(total, F32)), params=dims)
    assert "@binding(2) var<uniform> k_params: array<vec4<i32>, 2>" in text
    assert "k_params[1].x" in text


def test_helpers_come_only_where_used() -> None:
    plain = kernel_source(kernel(Store(y, i, element)), "k")
    special = kernel_source(kernel(Store(y, i, const(float("inf"), F32))), "k")
    assert "fn infinity" not in module_source({"k": plain})
    assert "fn infinity" in module_source({"k": special})


@pytest.mark.parametrize("dtype", [I8, F32.vector(8)])
def test_types_that_wgsl_lacks_are_refused(dtype: DType) -> None:
    if dtype.lanes > 1:
        bad: Stmt = Store(y, i, Op("lane", (Read(x, i, 8), const(0, I32)), F32))
        with pytest.raises(ValueError, match="no type for float32x8"):
            source(bad)
    else:
        byte = Buffer("byte", I8, (const(SIZE, I32),), "input")
        with pytest.raises(ValueError, match="no type for int8"):
            source(Store(y, i, cast(Read(byte, i), F32)), buffers=(byte, y))


def everything() -> Kernel:
    """A bit of all statements and types, with workgroup memory."""
    shared = Buffer("shared", F32, (const(SIZE, I32),), "workgroup")
    total, steps = register("total", F32), Var("step", None, I32)
    other = Buffer("other", U32, (const(SIZE, I32),), "input")
    n = Dim("n", SIZE)
    body = (
        Store(shared, i, element * 2.0),
        Barrier(),
        Declare(total, const(0.0, F32)),
        For(steps, const(0, I32), n, (Assign(total, total + Read(shared, steps)),), 2),
        If(
            compare("lt", i, n),
            (Store(y, i, total + cast(Read(other, i), F32)),),
            (Store(y, i, select(call("isnan", element), const(-1.0, F32), call("erf", element))),),
        ),
    )
    return kernel(*body, buffers=(x, other, y), params=(n,))


@pytest.mark.webgpu
def test_printed_and_interpreted_agree() -> None:
    rng = np.random.default_rng(3)
    made = everything()
    values = rng.standard_normal(SIZE).astype(np.float32)
    values[15] = np.nan
    memory = {
        made.buffers[0]: values,
        made.buffers[1]: rng.integers(0, 9, SIZE, dtype=np.uint32),
        made.buffers[2]: np.zeros(SIZE, np.float32),
    }
    result = wgpu_runner.run_kernel(made, memory, {"n": 11})[y]
    run_kernel(made, memory, {"n": 11})
    np.testing.assert_allclose(result, memory[y], rtol=1e-6)


FLOAT = (
    "exp log sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf "
    "floor ceil round trunc sign abs neg"
)


@pytest.mark.webgpu
@pytest.mark.parametrize("name", FLOAT.split())
def test_functions_on_an_adapter(name: str) -> None:
    """Built-in or written out, within 1e-5 of NumPy."""
    values = np.linspace(0.05, 0.95, SIZE, dtype=np.float32) + (name == "acosh")
    made = kernel(Store(y, i, call(name, element)))
    memory = {x: values, y: np.zeros(SIZE, np.float32)}
    result = wgpu_runner.run_kernel(made, memory)[y]
    run_kernel(made, memory)
    np.testing.assert_allclose(result, memory[y], rtol=1e-5)


def test_interpreter_finds_what_an_adapter_would_hide() -> None:
    memory = {x: np.zeros(SIZE, np.float32), y: np.zeros(SIZE, np.float32)}
    with pytest.raises(IndexError, match="elements 16 to 16 of 16"):
        run_kernel(kernel(Store(y, i, Read(x, i + 1))), memory)
    half = If(compare("lt", i, 8), (Barrier(),))
    with pytest.raises(RuntimeError, match="barrier"):
        run_kernel(kernel(half, Store(y, i, element)), memory)
    with pytest.raises(KeyError, match="params n"):
        run_kernel(kernel(Store(y, i, element), params=(Dim("n", 4),)), memory)
    shared = Buffer("shared", F32, (const(SIZE, I32),), "workgroup")
    early = kernel(Store(y, i, Read(shared, i)), Store(shared, i, element))
    run_kernel(early, memory)
    assert np.isnan(memory[y]).all()


def test_conditions_are_stored_as_integers() -> None:
    flags = Buffer("flags", I32, (const(SIZE, I32),), "output")
    made = kernel(Store(flags, i, cast(compare("lt", element, 0.0), I32)), buffers=(x, flags))
    assert "= i32((" in kernel_source(made, "k")
    assert BOOL.bytes == 4


# --- golden texts ---------------------------------------------------------------------------------


def zeros(*shape: int) -> Constant:
    return Constant(np.zeros(shape, np.float32))


GOLDENS = {
    "matmul": Case("MatMul", ["f32[n=64,96]", zeros(96, 128)]),
    "matvec": Case("MatMul", ["f32[1,96]", zeros(96, 128)]),
    "softmax": Case("Softmax", ["f32[12,n=64]"]),
    "layer_norm": Case("LayerNormalization", ["f32[9,384]", zeros(384), zeros(384)], opset=17),
    "add": Case("Add", ["f32[n=3,8]", "f32[8]"]),
    "transpose": Case("Transpose", ["f32[3,5,7]"], {"perm": [2, 0, 1]}),
    "mean_over_columns": Case("ReduceMean", ["f32[2,9,8]", Constant([1])]),
    "quantised_vector": product("1", 64, 16, zeros="packed", accuracy_level=2),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str) -> None:
    """The whole printed module. `WEBKILN_UPDATE_GOLDEN=1` accepts a change that you have read."""
    check_golden(name, golden_kernels(name))


def test_golden_in_float16() -> None:
    kernels = [k.half for k in golden_kernels("quantised_vector") if k.half]
    check_golden("quantised_vector.f16", kernels)


def golden_kernels(name: str) -> list[Kernel]:
    model, _, dims = build(GOLDENS[name])
    program, _ = lower_graph(onnx_ir.from_proto(model), dict.fromkeys(dims, 512))
    return [schedule(c) for c in assign_layouts(fuse(program)).computes]


def check_golden(name: str, kernels: list[Kernel]) -> None:
    sources = {f"k{n}": kernel_source(k, f"k{n}") for n, k in enumerate(kernels)}
    text = module_source(sources)
    path = GOLDEN / f"{name}.wgsl"
    if os.environ.get("WEBKILN_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
