"""How long `webkiln build` takes: with empty caches, and again when nothing changed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cases import Case


def build_time(case: Case) -> dict[str, Any]:
    """Seconds of the first and of the second build of a case that is a file or a folder."""
    source = case.source()
    if not isinstance(source, Path):
        raise TypeError(f"{case.name} is not a file that the command line could build")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "WEBKILN_CACHE": str(Path(folder, "cache"))}
        command = [sys.executable, "-m", "webkiln", "build", str(source)]
        command += ["-o", str(Path(folder, "bundle"))]
        first, second = (_seconds(command, environment) for _ in range(2))
    return {"case": case.name, "first_s": round(first, 2), "second_s": round(second, 2)}


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"error: {' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - start
