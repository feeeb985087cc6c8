"""The folder that is served: the benchmark's pages, the peer, and each case for both engines.

compare.html cold.html …   from pages/
ort/                       the peer's files, as npm has them
cases/NAME/case.json       inputs and expected outputs, their numbers in data.bin
cases/NAME/model.onnx      for the peer
cases/NAME/bundle/         for webkiln
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import webkiln
from benchmarks.cases import SEED, Arrays, Case, onnx_bytes, reference
from scripts.build_runtime import node_command, npm_command

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
ORT = MODULES / "onnxruntime-web"

# What the package's own entry points "onnxruntime-web/wasm" and "…/webgpu" resolve to, and what
# those fetch in turn.
ORT_FILES = (
    "ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.bundle.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)


def install_peer(name: str = "onnxruntime-web") -> str:
    """Install the pinned npm packages when they aren't there; the version of the peer `name`."""
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"][name]
    if not (MODULES / name / "package.json").is_file() or _version(name) != wanted:
        node = node_command()
        if node is None:
            raise SystemExit(f"error: installing {name} needs Node\ntry: make setup")
        command = [*npm_command(node), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.DEVNULL)
    return _version(name)


def lay_out(site: Path, cases: Iterable[Case], targets: Sequence[str]) -> None:
    """Fill the empty folder `site`; compile each case with webkiln for `targets` (if any)."""
    shutil.copytree(HERE / "pages", site, dirs_exist_ok=True)
    copy_ort(site)
    for case in cases:
        folder = site / "cases" / case.name
        folder.mkdir(parents=True)
        _write_case(folder, case)
        if targets:
            webkiln.build(case.source(), targets=targets, output=folder / "bundle")


def copy_ort(site: Path) -> None:
    """onnxruntime-web's files into the folder ``ort`` of `site`."""
    (site / "ort").mkdir()
    for name in ORT_FILES:
        shutil.copyfile(ORT / "dist" / name, site / "ort" / name)


def _version(name: str) -> str:
    return str(json.loads((MODULES / name / "package.json").read_text())["version"])


def _write_case(folder: Path, case: Case) -> None:
    model = onnx_bytes(case.load())
    (folder / "model.onnx").write_bytes(model)
    inputs = case.inputs(np.random.default_rng(SEED))
    data = bytearray()
    description = {
        "name": case.name,
        "dims": dict(case.dims),
        "tolerance": case.tolerance,
        "inputs": _tensors(inputs, data),
        "outputs": _tensors(reference(model, inputs), data),
    }
    (folder / "case.json").write_text(json.dumps(description))
    (folder / "data.bin").write_bytes(data)


def _tensors(arrays: Arrays, data: bytearray) -> list[dict[str, Any]]:
    """Append each array to `data` and say where it is; 8 bytes is the largest element."""
    entries = []
    for name, array in arrays.items():
        data.extend(bytes(-len(data) % 8))
        entry = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
        entries.append({**entry, "offset": len(data), "bytes": array.nbytes})
        data.extend(np.ascontiguousarray(array).tobytes())
    return entries
