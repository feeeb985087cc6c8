"""Measure webkiln against onnxruntime-web in headless Chromium: `make bench`.

    python -m benchmarks                                   everything, into results/ and the docs
    python -m benchmarks --cases minilm --parts inference --quick --no-write

Correctness comes first: an engine with wrong outputs ends the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Playwright, sync_playwright

from benchmarks import environment, report, site
from benchmarks.build_time import build_time
from benchmarks.cases import CASES, Case
from benchmarks.coldstart import ROUNDS, cold_start
from benchmarks.download import app_download
from benchmarks.inference import QUICK, SOFTWARE_GPU, Effort, compare
from benchmarks.server import CountingServer
from webkiln.errors import WebkilnError

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs" / "benchmarks.md"

PARTS = ("inference", "cold_start", "download", "build")
ENGINES = ("webkiln", "ort")
THREADS = (1, 2)

# Models with weights of their own: what a visitor would wait for, and what one builds from a file.
WHOLE_MODELS = ("efficientnet-lite0", "minilm")


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    cases = [case for case in CASES if case.name in options.cases]
    version = site.install_peer()
    results: dict[str, Any] = {part: [] for part in PARTS}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        results["environment"] = environment.describe(playwright, {"onnxruntime-web": version})
        if results["environment"]["load_average"] > report.BUSY:
            _say("warning: the machine is busy; above all, figures with 2 threads will mislead")
        _say("building the models")
        targets = options.devices if "webkiln" in options.engines else ()
        site.lay_out(Path(folder), cases, targets)
        with CountingServer(Path(folder)) as server:
            if "inference" in options.parts:
                results["inference"] = _inference(playwright, server, cases, options)
            if "cold_start" in options.parts:
                results["cold_start"] = _cold_starts(server, cases, options)
            if "download" in options.parts and "webkiln" in options.engines:
                apps = (case for case in cases if case.name in WHOLE_MODELS)
                results["download"] = [app_download(playwright, server, case) for case in apps]
    if "build" in options.parts and "webkiln" in options.engines:
        results["build"] = _builds(cases)
    text = report.render(results)
    print(text)
    if options.write:
        _write(results, text)


def _inference(
    playwright: Playwright, server: CountingServer, cases: list[Case], options: argparse.Namespace
) -> list[dict[str, Any]]:
    results = []
    for case in cases:
        for device, threads in _places(case, options):
            _say(f"inference: {case.name}, {device} × {threads}")
            effort = SOFTWARE_GPU if device == "webgpu" else Effort()
            row = compare(
                playwright, server, case, engines=options.engines, device=device, threads=threads,
                effort=QUICK if options.quick else effort,
            )  # fmt: skip
            results.append(row)
    return results


def _cold_starts(
    server: CountingServer, cases: list[Case], options: argparse.Namespace
) -> list[dict[str, Any]]:
    results = []
    for case in cases:
        for device, threads in _places(case, options) if case.name in WHOLE_MODELS else ():
            _say(f"cold start: {case.name}, {device} × {threads}")
            row = cold_start(
                server, case, engines=options.engines, device=device, threads=threads,
                rounds=2 if options.quick else ROUNDS,
            )  # fmt: skip
            results.append(row)
    return results


def _builds(cases: list[Case]) -> list[dict[str, Any]]:
    results = []
    for case in cases:
        if case.name in WHOLE_MODELS:
            _say(f"build: {case.name}")
            results.append(build_time(case))
    return results


def _places(case: Case, options: argparse.Namespace) -> list[tuple[str, int]]:
    """Device and threads; on WebGPU the number of threads means nothing."""
    places = [("wasm", threads) for threads in THREADS] + [("webgpu", 1)]
    return [p for p in places if p[0] in case.devices and p[0] in options.devices]


def _write(results: dict[str, Any], text: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    stamp = results["environment"]["date"][:19].replace(":", "")
    path = RESULTS / f"{stamp}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    report.insert(DOCS, text)
    _say(f"wrote {path} and {DOCS}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.split("\n")[0])
    names = tuple(case.name for case in CASES)
    for option, choices in {
        "cases": names,
        "parts": PARTS,
        "devices": ("wasm", "webgpu"),
        "engines": ENGINES,
    }.items():
        parser.add_argument(f"--{option}", nargs="+", choices=choices, default=choices)
    parser.add_argument("--quick", action="store_true", help="few rounds: a try, not a figure")
    parser.add_argument(
        "--no-write", dest="write", action="store_false", help="only print; keep files as they are"
    )
    options = parser.parse_args(arguments)
    options.engines = tuple(options.engines)
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except WebkilnError as error:
        sys.exit(f"error: {error}")
