"""Read a bundle's plan and say what it runs: steps and their cost, buffers and their lifetime.

Everything comes from `model/plan.json` and the files beside it; no model is loaded and nothing is
run.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from webkiln.bundle.expression import Expression, evaluate, show
from webkiln.bundle.plan import (
    BufferPlan,
    DispatchPlan,
    Plan,
    PortPlan,
    ProgramPlan,
    StepPlan,
    WasmStepPlan,
    validate,
)
from webkiln.errors import InputError, InvalidModelError

__all__ = ["BufferReport", "BundleReport", "ProgramReport", "StepReport", "bundle_report"]

PLAN = Path("model", "plan.json")


@dataclass(frozen=True)
class StepReport:
    """One step: a dispatch on WebGPU, a kernel call on wasm. Costs are at `BundleReport.at`."""

    index: int
    nodes: list[str]
    kind: str
    reads: list[int]
    writes: list[int]
    output: str
    flops: int
    bytes: int
    cost: dict[str, Expression]
    """FLOPs and bytes as expressions over the dims."""


@dataclass(frozen=True)
class BufferReport:
    """A buffer of the arena: its place, and the first and last step that it is alive in."""

    index: int
    name: str
    dtype: str
    role: str
    bytes: int
    offset: int
    first: int
    last: int


@dataclass(frozen=True)
class ProgramReport:
    """One entry point of the model."""

    name: str
    inputs: list[str]
    outputs: list[str]
    steps: list[StepReport]
    buffers: list[BufferReport]
    live: list[int]
    """Bytes of the arena in use in each step."""

    @property
    def flops(self) -> int:
        """Floating-point operations of one run."""
        return sum(step.flops for step in self.steps)

    @property
    def bytes(self) -> int:
        """Bytes that the steps read and write."""
        return sum(step.bytes for step in self.steps)

    @property
    def peak(self) -> int:
        """Most bytes of the arena in use at once: the floor of any memory plan."""
        return max(self.live, default=0)


@dataclass(frozen=True)
class BundleReport:
    """What a bundle consists of. Costs are at the dims `at`; memory is at the bounds."""

    name: str
    generator: str
    task: str
    dims: list[dict[str, Any]]
    at: dict[str, int]
    programs: list[ProgramReport]
    kernels: int
    weights: int
    weights_first: int  # what every run needs; of the others, tables, it needs some rows
    arena: int
    memory: int
    files: dict[str, dict[str, int]]
    webgpu: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values, totals included."""
        data = asdict(self)
        for program, report in zip(data["programs"], self.programs, strict=True):
            program |= {"flops": report.flops, "bytes": report.bytes, "peak": report.peak}
        return data


def bundle_report(
    folder: str | os.PathLike[str], at: Mapping[str, int] | None = None
) -> BundleReport:
    """Report on the bundle in `folder`, costs at the dims `at` (where not given: the bounds).

    Raises `InvalidModelError` when the plan is missing or broken, `InputError` for an unknown dim
    in `at`.
    """
    plan = read_plan(Path(folder))
    dims = dict(_bounds(plan), **_checked(plan, at or {}))
    return BundleReport(
        name=plan["name"],
        generator=plan["generator"],
        task=str(plan["task"]["name"]),
        dims=[dict(dim) for dim in plan["dims"]],
        at=dims,
        programs=[_program(plan, program, dims) for program in plan["programs"]],
        kernels=len(plan["kernels"]),
        weights=plan["weights"]["bytes"],
        weights_first=sum(s["bytes"] for s in plan["weights"]["shards"] if "table" not in s),
        arena=_arena(plan),
        memory=plan["wasm"]["memory"]["bytes"] if plan["wasm"] else 0,
        files=_files(Path(folder), plan),
        webgpu=_needs(plan),
    )


def read_plan(folder: Path) -> Plan:
    """The plan of the bundle in `folder`; raises `InvalidModelError` when it is none."""
    try:
        document = json.loads((folder / PLAN).read_bytes())
    except OSError as error:
        raise InvalidModelError(
            f"{folder} holds no bundle: {PLAN} cannot be read ({error.strerror})",
            hint="webkiln build MODEL -o DIR makes a bundle",
        ) from error
    except ValueError as error:
        raise InvalidModelError(
            f"{folder / PLAN} is not JSON: {error}", hint="build the bundle again"
        ) from error
    try:
        return validate(document)
    except InvalidModelError as error:
        raise InvalidModelError(f"{folder}: {error.message}", hint=error.hint) from None


def _bounds(plan: Plan) -> dict[str, int]:
    return {dim["name"]: dim["max"] for dim in plan["dims"]}


def _checked(plan: Plan, at: Mapping[str, int]) -> Mapping[str, int]:
    known = {dim["name"]: dim for dim in plan["dims"]}
    for name, value in at.items():
        if name not in known:
            names = ", ".join(known) or "none"
            raise InputError(
                f"the model has no dimension {name!r}", hint=f"its dimensions: {names}"
            )
        low, high = known[name]["min"], known[name]["max"]
        if not low <= value <= high:
            raise InputError(f"{name}={value} is out of bounds", hint=f"{low} to {high}")
    return at


def _program(plan: Plan, program: ProgramPlan, dims: Mapping[str, int]) -> ProgramReport:
    lists = program["steps"]
    steps = (
        [_wasm_step(plan, i, step, dims) for i, step in enumerate(lists["wasm"])]
        if "wasm" in lists
        else [_dispatch(plan, i, step, dims) for i, step in enumerate(lists["webgpu"])]
    )
    buffers = _lifetimes(plan, program, steps)
    live = [sum(b.bytes for b in buffers if b.first <= i <= b.last) for i in range(len(steps))]
    return ProgramReport(
        name=program["name"],
        inputs=[_port(port) for port in program["inputs"]],
        outputs=[_port(port) for port in program["outputs"]],
        steps=steps,
        buffers=buffers,
        live=live,
    )


def _port(port: PortPlan) -> str:
    return f"{port['name']}: {port['dtype']}[{', '.join(show(size) for size in port['shape'])}]"


def _wasm_step(plan: Plan, index: int, step: WasmStepPlan, dims: Mapping[str, int]) -> StepReport:
    return _step(plan, index, step, step["kind"], step["reads"], step["writes"], dims)


def _dispatch(plan: Plan, index: int, step: DispatchPlan, dims: Mapping[str, int]) -> StepReport:
    kernel = plan["kernels"][step["kernel"]]
    uses = list(zip(kernel["access"], step["buffers"], strict=True))
    reads = [buffer for access, buffer in uses if access != "write"]
    writes = [buffer for access, buffer in uses if access != "read"]
    return _step(plan, index, step, kernel["kind"], reads, writes, dims)


def _step(
    plan: Plan,
    index: int,
    step: StepPlan,
    kind: str,
    reads: list[int],
    writes: list[int],
    dims: Mapping[str, int],
) -> StepReport:
    cost = {"flops": step["flops"], "bytes": step["bytes"]}
    return StepReport(
        index=index,
        nodes=step["label"].split(" + "),
        kind=kind,
        reads=reads,
        writes=writes,
        output=", ".join(plan["buffers"][buffer]["name"] for buffer in writes),
        flops=evaluate(cost["flops"], dims),
        bytes=evaluate(cost["bytes"], dims),
        cost=cost,
    )


def _lifetimes(plan: Plan, program: ProgramPlan, steps: list[StepReport]) -> list[BufferReport]:
    """Lifetimes of the arena's buffers; constants lie in the weight space and are left out."""
    end = max(len(steps) - 1, 0)
    first: dict[int, int] = {port["buffer"]: 0 for port in program["inputs"]}
    last: dict[int, int] = {port["buffer"]: end for port in program["outputs"]}
    for step in steps:
        for used in (*step.reads, *step.writes):
            first.setdefault(used, step.index)
            last[used] = max(last.get(used, 0), step.index)
    reports = []
    for index in sorted(first.keys() | last.keys()):
        buffer = plan["buffers"][index]
        if buffer["role"] == "constant":
            continue
        kept = buffer["role"] == "state"
        reports.append(
            BufferReport(
                index=index,
                name=buffer["name"],
                dtype=buffer["dtype"],
                role=buffer["role"],
                bytes=buffer["bytes"],
                offset=_offset(plan, buffer),
                first=0 if kept else first.get(index, 0),
                last=end if kept else last.get(index, end),
            )
        )
    return reports


def _offset(plan: Plan, buffer: BufferPlan) -> int:
    """Address in the wasm arena, or, without that target, in the WebGPU slots laid end to end."""
    if buffer["wasm"] is not None:
        return buffer["wasm"]
    place = buffer["webgpu"]
    assert place is not None  # validated: a buffer lies somewhere
    assert plan["webgpu"] is not None
    slots = plan["webgpu"]["slots"]
    return sum(slot["bytes"] for slot in slots[: place["slot"]]) + place["offset"]


def _arena(plan: Plan) -> int:
    """Bytes from the lowest to the highest address of a buffer that is not a constant."""
    kept = [buffer for buffer in plan["buffers"] if buffer["role"] != "constant"]
    if not kept:
        return 0
    spans = [(_offset(plan, buffer), buffer["bytes"]) for buffer in kept]
    low = min(start for start, _ in spans)
    return max(start + length - low for start, length in spans)


def _files(folder: Path, plan: Plan) -> dict[str, dict[str, int]]:
    """Sizes of what a browser fetches before the weights, as stored and gzipped.

    Of a target's variants it fetches one; the first is the best and the one that is counted. The
    service worker comes after the first result and is left out.
    """
    scripts = (path for place in ("*.js", "app/*.js", "tasks/*.js") for path in folder.glob(place))
    paths = ["index.html", PLAN.as_posix()]
    paths += sorted(path.relative_to(folder).as_posix() for path in scripts if path.name != "sw.js")
    for target in (plan["wasm"], plan["webgpu"]):
        if target:
            paths.append(f"model/{target['variants'][0]['file']}")
    sizes = {}
    for path in paths:
        if (folder / path).is_file():
            content = (folder / path).read_bytes()
            sizes[path] = {"bytes": len(content), "gzip": len(gzip.compress(content, 9))}
    return sizes


def _needs(plan: Plan) -> dict[str, Any] | None:
    """What an adapter must offer, and the features that better variants use."""
    if plan["webgpu"] is None:
        return None
    *better, least = plan["webgpu"]["variants"]
    return {
        "features": least["features"],
        "limits": plan["webgpu"]["limits"] | least["limits"],
        "uses": sorted({name for v in better for name in v["features"]} - {*least["features"]}),
    }
