"""What a figure depends on: versions, the processor, the date, how busy the machine was."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Playwright

import webkiln
from benchmarks.browser import chromium


def describe(playwright: Playwright, peers: Mapping[str, str]) -> dict[str, Any]:
    """Everything that belongs beside the figures, as JSON."""
    with chromium(playwright) as browser:
        version = browser.version
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "webkiln": webkiln.__version__,
        "commit": _commit(),
        **peers,
        "chromium": version,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _commit() -> str | None:
    """The commit, with a + when files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
