"""model/plan.json: its types, and the check that a document is a plan (docs/plan.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, NotRequired, TypedDict, cast

import jsonschema

from webkiln.bundle.expression import Expression
from webkiln.errors import InvalidModelError

__all__ = [
    "BufferPlan",
    "DimPlan",
    "DispatchPlan",
    "GoldenPlan",
    "GoldenTensorPlan",
    "KernelPlan",
    "Plan",
    "PortPlan",
    "ProgramPlan",
    "StepPlan",
    "StepsPlan",
    "TablePlan",
    "WasmStepPlan",
    "to_json",
    "validate",
]

Access = Literal["read", "write", "read_write"]


class DimPlan(TypedDict):
    """A symbolic dimension, bounds included."""

    name: str
    min: int
    max: int


class PortPlan(TypedDict):
    """An input or output: the model's dtype, and where it is stored."""

    name: str
    dtype: str
    shape: list[Expression]
    buffer: int


class StepPlan(TypedDict):
    """What every target's steps say: the model's nodes, and the cost."""

    label: str
    flops: Expression
    bytes: Expression


class WasmStepPlan(StepPlan):
    """A step inside the wasm module; `kind` is the rule that scheduled it."""

    kind: str
    reads: list[int]
    writes: list[int]


class DispatchPlan(StepPlan):
    """A WebGPU dispatch: one kernel on given buffers."""

    kernel: int
    buffers: list[int]
    params: list[Expression]
    workgroups: list[Expression]


class StepsPlan(TypedDict):
    """The step lists of the targets that were built."""

    wasm: NotRequired[list[WasmStepPlan]]
    webgpu: NotRequired[list[DispatchPlan]]


class ProgramPlan(TypedDict):
    """One entry point of the model."""

    name: str
    inputs: list[PortPlan]
    outputs: list[PortPlan]
    steps: StepsPlan


class KernelPlan(TypedDict):
    """A WGSL kernel's signature; `kind` is the rule that scheduled it."""

    name: str
    access: list[Access]
    params: int
    kind: str


class PlacePlan(TypedDict):
    """Where a buffer lies on WebGPU; the offset is in bytes."""

    slot: int
    offset: int


class BufferPlan(TypedDict):
    """A buffer: storage dtype, bytes at the bounds, places."""

    name: str
    dtype: str
    bytes: int
    role: str
    wasm: int | None
    webgpu: PlacePlan | None


class AssetPlan(TypedDict):
    """A file beside the plan."""

    file: str
    sha256: str
    bytes: int


class ShardPlan(AssetPlan):
    """A part of the weight space, from byte `offset`, and the SHA-256 of each of its pieces."""

    offset: int
    pieces: list[str]
    table: NotRequired[int]  # index of the table that all of it belongs to


class RowsPlan(TypedDict):
    """An input of a program, both by index."""

    program: int
    input: int


class TablePlan(TypedDict):
    """A part of the weight space of which a run reads only the rows that these inputs name.

    `group` rows lie together, in `groupBytes` bytes.
    """

    offset: int
    rows: int
    group: int
    groupBytes: int
    namedBy: list[RowsPlan]


class WeightsPlan(TypedDict):
    """The weight space and the files that fill it; the last piece of a shard may be shorter."""

    bytes: int
    pieceBytes: int
    shards: list[ShardPlan]
    tables: NotRequired[list[TablePlan]]


class VariantPlan(AssetPlan):
    """One build of a target's module, and the features that it needs."""

    features: list[str]


class StacksPlan(TypedDict):
    """Thread t's stack pointer starts at `offset + bytes * (t + 1)`."""

    offset: int
    bytes: int


class WasmMemoryPlan(TypedDict):
    """Addresses in wasm memory."""

    bytes: int
    dims: int
    weights: int
    stacks: StacksPlan


class WasmPlan(TypedDict):
    """The wasm target; variants best first."""

    variants: list[VariantPlan]
    memory: WasmMemoryPlan
    maxThreads: int


class SlotPlan(TypedDict):
    """A GPUBuffer; `weights`: it starts at that offset of the weight space."""

    bytes: int
    weights: NotRequired[int]


class ShaderPlan(VariantPlan):
    """One build of the WGSL module, and the limits that an adapter must offer for it."""

    limits: dict[str, int]


class WebGPUPlan(TypedDict):
    """The WebGPU target; variants best first, `limits` whatever the variant."""

    variants: list[ShaderPlan]
    slots: list[SlotPlan]
    limits: dict[str, int]


class GoldenTensorPlan(TypedDict):
    """A tensor in the golden file, in the model's dtype."""

    offset: int
    bytes: int
    shape: list[int]
    dtype: str


class GoldenPlan(TypedDict):
    """A sample that the reference computed at build time."""

    dims: dict[str, int]
    inputs: dict[str, GoldenTensorPlan]
    outputs: dict[str, GoldenTensorPlan]
    file: str
    rtol: float
    atol: float


class Plan(TypedDict):
    """The document."""

    format: str
    version: int
    generator: str
    name: str
    dims: list[DimPlan]
    programs: list[ProgramPlan]
    kernels: list[KernelPlan]
    buffers: list[BufferPlan]
    weights: WeightsPlan
    wasm: WasmPlan | None
    webgpu: WebGPUPlan | None
    golden: list[GoldenPlan]
    task: dict[str, Any]


def to_json(plan: Plan) -> bytes:
    """The plan as it is written: compact, because it is downloaded before anything else."""
    return json.dumps(plan, ensure_ascii=False, separators=(",", ":")).encode()


def validate(document: object) -> Plan:
    """`document`, if it is a plan that the runtime can run.

    Raises `InvalidModelError` that names the path of what is wrong, as
    `programs[0].steps[3].kernel`.
    """
    error = jsonschema.exceptions.best_match(_validator().iter_errors(document))
    if error is not None:
        path = error.json_path.removeprefix("$").removeprefix(".") or "the document"
        raise _invalid(f"{path}: {error.message[:200]}")
    plan = cast("Plan", document)
    for problem in _inconsistencies(plan):
        raise _invalid(problem)
    return plan


def _invalid(problem: str) -> InvalidModelError:
    return InvalidModelError(f"plan.json is not valid: {problem}", hint="build the bundle again")


@lru_cache(maxsize=1)
def _validator() -> jsonschema.Draft202012Validator:
    text = resources.files(__package__).joinpath("plan.schema.json").read_text("utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))


def _inconsistencies(plan: Plan) -> Iterator[str]:
    """What a schema can't say: references, counts, and that everything lies inside its memory."""
    names = [d["name"] for d in plan["dims"]]
    if len(set(names)) < len(names):
        yield "dims: two have one name"
    for k, dim in enumerate(plan["dims"]):
        if dim["min"] > dim["max"]:
            yield f"dims[{k}]: min {dim['min']} is above max {dim['max']}"
    for k, program in enumerate(plan["programs"]):
        yield from _program_problems(plan, program, f"programs[{k}]", set(names))
    end = 0
    for k, shard in enumerate(plan["weights"]["shards"]):
        if shard["offset"] != end:
            yield f"weights.shards[{k}].offset: is {shard['offset']}, the one before ends at {end}"
        end += shard["bytes"]
        pieces = -(-shard["bytes"] // plan["weights"]["pieceBytes"])
        if len(shard["pieces"]) != pieces:
            yield f"weights.shards[{k}].pieces: are {len(shard['pieces'])}, not {pieces}"
    if end != plan["weights"]["bytes"]:
        yield f"weights.bytes: is {plan['weights']['bytes']}, the shards have {end}"
    yield from _table_problems(plan)
    for k, buffer in enumerate(plan["buffers"]):
        yield from _place_problems(plan, buffer, f"buffers[{k}]")
    if plan["wasm"] is None and plan["webgpu"] is None:
        yield "wasm: neither this target nor webgpu was built"


def _table_problems(plan: Plan) -> Iterator[str]:
    """A shard of a table has nothing but its rows, which integers among the inputs name."""
    tables = plan["weights"].get("tables", [])
    for k, shard in enumerate(plan["weights"]["shards"]):
        if "table" not in shard:
            continue
        if shard["table"] >= len(tables):
            yield f"weights.shards[{k}].table: {shard['table']} of {len(tables)} tables"
            continue
        table = tables[shard["table"]]
        end = table["offset"] + -(-table["rows"] // table["group"]) * table["groupBytes"]
        if shard["offset"] < table["offset"] or shard["offset"] + shard["bytes"] > end:
            yield f"weights.shards[{k}]: has more than rows of its table"
    for k, table in enumerate(tables):
        for i, port in enumerate(table["namedBy"]):
            at = f"weights.tables[{k}].namedBy[{i}]"
            programs = plan["programs"]
            if port["program"] >= len(programs):
                yield f"{at}.program: {port['program']} of {len(programs)} programs"
                continue
            inputs = programs[port["program"]]["inputs"]
            if port["input"] >= len(inputs):
                yield f"{at}.input: {port['input']} of {len(inputs)} inputs"
                continue
            buffer = inputs[port["input"]]["buffer"]
            if buffer < len(plan["buffers"]) and plan["buffers"][buffer]["dtype"] != "int32":
                yield f"{at}.input: is not of int32"


def _program_problems(plan: Plan, program: ProgramPlan, path: str, dims: set[str]) -> Iterator[str]:
    buffers, kernels = len(plan["buffers"]), plan["kernels"]
    for kind, ports in (("inputs", program["inputs"]), ("outputs", program["outputs"])):
        for k, port in enumerate(ports):
            if port["buffer"] >= buffers:
                yield f"{path}.{kind}[{k}].buffer: {port['buffer']} of {buffers} buffers"
            elif any(plan[t] and not _placed(plan, port["buffer"], t) for t in ("wasm", "webgpu")):
                yield f"{path}.{kind}[{k}].buffer: has no place on every target"
            yield from _unknown_dims(port["shape"], dims, f"{path}.{kind}[{k}].shape")
    for target in ("wasm", "webgpu"):
        if plan[target] is not None and target not in program["steps"]:
            yield f"{path}.steps.{target}: is missing"
    for k, call in enumerate(program["steps"].get("wasm", [])):
        at = f"{path}.steps.wasm[{k}]"
        for b in (*call["reads"], *call["writes"]):
            if b >= buffers:
                yield f"{at}: {b} of {buffers} buffers"
            elif plan["wasm"] is not None and plan["buffers"][b]["wasm"] is None:
                yield f"{at}: buffer {b} has no address"
        yield from _unknown_dims([call["flops"], call["bytes"]], dims, at)
    for k, step in enumerate(program["steps"].get("webgpu", [])):
        at = f"{path}.steps.webgpu[{k}]"
        if step["kernel"] >= len(kernels):
            yield f"{at}.kernel: {step['kernel']} of {len(kernels)} kernels"
            continue
        kernel = kernels[step["kernel"]]
        takes = {"buffers": len(kernel["access"]), "params": kernel["params"]}
        given = {"buffers": len(step["buffers"]), "params": len(step["params"])}
        for key, count in takes.items():
            if given[key] != count:
                yield f"{at}.{key}: has {given[key]} entries, {kernel['name']} takes {count}"
        for b in step["buffers"]:
            if b >= buffers:
                yield f"{at}.buffers: {b} of {buffers} buffers"
            elif plan["webgpu"] is not None and plan["buffers"][b]["webgpu"] is None:
                yield f"{at}.buffers: buffer {b} has no slot"
        used = [*step["params"], *step["workgroups"], step["flops"], step["bytes"]]
        yield from _unknown_dims(used, dims, at)


def _placed(plan: Plan, buffer: int, target: Literal["wasm", "webgpu"]) -> bool:
    return plan["buffers"][buffer][target] is not None


def _unknown_dims(expressions: list[Expression], dims: set[str], path: str) -> Iterator[str]:
    for expression in expressions:
        if isinstance(expression, str) and expression not in dims:
            yield f"{path}: there is no dimension {expression!r}"
        elif isinstance(expression, list):
            yield from _unknown_dims(expression[1:], dims, path)


def _place_problems(plan: Plan, buffer: BufferPlan, path: str) -> Iterator[str]:
    wasm, webgpu = plan["wasm"], plan["webgpu"]
    address, place = buffer["wasm"], buffer["webgpu"]
    if wasm is not None and address is not None:
        size = wasm["memory"]["bytes"]
        if address + buffer["bytes"] > size:
            yield f"{path}.wasm: ends beyond the memory's {size} bytes"
    if webgpu is not None and place is not None:
        if place["slot"] >= len(webgpu["slots"]):
            yield f"{path}.webgpu: slot {place['slot']} of {len(webgpu['slots'])}"
        elif place["offset"] + buffer["bytes"] > webgpu["slots"][place["slot"]]["bytes"]:
            yield f"{path}.webgpu: ends beyond slot {place['slot']}"
