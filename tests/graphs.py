"""Small models in ONNX's text form, through the compiler's stages one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir
import onnxruntime
from numpy.typing import NDArray

from webkiln.interpret.compute import evaluate, value_of
from webkiln.interpret.kernel import run_kernel
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Var
from webkiln.ir.program import Compute, Kernel, Program
from webkiln.ir.verify import verify_kernel, verify_program
from webkiln.lower.graph import lower_graph

__all__ = ["interpret", "lower", "onnx_outputs", "parse", "physical", "random_inputs", "scheduled"]

Array = NDArray[Any]
BOUND = 64  # of every symbolic dimension


def parse(graph: str, seed: int = 0) -> onnx.ModelProto:
    """A model of one graph; inputs whose name begins with `w` become random weights.

    A graph is `name (float[2,n] x, float[n,3] w) => (float[m,p] y) { y = MatMul(x, w) }`.
    """
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {graph}')
    rng = np.random.default_rng(seed)
    for value in list(model.graph.input):
        if value.name.startswith("w"):
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            data = (rng.random(shape) - 0.5).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(data, value.name))
            model.graph.input.remove(value)
    return model


def random_inputs(
    model: onnx.ModelProto, dims: Mapping[str, int] | None = None, seed: int = 1
) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [(dims or {}).get(d.dim_param, d.dim_value) for d in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        data = rng.random(shape) - 0.5 if dtype.kind == "f" else rng.integers(0, 2, shape)
        inputs[value.name] = np.asarray(data, dtype)
    return inputs


def onnx_outputs(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What ONNX Runtime makes of it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))


def lower(model: onnx.ModelProto | str) -> Program:
    """The model's computations before fusion."""
    proto = parse(model) if isinstance(model, str) else model
    sizes = [d for v in proto.graph.input for d in v.type.tensor_type.shape.dim]
    program, _ = lower_graph(
        onnx_ir.from_proto(proto), {d.dim_param: BOUND for d in sizes if d.dim_param}
    )
    verify_program(program, "lower")
    return program


def interpret(
    program: Program, inputs: Mapping[str, Array], dims: Mapping[str, int] | None = None
) -> dict[Buffer, Array]:
    """The logical values of every buffer of the program."""
    arrays = {b: inputs[b.name].astype(b.dtype.name) for b in program.inputs}
    arrays |= {b: np.asarray(d).astype(b.dtype.name) for b, d in program.constants.items()}
    for compute in program.computes:
        arrays[compute.out] = evaluate(compute, arrays, dims or {})
    return arrays


def physical(values: Array, buffer: Buffer, dims: Mapping[str, int]) -> Array:
    """The elements as they lie in memory, padding zero."""
    flat = np.zeros(value_of(buffer.size, dims), buffer.dtype.name)
    axes = tuple(Var(f"x{i}", e) for i, e in enumerate(buffer.shape))
    places = Buffer("places", I32, buffer.shape)
    flat[evaluate(Compute(places, axes, buffer.offset(axes)), {}, dims)] = values
    return flat


def scheduled(
    program: Program,
    schedule: Callable[[Compute], Kernel],
    inputs: Mapping[str, Array],
    dims: Mapping[str, int] | None = None,
    slack: int = 0,
) -> Iterator[tuple[Kernel, Array, Array]]:
    """Each computation: its kernel, what the kernel computes, what the definition says (in memory).

    Its form in pairs, where it has one, computes the same to the last bit.
    What a kernel does not write is NaN, so that an element that it forgets shows. After each buffer
    that it reads there are `slack` more NaN elements, which it may read and must not use.
    """
    sizes = dict(dims or {})
    logical = interpret(program, inputs, sizes)
    for compute in program.computes:
        kernel = schedule(compute)
        verify_kernel(kernel, "schedule", compute.label)
        memory = {
            b: np.append(physical(logical[b], b, sizes), [_empty(b)] * slack).astype(b.dtype.name)
            for b in kernel.buffers
            if b is not compute.out
        }
        size = value_of(compute.out.size, sizes)
        for form in (kernel.paired, kernel):
            if form is None:
                continue
            before = memory.get(compute.out)
            memory[compute.out] = np.full(size, _empty(compute.out), compute.out.dtype.name)
            run_kernel(form, memory, sizes)
            if before is not None:
                np.testing.assert_array_equal(memory[compute.out], before)
        expected = physical(logical[compute.out], compute.out, sizes)
        yield kernel, memory[compute.out], expected


def _empty(buffer: Buffer) -> float:
    return float("nan") if buffer.dtype.is_float else -77
