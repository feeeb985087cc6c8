"""What the chat's page keeps on the device, its settings, its loading, and on a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chat_pages import (
    PARAGRAPHS,
    PHONE,
    RUNTIME,
    answered,
    answers,
    ask,
    requests,
    titles,
)

pytestmark = pytest.mark.browser


class TestLoading:
    """Before the model is there."""

    def test_one_may_write_and_send_while_it_loads(self, chat):
        page = chat({"loadMs": 1500})
        expect(page.locator("#state-text")).to_have_text("Downloading the model")
        expect(page.locator("#state-bytes")).to_contain_text("of 98.4 MB")
        ask(page, "Are you there?", wait=False)
        expect(page.locator(".waiting")).to_contain_text("Waiting for the model")
        answered(page)
        expect(answers(page)).to_contain_text("Paris")
        expect(page.locator("#progress")).to_be_hidden()

    def test_a_failed_download_can_be_tried_again(self, chat):
        error = ["network", "It could not be downloaded.", "Check the connection and try again."]
        page = chat({"loadMs": 100, "loadError": error})
        ask(page, "Hello?", wait=False)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The connection broke")
        expect(alert).to_contain_text("Check the connection")
        page.get_by_role("button", name="Try again").click()
        answered(page)
        expect(answers(page)).to_contain_text("Paris")
        expect(alert).to_be_hidden()

    def test_another_device(self, chat):
        page = chat()
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("WebGPU").check()
        expect(page.locator("#fact-device")).to_have_text("Apple M2")
        page.get_by_role("button", name="Self-test").click()
        expect(page.locator("#selftest-result")).to_contain_text("Passed")

    def test_a_device_that_refuses_is_said_and_another_offered(self, chat):
        page = chat()
        expect(page.locator("#state")).to_have_attribute("data-state", "ready")
        page.evaluate("script.loadError = ['webgpu-limits', 'The GPU is too small.', 'Use wasm.']")
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("WebGPU").check()
        expect(page.get_by_role("alert")).to_contain_text("This GPU can't run the model")
        page.get_by_role("button", name="Choose a device for me").click()
        expect(page.locator("#state-text")).to_have_text("Ready · WebAssembly × 2 threads")
        expect(page.get_by_label("Auto")).to_be_checked()


class TestHistory:
    """Conversations are kept on the device."""

    def two(self, chat: Callable[..., Page], **options: object) -> Page:
        page = chat({"answers": ["One", "Two"]}, **options)
        ask(page, "About cats")
        page.get_by_role("button", name="New conversation").first.click()
        ask(page, "About dogs")
        expect(titles(page)).to_have_text(["About dogs", "About cats"])
        return page

    def test_a_reload_keeps_it_and_what_is_half_written(self, chat):
        page = self.two(chat)
        page.locator("#prompt").fill("half a th")
        page.reload()
        expect(page.locator(".said")).to_have_text("About dogs")
        expect(answers(page)).to_have_text("Two")
        expect(page.locator("#prompt")).to_have_value("half a th")
        titles(page).nth(1).click()
        expect(page.locator(".said")).to_have_text("About cats")
        expect(titles(page).nth(1)).to_have_attribute("aria-current", "true")

    def test_rename(self, chat):
        page = self.two(chat)
        page.get_by_role("button", name="Rename “About cats”").click()
        field = page.get_by_label("Title")
        field.fill("Felines")
        field.press("Enter")
        expect(titles(page)).to_have_text(["About dogs", "Felines"])
        page.reload()
        expect(titles(page)).to_have_text(["About dogs", "Felines"])

    def test_delete_one_and_undo(self, chat):
        page = self.two(chat)
        page.get_by_role("button", name="Delete “About dogs”").click()
        expect(titles(page)).to_have_text(["About cats"])
        expect(page.locator(".turn")).to_have_count(0)
        page.get_by_role("button", name="Undo").click()
        expect(titles(page)).to_have_count(2)
        expect(answers(page)).to_have_text("Two")

    def test_delete_all(self, chat):
        page = self.two(chat)
        page.get_by_role("button", name="Settings").click()
        expect(page.locator("#stored-conversations")).to_contain_text("2 (")
        page.get_by_role("button", name="Delete all conversations").click()
        page.locator("#confirm").get_by_role("button", name="Cancel").click()
        expect(titles(page)).to_have_count(2)
        page.get_by_role("button", name="Delete all conversations").click()
        page.get_by_role("button", name="Delete all", exact=True).click()
        expect(titles(page)).to_have_count(0)
        expect(page.locator("#stored-conversations")).to_have_text("none")
        page.reload()
        expect(page.locator("#samples")).to_be_visible()
        expect(titles(page)).to_have_count(0)

    def test_they_can_be_taken_along(self, chat):
        page = self.two(chat)
        page.get_by_role("button", name="Settings").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save conversations as a file").click()
        assert download.value.suggested_filename == "conversations.md"
        text = Path(download.value.path()).read_text("utf-8")
        assert "# About cats" in text
        assert "**You:** About dogs\n\n**Answer:** Two" in text

    def test_an_answer_under_way_survives_a_closed_tab(self, chat):
        page = chat({"answers": [PARAGRAPHS], "tokenMs": 4})
        ask(page, "Go", wait=False)
        page.wait_for_timeout(3000)
        page.reload()
        expect(answers(page)).to_contain_text("Paragraph 0")


class TestSettings:
    """Tucked away, and remembered."""

    def test_system_prompt_and_sampling_reach_the_model(self, chat):
        page = chat()
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("What the model should know or be").fill("Be brief.")
        page.get_by_label("Precise").check()
        page.get_by_text("Details of sampling").click()
        expect(page.locator("#sampling-temperature")).to_have_value("0.2")
        expect(page.locator("#sampling-top_k")).to_have_value("40")  # what the bundle recommends
        page.get_by_label("Seed").fill("7")
        expect(page.get_by_label("Precise")).to_be_checked()
        page.keyboard.press("Escape")
        ask(page, "Hello")
        request = requests(page)[0]
        assert request["messages"][0] == {"role": "system", "content": "Be brief."}
        chosen = {
            k: v for k, v in request.items() if k not in ("messages", "stream", "stream_options")
        }
        assert chosen == {"temperature": 0.2, "top_p": 0.9, "seed": 7}
        page.reload()
        page.get_by_role("button", name="Settings").click()
        expect(page.get_by_label("What the model should know or be")).to_have_value("Be brief.")
        expect(page.get_by_label("Precise")).to_be_checked()

    def test_back_to_the_defaults(self, chat):
        page = chat()
        page.get_by_role("button", name="Settings").click()
        page.get_by_text("Details of sampling").click()
        page.locator("#sampling-temperature").fill("1.5")
        expect(page.get_by_label("Balanced")).not_to_be_checked()
        page.get_by_role("button", name="Back to the defaults").click()
        expect(page.get_by_label("Balanced")).to_be_checked()
        expect(page.locator("#sampling-temperature")).to_have_value("0.7")
        page.keyboard.press("Escape")
        ask(page, "Hello")
        assert "temperature" not in requests(page)[0]

    def test_no_room_for_the_model_is_explained(self, chat):
        reason = "There is no room for 98.4 MB. Free some space."
        page = chat({"storage": {"state": "full", "bytes": 0, "reason": reason}})
        expect(page.locator("#notice")).to_contain_text(reason, timeout=15_000)

    def test_the_downloaded_model_can_be_deleted(self, chat):
        page = chat({"keptBytes": 5e6})
        page.get_by_role("button", name="Settings").click()
        expect(page.locator("#stored-model")).to_have_text(re.compile(r"5\.0\sMB"))
        page.get_by_role("button", name="Delete downloaded model").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.locator("#stored-note")).to_contain_text("Deleted. The model goes on working")
        expect(page.locator("#stored-model")).to_have_text("not kept")
        assert page.evaluate("script.keptBytes") == 0


class TestOnAPhone:
    """Narrow, touched, with a keyboard on the screen."""

    def test_nothing_scrolls_sideways(self, chat):
        wide = (
            "```\n"
            + "x" * 400
            + "\n```\n\n| "
            + " | ".join("column" * 3 for _ in range(8))
            + " |\n"
        )
        wide += "|" + "---|" * 8 + "\n\n" + "unbreakable" * 40
        page = chat({"answers": [wide]}, **PHONE | {"viewport": {"width": 360, "height": 700}})
        ask(page, "Go" * 300)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate("document.querySelector('#thread').scrollWidth") <= 360

    def test_fields_do_not_make_it_zoom(self, chat):
        page = chat(**PHONE)
        for field in page.locator("textarea, input:not([type=radio]):not([type=range])").all():
            size = field.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")
            assert size >= 16, field.evaluate("e => e.outerHTML")

    def test_conversations_are_in_a_drawer(self, chat):
        page = chat(**PHONE)
        ask(page, "About cats")
        page.get_by_role("button", name="New conversation").click()
        expect(page.locator(".turn")).to_have_count(0)
        page.get_by_role("button", name="Conversations").click()
        page.get_by_role("button", name="Delete “About cats”").click()
        page.get_by_role("button", name="Undo").click()  # not hidden by the drawer
        titles(page).first.click()
        expect(page.locator("#history")).to_be_hidden()
        expect(page.locator(".said")).to_have_text("About cats")

    def test_the_text_field_stays_above_the_keyboard(self, chat):
        page = chat(**PHONE)
        expect(page.locator("#state")).to_have_attribute("data-state", "ready")
        page.evaluate(
            "Object.defineProperty(visualViewport, 'height', {get: () => 400});"
            "visualViewport.dispatchEvent(new Event('resize'))"
        )
        box = page.locator("#composer").bounding_box()
        assert box["y"] + box["height"] <= 400


def test_what_can_be_pressed_has_a_name_and_a_size(chat):
    page = chat({"answers": ["One\n\n```\ncode\n```", "Two"]})
    ask(page, "Go")
    page.get_by_role("button", name="Answer again").click()
    answered(page)
    page.get_by_role("button", name="Settings").click()
    page.get_by_text("Details of sampling").click()
    for control in page.locator("button:visible, input:visible, textarea:visible").all():
        name = control.evaluate(
            "e => e.ariaLabel || e.textContent.trim() || e.title"
            " || [...(e.labels ?? [])].map((l) => l.textContent.trim()).join()"
        )
        assert name, control.evaluate("e => e.outerHTML")
        box = control.bounding_box()
        assert box is None or box["height"] >= 40, name


def test_other_pages_do_not_carry_the_chat():
    built = json.loads((RUNTIME / "manifest.json").read_text())
    own = {name for name in built["app"]["text-generation"] if "markdown" in name}
    assert own
    for task, files in built["app"].items():
        assert task == "text-generation" or not own & set(files)
