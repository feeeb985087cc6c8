"""Make sure of a Chromium for the browser tests, and a Vulkan driver for the WebGPU ones.

Root gets both installed. Anyone else is told the one command to run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from webkiln.browser import find_chromium

VULKAN_DRIVERS = Path("/usr/share/vulkan/icd.d")  # where Mesa registers llvmpipe (lvp)


def apt_has(package: str) -> bool:
    """Whether apt offers a real package of that name (Ubuntu's chromium is only a snap)."""
    if shutil.which("apt-cache") is None:
        return False
    shown = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True)
    candidate = next((line for line in shown.stdout.splitlines() if "Candidate:" in line), "")
    return bool(candidate) and "(none)" not in candidate and "snap" not in candidate


def apt_install(packages: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    print(f"installing {' '.join(packages)}", flush=True)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def main() -> int:
    wanted = [] if find_chromium() else ["chromium"]
    if not list(VULKAN_DRIVERS.glob("lvp_icd*.json")):
        wanted.append("mesa-vulkan-drivers")
    if not wanted:
        return 0
    root = os.geteuid() == 0 and shutil.which("apt-get") is not None
    if root:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
    packages = [package for package in wanted if apt_has(package)]
    playwright = [sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"]
    if root:
        if packages:
            apt_install(packages)
        if not find_chromium():
            subprocess.run(playwright, check=True)
        return 0
    if "chromium" in wanted and "chromium" not in packages:
        print(
            f"error: the browser tests need Chromium\ntry: {' '.join(playwright)}", file=sys.stderr
        )
        return 2
    command = f"sudo apt-get install -y {' '.join(packages or wanted)}"
    missing = "Chromium" if "chromium" in wanted else "a software Vulkan driver"
    print(f"error: the browser tests need {missing}\ntry: {command}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
