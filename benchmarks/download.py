"""What a visitor downloads: everything that the finished app fetches when it is opened."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Playwright

from benchmarks.browser import chromium, page_at
from benchmarks.cases import Case
from benchmarks.server import CountingServer

QUIET_S = 2.0
GIVE_UP_S = 120.0

# Not code: the benchmark's own input, what the app checks itself with, and the samples it offers.
_DATA = ("/data.bin", "/case.json", "/golden.bin", ".jpg", ".jpeg", ".png", ".webp", ".wav")


def app_download(playwright: Playwright, server: CountingServer, case: Case) -> dict[str, Any]:
    """Open the case's own page as `webkiln build` wrote it, and count until nothing more comes."""
    server.reset()
    url = f"{server.url}cases/{case.name}/bundle/"
    with chromium(playwright) as browser, page_at(browser, url) as page:
        _wait_until_quiet(server, lambda: page.wait_for_timeout(100))
    return {"case": case.name, **grouped(dict(sorted(server.sent.items())))}


def grouped(sent: dict[str, int]) -> dict[str, Any]:
    """Bytes sent as weights, as data (see above), and as everything else: the code."""
    groups = {"code": 0, "weights": 0, "data": 0}
    for path, size in sent.items():
        groups[_group(path)] += size
    return {"sent": groups, "files": sent}


def _group(path: str) -> str:
    if path.endswith(_DATA):
        return "data"
    return "weights" if path.endswith((".bin", ".onnx")) else "code"


def _wait_until_quiet(server: CountingServer, wait: Any) -> None:
    """Until weights came and then nothing for `QUIET_S`."""
    started = changed = time.monotonic()
    before = -1
    while time.monotonic() - started < GIVE_UP_S:
        wait()
        now = server.sent.total()
        if now != before:
            before, changed = now, time.monotonic()
        elif grouped(dict(server.sent))["sent"]["weights"] and time.monotonic() - changed > QUIET_S:
            return
    raise RuntimeError(f"the page fetched no weights within {GIVE_UP_S:.0f} s")
