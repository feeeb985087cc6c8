"""Each law of the IR, broken once: the verifier names the stage, the computation and the node."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from webkiln.errors import InternalError
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import BOOL, F32, I32
from webkiln.ir.expr import Const, Dim, Load, Op, Read, Reduce, Var, call, const, splat
from webkiln.ir.program import Compute, Kernel, Loop, Program
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Store, register
from webkiln.ir.verify import verify_expr, verify_kernel, verify_program

N = Dim("n", 8)
I, K = Var("i", N), Var("k", 4)
X = Buffer("x", F32, (N, 4), "input")
W = Buffer("w", F32, (4,), "constant")
Y = Buffer("y", F32, (N,), "output")
SUM = Reduce("sum", (K,), Load(X, (I, K)) * Load(W, (K,)))


def program(**changes: object) -> Program:
    parts = {"computes": [Compute(Y, (I,), SUM, "MatMul m")], **changes}
    constants = {W: np.zeros(4, np.float32)}
    return Program(
        **{"name": "p", "dims": (N,), "inputs": (X,), "outputs": (Y,), "constants": constants}
        | parts
    )


def computing(value: object, axes: tuple[Var, ...] = (I,)) -> Program:
    return program(computes=[Compute(Y, axes, value, "MatMul m")])


def test_a_legal_program_passes() -> None:
    verify_program(program(), "lower")


LATE = Buffer("late", F32, (N,))
STRAY = Var("j", 3)
PROGRAMS = {
    "loaded before computed": (computing(Load(LATE, (I,))), "has been computed before"),
    "written twice": (
        program(computes=[Compute(Y, (I,), SUM, "a"), Compute(Y, (I,), SUM, "b")]),
        "written once",
    ),
    "an input written": (
        program(computes=[Compute(X, (I, K), Load(X, (I, K)), "a")]),
        "inputs and constants are not written",
    ),
    "a stray variable": (computing(Load(X, (I, STRAY))), "its axes and the dims alone"),
    "another dim": (computing(Load(X, (I, Dim("m", 9)))), "its axes and the dims alone"),
    "the wrong type": (computing(const(1, I32)), "float32, as its buffer holds"),
    "a missing axis": (computing(const(1, F32), ()), "an axis for each"),
    "an axis too long": (computing(const(1, F32), (Var("i", 9),)), "its extent of the shape"),
    "a reduction over an axis": (computing(Reduce("sum", (I,), Load(X, (I, I)))), "are its own"),
    "a Read": (computing(Read(W, const(0, I32))), "no Reads"),
    "a constant of another shape": (
        program(constants={W: np.zeros(5, np.float32)}),
        "its data's shape",
    ),
    "an output that nobody computes": (program(computes=[]), "an output is computed"),
    "a shape over a loop": (
        program(computes=[Compute(replace(Y, shape=(I,)), (Var("i2", I),), const(0, F32), "a")]),
        "the program's dims alone",
    ),
}


@pytest.mark.parametrize(("bad", "law"), PROGRAMS.values(), ids=PROGRAMS)
def test_program_laws(bad: Program, law: str) -> None:
    with pytest.raises(InternalError, match=law) as raised:
        verify_program(bad, "fuse")
    assert "“fuse”" in str(raised.value)
    assert "please report" in str(raised.value)


def test_the_computation_is_named() -> None:
    with pytest.raises(InternalError, match=r"in y \(MatMul m\), `late\[i\]`"):
        verify_program(computing(Load(LATE, (I,))), "fuse")


A, B = Load(W, (const(0, I32),)), const(2, I32)
EXPRESSIONS = {
    "mixed types": (Op("add", (A, B), F32), "of one type"),
    "no such operation": (Op("frobnicate", (A,), F32), "there is such an operation"),
    "a comparison that is no condition": (Op("lt", (A, A), F32), "compares two of one type"),
    "a choice by a number": (Op("select", (A, A, A), F32), "by one condition"),
    "logic on numbers": (Op("and", (A, A), F32), "conditions"),
    "bits of floats": (Op("shl", (A, A), F32), "integer type"),
    "a test of an integer": (Op("isnan", (B,), BOOL), "tests a float"),
    "a cast to other lanes": (Op("cast", (A,), I32.vector(4)), "keeps its lanes"),
    "a splat of a vector": (Op("splat", (splat(A, 4),), F32.vector(4)), "a shorter vector"),
    "a splat that fits no whole number of times": (
        Op("splat", (splat(A, 4),), F32.vector(6)),
        "a shorter vector",
    ),
    "a vector of two types": (Op("vector", (A, B), F32.vector(2)), "one a lane"),
    "a fold of a scalar": (Op("fold_add", (A,), F32), "folds a vector"),
    "a float in an int": (Const(1.5, I32), "its value is of its type"),
    "an index that is a float": (Op("neg", (Load(W, (A,)),), F32), "indices are int32"),
    "a Read at a float": (Read(W, A), "one int32"),
    "an unbounded axis": (Reduce("sum", (Var("z"),), A), "extents over the dims"),
    "an axis twice": (Reduce("sum", (K, K), A), "each once"),
    "an axis of an outer reduction": (Reduce("sum", (K,), Reduce("max", (K,), A)), "its own"),
    "a mean": (Reduce("mean", (K,), A), "sum, prod, max or min"),
}


@pytest.mark.parametrize(("bad", "law"), EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_expression_laws(bad: Op, law: str) -> None:
    with pytest.raises(InternalError, match=law):
        verify_expr(bad)


T = Var("t", 8)
R, R4 = register("r", F32), register("r4", F32.vector(4))
LOOP = Loop(T, const(8, I32), "task")


def kernel(*body: object, loops: tuple[Loop, ...] = (LOOP,)) -> Kernel:
    return Kernel("", "test", (W, Y), ("read", "write"), (N,), loops, body)


LOADED = Read(W, T)
PUT = Store(Y, T, R)
OTHER = Loop(T, const(4, I32), "task")
SHORT = kernel(Store(Y, T, LOADED), loops=(OTHER,))
KERNELS = {
    "a form in float16 with other loops": (
        replace(kernel(Store(Y, T, LOADED)), half=SHORT),
        "called as it is",
    ),
    "a form in pairs with other loops": (
        replace(kernel(Store(Y, T, LOADED)), paired=SHORT),
        "in pairs is called as it is",
    ),
    "a wrong form in float16": (
        replace(kernel(Store(Y, T, LOADED)), half=kernel(Store(Y, T, T))),
        "holds its type",
    ),
    "a register set before it exists": (kernel(Assign(R, LOADED), PUT), "before it is set"),
    "a register used before it exists": (kernel(PUT), "before it is used"),
    "a register of an inner block": (
        kernel(For(K, const(0, I32), const(4, I32), (Declare(R, LOADED),)), PUT),
        "before it is used",
    ),
    "a register declared twice": (kernel(Declare(R, LOADED), Declare(R, LOADED)), "declared once"),
    "a scalar in a vector register": (kernel(Declare(R4, LOADED)), "float32x4, not float32"),
    "lanes that differ": (
        kernel(Declare(R4, splat(LOADED, 4)), Assign(R4, Op("add", (R4, LOADED), R4.dtype))),
        "of one type",
    ),
    "an int stored in a float": (kernel(Store(Y, T, T)), "holds its type"),
    "a store at a float": (kernel(Store(Y, LOADED, LOADED)), "is one int32"),
    "a store to what is only read": (kernel(Store(W, T, LOADED)), "written says so"),
    "a read of what is only written": (kernel(Store(Y, T, Read(Y, T))), "read says so"),
    "a read of no argument": (kernel(Store(Y, T, Read(X, T))), "read says so"),
    "a Load": (kernel(Store(Y, T, Load(W, (T,)))), "no Loads"),
    "a Reduce": (kernel(Store(Y, T, Reduce("sum", (K,), LOADED))), "no Loads"),
    "a variable of no loop": (kernel(Store(Y, K, LOADED)), "before it is used"),
    "a loop in itself": (kernel(For(T, const(0, I32), const(4, I32), ())), "of its own"),
    "a branch on a number": (kernel(If(LOADED, ())), "one condition"),
    "an extent over a task": (
        kernel(loops=(LOOP, Loop(K, T, "task"))),
        "before it is used",
    ),
}


@pytest.mark.parametrize(("bad", "law"), KERNELS.values(), ids=KERNELS)
def test_kernel_laws(bad: Kernel, law: str) -> None:
    with pytest.raises(InternalError, match=law) as raised:
        verify_kernel(bad, "schedule", "MatMul m")
    assert "the test kernel of MatMul m" in str(raised.value)


def test_a_legal_kernel_passes() -> None:
    verify_kernel(kernel(Declare(R, LOADED), Assign(R, R * 2.0), PUT), "schedule")


def test_barriers_are_met_by_all() -> None:
    group = Loop(Var("g", 4), const(4, I32), "workgroup.x")
    local = Loop(Var("l", 4), const(4, I32), "local.x")

    def guarded(by: Var) -> Kernel:
        return kernel(If(call("lt", by, 2), (Barrier(),)), loops=(group, local))

    verify_kernel(guarded(group.var), "schedule")
    with pytest.raises(InternalError, match="meet at a barrier"):
        verify_kernel(guarded(local.var), "schedule")
