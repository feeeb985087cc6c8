"""Measure language models against their peers in headless Chromium: `make bench-llm`.

    python -m benchmarks.llm                                everything, into results/ and the docs
    python -m benchmarks.llm --places wasm-1 --rounds 3 --no-write

SmolLM2-135M-Instruct from its Q4_1 file. wllama runs that file and Q4_0 and Q8_0 files made from
the same weights; onnxruntime-web runs ONNX models with those weights, in 4 bits and in 8. All
engines of a place (device and threads) take turns in one page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from playwright.sync_api import Playwright, sync_playwright

import webkiln
from benchmarks import environment, llm_report, site
from benchmarks.browser import call, chromium, page_at
from benchmarks.llm_models import PEER_TYPES, model_file, prompts, requantised
from benchmarks.llm_onnx import ORT_TYPES, onnx_model
from benchmarks.llvmpipe import llvmpipe_chromium
from benchmarks.native import native
from benchmarks.report import insert
from benchmarks.server import CountingServer
from benchmarks.stats import ratio, summarize

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs" / "benchmarks-llm.md"

PEERS = {"wllama": "@wllama/wllama", "onnxruntime-web": "onnxruntime-web"}
PROMPT_TOKENS = 150
ANSWER_TOKENS = 48
ROUNDS = {"wasm": 5, "webgpu": 3}
VISITS = 3
# All engines of a place, all rounds: four minutes on a quiet machine.
PLACE_TIMEOUT_MS = 1_200_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where engines run side by side: device and threads, on llvmpipe if not on the usual GPU."""

    device: str
    threads: int
    prompt: int = PROMPT_TOKENS
    llvmpipe: bool = False


PLACES = {
    "wasm-1": Place("wasm", 1),
    "wasm-2": Place("wasm", 2),
    "webgpu": Place("webgpu", 1),
    # wllama's WebGPU asks for shader-f16, which SwiftShader lacks. It gives up on a GPU that does
    # not answer for 30 seconds, and llvmpipe takes as long for a prompt of 150 tokens.
    "webgpu-f16": Place("webgpu", 1, prompt=60, llvmpipe=True),
}


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    peers = {name: site.install_peer(package) for name, package in PEERS.items()}
    results: dict[str, Any] = {"places": []}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        results["environment"] = environment.describe(playwright, peers)
        root = Path(folder)
        _say("building the model")
        _lay_out(root)
        with CountingServer(root) as server:
            for place in options.places:
                _say(place)
                executable = None
                if PLACES[place].llvmpipe:
                    executable = llvmpipe_chromium(Path(folder) / "llvmpipe")
                    if executable is None:
                        _say("left out: it takes Chromium with SwiftShader, and Mesa's llvmpipe")
                        continue
                results["places"].append(
                    _place(playwright, server, place, options.rounds, executable)
                )
            _say("threads, webkiln alone")
            results["threads"] = _threads(playwright, server, options.rounds)
            _say("second visits")
            results["second_visit"] = _second_visits(playwright, server)
        _say("native")
        results["native"] = native(root / "webkiln", PROMPT_TOKENS)
    text = llm_report.render(results)
    print(text)
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        stamp = results["environment"]["date"][:19].replace(":", "")
        (RESULTS / f"{stamp}-llm.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        insert(DOCS, text)


def _lay_out(root: Path) -> None:
    shutil.copytree(site.HERE / "pages", root, dirs_exist_ok=True)
    shutil.copytree(site.HERE / "node_modules/@wllama/wllama/esm", root / "wllama")
    for kind in PEER_TYPES:
        shutil.copyfile(requantised(kind), root / f"smollm2.{kind}.gguf")
    site.copy_ort(root)
    for kind in ORT_TYPES:
        ir.save(onnx_model(kind), root / f"smollm2.{kind}.onnx")
    webkiln.build(model_file(), max={"sequence": 1024}, output=root / "webkiln")


def _place(
    playwright: Playwright,
    server: CountingServer,
    place: str,
    rounds: int | None,
    executable: Path | None,
) -> dict[str, Any]:
    """Every engine at one place; the ratios are webkiln's to each peer's, pair by pair."""
    there = PLACES[place]
    at = {"device": there.device, "threads": there.threads}
    engines = {name: {**engine, **at} for name, engine in _engines(there.device).items()}
    rows = _measure(
        playwright,
        server,
        engines,
        prompt=there.prompt,
        count=ANSWER_TOKENS,
        rounds=rounds or ROUNDS[there.device],
        executable=executable,
    )
    return {"place": place, **at, "prompt": there.prompt, "engines": rows}


def _threads(playwright: Playwright, server: CountingServer, rounds: int | None) -> dict[str, Any]:
    """Two threads beside one and no other engine, whose threads would take part of a core."""
    engine = {"engine": "webkiln", "folder": "./webkiln/", "device": "wasm"}
    return _measure(
        playwright,
        server,
        {"2 threads": {**engine, "threads": 2}, "1 thread": {**engine, "threads": 1}},
        prompt=PROMPT_TOKENS,
        count=2 * ANSWER_TOKENS,
        rounds=2 * (rounds or ROUNDS["wasm"]),
    )


def _measure(
    playwright: Playwright,
    server: CountingServer,
    engines: dict[str, Any],
    *,
    prompt: int,
    count: int,
    rounds: int,
    executable: Path | None = None,
) -> dict[str, Any]:
    """Engines in turns in one page: tokens a second, and the first one's ratios to the others'."""
    texts = prompts(prompt, 8)
    options = {"engines": engines, "prompts": texts, "count": count, "rounds": rounds}
    with (
        chromium(playwright, executable) as browser,
        page_at(browser, server.url + "llm.html") as page,
    ):
        measured = call(page, "llm", options, timeout_ms=PLACE_TIMEOUT_MS)
    rows = {}
    first, own = next(iter(measured.items()))
    for name, entry in measured.items():
        rows[name] = {
            **entry,
            "prefill": summarize([1000 * prompt / ms for ms in entry["first"]]).to_json(),
            "decode": summarize(entry["perSecond"]).to_json(),
        }
        if name != first:
            rows[name]["prefill_ratio"] = ratio(entry["first"], own["first"]).to_json()
            rows[name]["decode_ratio"] = ratio(own["perSecond"], entry["perSecond"]).to_json()
    return rows


def _engines(device: str) -> dict[str, dict[str, str]]:
    """What `pages/llm.js` is to load, by the name in the tables; webkiln comes first."""
    engines = {"webkiln": {"engine": "webkiln", "folder": "./webkiln/"}}
    for kind in PEER_TYPES if device == "wasm" else PEER_TYPES[:1]:
        engines[f"wllama {kind}"] = {"engine": "wllama", "file": f"./smollm2.{kind}.gguf"}
    # On a software adapter onnxruntime-web takes minutes for an answer.
    for kind in ORT_TYPES if device == "wasm" else ():
        engines[f"onnxruntime-web {kind}"] = {"engine": "ort", "file": f"./smollm2.{kind}.onnx"}
    return engines


def _second_visits(playwright: Playwright, server: CountingServer) -> dict[str, Any]:
    """Navigation to first token, at first and then when the weights are on the device."""
    options = {"folder": "./webkiln/", "device": "wasm", "threads": 1}
    with chromium(playwright) as browser:
        context = browser.new_context()
        times = []
        for _ in range(VISITS + 1):
            page = context.new_page()
            page.goto(server.url + "llm.html")
            times.append(call(page, "visit", options))
            page.close()
        context.close()
    return {"first_ms": times[0], "ms": times[1:], "summary": summarize(times[1:]).to_json()}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--no-write", dest="write", action="store_false")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(f"bench-llm: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
