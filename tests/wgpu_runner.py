"""Runs kernels and whole plans on a native WebGPU adapter, under the binding rules of docs/plan.md.

`run_kernel` takes one kernel of the IR; `run_plan` what a bundle holds: plan, shader text, weights.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import wgpu

from webkiln.codegen.wgsl import kernel_source, module_source
from webkiln.interpret.compute import value_of
from webkiln.ir.buffer import Buffer
from webkiln.ir.program import Kernel
from webkiln.targets.webgpu import MAX_GROUPS, workgroups

STORAGE = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
FEATURES = {"shader-f16"}
UNIFORM = wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST


@functools.cache
def device() -> wgpu.GPUDevice:
    """A device with the default limits, as any adapter gives it, and float16 where the adapter has
    it; else the test is skipped.
    """
    try:
        adapter = wgpu.gpu.request_adapter_sync()
    except RuntimeError as error:  # no Vulkan driver at all
        pytest.skip(f"no WebGPU adapter: {error}")
    return adapter.request_device_sync(required_features=FEATURES & adapter.features)


def round_up(n: int, to: int) -> int:
    return -(-n // to) * to


def pipeline(shader: Any, entry: str, access: Sequence[str], params: bool) -> tuple[Any, Any]:
    """The compute pipeline and its bind group layout: buffers in order, then the params."""
    kinds = ["read-only-storage" if a == "read" else "storage" for a in access]
    kinds += ["uniform"] * params
    layout = device().create_bind_group_layout(
        entries=[
            {"binding": i, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": kind}}
            for i, kind in enumerate(kinds)
        ]
    )
    made = device().create_compute_pipeline(
        layout=device().create_pipeline_layout(bind_group_layouts=[layout]),
        compute={"module": shader, "entry_point": entry},
    )
    return made, layout


def bind(layout: Any, bindings: Sequence[tuple[Any, int, int]]) -> Any:
    return device().create_bind_group(
        layout=layout,
        entries=[
            {"binding": i, "resource": {"buffer": b, "offset": offset, "size": size}}
            for i, (b, offset, size) in enumerate(bindings)
        ],
    )


def params_buffer(values: Sequence[int]) -> tuple[Any, int, int]:
    padded = np.zeros(round_up(max(len(values), 1), 4), np.int32)
    padded[: len(values)] = values
    return device().create_buffer_with_data(data=padded, usage=UNIFORM), 0, padded.nbytes


def run_kernel(
    kernel: Kernel, arrays: Mapping[Buffer, np.ndarray], dims: Mapping[str, int] | None = None
) -> dict[Buffer, np.ndarray]:
    """What the written buffers hold afterwards; `arrays` are flat, in physical order, and stay."""
    dims = dims or {}
    source = module_source({"kernel": kernel_source(kernel, "kernel")})
    shader = device().create_shader_module(code=source)
    made, layout = pipeline(shader, "kernel", kernel.access, bool(kernel.params))
    bindings = []
    for b in kernel.buffers:
        data = np.zeros(round_up(max(arrays[b].nbytes, 4), 4), np.uint8)
        data[: arrays[b].nbytes] = np.ascontiguousarray(arrays[b]).view(np.uint8)
        bindings.append(
            (device().create_buffer_with_data(data=data, usage=STORAGE), 0, data.nbytes)
        )
    extra = [params_buffer([dims[p.name] for p in kernel.params])] if kernel.params else []
    groups = [value_of(e, dims) for e in workgroups(kernel)]
    dispatch([(made, bind(layout, [*bindings, *extra]), groups)])
    results = {}
    for b, (buffer, _, _), access in zip(kernel.buffers, bindings, kernel.access, strict=True):
        if access != "read":
            raw = np.frombuffer(device().queue.read_buffer(buffer), np.uint8)
            results[b] = raw[: arrays[b].nbytes].view(arrays[b].dtype).copy()
    return results


def dispatch(steps: Sequence[tuple[Any, Any, Sequence[int]]]) -> None:
    """All steps (pipeline, bind group, workgroups) in one compute pass."""
    encoder = device().create_command_encoder()
    compute = encoder.begin_compute_pass()
    for made, group, counts in steps:
        assert all(0 <= n <= MAX_GROUPS for n in counts), f"{counts} workgroups"
        compute.set_pipeline(made)
        compute.set_bind_group(0, group)
        compute.dispatch_workgroups(*counts)
    compute.end()
    device().queue.submit([encoder.finish()])


# --- plans ----------------------------------------------------------------------------------------


def evaluate(e: Any, dims: Mapping[str, int]) -> int:
    """An expression of the plan."""
    if isinstance(e, str):
        return dims[e]
    if not isinstance(e, list):
        return int(e)
    op, a, b = e[0], evaluate(e[1], dims), evaluate(e[2], dims)
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "//":
            return a // b
        case "%":
            return a % b
        case "ceildiv":
            return -(-a // b)
        case "min" | "max":
            return min(a, b) if op == "min" else max(a, b)
    raise ValueError(f"unknown operation {op!r} in the plan")


def run_plan(
    plan: Mapping[str, Any],
    shader: str,
    weights: bytes,
    inputs: Mapping[str, np.ndarray],
    program: int = 0,
) -> dict[str, np.ndarray]:
    """The outputs, in the model's dtypes, of one of the plan's programs."""
    steps_of, buffers = plan["programs"][program], plan["buffers"]
    dims = _dims(steps_of, inputs)
    slots = _slots(plan["webgpu"]["slots"], weights)
    module = device().create_shader_module(code=shader)
    made = {}
    for i in {s["kernel"] for s in steps_of["steps"]["webgpu"]}:
        kernel = plan["kernels"][i]
        made[i] = pipeline(module, kernel["name"], kernel["access"], kernel["params"] > 0)

    def binding(index: int) -> tuple[Any, int, int]:
        place = buffers[index]["webgpu"]
        return slots[place["slot"]], place["offset"], round_up(buffers[index]["bytes"], 4)

    for value in steps_of["inputs"]:
        slot, offset, _ = binding(value["buffer"])
        data = np.ascontiguousarray(inputs[value["name"]]).astype(buffers[value["buffer"]]["dtype"])
        device().queue.write_buffer(slot, offset, data)
    dispatches = []
    for step in steps_of["steps"]["webgpu"]:
        step_pipeline, layout = made[step["kernel"]]
        bindings = [binding(i) for i in step["buffers"]]
        if step["params"]:
            bindings.append(params_buffer([evaluate(p, dims) for p in step["params"]]))
        counts = [evaluate(w, dims) for w in step["workgroups"]]
        dispatches.append((step_pipeline, bind(layout, bindings), counts))
    dispatch(dispatches)
    outputs = {}
    for value in steps_of["outputs"]:
        slot, offset, _ = binding(value["buffer"])
        shape = [evaluate(e, dims) for e in value["shape"]]
        dtype = np.dtype(buffers[value["buffer"]]["dtype"])
        size = int(np.prod(shape)) * dtype.itemsize
        raw = device().queue.read_buffer(slot, offset, round_up(max(size, 4), 4))
        array = np.frombuffer(raw, np.uint8)[:size].view(dtype).reshape(shape)
        outputs[value["name"]] = array.astype(value["dtype"])
    return outputs


def _dims(program: Mapping[str, Any], inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
    dims: dict[str, int] = {}
    for value in program["inputs"]:
        sizes = zip(value["shape"], inputs[value["name"]].shape, strict=True)
        dims.update({extent: n for extent, n in sizes if isinstance(extent, str)})
    return dims


def _slots(slots: Sequence[Mapping[str, int]], weights: bytes) -> list[Any]:
    buffers = []
    for slot in slots:
        size = round_up(max(slot["bytes"], 4), 4)
        buffer = device().create_buffer(size=size, usage=STORAGE)
        if "weights" in slot:
            data = weights[slot["weights"] : slot["weights"] + slot["bytes"]]
            device().queue.write_buffer(buffer, 0, data + bytes(-len(data) % 4))
        buffers.append(buffer)
    return buffers
