"""A Chromium whose software GPU is Mesa's llvmpipe, which has `shader-f16`; SwiftShader has not.

wllama's WebGPU asks for it, and webkiln's kernels use it where it is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from webkiln.browser import find_chromium

__all__ = ["llvmpipe_chromium"]

SOURCE = Path(__file__).with_name("llvmpipe.c")
SWIFTSHADER = "libvk_swiftshader.so"
#: Where the page itself still finds SwiftShader, for its compositor.
MANIFEST = "vk_swiftshader_icd.json"
RENAMED = "libvk_swiftshader_itself.so"
DRIVERS = Path("/usr/share/vulkan/icd.d")


def llvmpipe_chromium(folder: Path) -> Path | None:
    """Lays a Chromium out in `folder`; its executable, or None if the machine lacks a part."""
    installed, driver = _installation(), _driver()
    if installed is None or driver is None:
        return None
    shutil.copytree(installed, folder, copy_function=_link, dirs_exist_ok=True)
    (folder / SWIFTSHADER).rename(folder / RENAMED)
    manifest = json.loads((installed / MANIFEST).read_text(encoding="utf-8"))
    manifest["ICD"]["library_path"] = f"./{RENAMED}"
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    path = json.dumps(driver)  # a C string too
    compiler = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O2"]
    options = ["-fno-sanitize=undefined", "-Wall", "-Wextra", "-Werror", f"-DLLVMPIPE={path}"]
    subprocess.run([*compiler, *options, str(SOURCE), "-o", str(folder / SWIFTSHADER)], check=True)
    return folder / "chromium"


def _installation() -> Path | None:
    """The folder that Chromium itself is in, with its own SwiftShader."""
    found = find_chromium()
    places = [Path("/usr/lib/chromium"), *([Path(found).resolve().parent] if found else [])]
    return next(
        (p for p in places if (p / "chromium").exists() and (p / SWIFTSHADER).exists()), None
    )


def _driver() -> str | None:
    for manifest in sorted(DRIVERS.glob("lvp_icd*.json")):
        return str(json.loads(manifest.read_text(encoding="utf-8"))["ICD"]["library_path"])
    return None


def _link(source: str, target: str) -> None:
    """A link where the file system allows it: Chromium is large."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
