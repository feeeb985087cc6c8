"""A model that is nothing but a sampler, and ways to run it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime
import wasmtime
from numpy.typing import NDArray

from tests import wgpu_runner
from webkiln import passes
from webkiln.bundle.edge import to_storage
from webkiln.codegen import c, c_module
from webkiln.codegen.c_driver import StepCall
from webkiln.codegen.unique import unique
from webkiln.interpret.compute import value_of
from webkiln.ir.buffer import Buffer
from webkiln.ir.program import Program
from webkiln.ir.verify import verify_kernel, verify_program
from webkiln.lower.fuse import fuse
from webkiln.lower.graph import lower_graph
from webkiln.lower.layout import assign_layouts
from webkiln.memory.layout import pack
from webkiln.memory.liveness import StepIO
from webkiln.memory.plan import DIMS, STACK_BYTES, STACKS
from webkiln.memory.plan import plan as plan_memory
from webkiln.passes.append_sampler import OUTPUTS, PENALTIES, append_sampler
from webkiln.schedule.program import schedule_program
from webkiln.targets.toolchain import VARIANTS, compile_wasm

Array = NDArray[Any]
Arrays = dict[str, Array]

OFF = {
    "temperature": 1.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_k": 0.0,
    "logprobs": 0.0,
}
SETTINGS: list[dict[str, float]] = [
    {"temperature": 0},
    {},
    {"top_k": 40},
    {"top_k": 1},
    {"top_p": 0.9, "logprobs": 1},
    {"top_p": 0.2},
    {"top_p": 0.0},
    {"min_p": 0.1, "temperature": 0.7},
    {"min_p": 0.01, "top_p": 0.95, "temperature": 1.7},
    {"top_k": 20, "top_p": 0.8, "min_p": 0.02, "temperature": 1.3, "logprobs": 1},
    {"temperature": 0, "repetition_penalty": 1.3, "presence_penalty": 0.5, "logprobs": 1},
    {"top_k": 50, "repetition_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": -0.1},
]


def model(vocabulary: int) -> ir.Model:
    """Logits as the sum of two rows, which stands for the sums of a product; then the sampler."""
    text = f"""g (float[2,1,{vocabulary}] x) => (float[1,1,{vocabulary}] logits) {{
        axis = Constant<value_ints=[0]>()
        logits = ReduceSum<keepdims=1>(x, axis)
    }}"""
    parsed = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 24]> {text}')
    return append_sampler(ir.from_proto(parsed), vocabulary=vocabulary)


def feeds(logits: Array, seed: int = 1, step: int = 0, **settings: float) -> Arrays:
    """The inputs for `logits` [vocabulary], all settings off but those given."""
    vocabulary = len(logits)
    return {
        "x": np.stack([logits, np.zeros(vocabulary)]).astype(np.float32).reshape(2, 1, -1),
        "sampling": np.array(list((OFF | settings).values()), np.float32),
        "seed": np.array([seed, step], np.uint32),
        "penalty_ids": np.full(PENALTIES, -1, np.int64),
        "penalties": np.zeros((2, PENALTIES), np.float32),
        "token_mask": np.full(-(-vocabulary // 32), 0xFFFFFFFF, np.uint32),
    }


def cases(vocabulary: int, seed: int = 0) -> Iterator[Arrays]:
    """Every setting on plain logits, with penalties, under a mask, and with ties."""
    rng = np.random.default_rng(seed)
    for kind in ("plain", "penalties", "mask", "ties"):
        for settings in SETTINGS:
            logits = rng.standard_normal(vocabulary) * 3
            logits = np.round(logits) if kind == "ties" else logits
            given = feeds(logits, *rng.integers(0, 2**32, 2), **settings)
            if kind != "plain":
                count = min(vocabulary // 2, 200)
                given["penalty_ids"][:count] = rng.permutation(vocabulary)[:count]
                given["penalties"][0, :count] = rng.integers(-1, 4, count)
                given["penalties"][1, :count] = rng.standard_normal(count).round()
            if kind == "mask":
                words = rng.integers(0, 2**32, len(given["token_mask"]))
                given["token_mask"] = words.astype(np.uint32)
            yield given


def session(vocabulary: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    proto = ir.to_proto(model(vocabulary)).SerializeToString()
    return onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def reference(runtime: onnxruntime.InferenceSession, given: Arrays) -> Arrays:
    return dict(zip(OUTPUTS, runtime.run(list(OUTPUTS), given), strict=True))


def lowered(vocabulary: int) -> Program:
    program, _ = lower_graph(passes.run(model(vocabulary), {}), {})
    program = assign_layouts(fuse(program))
    verify_program(program, "layouts")
    return program


class OnWasm:
    """The sampler as WebAssembly (plain SIMD), in wasmtime."""

    def __init__(self, vocabulary: int) -> None:
        self.program = lowered(vocabulary)
        steps = schedule_program(self.program, "wasm")
        for step in steps:
            verify_kernel(step.kernel, "schedule", step.label)
        io = {"wasm": [[StepIO(s.reads, s.writes) for s in steps]]}
        self.memory_plan = plan = plan_memory([self.program], io)
        kernels = unique([s.kernel for s in steps], c.kernel_source)
        calls = [
            StepCall(s, kernels.names[k], plan.wasm, plan.sizes)
            for s, k in zip(steps, kernels.of_step, strict=True)
        ]
        source = c_module.module_source(kernels.sources, kernels.kernels, [calls], [])
        module = compile_wasm(source, VARIANTS[-1], plan.total_bytes)
        self.store = wasmtime.Store()
        pages = plan.total_bytes // 65536
        self.memory = wasmtime.Memory(
            self.store, wasmtime.MemoryType(wasmtime.Limits(pages, pages))
        )
        instance = wasmtime.Instance(
            self.store, wasmtime.Module(self.store.engine, module), [self.memory]
        )
        self.exports = instance.exports(self.store)
        top = wasmtime.Val.i32(STACKS + STACK_BYTES)
        self.exports["__stack_pointer"].set_value(self.store, top)
        self._write(DIMS, np.ones(1, np.int32))
        self._write(plan.weights_base, plan.weights.data())

    def _write(self, address: int, data: Array) -> None:
        self.memory.write(self.store, np.ascontiguousarray(data).tobytes(), address)

    def _stored(self, given: Arrays) -> dict[int, Array]:
        places = {self.memory_plan.wasm[b]: b for b in self.program.inputs}
        return {a: to_storage(given[b.name], b.dtype.name, b.name) for a, b in places.items()}

    def draw(self, given: Arrays, steps: int) -> list[int]:
        """The tokens of so many steps with the same logits."""
        run, stored = self.exports["run"], self._stored(given)
        seed = next(self.memory_plan.wasm[b] for b in self.program.inputs if b.name == "seed")
        out = next(self.memory_plan.wasm[b] for b in self.program.outputs if b.name == "token")
        raw = {place: np.ascontiguousarray(data).tobytes() for place, data in stored.items()}
        tokens = []
        for step in range(steps):
            raw[seed] = np.array([given["seed"][0], step], np.uint32).tobytes()
            for place, data in raw.items():  # all of them: a run uses their memory for other things
                self.memory.write(self.store, data, place)
            run(self.store, 0, 1)
            tokens.append(int.from_bytes(self.memory.read(self.store, out, out + 4), "little"))
        return tokens

    def run(self, given: Arrays) -> Arrays:
        for place, data in self._stored(given).items():
            self._write(place, data)
        self.exports["run"](self.store, 0, 1)
        found = {}
        for b in self.program.outputs:
            start, count = self.memory_plan.wasm[b], value_of(b.size, {})
            raw = bytes(self.memory.read(self.store, start, start + 4 * count))
            found[b.name] = np.frombuffer(raw, b.dtype.name)
        return found


class OnWebGPU:
    """The sampler on the native adapter."""

    def __init__(self, vocabulary: int) -> None:
        self.program = lowered(vocabulary)
        self.steps = schedule_program(self.program, "webgpu")
        for step in self.steps:
            verify_kernel(step.kernel, "schedule", step.label)

    def run(self, given: Arrays) -> Arrays:
        flat: dict[Buffer, Array] = {
            b: pack(np.asarray(d), b) for b, d in self.program.constants.items()
        }
        for b in self.program.inputs:
            flat[b] = to_storage(given[b.name], b.dtype.name, b.name).reshape(-1)
        for step in self.steps:
            actual = dict(zip(step.kernel.buffers, step.kernel.bound, strict=True))
            for b in actual.values():
                flat.setdefault(b, np.zeros(value_of(b.size, {}), b.dtype.name))
            written = wgpu_runner.run_kernel(step.kernel, {f: flat[b] for f, b in actual.items()})
            flat.update({actual[formal]: values for formal, values in written.items()})
        return {b.name: flat[b] for b in self.program.outputs}


def compare(actual: Arrays, wanted: Arrays) -> None:
    """Ids exactly; log-probabilities less so: ONNX Runtime adds up float32 terms one by one."""
    assert actual["token"].tolist() == wanted["token"].tolist()
    assert actual["top_ids"].tolist() == wanted["top_ids"].tolist()
    np.testing.assert_allclose(actual["logprobs"], wanted["logprobs"], rtol=0, atol=2e-3)
