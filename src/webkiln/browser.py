"""Find and start a Chromium: for `webkiln bench`, the benchmarks and the browser tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["chromium_flags", "find_chromium"]

_NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")

_QUIET_FLAGS = (
    "--no-sandbox",  # containers and CI run as root
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_SOFTWARE_WEBGPU_FLAGS = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")


def find_chromium() -> str | None:
    """Path of a Chromium: $WEBKILN_CHROMIUM, on PATH, or downloaded by Playwright; else None."""
    chosen = os.environ.get("WEBKILN_CHROMIUM")
    if chosen:
        return chosen
    for name in _NAMES:
        found = shutil.which(name)
        if found and not _is_snap_stub(found):
            return found
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache/ms-playwright"))
    downloaded = sorted(cache.glob("chromium-*/chrome-linux*/chrome"))
    return str(downloaded[-1]) if downloaded else None


def chromium_flags(*, webgpu: bool = True) -> list[str]:
    """Flags for a headless run; with `webgpu`, the software adapter is offered."""
    return [*_QUIET_FLAGS, *(_SOFTWARE_WEBGPU_FLAGS if webgpu else ())]


def _is_snap_stub(path: str) -> bool:
    """Ubuntu's chromium-browser package is a shell script that asks for a snap."""
    try:
        with Path(path).open("rb") as file:
            return b"snap" in file.read(2048) and shutil.which("snap") is None
    except OSError:
        return False
