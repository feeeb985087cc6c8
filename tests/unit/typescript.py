"""Runs the runtime's TypeScript in Node, without a browser, for tests of its pure parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "src/webkiln/runtime"
NODE = [sys.executable, str(ROOT / "scripts/node.py")]


def run(folder: Path, script: str, job: Any) -> Any:
    """What `script` answers to `job`. It exports `answer(job)` and imports from "src/…"."""
    if not (RUNTIME / "node_modules").is_dir():
        pytest.skip("the runtime's npm packages are not installed: run `make runtime`")
    source, built = folder / "test.ts", folder / "test.mjs"
    source.write_text(script.replace('from "src/', f'from "{RUNTIME}/src/'))
    (folder / "job.json").write_text(json.dumps(job))
    esbuild = [str(RUNTIME / "node_modules/esbuild/bin/esbuild"), "--bundle", "--format=esm"]
    subprocess.run(
        [*esbuild, "--log-level=warning", f"--outfile={built}", str(source)],
        check=True,
        env={"NODE_PATH": str(RUNTIME / "node_modules"), "PATH": "/usr/bin:/bin"},
    )
    main = (
        f"import {{ answer }} from {json.dumps(built.as_uri())};"
        "import { readFileSync, writeFileSync } from 'node:fs';"
        f"const job = JSON.parse(readFileSync({json.dumps(str(folder / 'job.json'))}, 'utf8'));"
        "const result = await answer(job);"
        f"writeFileSync({json.dumps(str(folder / 'result.json'))}, JSON.stringify(result));"
    )
    command = [*NODE, "--input-type=module", "-e", main]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text())
