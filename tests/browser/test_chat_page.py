"""The chat, as a person uses it; the model is one that says what the test wants."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from webkiln.server import Server
from webkiln.tasks import page as app

pytestmark = pytest.mark.browser

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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The finished page, above a model of JavaScript."""
    if not (RUNTIME / "manifest.json").is_file():
        pytest.skip("the runtime is not built: run `make runtime`")
    folder = tmp_path_factory.mktemp("chat")
    files = app.render("text-generation", PLAN, "Chat with SmolLM2", RUNTIME)
    files["webkiln.js"] = Path(__file__).with_name("fake_llm.js").read_bytes()
    files["model/plan.json"] = json.dumps(PLAN).encode()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with Server(folder, port=0) as server:
        yield server.url


@pytest.fixture
def chat(open_page, site: str) -> Callable[..., Page]:
    """Opens the chat; `script` directs the model, the rest is for the browser's context."""

    def open_chat(script: dict[str, object] | None = None, **options: object) -> Page:
        page: Page = open_page("about:blank", **options)
        page.add_init_script(f"globalThis.script = {json.dumps(script or {})}")
        page.goto(site)
        return page

    return open_chat


def ask(page: Page, text: str, *, wait: bool = True) -> None:
    """Types a message and presses Enter; waits for the end of the answer."""
    page.locator("#prompt").fill(text)
    page.locator("#prompt").press("Enter")
    if wait:
        answered(page)


def answered(page: Page) -> None:
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".turn:last-child .answer")).to_have_class(re.compile(r"\bover\b"))


def answers(page: Page) -> Locator:
    return page.locator(".answer .markdown")


def requests(page: Page) -> list[dict[str, object]]:
    found: list[dict[str, object]] = page.evaluate("requests")
    return found


def titles(page: Page) -> Locator:
    return page.locator("#past .title")


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
        expect(page.locator("#state-text")).to_have_text("WebAssembly × 2 threads")
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
        expect(said).to_have_text(["Answering", "One two three.", "Four five six."])
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

    def test_the_downloaded_model_can_be_deleted(self, chat, site):
        page = chat()
        name = "webkiln /model/"
        page.evaluate(
            f"caches.open({name!r})"
            ".then((cache) => cache.put('model/a.bin', new Response('x'.repeat(5e6))))"
        )
        page.get_by_role("button", name="Settings").click()
        expect(page.locator("#stored-model")).to_have_text(re.compile(r"5\.0\sMB"))
        page.get_by_role("button", name="Delete downloaded model").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.locator("#stored-note")).to_contain_text("Deleted. The model goes on working")
        expect(page.locator("#stored-model")).to_have_text("not kept")
        assert not page.evaluate(f"caches.has({name!r})")


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
    chat = {name for name in built["app"]["text-generation"] if "markdown" in name}
    assert chat
    for task, files in built["app"].items():
        assert task == "text-generation" or not chat & set(files)
