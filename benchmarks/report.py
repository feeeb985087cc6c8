"""Results as the tables of docs/benchmarks.md, between its markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.cases import CASES

BEGIN, END = "<!-- results -->", "<!-- /results -->"

# Load average at the start, above which other work takes a good part of a core.
BUSY = 0.5

_CASES = {case.name: case for case in CASES}


def insert(page: Path, text: str) -> None:
    """Put `text` between the markers of the file `page`."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{page} lacks the markers {BEGIN} … {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def render(results: dict[str, Any]) -> str:
    """All tables, as Markdown; a part that was not measured is left out."""
    parts = [_environment(results["environment"])]
    if results["inference"]:
        parts += ["### Inference, milliseconds", _timings(results["inference"], work=True)]
    if results["cold_start"]:
        parts += ["### Cold start, navigation to first result, milliseconds"]
        parts += [_timings(results["cold_start"], work=False)]
    if results["download"] or results["cold_start"]:
        parts += ["### Downloaded before the weights, gzipped"]
        parts += [_downloads(results["download"], results["cold_start"])]
    if results["build"]:
        parts += ["### `webkiln build`, seconds", _builds(results["build"])]
    return "\n\n".join(parts)


def _environment(environment: dict[str, Any]) -> str:
    busy = environment["load_average"]
    note = f" The machine was busy (load average {busy})." if busy > BUSY else ""
    return (
        f"{environment['date'][:10]}, webkiln {environment['webkiln']} ({environment['commit']}), "
        f"onnxruntime-web {environment['onnxruntime-web']}, Chromium {environment['chromium']}, "
        f"{environment['cpu']}, {environment['cores']} cores. Median [quartiles].{note}"
    )


def _timings(rows: list[dict[str, Any]], *, work: bool) -> str:
    """Milliseconds of both engines; with `work`, GFLOP/s too where the case says its FLOPs."""
    lines = [
        "| model | where | webkiln | onnxruntime-web | webkiln is faster by |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        flops = _CASES[row["case"]].flops if work else None
        cells = [_summary(row["engines"].get(name), flops) for name in ("webkiln", "ort")]
        faster = "not measured"
        if "ratio" in row:
            r = row["ratio"]
            faster = f"**{r['median']:.2f}×** [{r['low']:.2f}–{r['high']:.2f}]"
        lines.append(f"| {_title(row)} | {_where(row)} | {cells[0]} | {cells[1]} | {faster} |")
    return "\n".join(lines)


def _downloads(apps: list[dict[str, Any]], cold: list[dict[str, Any]]) -> str:
    """The whole app where it was measured; for both engines, what a bare page needs."""
    lines = ["| model | what | webkiln | onnxruntime-web |", "|---|---|---:|---:|"]
    lines += [f"| {_title(row)} | the finished app | {_kb(row)} | |" for row in apps]
    for row in cold:
        sizes = [_kb(row["engines"].get(name)) for name in ("webkiln", "ort")]
        lines.append(f"| {_title(row)} | bare page, {_where(row)} | {sizes[0]} | {sizes[1]} |")
    return "\n".join(lines)


def _kb(row: dict[str, Any] | None) -> str:
    return f"{row['sent']['code'] / 1000:,.0f} KB" if row else "not measured"


def _builds(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {_title(row)} | {row['first_s']:.1f} | {row['second_s']:.1f} |" for row in rows]
    head = ["| model | first, caches empty | again, nothing changed |", "|---|---:|---:|"]
    return "\n".join(head + lines)


def _title(row: dict[str, Any]) -> str:
    return _CASES[row["case"]].title


def _where(row: dict[str, Any]) -> str:
    if row["device"] == "webgpu":
        return "WebGPU (SwiftShader)"
    return f"wasm, {row['threads']} thread" + ("s" if row["threads"] > 1 else "")


def _summary(engine: dict[str, Any] | None, flops: int | None) -> str:
    if engine is None:
        return "not measured"
    s = engine["summary"]
    text = f"{s['median']:,.1f} [{s['low']:,.1f}–{s['high']:,.1f}]"
    return f"{text}, {flops / s['median'] / 1e6:.0f} GFLOP/s" if flops else text
