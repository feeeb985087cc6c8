"""Results as the tables of docs/benchmarks.md, between its markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.cases import CASES

BEGIN, END = "<!-- results -->", "<!-- /results -->"

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
        parts += ["### Inference, milliseconds", _timings(results["inference"], "ms", 1)]
    if results["cold_start"]:
        parts += ["### Cold start, navigation to first result, milliseconds"]
        parts += [_timings(results["cold_start"], "ms", 1)]
        parts += ["### Downloaded before the weights, gzipped", _downloads(results["cold_start"])]
    if results["build"]:
        parts += ["### `webkiln build`, seconds", _builds(results["build"])]
    return "\n\n".join(parts)


def _environment(environment: dict[str, Any]) -> str:
    return (
        f"{environment['date'][:10]}, webkiln {environment['webkiln']} ({environment['commit']}), "
        f"onnxruntime-web {environment['onnxruntime-web']}, Chromium {environment['chromium']}, "
        f"{environment['cpu']}, {environment['cores']} cores. Median [quartiles]."
    )


def _timings(rows: list[dict[str, Any]], unit: str, digits: int) -> str:
    lines = [
        f"| model | where | webkiln, {unit} | onnxruntime-web, {unit} | webkiln is faster by |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        cells = [_summary(row["engines"].get(name), digits) for name in ("webkiln", "ort")]
        faster = "not measured"
        if "ratio" in row:
            r = row["ratio"]
            faster = f"**{r['median']:.2f}×** [{r['low']:.2f}–{r['high']:.2f}]"
        lines.append(f"| {_title(row)} | {_where(row)} | {cells[0]} | {cells[1]} | {faster} |")
    return "\n".join(lines)


def _downloads(rows: list[dict[str, Any]]) -> str:
    lines = ["| model | where | webkiln | onnxruntime-web |", "|---|---|---:|---:|"]
    for row in rows:
        sizes = []
        for name in ("webkiln", "ort"):
            engine = row["engines"].get(name)
            sizes.append(f"{engine['sent']['code'] / 1000:,.0f} KB" if engine else "not measured")
        lines.append(f"| {_title(row)} | {_where(row)} | {sizes[0]} | {sizes[1]} |")
    return "\n".join(lines)


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


def _summary(engine: dict[str, Any] | None, digits: int) -> str:
    if engine is None:
        return "not measured"
    s = engine["summary"]
    return f"{s['median']:,.{digits}f} [{s['low']:,.{digits}f}–{s['high']:,.{digits}f}]"
