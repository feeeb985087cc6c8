"""From a compiled program to a `Bundle`: every part is made by now, here they become one plan."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import webkiln
from webkiln.bundle.bundle import MODEL, PLAN, Bundle, Data
from webkiln.bundle.expression import expr_to_json
from webkiln.bundle.golden import GOLDEN_FILE, GoldenSample, write_golden
from webkiln.bundle.plan import (
    Access,
    AssetPlan,
    BufferPlan,
    DispatchPlan,
    KernelPlan,
    Plan,
    PortPlan,
    ProgramPlan,
    SlotPlan,
    StepsPlan,
    TablePlan,
    WasmPlan,
    WasmStepPlan,
    WebGPUPlan,
    to_json,
)
from webkiln.bundle.weights import write_shards
from webkiln.ir.buffer import Buffer, row_major
from webkiln.ir.expr import Dim, Expr
from webkiln.ir.program import Program, Step
from webkiln.memory.plan import DIMS, MAX_THREADS, STACK_BYTES, STACKS, MemoryPlan
from webkiln.memory.tables import Table
from webkiln.targets.toolchain import Variant

__all__ = ["DispatchRecord", "KernelRecord", "ProgramRecord", "Shader", "assemble"]

_MIN_BYTES = 4  # WebGPU binds nothing smaller


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """A kernel's signature: WGSL entry point, use of each buffer, number of int32 params, kind."""

    name: str
    access: tuple[Access, ...]
    params: int
    kind: str


@dataclass(frozen=True, slots=True)
class DispatchRecord:
    """What WebGPU adds to a step: which kernel, by index, on how many workgroups (x, y, z)."""

    step: Step
    kernel: int
    workgroups: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class ProgramRecord:
    """An entry point of the model, and its step list on each target (None: not built)."""

    name: str
    program: Program
    wasm: Sequence[Step] | None
    webgpu: Sequence[DispatchRecord] | None


@dataclass(frozen=True, slots=True)
class Shader:
    """A WGSL module, and what an adapter must have for it beyond the buffers' sizes.

    `limits` by WebGPU's names, as maxComputeWorkgroupStorageSize.
    """

    file: str
    text: str
    features: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)


def assemble(
    programs: Sequence[ProgramRecord],
    kernels: Sequence[KernelRecord],
    memory: MemoryPlan,
    *,
    name: str,
    task: Mapping[str, Any],
    wasm: Mapping[Variant, bytes] | None,
    shaders: Sequence[Shader],
    golden: Sequence[GoldenSample] = (),
    assets: Mapping[str, bytes] | None = None,
    app: Callable[[Plan], Mapping[str, bytes]] | None = None,
) -> Bundle:
    """The bundle of `programs`.

    `kernels` are those of each of `shaders`, best first (none: WebGPU was not built); `memory` is
    the plan that the printed code was made with; `wasm` the compiled variants, best first; `assets`
    files for the task (tokenizer.json, labels) that go beside the plan; `app` makes
    the page's files, given the finished plan. Raises `InvalidModelError` when the parts don't fit
    together.
    """
    index = {buffer: k for k, buffer in enumerate(memory.buffers)}
    dims = list(dict.fromkeys(d for p in programs for d in p.program.dims))
    names = _dim_names(dims)
    weights, shards = write_shards(memory.weights, memory.tables)
    if memory.tables:
        weights["tables"] = [_table(t, programs) for t in memory.tables]
    files: dict[str, Data] = dict(shards) | dict(assets or {})
    plan: Plan = {
        "format": "webkiln.plan",
        "version": 1,
        "generator": f"webkiln {webkiln.__version__}",
        "name": name,
        "dims": [{"name": names[d.name], "min": 1, "max": d.max or 1} for d in dims],
        "programs": [_program(p, index, names) for p in programs],
        "kernels": [_kernel(k) for k in kernels],
        "buffers": [_buffer(b, memory, wasm=wasm is not None) for b in memory.buffers],
        "weights": weights,
        "wasm": None if wasm is None else _wasm(wasm, memory, files),
        "webgpu": _webgpu(shaders, kernels, memory, files) if shaders else None,
        "golden": [],
        "task": dict(task),
    }
    plan["golden"], samples = write_golden(plan, golden)
    if samples:
        files[GOLDEN_FILE] = samples
    model: dict[str, Data] = {f"{MODEL}/{n}": data for n, data in files.items()}
    return Bundle({PLAN: to_json(plan)} | model | dict(app(plan) if app is not None else {}))


def _dim_names(dims: Sequence[Dim]) -> dict[str, str]:
    """Names that are identifiers; exporters also write `past_length + 1` or `batch size`."""
    names: dict[str, str] = {}
    for dim in dims:
        name = dim.name
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            name = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
            name = name if re.match(r"[A-Za-z]", name) else f"dim_{name}"
        while name != dim.name and name in ({*names.values(), *(d.name for d in dims)}):
            name += "_"
        names[dim.name] = name
    return names


def _program(
    record: ProgramRecord, index: Mapping[Buffer, int], names: Mapping[str, str]
) -> ProgramPlan:
    steps: StepsPlan = {}
    if record.wasm is not None:
        steps["wasm"] = [_wasm_step(s, index, names) for s in record.wasm]
    if record.webgpu is not None:
        steps["webgpu"] = [_dispatch(d, index, names) for d in record.webgpu]
    return {
        "name": record.name,
        "inputs": [_port(b, index[b], names) for b in record.program.inputs],
        "outputs": [_port(b, index[b], names) for b in record.program.outputs],
        "steps": steps,
    }


def _port(buffer: Buffer, index: int, names: Mapping[str, str]) -> PortPlan:
    if buffer.layout.parts != row_major(len(buffer.shape)).parts:
        raise ValueError(f"{buffer.name} is at the model's edge, where layouts are row-major")
    return {
        "name": buffer.name,
        "dtype": buffer.model_dtype,
        "shape": [expr_to_json(e, names) for e in buffer.shape],
        "buffer": index,
    }


def _wasm_step(step: Step, index: Mapping[Buffer, int], names: Mapping[str, str]) -> WasmStepPlan:
    return {
        "label": step.label,
        "kind": step.kernel.kind,
        "reads": [index[b] for b in step.reads],
        "writes": [index[b] for b in step.writes],
        "flops": expr_to_json(step.flops, names),
        "bytes": expr_to_json(step.bytes, names),
    }


def _dispatch(
    dispatch: DispatchRecord, index: Mapping[Buffer, int], names: Mapping[str, str]
) -> DispatchPlan:
    step = dispatch.step
    return {
        "label": step.label,
        "kernel": dispatch.kernel,
        "buffers": [index[b] for b in step.kernel.bound],
        "params": [expr_to_json(e, names) for e in step.kernel.params],
        "workgroups": [expr_to_json(e, names) for e in dispatch.workgroups],
        "flops": expr_to_json(step.flops, names),
        "bytes": expr_to_json(step.bytes, names),
    }


def _table(table: Table, programs: Sequence[ProgramRecord]) -> TablePlan:
    return {
        "offset": table.offset,
        "rows": table.rows,
        "group": table.group,
        "groupBytes": table.group_bytes,
        "namedBy": [
            {"program": k, "input": programs[k].program.inputs.index(port)}
            for k, port in table.named_by
        ],
    }


def _kernel(kernel: KernelRecord) -> KernelPlan:
    return {
        "name": kernel.name,
        "access": list(kernel.access),
        "params": kernel.params,
        "kind": kernel.kind,
    }


def _buffer(buffer: Buffer, memory: MemoryPlan, *, wasm: bool) -> BufferPlan:
    place = None if memory.slots is None else memory.slots.places.get(buffer)
    return {
        "name": buffer.name,
        "dtype": "int32" if buffer.dtype.kind == "b" else buffer.dtype.name,
        "bytes": max(memory.sizes[buffer], _MIN_BYTES),
        "role": buffer.role,
        "wasm": memory.wasm.get(buffer) if wasm else None,
        "webgpu": None if place is None else {"slot": place[0], "offset": place[1]},
    }


def _asset(file: str, data: bytes) -> AssetPlan:
    return {"file": file, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _wasm(modules: Mapping[Variant, bytes], memory: MemoryPlan, files: dict[str, Data]) -> WasmPlan:
    files.update({variant.file: module for variant, module in modules.items()})
    return {
        "variants": [
            {**_asset(variant.file, module), "features": list(variant.features)}
            for variant, module in modules.items()
        ],
        "memory": {
            "bytes": memory.total_bytes,
            "dims": DIMS,
            "weights": memory.weights_base,
            "stacks": {"offset": STACKS, "bytes": STACK_BYTES},
        },
        "maxThreads": MAX_THREADS,
    }


def _webgpu(
    shaders: Sequence[Shader],
    kernels: Sequence[KernelRecord],
    memory: MemoryPlan,
    files: dict[str, Data],
) -> WebGPUPlan:
    assert memory.slots is not None, "the memory plan was made without WebGPU"
    texts = {shader.file: shader.text.encode() for shader in shaders}
    files.update(texts)
    slots: list[SlotPlan] = [
        {"bytes": s.bytes} if s.weights is None else {"bytes": s.bytes, "weights": s.weights}
        for s in memory.slots.slots
    ]
    return {
        "variants": [
            {
                **_asset(shader.file, texts[shader.file]),
                "features": list(shader.features),
                "limits": dict(shader.limits),
            }
            for shader in shaders
        ],
        "slots": slots,
        "limits": {
            "maxStorageBufferBindingSize": max(memory.sizes.values(), default=_MIN_BYTES),
            "maxBufferSize": max((s["bytes"] for s in slots), default=_MIN_BYTES),
            "maxStorageBuffersPerShaderStage": max((len(k.access) for k in kernels), default=1),
        },
    }
