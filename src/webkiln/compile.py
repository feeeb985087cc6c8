"""A model becomes a bundle: every stage in order. Read this page first.

frontends → passes → lower → fuse → layouts → schedule → memory → codegen → toolchain → bundle
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln import frontends, passes, tasks
from webkiln.bundle.bundle import Bundle
from webkiln.bundle.golden import GoldenSample
from webkiln.bundle.plan import Plan
from webkiln.bundle.writer import DispatchRecord, KernelRecord, ProgramRecord, Shader, assemble
from webkiln.codegen import c, c_module
from webkiln.codegen.c_driver import StepCall
from webkiln.codegen.unique import KernelSet, unique
from webkiln.errors import InputError
from webkiln.frontends.source import Source
from webkiln.ir.buffer import Buffer
from webkiln.ir.program import Program, Step
from webkiln.ir.text import program_text
from webkiln.ir.verify import verify_kernel, verify_program
from webkiln.log import Progress, debug, debug_level, silent, stage
from webkiln.lower.fuse import fuse
from webkiln.lower.graph import lower_graph
from webkiln.lower.layout import assign_layouts
from webkiln.memory.liveness import StepIO
from webkiln.memory.plan import MemoryPlan
from webkiln.memory.plan import plan as plan_memory
from webkiln.memory.size import evaluate
from webkiln.output import ensure_replaceable
from webkiln.reference import reference_outputs
from webkiln.schedule.program import Scheduler, schedule_program, scheduler
from webkiln.schedule.share import share
from webkiln.targets.toolchain import PLANES_VARIANTS, VARIANTS, Variant, compile_variants
from webkiln.tasks import page

__all__ = ["TARGETS", "build", "compile_model"]

TARGETS = ("webgpu", "wasm")
QUANTIZE = {"f32": None, "q8": 8, "q4": 4}  # bits of a weight; None: as they come
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
    activations: str = "int16",
    progress: Progress | None = None,
) -> Bundle:
    """Compile a model into a finished app that runs in browsers.

    `source` is a file, a folder, a Hugging Face repository id, an ONNX model in memory, or (with
    the `torch` extra) an `nn.Module` with `args`, `kwargs` and `dynamic_shapes` as
    `torch.export.export` takes them. `max` bounds symbolic dimensions by name (of a language
    model, `sequence` is how many tokens a conversation may have), `constants` binds inputs to
    values. `quantize` packs the weights of products and embeddings into blocks of 8 (`q8`) or 4
    (`q4`) bits. `activations` is what the other side of such products may be rounded to: `int16`,
    as good as float32 and the default, on a GPU float16 if it has that; `int8`, which on
    WebAssembly is faster for prompts; or `f32`, not at all. `output` saves the bundle.

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
            context=(max or {}).get("sequence"),
            progress=fetched,
        )
    bundle = compile_model(
        loaded,
        task=task,
        quantize=quantize,
        activations=activations,
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
    activations: str = "int16",
    bounds: Mapping[str, int] | None = None,
    constants: Mapping[str, npt.ArrayLike] | None = None,
    targets: Sequence[str] = TARGETS,
    title: str | None = None,
    progress: Progress = silent,
) -> Bundle:
    """A loaded model through every stage of the compiler. Errors as `build`."""
    _check_options(quantize, activations, targets)
    job = tasks.get(task or source.task or tasks.detect(source))
    source = tasks.prepare(job, source)
    graph = tasks.graph(job, source)
    bits = QUANTIZE[quantize]
    if bits is not None:
        graph = passes.plain(graph, source.config.get("max", {}) | dict(bounds or {}), constants)
        graph = passes.quantize_weights(graph, bits)
        constants = None
    graph = passes.limit_activations(graph, activations)
    shared = _Shared({t: scheduler(t) for t in targets})
    entries = [
        _entry(name, graph, source, own, shared, constants, progress)
        for name, own in _entry_bounds(job, source, bounds or {}).items()
    ]
    with stage("memory"):
        io = {
            t: [[StepIO(s.reads, s.writes) for s in e.steps[t]] for e in entries] for t in targets
        }
        memory = plan_memory([e.program for e in entries], io)
    with stage("codegen"):
        wasm = _wasm(entries, memory, progress) if "wasm" in targets else None
        shaders, kernels = _shaders(entries) if "webgpu" in targets else ([], KernelSet())
    with stage("golden"):
        progress("golden sample", 0, 1)
        half = any(k.half for k in kernels.kernels)
        golden = _golden(graph, source, job, entries[0].program, constants, half)
        progress("golden sample", 1, 1)
    with stage("bundle"):
        return _bundle(source, job, entries, memory, wasm, shaders, kernels, golden, title)


@dataclass(frozen=True)
class _Shared:
    """What the bundle's programs have in common: states by name, what their layouts made of them,
    and each target's scheduler.
    """

    schedulers: Mapping[str, Scheduler]
    states: dict[str, Buffer] = field(default_factory=dict)
    relaid: dict[Buffer, Buffer] = field(default_factory=dict)


@dataclass(frozen=True)
class _Entry:
    """An entry point of the model: its program, and its step list on each target."""

    name: str
    program: Program
    steps: Mapping[str, Sequence[Step]]


def _entry_bounds(
    job: tasks.Task, source: Source, bounds: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """The bounds of the symbolic dimensions in each of the bundle's programs."""
    limits = {**source.config.get("max", {}), **bounds}
    return {name: {**limits, **own} for name, own in tasks.programs(job, source).items()}


def _state(source: Source) -> Mapping[str, str]:
    """Inputs that live on the device, each with the output that it is next."""
    state: Mapping[str, str] = source.config.get("generation", {}).get("state", {})
    return state


def _entry(
    name: str,
    graph: ir.Model,
    source: Source,
    limits: Mapping[str, int],
    shared: _Shared,
    constants: Mapping[str, npt.ArrayLike] | None,
    progress: Progress,
) -> _Entry:
    """One program of the bundle, as far as its kernels."""
    with stage("passes"):
        progress("optimise", 0, 1)
        model = passes.run(graph, limits, constants)
        progress("optimise", 1, 1)
    with stage("lower"):
        program, _ = lower_graph(model, limits, _state(source), shared.states)
        _checked(program, "lower")
    with stage("fuse"):
        program = _checked(fuse(program), "fuse")
    with stage("layouts"):
        program = _checked(assign_layouts(program, shared.relaid), "layouts")
    with stage("schedule"):
        steps = {
            target: schedule_program(program, target, progress, schedule)
            for target, schedule in shared.schedulers.items()
        }
        for target, list_ in steps.items():
            for step in list_:
                if not step.kernel.arguments:  # else it is one that was verified before
                    verify_kernel(step.kernel, f"schedule for {target}", step.label)
    return _Entry(name, program, steps)


def _check_options(quantize: str, activations: str, targets: Sequence[str]) -> None:
    for name, value, known in (
        ("quantize", quantize, QUANTIZE),
        ("activations", activations, passes.ACTIVATIONS),
    ):
        if value not in known:
            raise InputError(f"{name}={value!r} is not possible", hint=f"one of {', '.join(known)}")
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


# --- code -----------------------------------------------------------------------------------------


def _wasm(
    entries: Sequence[_Entry], memory: MemoryPlan, progress: Progress
) -> dict[Variant, bytes]:
    progress("compile WebAssembly", 0, 1)
    programs = share([e.steps["wasm"] for e in entries])
    kernels = unique([s.kernel for steps in programs for s in steps], c.kernel_source)
    index = iter(kernels.of_step)
    dims = list(dict.fromkeys(d for e in entries for d in e.program.dims))
    calls = [
        [StepCall(s, kernels.names[next(index)], memory.wasm, memory.sizes) for s in steps]
        for steps in programs
    ]
    text = c_module.module_source(kernels.sources, kernels.kernels, calls, dims)
    planes = c_module.multiplies_planes(kernels.kernels)
    variants = PLANES_VARIANTS if planes else VARIANTS
    modules = compile_variants(text, memory.total_bytes, variants)
    progress("compile WebAssembly", 1, 1)
    return modules


def _shaders(entries: Sequence[_Entry]) -> tuple[list[Shader], KernelSet]:
    """The module for any adapter; before it the one for those with float16, if kernels differ."""
    from webkiln.codegen import wgsl
    from webkiln.targets import webgpu

    kernels = unique([s.kernel for e in entries for s in e.steps["webgpu"]], wgsl.kernel_source)
    text = wgsl.module_source(kernels.sources)
    debug(4, text)
    shaders = [Shader("kernels.wgsl", text, limits=webgpu.limits(kernels.kernels))]
    if any(k.half for k in kernels.kernels):
        own = {n: k.half or k for n, k in zip(kernels.names, kernels.kernels, strict=True)}
        text = wgsl.module_source({name: wgsl.kernel_source(k, name) for name, k in own.items()})
        debug(4, text)
        limits = webgpu.limits(list(own.values()))
        shaders.insert(0, Shader("kernels.f16.wgsl", text, (webgpu.HALF,), limits))
    return shaders, kernels


# --- bundle ---------------------------------------------------------------------------------------


def _golden(
    graph: ir.Model,
    source: Source,
    job: tasks.Task,
    program: Program,
    constants: Mapping[str, npt.ArrayLike] | None,
    half: bool,
) -> list[GoldenSample]:
    """One realistic sample of the first program through the reference."""
    extents = {d.name: min(SAMPLE_EXTENT, d.max or SAMPLE_EXTENT) for d in program.dims}
    inputs = job.sample(source, extents)
    given = {v.name for v in graph.graph.inputs}
    fixed = {n: np.asarray(v) for n, v in (constants or {}).items() if n in given}
    empty = {
        b.name: np.zeros([evaluate(e, {}) for e in b.shape], b.dtype.name) for b in program.states
    }
    exact = passes.dequantize_weights(graph.clone(), as_stored=True)
    outputs = reference_outputs(exact, {**inputs, **fixed, **empty})
    kept = {b.name: inputs[b.name] for b in program.inputs}
    names = [b.name for b in program.outputs if b.name in tasks.checked(job, outputs)]
    return [GoldenSample(kept, {n: outputs[n] for n in names}, *_tolerance(graph, outputs, half))]


def _tolerance(
    graph: ir.Model, outputs: Mapping[str, npt.NDArray[np.generic]], half: bool
) -> tuple[float, float]:
    """Relative and absolute: what roundings of activations add up to grows with the outputs.

    SmolLM2's logits are off by up to 0.0026 of the largest where products are of float16, as a
    bundle with that variant (`half`) may compute them.
    """
    levels = [
        n.attributes.get_int("accuracy_level", 0) for n in graph.graph if n.op_type == "MatMulNBits"
    ]
    if not levels:
        return 1e-3, 1e-4
    largest = max(
        (float(np.abs(o).max()) for o in outputs.values() if o.dtype.kind == "f"), default=1
    )
    share = {passes.ACTIVATIONS["int8"]: 0.1, passes.ACTIVATIONS["int16"]: 5e-3 if half else 2e-3}
    return 1e-3, max(share.get(level, 1e-3) for level in levels) * largest


def _bundle(
    source: Source,
    job: tasks.Task,
    entries: Sequence[_Entry],
    memory: MemoryPlan,
    wasm: dict[Variant, bytes] | None,
    shaders: Sequence[Shader],
    kernels: KernelSet,
    golden: list[GoldenSample],
    title: str | None,
) -> Bundle:
    index = iter(kernels.of_step)
    programs = [
        ProgramRecord(
            e.name,
            e.program,
            e.steps.get("wasm"),
            [_dispatch(s, next(index)) for s in e.steps["webgpu"]] if shaders else None,
        )
        for e in entries
    ]
    records = [
        KernelRecord(name, k.access, len(k.params), k.kind)
        for name, k in zip(kernels.names, kernels.kernels, strict=True)
    ]

    def app(plan: Plan) -> Mapping[str, bytes]:
        dist = Path(str(resources.files("webkiln"))) / "runtime" / "dist"
        return page.render(plan["task"]["name"], plan, title or source.name, dist)

    return assemble(
        programs,
        records,
        memory,
        name=source.name,
        task=job.plan_config(source),
        wasm=wasm,
        shaders=shaders,
        golden=golden,
        assets=source.assets,
        app=app,
    )


def _dispatch(step: Step, kernel: int) -> DispatchRecord:
    from webkiln.targets import webgpu

    return DispatchRecord(step, kernel, webgpu.workgroups(step.kernel))
