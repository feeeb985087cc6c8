"""The runtime's own unit tests, which run in Node: plan, expressions, SHA-256, tensors, types."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import webkiln

RUNTIME = Path(webkiln.__file__).parent / "runtime"
NODE = shutil.which("node")


def run(*command: str) -> None:
    result = subprocess.run(
        command, cwd=RUNTIME, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(NODE is None, reason="no Node")
@pytest.mark.skipif(not (RUNTIME / "node_modules").exists(), reason="runtime not installed")
def test_runtime_in_node() -> None:
    assert NODE
    run(NODE, "--test", *sorted(str(path) for path in (RUNTIME / "tests").glob("*.test.mjs")))


@pytest.mark.skipif(NODE is None, reason="no Node")
@pytest.mark.skipif(not (RUNTIME / "node_modules").exists(), reason="runtime not installed")
def test_runtime_types() -> None:
    assert NODE
    run(NODE, "node_modules/typescript/bin/tsc", "--noEmit")
