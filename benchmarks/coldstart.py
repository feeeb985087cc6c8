"""Cold start: a new browser process, nothing cached, from the navigation to the first result.

Both engines load on the same page, while its input is on the way, from the same server, with gzip,
and take turns. No inspector looks on, as none does at a visitor's. What was sent meanwhile is the
download; the network is the loopback, so size costs next to nothing in time here.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from benchmarks.browser import TIMEOUT_MS, uninspected
from benchmarks.cases import Case
from benchmarks.download import grouped
from benchmarks.server import CountingServer
from benchmarks.stats import ratio, summarize

ROUNDS = 7
START = "start.html"


def cold_start(
    server: CountingServer,
    case: Case,
    *,
    engines: tuple[str, ...],
    device: str,
    threads: int,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Milliseconds to the first result and bytes sent, for each engine."""
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    sent: dict[str, dict[str, int]] = {}
    for round_ in range(rounds + 1):
        for engine in engines if round_ % 2 else engines[::-1]:
            server.reset()
            ms = _once(server, case, engine, device, threads)
            sent[engine] = dict(sorted(server.sent.items()))
            del sent[engine][f"/{START}"]  # no part of the page
            # The first round lets the server compress and the disk cache fill.
            if round_ > 0:
                times[engine].append(ms)
    result: dict[str, Any] = {
        "case": case.name,
        "device": device,
        "threads": threads if device == "wasm" else None,
        "engines": {
            engine: {"ms": times[engine], "summary": summarize(times[engine]).to_json()}
            | grouped(sent[engine])
            for engine in engines
        },
    }
    if {"webkiln", "ort"} <= times.keys():
        result["ratio"] = ratio(times["ort"], times["webkiln"]).to_json()
    return result


def _once(server: CountingServer, case: Case, engine: str, device: str, threads: int) -> float:
    query = {"engine": engine, "case": case.name, "device": device, "threads": threads}
    url = f"{server.url}cold.html?{urlencode(query)}"
    with uninspected(server.other_site + START, url):
        outcome = server.report(timeout=TIMEOUT_MS / 1000)
    if "error" in outcome:
        raise RuntimeError(outcome["error"])
    return float(outcome["ms"])
