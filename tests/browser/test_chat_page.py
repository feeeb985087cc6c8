"""Talking to the chat's page; the model is one that says what the test wants."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.chat_pages import (
    CLIPBOARD,
    PARAGRAPHS,
    answered,
    answers,
    ask,
    requests,
    titles,
)

pytestmark = pytest.mark.browser


class TestConversation:
    """Asking and being answered."""

    def test_a_sample_question_is_one_click_away(self, chat):
        page = chat()
        page.get_by_role("button", name="What is the capital of France?").click()
        answered(page)
        expect(answers(page)).to_have_text("The capital of France is Paris.")
        expect(answers(page).locator("strong")).to_have_text("Paris")
        expect(page.locator("#samples")).to_be_hidden()
        assert page.locator("h1").count() == 1

    def test_speed_and_device_are_in_sight(self, chat):
        page = chat()
        ask(page, "Hello")
        expect(page.locator("#state-text")).to_have_text("Ready · WebAssembly × 2 threads")
        expect(page.locator("#speeds")).to_contain_text("reads 412 writes 119 tokens/s")
        expect(page.locator("#context-text")).to_contain_text("% full")
        expect(page.locator(".cost")).to_contain_text("6 tokens · 119 tokens/s · first word after")

    def test_the_conversation_so_far_goes_along(self, chat):
        page = chat({"answers": ["<think>Hm.</think>One", "Two"]})
        ask(page, "first")
        expect(page.locator(".thoughts")).to_contain_text("Hm.")
        ask(page, "second")
        assert [(m["role"], m["content"]) for m in requests(page)[1]["messages"]] == [
            ("user", "first"),
            ("assistant", "One"),
            ("user", "second"),
        ]

    def test_keys(self, chat):
        page = chat({"answers": [PARAGRAPHS], "tokenMs": 10})
        prompt = page.locator("#prompt")
        expect(prompt).to_be_focused()
        prompt.press_sequentially("one")
        prompt.press("Shift+Enter")
        prompt.press_sequentially("two")
        assert prompt.bounding_box()["height"] > 60
        prompt.press("Enter")
        expect(page.locator(".said")).to_have_text("one\ntwo", use_inner_text=True)
        expect(answers(page)).to_contain_text("Paragraph 0")
        prompt.press_sequentially("meanwhile")
        prompt.press("Enter")  # nothing is sent while an answer comes, and nothing lost
        prompt.press("Escape")
        answered(page)
        expect(page.locator(".ending")).to_contain_text("Stopped here.")
        expect(prompt).to_have_value("meanwhile")
        assert len(requests(page)) == 1
        prompt.fill("")
        prompt.press("ArrowUp")
        expect(page.get_by_label("Edit your message")).to_be_focused()

    def test_enter_of_an_input_method_does_not_send(self, chat):
        page = chat()
        page.locator("#prompt").fill("にほん")
        page.evaluate(
            "document.querySelector('#prompt').dispatchEvent(new KeyboardEvent('keydown',"
            " {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
        )
        expect(page.locator(".turn")).to_have_count(0)

    def test_stop_before_the_first_word(self, chat):
        page = chat({"prefillMs": 20_000})
        ask(page, "Hello", wait=False)
        expect(page.locator(".waiting")).to_contain_text("Reading")
        page.get_by_role("button", name="Stop").click()
        answered(page)
        expect(page.locator(".ending")).to_contain_text("Stopped before the first word.")

    def test_another_answer_keeps_the_one_before(self, chat):
        page = chat({"answers": ["First try.", "Second try."]})
        ask(page, "Tell me")
        page.get_by_role("button", name="Answer again").click()
        answered(page)
        expect(answers(page)).to_have_text("Second try.")
        expect(page.locator(".versions")).to_have_text("2 of 2")
        page.get_by_role("button", name="The answer before").click()
        expect(answers(page)).to_have_text("First try.")
        ask(page, "And then?")  # the answer that is shown counts
        assert requests(page)[2]["messages"][1]["content"] == "First try."

    def test_an_edited_message_replaces_what_followed(self, chat):
        page = chat({"answers": ["One", "Two", "Three"]})
        ask(page, "first")
        ask(page, "second")
        page.locator(".question").first.hover()
        page.get_by_role("button", name="Edit this message").first.click()
        field = page.get_by_label("Edit your message")
        expect(page.locator(".editor")).to_contain_text("What comes after")
        field.fill("changed")
        field.press("Enter")
        answered(page)
        expect(page.locator(".said")).to_have_text(["changed"])
        expect(answers(page)).to_have_text(["Three"])
        assert [m["content"] for m in requests(page)[2]["messages"]] == ["changed"]

    def test_an_edit_can_be_given_up(self, chat):
        page = chat()
        ask(page, "first")
        page.get_by_role("button", name="Edit this message").click()
        page.get_by_label("Edit your message").fill("other")
        page.get_by_label("Edit your message").press("Escape")
        expect(page.locator(".said")).to_have_text("first")
        expect(page.get_by_role("button", name="Edit this message")).to_be_focused()

    def test_copy(self, chat):
        page = chat({"answers": ["See:\n\n```python\nprint('hi')\n```"]}, **CLIPBOARD)
        ask(page, "Code, please")
        page.get_by_role("button", name="Copy the code").click()
        assert page.evaluate("navigator.clipboard.readText()") == "print('hi')"
        expect(page.locator("#announce")).to_contain_text("Copied")
        page.get_by_role("button", name="Copy this answer").click()
        assert "```python" in page.evaluate("navigator.clipboard.readText()")


class TestMarkdown:
    """What answers may look like, and may not."""

    def show(self, chat: Callable[..., Page], text: str) -> Locator:
        page = chat({"answers": [text], "tokenMs": 0})
        ask(page, "Show it")
        return answers(page)

    def test_blocks(self, chat):
        table = "| n | m |\n|--:|---|\n| 1 | 2 |"
        code = "```js\nlet a = 1 < 2\n```"
        lists = "- a\n- [x] b\n\n7. seven"
        shown = self.show(chat, f"# Title\n\n{lists}\n\n{table}\n\n> q\n\n{code}")
        expect(shown.locator("ol")).to_have_attribute("start", "7")
        expect(shown.locator("input[type=checkbox]")).to_be_disabled()
        expect(shown.locator("h3")).to_have_text("Title")
        expect(shown.locator("ul li")).to_have_count(2)
        expect(shown.locator("td").first).to_have_css("text-align", "right")
        expect(shown.locator("blockquote")).to_have_text("q")
        expect(shown.locator("pre code")).to_have_text("let a = 1 < 2")
        expect(shown.locator(".code > div span").first).to_have_text("js")

    def test_html_is_shown_not_run(self, chat):
        shown = self.show(
            chat,
            "Use <b>bold</b> or <script>window.bad = 1</script>.\n\n"
            "<img src=x onerror='window.bad = 1'>\n\n<iframe src='//example.org'></iframe>",
        )
        expect(shown).to_contain_text("<script>window.bad = 1</script>")
        expect(shown.locator("b")).to_have_text("bold")
        assert shown.locator("script, img, iframe").count() == 0
        assert shown.page.evaluate("window.bad") is None

    def test_links_lead_out_safely_and_pictures_are_links(self, chat):
        shown = self.show(
            chat,
            "[good](https://example.org/) [bad](javascript:alert(1)) ![pic](https://example.org/p)",
        )
        good = shown.locator("a", has_text="good")
        expect(good).to_have_attribute("rel", "noopener noreferrer")
        expect(good).to_have_attribute("title", "https://example.org/")
        assert shown.get_by_text("bad").get_attribute("href") is None
        expect(shown.locator("a", has_text="pic")).to_have_attribute(
            "href", "https://example.org/p"
        )

    def test_what_is_complete_is_not_drawn_again(self, chat):
        page = chat({"answers": ["First paragraph.\n\n" + "word " * 400], "tokenMs": 5})
        ask(page, "Go", wait=False)
        first = answers(page).locator("p").first
        expect(answers(page)).to_contain_text("word word")
        first.evaluate("e => { e.marked = true }")
        page.wait_for_timeout(300)
        assert first.evaluate("e => e.marked")
        page.locator("#stop").click()

    def test_a_screen_reader_hears_paragraphs_not_tokens(self, chat):
        page = chat({"answers": ["One two three.\n\nFour five six."]})
        ask(page, "Go")
        said = page.locator("#announce p")
        expect(said.last).to_have_text("Four five six.")
        heard = said.all_text_contents()
        assert heard[-3:] == ["Answering", "One two three.", "Four five six."]
        assert page.locator("#announce").get_attribute("aria-live") == "polite"


class TestScrolling:
    """Long answers."""

    def at_end(self, page: Page) -> bool:
        return page.evaluate(
            "(() => { const e = document.querySelector('#thread');"
            " return e.scrollHeight - e.clientHeight - e.scrollTop < 3 })()"
        )

    def test_it_follows_until_one_scrolls_up(self, chat):
        page = chat({"answers": [PARAGRAPHS], "tokenMs": 2})
        ask(page, "Go", wait=False)
        expect(answers(page)).to_contain_text("Paragraph 5")
        assert self.at_end(page)
        page.locator("#thread").hover()
        page.mouse.wheel(0, -400)
        latest = page.get_by_role("button", name="Jump to latest")
        expect(latest).to_be_visible()
        top = page.evaluate("document.querySelector('#thread').scrollTop")
        expect(answers(page)).to_contain_text("Paragraph 9")
        assert page.evaluate("document.querySelector('#thread').scrollTop") == top
        latest.click()
        expect(latest).to_be_hidden()
        expect(answers(page)).to_contain_text("Paragraph 12")
        assert self.at_end(page)
        page.keyboard.press("Escape")


class TestTrouble:
    """What goes wrong is said, with what to do."""

    def test_an_answer_that_breaks_off_is_kept(self, chat):
        error = ["device-lost", "The GPU is gone.", "Reload the page."]
        page = chat({"answers": ["Half an answer is"], "failAfter": 3, "error": error})
        ask(page, "Go")
        expect(answers(page)).to_have_text("Half an answer")
        expect(page.locator(".ending")).to_contain_text(
            "The GPU stopped answering. The GPU is gone."
        )
        page.locator(".ending").get_by_role("button", name="Try again").click()
        answered(page)
        expect(answers(page)).to_have_text("The capital of France is Paris.")

    def test_a_full_context_offers_to_start_afresh(self, chat):
        page = chat({"context": 64, "promptTokens": 58, "finish": "length"})
        ask(page, "Go")
        expect(page.locator(".ending")).to_contain_text("The conversation is full")
        expect(page.locator("#context-text")).to_contain_text("100")
        page.get_by_role("button", name="Start afresh").click()
        expect(page.locator(".turn")).to_have_count(0)
        expect(page.locator("#samples")).to_be_visible()
        expect(titles(page)).to_have_count(1)

    def test_a_message_that_is_too_long_can_be_edited(self, chat):
        error = [
            "prompt-too-long",
            "The message has 5000 tokens; the model has 2048.",
            "Shorten it.",
        ]
        page = chat({"failAfter": 0, "error": error})
        ask(page, "Long")
        expect(page.locator("#context-text")).to_contain_text("100")
        expect(page.locator(".ending")).to_contain_text("The message has 5000 tokens")
        page.get_by_role("button", name="Edit the message").click()
        expect(page.get_by_label("Edit your message")).to_be_focused()

    def test_a_full_device_is_explained(self, chat):
        page = chat()
        page.evaluate(
            "(() => { const full = () => { throw new DOMException('', 'QuotaExceededError') };"
            " IDBObjectStore.prototype.put = full })()"
        )
        ask(page, "Go")
        expect(page.locator("#notice")).to_contain_text("no room left for the conversation")
        expect(answers(page)).to_contain_text("Paris")
