"""The gallery's chat with its real model: asked for the capital of France, on each device."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DEVICES = {
    "wasm": ("wasm_browser", "WebAssembly"),
    "webgpu": ("webgpu_browser", "swiftshader"),
    "webgpu in float16": ("f16_browser", ", f16"),
}
GREEDY = json.dumps({"sampling": {"temperature": 0, "max_tokens": 12}})
TIMEOUT = 300_000  # a software adapter takes a second a token, on a busy machine several


@pytest.mark.parametrize("device", DEVICES)
def test_the_capital_of_france(
    device: str, gallery_url: str, request: pytest.FixtureRequest
) -> None:
    fixture, name = DEVICES[device]
    browser: Browser = request.getfixturevalue(fixture)
    context = browser.new_context()
    settings = json.dumps("webkiln chat settings /chat/")
    context.add_init_script(f"localStorage.setItem({settings}, {json.dumps(GREEDY)})")
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto(f"{gallery_url}chat/")
    state = page.locator("#state-text")
    expect(state).to_contain_text("Ready", timeout=TIMEOUT)
    choice = page.locator(f"input[name=device][value={device.split()[0]}]")
    choice.evaluate("input => input.click()")
    expect(state).not_to_contain_text("Ready")
    expect(state).to_contain_text("Ready", timeout=TIMEOUT)

    page.locator("#prompt").fill("What is the capital of France?")
    page.locator("#prompt").press("Enter")
    answer: Any = page.locator(".turn:last-child .answer .markdown")
    expect(answer).to_contain_text("The capital of France is Paris.", timeout=TIMEOUT)
    expect(page.locator("#state")).to_have_attribute("title", re.compile(name))
    context.close()
