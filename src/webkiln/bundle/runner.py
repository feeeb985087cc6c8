"""Runs a bundle's own wasm outside the browser, through wasmtime."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import wasmtime
from numpy.typing import NDArray

from webkiln.bundle.edge import from_storage, shape_at, to_storage
from webkiln.bundle.expression import evaluate
from webkiln.bundle.plan import Plan, ProgramPlan, VariantPlan
from webkiln.errors import ToolchainError, UnsupportedModelError

__all__ = ["StepTime", "WasmRunner", "choose_variant"]

PAGE = 65536
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class StepTime:
    """What one step took on one thread, and what it costs at these dims."""

    label: str
    kind: str
    seconds: float
    flops: int
    bytes: int


def choose_variant(plan: Plan) -> VariantPlan:
    """The best variant without threads that suits this machine's engine.

    Raises `UnsupportedModelError` when the bundle was built without the wasm target.
    """
    variants = plan["wasm"]["variants"] if plan["wasm"] is not None else []
    for variant in variants:
        features = variant["features"]
        if "threads" not in features and ("narrow-dot" not in features or _has_narrow_dot()):
            return variant
    raise UnsupportedModelError(
        "the bundle has no WebAssembly build, which is what runs here",
        hint="build it with --targets webgpu,wasm, or open it in a browser",
    )


@lru_cache(maxsize=1)
def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.wasm_simd = True
    config.wasm_relaxed_simd = True
    return wasmtime.Engine(config)


#: Products that leave 16 bits, four a lane; as runtime/src/narrow-dot.ts has it in bytes.
_PROBE = """
(module (func (export "f") (result i32)
  i32.const 127 i8x16.splat
  i32.const 255 i8x16.splat
  i32.const 0 i8x16.splat
  i32x4.relaxed_dot_i8x16_i7x16_add_s
  i32x4.extract_lane 0))
"""
_SATURATED = 2 * 32767


@lru_cache(maxsize=1)
def _has_narrow_dot() -> bool:
    """Whether the engine's dot product of four bytes goes through sums of 16 bits."""
    store = wasmtime.Store(_engine())
    module = wasmtime.Module(_engine(), bytes(wasmtime.wat2wasm(_PROBE)))
    probe: Any = wasmtime.Instance(store, module, []).exports(store)["f"]
    return bool(probe(store) == _SATURATED)


class WasmRunner:
    """One instance of a bundle's module, over memory that holds its weights. Not thread-safe."""

    def __init__(
        self, plan: Plan, module: bytes, shards: Iterable[tuple[int, bytes | memoryview]]
    ) -> None:
        """`shards` are (offset in the weight space, bytes). Raises `ToolchainError` when the module
        can't be loaded.
        """
        assert plan["wasm"] is not None
        self.plan, self.layout = plan, plan["wasm"]["memory"]
        self._store = wasmtime.Store(_engine())
        pages = self.layout["bytes"] // PAGE
        limits = wasmtime.Limits(pages, pages)
        try:
            self._memory = wasmtime.Memory(self._store, wasmtime.MemoryType(limits))
            compiled = wasmtime.Module(_engine(), module)
            instance = wasmtime.Instance(self._store, compiled, [self._memory])
        except wasmtime.WasmtimeError as error:
            raise ToolchainError(
                f"the bundle's module can't be loaded: {error}", hint="build the bundle again"
            ) from None
        exports = instance.exports(self._store)
        self._run, self._step = exports["run"], exports["step"]
        stacks = self.layout["stacks"]
        top = stacks["offset"] + stacks["bytes"]
        pointer: Any = exports["__stack_pointer"]
        pointer.set_value(self._store, wasmtime.Val.i32(top))
        memory = self._bytes()
        for offset, data in shards:
            start = self.layout["weights"] + offset
            memory[start : start + len(data)] = np.frombuffer(data, np.uint8)

    def _bytes(self) -> NDArray[np.uint8]:
        """The memory. It never grows, yet a view must not outlive the runner."""
        pointer = self._memory.data_ptr(self._store)
        return np.ctypeslib.as_array(pointer, (self.layout["bytes"],))

    def run(
        self, program: int, arrays: Mapping[str, Array], dims: Mapping[str, int]
    ) -> dict[str, Array]:
        """One run on inputs that `edge.bind` checked; outputs by name, in the model's dtypes."""
        self._write(self._program(program), arrays, dims)
        self._call(self._run, program, 1)
        return self._read(self._program(program), dims)

    def profile(
        self, program: int, arrays: Mapping[str, Array], dims: Mapping[str, int], repeats: int
    ) -> list[StepTime]:
        """Every step's median seconds over `repeats` runs of the whole program, step by step."""
        plan = self._program(program)
        steps = plan["steps"]["wasm"]
        seconds = np.empty((repeats, len(steps)))
        for row in seconds:
            self._write(plan, arrays, dims)
            for k in range(len(row)):
                start = time.perf_counter()
                self._call(self._step, program, k)
                row[k] = time.perf_counter() - start
        return [
            StepTime(
                step["label"],
                step["kind"],
                float(taken),
                evaluate(step["flops"], dims),
                evaluate(step["bytes"], dims),
            )
            for step, taken in zip(steps, np.median(seconds, axis=0), strict=True)
        ]

    def _program(self, index: int) -> ProgramPlan:
        return self.plan["programs"][index]

    def _call(self, function: Any, *arguments: int) -> None:
        try:
            function(self._store, *arguments)
        except wasmtime.Trap as trap:
            raise ToolchainError(
                f"the model's program failed: {trap.message.splitlines()[0]}",
                hint="this is a bug in webkiln; please report it with the model",
            ) from None

    def _place(self, buffer: int) -> tuple[int, str]:
        entry = self.plan["buffers"][buffer]
        assert entry["wasm"] is not None
        return entry["wasm"], entry["dtype"]

    def _write(
        self, program: ProgramPlan, arrays: Mapping[str, Array], dims: Mapping[str, int]
    ) -> None:
        memory = self._bytes()
        values = np.array([dims[d["name"]] for d in self.plan["dims"]], np.int32)
        start = self.layout["dims"]
        memory[start : start + values.nbytes] = values.view(np.uint8)
        for port in program["inputs"]:
            address, dtype = self._place(port["buffer"])
            stored = to_storage(arrays[port["name"]], dtype, port["name"]).reshape(-1)
            memory[address : address + stored.nbytes] = stored.view(np.uint8)

    def _read(self, program: ProgramPlan, dims: Mapping[str, int]) -> dict[str, Array]:
        memory = self._bytes()
        outputs: dict[str, Array] = {}
        for port in program["outputs"]:
            address, dtype = self._place(port["buffer"])
            shape = shape_at(port, dims)
            count = int(np.prod(shape, dtype=np.int64))
            stored = np.frombuffer(memory, dtype, count, address)
            outputs[port["name"]] = from_storage(stored, port["dtype"]).reshape(shape)
        return outputs
