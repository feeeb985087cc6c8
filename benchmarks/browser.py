"""Headless Chromium, through Playwright or left alone; a new process where that matters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, Page, Playwright

from webkiln.browser import chromium_flags, find_chromium

# SwiftShader takes seconds a run, and longer to build its pipelines.
TIMEOUT_MS = 300_000

# A browser that was just started has work of its own on every core; a visitor's is running already.
SETTLE_MS = 1500


@contextmanager
def chromium(playwright: Playwright, executable: Path | None = None) -> Iterator[Browser]:
    """A freshly started Chromium with nothing cached: the machine's, or another one."""
    path = executable or _path()
    browser = playwright.chromium.launch(executable_path=path, args=chromium_flags())
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def uninspected(start: str, url: str) -> Iterator[None]:
    """A freshly started Chromium that comes to `url` from `start`, a start.html of another site.

    Nobody looks in. An inspector, Playwright's for one, has the page keep a copy of all that it
    fetches, which took a quarter of the time until MiniLM's first result.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [*chromium_flags(), "--headless=new", f"--user-data-dir={profile}"]
        address = f"{start}#{SETTLE_MS},{quote(url, safe='')}"
        process = subprocess.Popen(
            [_path(), *flags, address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # its helpers end with it
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _path() -> str:
    path = find_chromium()
    if path is None:
        raise SystemExit("error: no Chromium at hand\ntry: apt-get install chromium")
    return path


@contextmanager
def page_at(browser: Browser, url: str) -> Iterator[Page]:
    """A page in a context of its own (no cache shared), at `url`.

    Without service workers: the copy that an app's makes for offline use comes later, and is in no
    figure.
    """
    context = browser.new_context(service_workers="block")
    page = context.new_page()
    page.on("pageerror", lambda error: print(f"page error: {error}", file=sys.stderr))
    # An empty page first, so that starting the browser is in no figure.
    page.goto("about:blank")
    page.wait_for_timeout(SETTLE_MS)
    try:
        response = page.goto(url)
        if response is None or not response.ok:
            raise RuntimeError(f"{url} answered {response and response.status}")
        yield page
    finally:
        context.close()


def call(page: Page, function: str, argument: Any, timeout_ms: int = TIMEOUT_MS) -> Any:
    """``window[function](argument)``, awaited; a rejection is raised as a Python error."""
    page.wait_for_function(f"() => window.{function} !== undefined")
    page.evaluate(
        """([name, argument]) => {
            delete window.outcome;
            window[name](argument).then(
                (value) => (window.outcome = { value }),
                (error) => (window.outcome = { error: String(error?.stack ?? error) }),
            );
        }""",
        [function, argument],
    )
    # evaluate() waits for ever; this does not, and asks seldom, so as not to disturb what is timed.
    done = page.wait_for_function("() => window.outcome", timeout=timeout_ms, polling=250)
    outcome = done.json_value()
    if "error" in outcome:
        raise RuntimeError(outcome["error"])
    return outcome["value"]
