"""Cases through the whole compiler.

For WebAssembly many cases go into one module, since starting a C compiler costs a second: each is a
program with memory of its own that overlaps the others', as they run one after the other. For
WebGPU each kernel runs by itself on the native adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wasmtime
from numpy.typing import NDArray

from tests import wgpu_runner
from tests.ops.harness import Case, build, lowered
from webkiln.bundle.edge import to_storage
from webkiln.codegen import c, c_module
from webkiln.codegen.c_driver import StepCall
from webkiln.codegen.unique import unique
from webkiln.interpret.compute import value_of
from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Dim
from webkiln.ir.program import Program, Step
from webkiln.lower.fuse import fuse
from webkiln.lower.layout import assign_layouts
from webkiln.memory.layout import pack
from webkiln.memory.liveness import StepIO
from webkiln.memory.plan import DIMS, STACK_BYTES, STACKS, MemoryPlan
from webkiln.memory.plan import plan as plan_memory
from webkiln.schedule.program import schedule_program
from webkiln.schedule.share import share
from webkiln.targets.toolchain import VARIANTS, compile_wasm

__all__ = ["Compiled", "compile_case", "run_webgpu", "wasm_module"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Compiled:
    """A case after every stage before printing."""

    case: Case
    program: Program
    steps: Sequence[Step]
    memory: MemoryPlan
    inputs: dict[str, Array]
    dims: dict[str, int]


def compile_case(case: Case, target: str) -> Compiled:
    model, inputs, dims = build(case)
    program = assign_layouts(fuse(lowered(model, dims)))
    steps = schedule_program(program, target)
    io = {target: [[StepIO(step.reads, step.writes) for step in steps]]}
    return Compiled(case, program, steps, plan_memory([program], io), inputs, dims)


# --- WebAssembly ----------------------------------------------------------------------------------


def wasm_module(cases: Sequence[Compiled]) -> Callable[[int], list[Array]]:
    """One module for `cases`; the result runs the k-th of them."""
    steps = share([x.steps for x in cases])
    kernels = unique([s.kernel for own in steps for s in own], c.kernel_source)
    index = iter(kernels.of_step)
    programs = [
        [StepCall(s, kernels.names[next(index)], x.memory.wasm, x.memory.sizes) for s in own]
        for x, own in zip(cases, steps, strict=True)
    ]
    dims = list(dict.fromkeys(d for x in cases for d in x.program.dims))
    size = max(x.memory.total_bytes for x in cases)
    source = c_module.module_source(kernels.sources, kernels.kernels, programs, dims)
    # Machine code is made once; each case gets an instance of its own.
    module = wasmtime.Module(ENGINE, compile_wasm(source, VARIANT, size))
    return lambda k: run_wasm(module, size, k, cases[k], dims)


VARIANT = VARIANTS[-1]  # plain SIMD
ENGINE = wasmtime.Engine()


def run_wasm(
    module: wasmtime.Module, size: int, index: int, x: Compiled, dims: Sequence[Dim]
) -> list[Array]:
    store = wasmtime.Store(ENGINE)
    pages = size // 65536
    memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(pages, pages)))
    instance = wasmtime.Instance(store, module, [memory])
    exports = instance.exports(store)
    exports["__stack_pointer"].set_value(store, wasmtime.Val.i32(STACKS + STACK_BYTES))

    def write(address: int, data: Array) -> None:
        memory.write(store, np.ascontiguousarray(data).tobytes(), address)

    write(DIMS, np.array([x.dims.get(d.name, 1) for d in dims], np.int32))
    write(x.memory.weights_base, x.memory.weights.data())
    for buffer in x.program.inputs:
        stored = to_storage(x.inputs[buffer.name], buffer.dtype.name, buffer.name)
        write(x.memory.wasm[buffer], stored)
    exports["run"](store, index, 1)
    results = []
    for buffer in x.program.outputs:
        shape = [value_of(e, x.dims) for e in buffer.shape]
        count = int(np.prod(shape))
        start = x.memory.wasm[buffer]
        raw = memory.read(store, start, start + count * buffer.dtype.bytes)
        array = np.frombuffer(bytes(raw), buffer.dtype.name).reshape(shape)
        results.append(array.astype(buffer.model_dtype))
    return results


# --- WebGPU ---------------------------------------------------------------------------------------


def run_webgpu(x: Compiled) -> list[Array]:
    """Every step's kernel in turn on the native adapter."""
    flat: dict[Buffer, Array] = {
        b: pack(np.asarray(data), b) for b, data in x.program.constants.items()
    }
    for buffer in x.program.inputs:
        flat[buffer] = to_storage(x.inputs[buffer.name], buffer.dtype.name, buffer.name).reshape(-1)
    for step in x.steps:
        kernel = step.kernel
        for buffer in kernel.bound:
            if buffer not in flat:
                flat[buffer] = np.zeros(max(value_of(buffer.size, x.dims), 1), buffer.dtype.name)
        actual = dict(zip(kernel.buffers, kernel.bound, strict=True))
        bound = {formal: flat[b] for formal, b in actual.items()}
        written = wgpu_runner.run_kernel(kernel, bound, x.dims)
        flat.update({actual[formal]: values for formal, values in written.items()})
    results = []
    for buffer in x.program.outputs:
        shape = [value_of(e, x.dims) for e in buffer.shape]
        stored = flat.get(buffer, np.zeros(0, buffer.dtype.name))  # empty: no step writes it
        elements = stored[: int(np.prod(shape))].reshape(shape)
        results.append(elements.astype(buffer.model_dtype))
    return results
