"""Browsers for the tests of the pages, and servers of what they show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright

from benchmarks.llvmpipe import llvmpipe_chromium
from tests.browser.chat_pages import RUNTIME, write_chat_site
from webkiln.browser import chromium_flags, find_chromium
from webkiln.server import Server

# A camera that shows a test picture, and no question whether the page may use it.
_CAMERA_FLAGS = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="session")
def gallery_url(gallery_folder: Path) -> Iterator[str]:
    """Address of the gallery, ending in a slash."""
    with Server(gallery_folder, port=0) as server:
        yield server.url


def _launch(
    playwright: Playwright, flags: list[str], executable: Path | None = None
) -> Iterator[Browser]:
    path = executable or find_chromium()
    if path is None:
        pytest.skip("no Chromium: run `make browser`")
    browser = playwright.chromium.launch(executable_path=path, args=flags)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def wasm_browser(playwright: Playwright) -> Iterator[Browser]:
    """A Chromium without WebGPU, with a camera."""
    yield from _launch(playwright, [*chromium_flags(webgpu=False), *_CAMERA_FLAGS])


@pytest.fixture(scope="session")
def webgpu_browser(playwright: Playwright) -> Iterator[Browser]:
    """A Chromium with WebGPU in software."""
    yield from _launch(playwright, chromium_flags(webgpu=True))


@pytest.fixture(scope="session")
def f16_browser(
    playwright: Playwright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """A Chromium with another software adapter, which has float16."""
    executable = llvmpipe_chromium(tmp_path_factory.mktemp("llvmpipe"))
    if executable is None:
        pytest.skip("it takes a Chromium with SwiftShader, and Mesa's llvmpipe")
    yield from _launch(playwright, chromium_flags(webgpu=True), executable)


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(wasm_browser: Browser) -> Iterator[OpenPage]:
    """Opens an address in a fresh profile; at the end the page must have had no errors.

    Keyword arguments are Playwright's for a context, and `allow`, parts of console messages that
    the test expects.
    """
    problems: list[str] = []
    allowed: list[str] = []

    with ExitStack() as contexts:

        def open_one(address: str, *, allow: tuple[str, ...] = (), **options: object) -> Page:
            allowed.extend(allow)
            context: BrowserContext = wasm_browser.new_context(**options)  # type: ignore[arg-type]
            contexts.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(30_000)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on(
                "console",
                lambda message: message.type == "error" and problems.append(message.text),
            )
            page.goto(address)
            return page

        yield open_one
        # Now, since closing a page that is still fetching something has it say so.
        found = [text for text in problems if not any(part in text for part in allowed)]
    assert found == []


@pytest.fixture(scope="session")
def chat_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a chat whose model says what a test tells it to."""
    if not (RUNTIME / "manifest.json").is_file():
        pytest.skip("the runtime is not built: run `make runtime`")
    with Server(write_chat_site(tmp_path_factory.mktemp("chat")), port=0) as server:
        yield server.url


@pytest.fixture
def chat(open_page: OpenPage, chat_url: str) -> OpenPage:
    """Opens that chat; `script` directs the model, the rest is for the browser's context."""

    def open_chat(script: dict[str, object] | None = None, **options: object) -> Page:
        page = open_page("about:blank", **options)
        page.add_init_script(f"globalThis.script = {json.dumps(script or {})}")
        page.goto(chat_url)
        return page

    return open_chat
