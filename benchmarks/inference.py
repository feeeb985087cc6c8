"""Warm inference, both engines interleaved in one page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Playwright

from benchmarks.browser import call, chromium, page_at
from benchmarks.cases import Case
from benchmarks.server import CountingServer
from benchmarks.stats import ratio, summarize


@dataclass(frozen=True)
class Effort:
    """How long one comparison measures: rounds for `seconds`, within `least` and `most`."""

    warmup: int = 5
    least: int = 7
    most: int = 100
    seconds: float = 20


QUICK = Effort(warmup=1, least=3, most=10, seconds=3)

# A run on the software GPU takes seconds, and its first one compiles all pipelines.
SOFTWARE_GPU = Effort(warmup=1, least=5, most=10, seconds=60)


def compare(
    playwright: Playwright,
    server: CountingServer,
    case: Case,
    *,
    engines: tuple[str, ...],
    device: str,
    threads: int,
    effort: Effort,
) -> dict[str, Any]:
    """Milliseconds a run of each engine on one case; raises when an engine's outputs are wrong."""
    options = {
        "name": case.name,
        "engines": list(engines),
        "device": device,
        "threads": threads,
        "warmup": effort.warmup,
        "least": effort.least,
        "most": effort.most,
        "seconds": effort.seconds,
    }
    with chromium(playwright) as browser, page_at(browser, server.url + "compare.html") as page:
        measured = call(page, "compare", options)["engines"]
    result: dict[str, Any] = {
        "case": case.name,
        "device": device,
        "threads": threads if device == "wasm" else None,
        "engines": {
            name: {**entry, "summary": summarize(entry["ms"]).to_json()}
            for name, entry in measured.items()
        },
    }
    if {"webkiln", "ort"} <= measured.keys():
        result["ratio"] = ratio(measured["ort"]["ms"], measured["webkiln"]["ms"]).to_json()
    return result
