"""Take the pictures of the documentation from a built gallery: `python scripts/screenshots.py`.

Run `make demo-build` first. Writes docs/images/*.png.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from webkiln.browser import chromium_flags, find_chromium
from webkiln.inspect import bundle_page, bundle_report
from webkiln.server import Server

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs/images"
WIDTH, HEIGHT = 1200, 800


def shot(page: Page, name: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=IMAGES / f"{name}.png")
    print(IMAGES / f"{name}.png")


def main() -> None:
    gallery = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/demo"
    if not (gallery / "photographs/index.html").is_file():
        sys.exit(f"error: no gallery in {gallery}\ntry: make demo-build")
    with sync_playwright() as playwright, Server(gallery, port=0) as server:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=chromium_flags(webgpu=False)
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(server.url)
        page.wait_for_load_state("networkidle")
        shot(page, "gallery")
        page.goto(f"{server.url}photographs/")
        page.locator('#state[data-state="ready"]').wait_for(timeout=60_000)
        page.get_by_text("%").first.wait_for(timeout=60_000)
        shot(page, "photographs")
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.html")
            report.write_text(bundle_page(bundle_report(gallery / "photographs")))
            page.goto(report.as_uri())
            shot(page, "inspect")
        browser.close()


if __name__ == "__main__":
    main()
