"""One node as a model, run by ONNX Runtime and by a backend of ours, and compared.

Inputs are written as `"f32[2,n=5]"`: random elements of that type and shape, where `n` is a
symbolic dimension that is 5 in this run. Arrays are inputs with those values; `Constant` makes an
initializer of either.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from webkiln.interpret.compute import run_program, value_of
from webkiln.ir.program import Program
from webkiln.lower.graph import lower_graph

__all__ = ["BACKENDS", "Case", "Constant", "build", "check", "compare", "expected", "lowered"]

Array = NDArray[Any]
Backend = Callable[[onnx.ModelProto, Mapping[str, Array], Mapping[str, int]], list[Array]]

DTYPES = {
    "f32": "float32",
    "f64": "float64",
    "f16": "float16",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "bool": "bool",
}
TOLERANCE = {"float32": 2e-5, "float64": 2e-5, "float16": 5e-3}


@dataclass(frozen=True)
class Constant:
    """An input that is an initializer of the model."""

    value: Any


@dataclass(frozen=True)
class Case:
    """A node: operator, inputs, attributes, outputs; `tag` tells cases of an operator apart."""

    op: str
    inputs: Sequence[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    unused: tuple[int, ...] = ()  # outputs left without a name
    opset: int = 21
    domain: str = ""
    tag: str = ""
    low: float = -2.0  # range of random floats
    high: float = 2.0
    rtol: float | None = None
    oracle: str = "onnxruntime"  # or "reference", where ONNX Runtime has no kernel

    def __str__(self) -> str:
        shown = [str(i.value if isinstance(i, Constant) else i) for i in self.inputs]
        attributes = [f"{k}={v}" for k, v in self.attributes.items()]
        text = f"{self.op}-{self.tag}-{'-'.join(shown)}-{'-'.join(attributes)}-{self.opset}"
        return re.sub(r"\s+", "", text).replace("--", "-")[:150]


def _parse(text: str) -> tuple[str, list[tuple[str | None, int]]]:
    match = re.fullmatch(r"(\w+)\[(.*)\]", text)
    assert match is not None, text
    shape: list[tuple[str | None, int]] = []
    for part in filter(None, match[2].split(",")):
        name, _, size = part.strip().rpartition("=")
        shape.append((name or None, int(size)))
    return DTYPES[match[1]], shape


def _random(dtype: str, shape: Sequence[int], case: Case, rng: np.random.Generator) -> Array:
    if dtype == "bool":
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.startswith("float"):
        return np.asarray(rng.random(shape) * (case.high - case.low) + case.low, dtype)
    info = np.iinfo(dtype)
    return np.asarray(rng.integers(max(info.min, -50), min(info.max, 50), shape), dtype)


def build(case: Case) -> tuple[onnx.ModelProto, dict[str, Array], dict[str, int]]:
    """The model, its inputs and the symbolic dimensions' values."""
    rng = np.random.default_rng(zlib.crc32(str(case).encode()))
    names, infos, constants = [], [], []
    arrays: dict[str, Array] = {}
    dims: dict[str, int] = {}
    for k, given in enumerate(case.inputs):
        if given is None:
            names.append("")
            continue
        name = f"x{k}"
        names.append(name)
        value = given.value if isinstance(given, Constant) else given
        shape: list[str | int]
        if isinstance(value, str):
            dtype, extents = _parse(value)
            array = np.asarray(_random(dtype, [n for _, n in extents], case, rng))
            shape = [label or n for label, n in extents]
            dims.update({label: n for label, n in extents if label})
        else:
            array = np.asarray(value)
            shape = list(array.shape)
        if isinstance(given, Constant):
            constants.append(onnx.numpy_helper.from_array(array, name))
        else:
            arrays[name] = array
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            infos.append(helper.make_tensor_value_info(name, kind, shape))
    outputs = ["" if k in case.unused else f"y{k}" for k in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, "node", domain=case.domain, **case.attributes)
    graph = helper.make_graph(
        [node], "g", infos, [onnx.ValueInfoProto(name=y) for y in outputs if y], constants
    )
    opsets = [helper.make_opsetid("", case.opset)]
    if case.domain:
        opsets.append(helper.make_opsetid(case.domain, 1))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model, arrays, dims


def lowered(model: onnx.ModelProto, dims: Mapping[str, int]) -> Program:
    """The model by our definitions, every symbolic dimension at most 64."""
    return lower_graph(onnx_ir.from_proto(model), dict.fromkeys(dims, 64))[0]


def interpreter(
    model: onnx.ModelProto, inputs: Mapping[str, Array], dims: Mapping[str, int]
) -> list[Array]:
    """Our definitions, as written; also checks what they say of the outputs' types and shapes."""
    program = lowered(model, dims)
    results = run_program(program, inputs, dims)
    out = []
    for buffer, array in zip(program.outputs, results, strict=True):
        assert tuple(value_of(e, dims) for e in buffer.shape) == array.shape
        out.append(array.astype(buffer.model_dtype))
    return out


BACKENDS: dict[str, Backend] = {"interpreter": interpreter}


def expected(case: Case, model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    if case.oracle == "reference":
        from onnx.reference import ReferenceEvaluator

        return [np.asarray(a) for a in ReferenceEvaluator(model).run(None, dict(inputs))]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(a) for a in session.run(None, dict(inputs))]


def compare(actual: Array, wanted: Array, rtol: float | None = None) -> None:
    """Equal in dtype and shape; integers and NaNs exactly, floats within the dtype's tolerance."""
    assert actual.dtype == wanted.dtype, f"{actual.dtype} instead of {wanted.dtype}"
    assert actual.shape == wanted.shape, f"{actual.shape} instead of {wanted.shape}"
    tolerance = TOLERANCE.get(str(wanted.dtype), 0.0) if rtol is None else rtol
    scale = float(np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0)) if tolerance else 0.0
    np.testing.assert_allclose(
        actual.astype(np.float64),
        wanted.astype(np.float64),
        rtol=tolerance,
        atol=tolerance * min(max(scale, 1e-3), 1.0),
    )


def check(case: Case, backend: str) -> None:
    """Fails when `backend` and the oracle differ on `case`."""
    model, inputs, dims = build(case)
    wanted = expected(case, model, inputs)
    actual = BACKENDS[backend](model, inputs, dims)
    assert len(actual) == len(wanted)
    for a, w in zip(actual, wanted, strict=True):
        compare(a, w, case.rtol)
