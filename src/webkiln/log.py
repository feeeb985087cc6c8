"""What webkiln says while it works: progress callbacks, and the levels of WEBKILN_DEBUG.

    WEBKILN_DEBUG=1   each stage with its time; tracebacks of expected errors
    WEBKILN_DEBUG=2   and each kernel: its nodes, its schedule, its cost
    WEBKILN_DEBUG=3   and the kernel IR after each step
    WEBKILN_DEBUG=4   and the generated C and WGSL

Everything goes to standard error, so that `--json` on standard output stays readable by programs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Progress", "debug", "debug_level", "silent", "stage"]


class Progress(Protocol):
    """Called as long work advances: `done` of `total` units of `stage`; `detail` says on what."""

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Report that `done` of `total` units are done."""


def silent(stage: str, done: int, total: int, detail: str = "") -> None:
    """A `Progress` that shows nothing."""


def debug_level() -> int:
    """The value of WEBKILN_DEBUG, 0 when unset or not a number."""
    text = os.environ.get("WEBKILN_DEBUG", "")
    return int(text) if text.isdigit() else 0


def debug(level: int, message: str) -> None:
    """Print `message` to standard error when WEBKILN_DEBUG is at least `level`."""
    if debug_level() >= level:
        print(message, file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time a stage of the compiler and print it at level 1."""
    started = time.perf_counter()
    try:
        yield
    finally:
        debug(1, f"webkiln: {name} {(time.perf_counter() - started) * 1e3:.1f} ms")
