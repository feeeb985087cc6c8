"""A model becomes a bundle: every stage in order. Read this page first.

frontends → passes → lower → fuse → layouts → schedule → memory → codegen → toolchain → bundle
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from webkiln import frontends, passes, tasks
from webkiln.bundle.bundle import Bundle
from webkiln.bundle.golden import GoldenSample
from webkiln.bundle.plan import Plan
from webkiln.bundle.writer import KernelRecord, Shader, StepRecord, assemble
from webkiln.codegen import c, c_module
from webkiln.codegen.unique import KernelSet, unique
from webkiln.errors import InputError
from webkiln.frontends.source import Source
from webkiln.ir.expr import Expr
from webkiln.ir.program import Kernel, Program, Step
from webkiln.ir.text import program_text
from webkiln.ir.verify import verify_kernel, verify_program
from webkiln.log import Progress, debug, debug_level, silent, stage
from webkiln.lower.fuse import fuse
from webkiln.lower.graph import lower_graph
from webkiln.lower.layout import assign_layouts
from webkiln.memory.liveness import StepIO
from webkiln.memory.plan import MemoryPlan
from webkiln.memory.plan import plan as plan_memory
from webkiln.output import ensure_replaceable
from webkiln.reference import reference_outputs
from webkiln.schedule.program import schedule_program
from webkiln.targets.toolchain import Variant, compile_variants
from webkiln.tasks import page

__all__ = ["TARGETS", "build", "compile_model"]

TARGETS = ("webgpu", "wasm")
SAMPLE_EXTENT = 16  # of a symbolic dimension in the golden sample, where its bound allows


def build(
    source: str | os.PathLike[str] | object,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    task: str | None = None,
    quantize: str = "f32",
    max: Mapping[str, int] | None = None,
    constants: Mapping[str, npt.ArrayLike] | None = None,
    targets: Sequence[str] = TARGETS,
    output: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    title: str | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Compile a model into a finished app that runs in browsers.

    `source` is a file, a folder, a Hugging Face repository id, an ONNX model in memory, or (with
    the `torch` extra) an `nn.Module` with `args`, `kwargs` and `dynamic_shapes` as
    `torch.export.export` takes them. `max` bounds symbolic dimensions by name, `constants` binds
    inputs to values. `output` saves the bundle.

    Raises a `WebkilnError` that says what is wrong and what to try: no such model, not a model,
    unsupported operators (all of them), a dimension without a bound.
    """
    report = progress or silent
    if output is not None:
        ensure_replaceable(output)  # before minutes of work, not after

    def fetched(what: str, fraction: float | None) -> None:
        report("download", round(100 * (fraction or 0)), 100, what)

    report("load", 0, 1)
    with stage("load"):
        loaded = frontends.load(
            source,
            args=args,
            kwargs=kwargs,
            dynamic_shapes=dynamic_shapes,
            revision=revision,
            progress=fetched,
        )
    bundle = compile_model(
        loaded,
        task=task,
        quantize=quantize,
        bounds=dict(max or {}),
        constants=constants,
        targets=targets,
        title=title,
        progress=report,
    )
    if output is not None:
        bundle.save(output)
    return bundle


def compile_model(
    source: Source,
    *,
    task: str | None = None,
    quantize: str = "f32",
    bounds: Mapping[str, int] | None = None,
    constants: Mapping[str, npt.ArrayLike] | None = None,
    targets: Sequence[str] = TARGETS,
    title: str | None = None,
    progress: Progress = silent,
) -> Bundle:
    """A loaded model through every stage of the compiler. Errors as `build`."""
    _check_options(quantize, targets)
    job = tasks.get(task or source.task or tasks.detect(source))
    limits = {**source.config.get("max", {}), **(bounds or {})}

    with stage("passes"):
        progress("optimise", 0, 1)
        model = passes.run(source.model, limits, constants)
        progress("optimise", 1, 1)
    with stage("lower"):
        program, _ = lower_graph(model, limits)
        _checked(program, "lower")
    with stage("fuse"):
        program = _checked(fuse(program), "fuse")
    with stage("layouts"):
        program = _checked(assign_layouts(program), "layouts")
    with stage("schedule"):
        steps = schedule_program(program, targets, progress)
        _check_kernels(steps)
    with stage("memory"):
        memory = plan_memory(program, [_io(s) for s in steps], webgpu="webgpu" in targets)
    with stage("codegen"):
        wasm = _wasm(program, steps, memory, progress) if "wasm" in targets else None
        shader, kernels = _shader(steps) if "webgpu" in targets else (None, None)
    with stage("golden"):
        progress("golden sample", 0, 1)
        golden = _golden(source, job, program, constants)
        progress("golden sample", 1, 1)
    with stage("bundle"):
        return _bundle(source, job, program, steps, memory, wasm, shader, kernels, golden, title)


def _check_options(quantize: str, targets: Sequence[str]) -> None:
    if quantize != "f32":
        raise InputError(
            f"quantize={quantize!r} is not available yet", hint="f32, the only precision so far"
        )
    unknown = [t for t in targets if t not in TARGETS]
    if unknown or not targets:
        raise InputError(
            f"no such target: {', '.join(unknown) or 'none given'}",
            hint=f"some of {', '.join(TARGETS)}",
        )


def _checked(program: Program, after: str) -> Program:
    """The program, after the laws of the IR; printed at WEBKILN_DEBUG=3."""
    if debug_level() >= 3:
        debug(3, f"webkiln: after {after}:\n{program_text(program)}")
    verify_program(program, after)
    return program


def _check_kernels(steps: Sequence[Step]) -> None:
    for step in steps:
        for target, kernel in step.kernel.items():
            verify_kernel(kernel, f"schedule for {target}", step.compute.label)


# --- code -----------------------------------------------------------------------------------------


def _io(step: Step) -> StepIO:
    """What a step reads and writes, whichever target runs it."""
    reads: dict[Any, None] = {}
    for kernel in step.kernel.values():
        for buffer, access in zip(kernel.buffers, kernel.access, strict=True):
            if access != "write":
                reads[buffer] = None
    return StepIO(tuple(reads), (step.compute.out,))


def _wasm(
    program: Program, steps: Sequence[Step], memory: MemoryPlan, progress: Progress
) -> dict[Variant, bytes]:
    progress("compile WebAssembly", 0, 1)
    kernels = unique([s.kernel["wasm"] for s in steps], c.kernel_source)
    calls = []
    for step, k in zip(steps, kernels.of_step, strict=True):
        kernel = step.kernel["wasm"]
        addresses = [memory.wasm[b] for b in kernel.buffers]
        calls.append(c_module.StepCall(kernel, kernels.names[k], addresses, kernel.params))
    text = c_module.module_source(kernels.sources, kernels.kernels, [calls], program.dims)
    modules = compile_variants(text, memory.total_bytes)
    progress("compile WebAssembly", 1, 1)
    return modules


def _shader(steps: Sequence[Step]) -> tuple[Shader, KernelSet]:
    from webkiln.codegen import wgsl
    from webkiln.targets import webgpu

    kernels = unique([s.kernel["webgpu"] for s in steps], wgsl.kernel_source)
    text = wgsl.module_source(kernels.sources)
    debug(4, text)
    return Shader(text, limits=webgpu.limits(kernels.kernels)), kernels


# --- bundle ---------------------------------------------------------------------------------------


def _golden(
    source: Source, job: tasks.Task, program: Program, constants: Mapping[str, npt.ArrayLike] | None
) -> list[GoldenSample]:
    """One realistic sample through the reference."""
    extents = {d.name: min(SAMPLE_EXTENT, d.max or SAMPLE_EXTENT) for d in program.dims}
    inputs = job.sample(source, extents)
    fixed = {
        name: np.asarray(value)
        for name, value in (constants or {}).items()
        if any(v.name == name for v in source.model.graph.inputs)
    }
    outputs = reference_outputs(source.model, {**inputs, **fixed})
    kept = {b.name: inputs[b.name] for b in program.inputs}
    return [GoldenSample(kept, outputs)]


def _bundle(
    source: Source,
    job: tasks.Task,
    program: Program,
    steps: Sequence[Step],
    memory: MemoryPlan,
    wasm: dict[Variant, bytes] | None,
    shader: Shader | None,
    shader_kernels: KernelSet | None,
    golden: list[GoldenSample],
    title: str | None,
) -> Bundle:
    kernels = shader_kernels or unique([s.kernel["wasm"] for s in steps], c.kernel_source)
    target = "webgpu" if shader_kernels else "wasm"
    records = [
        KernelRecord(name, k.access, len(k.params), k.kind)
        for name, k in zip(kernels.names, kernels.kernels, strict=True)
    ]
    plan_steps = [
        _record(step, step.kernel[target], index)
        for step, index in zip(steps, kernels.of_step, strict=True)
    ]

    def app(plan: Plan) -> Mapping[str, bytes]:
        dist = Path(str(resources.files("webkiln"))) / "runtime" / "dist"
        return page.render(plan["task"]["name"], plan, title or source.name, dist)

    return assemble(
        program,
        plan_steps,
        records,
        memory,
        name=source.name,
        task=job.plan_config(source),
        wasm=wasm,
        shader=shader,
        golden=golden,
        assets=source.assets,
        app=app,
    )


def _record(step: Step, kernel: Kernel, index: int) -> StepRecord:
    groups: tuple[Expr, ...] = ()
    if any(loop.binding.startswith("workgroup") for loop in kernel.loops):
        from webkiln.targets import webgpu

        groups = webgpu.workgroups(kernel)
    return StepRecord(
        step.compute.label, index, kernel.buffers, kernel.params, step.flops, step.bytes, groups
    )
