"""The chat's page above a model of JavaScript, and how its tests talk to it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from webkiln.tasks import page as app

__all__ = [
    "CLIPBOARD",
    "PARAGRAPHS",
    "PHONE",
    "RUNTIME",
    "answered",
    "answers",
    "ask",
    "requests",
    "titles",
    "write_chat_site",
]

RUNTIME = Path(app.__file__).parents[1] / "runtime/dist"
PLAN = {
    "name": "SmolLM2",
    "task": {
        "name": "text-generation",
        "samples": ["What is the capital of France?", "Why is the sky blue?"],
        "about": {"origin": "SmolLM2-135M-Instruct", "license": "Apache-2.0"},
    },
    "weights": {"shards": [], "bytes": 98_400_000},
    "golden": [],
    "programs": [],
}
PARAGRAPHS = "\n\n".join(f"Paragraph {i}. " + "So it goes on and on. " * 12 for i in range(30))
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
CLIPBOARD = {"permissions": ["clipboard-read", "clipboard-write"]}


def write_chat_site(folder: Path) -> Path:
    """The finished page of the chat, with `fake_llm.js` in place of the runtime."""
    files = app.render("text-generation", PLAN, "Chat with SmolLM2", RUNTIME)
    files["webkiln.js"] = Path(__file__).with_name("fake_llm.js").read_bytes()
    files["model/plan.json"] = json.dumps(PLAN).encode()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def ask(page: Page, text: str, *, wait: bool = True) -> None:
    """Types a message and presses Enter; waits for the end of the answer."""
    page.locator("#prompt").fill(text)
    page.locator("#prompt").press("Enter")
    if wait:
        answered(page)


def answered(page: Page) -> None:
    """Waits until the answer is complete and drawn."""
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".turn:last-child .answer")).to_have_class(re.compile(r"\bover\b"))


def answers(page: Page) -> Locator:
    """The answers' texts."""
    return page.locator(".answer .markdown")


def requests(page: Page) -> list[dict[str, object]]:
    """What the model was asked."""
    found: list[dict[str, object]] = page.evaluate("requests")
    return found


def titles(page: Page) -> Locator:
    """The titles in the list of conversations."""
    return page.locator("#past .title")
