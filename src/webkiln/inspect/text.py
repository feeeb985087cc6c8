"""Reports as tables on a terminal."""

from __future__ import annotations

from webkiln.inspect.bundle import BundleReport, ProgramReport
from webkiln.inspect.model import ModelReport
from webkiln.terminal import count, print_table, say, size

__all__ = ["bundle_text", "model_text"]


def bundle_text(report: BundleReport) -> None:
    """Print totals, then every step with its cost."""
    at = ", ".join(f"{name}={value}" for name, value in report.at.items())
    say(f"{report.name}: {report.task}" + (f", at {at}" if at else ""))
    for program in report.programs:
        _program(program)
    first = sum(file["gzip"] for file in report.files.values())
    say("")
    say(f"weights             {size(report.weights)}{_first(report)}")
    say(f"wasm memory         {size(report.memory)}, of which the arena is {size(report.arena)}")
    say(f"before the weights  {size(first)} gzipped")
    if report.webgpu:
        limits = report.webgpu["limits"]
        needs = ", ".join(f"{name} {value}" for name, value in limits.items())
        say(f"WebGPU needs        {needs}")
        if report.webgpu["uses"]:
            say(f"       and can use  {', '.join(report.webgpu['uses'])}")


def _first(report: BundleReport) -> str:
    if report.weights_first == report.weights:
        return ""
    return f", before a first result {size(report.weights_first)} and the rows that it reads"


def _program(program: ProgramReport) -> None:
    say("")
    for title, ports in (("in ", program.inputs), ("out", program.outputs)):
        for port in ports:
            say(f"{title} {port}")
    rows = [
        [
            str(step.index), " + ".join(step.nodes), step.kind, count(step.flops),
            size(step.bytes), f"{step.flops / program.flops:.1%}" if program.flops else "–",
        ]
        for step in program.steps
    ]  # fmt: skip
    columns = ["step>", "computes", "kind", "FLOPs>", "bytes>", "share>"]
    print_table("", columns, rows)
    say(
        f"{program.name}: {len(program.steps)} steps, {count(program.flops)} FLOPs, "
        f"{size(program.bytes)} read and written, {size(program.peak)} in use at most"
    )


def model_text(report: ModelReport) -> None:
    """Print inputs, outputs and operators, the unsupported ones named at the end."""
    say(
        f"{report.name}: opset {report.opset}, {len(report.nodes)} nodes, "
        f"{count(report.parameters)} parameters, {size(report.weights)} of weights"
    )
    for title, ports in (("in ", report.inputs), ("out", report.outputs)):
        for port in ports:
            say(f"{title} {port}")
    rows = [
        [operator.name, operator.domain or "ai.onnx", str(operator.count), operator.support]
        for operator in report.operators
    ]
    print_table("", ["operator", "domain", "count>", "supported"], rows)
    if report.unsupported:
        say(f"not supported: {', '.join(report.unsupported)}")
