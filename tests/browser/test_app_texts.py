"""The pages of the text models, and the one for any model, as a person uses them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from webkiln.bundle import Bundle
from webkiln.tasks import feature_extraction, text_classification

pytestmark = pytest.mark.browser

EMOTIONS = {"joy", "sadness", "anger", "fear", "love", "surprise"}


def bars(page: Page) -> dict[str, str]:
    names = page.locator("#bars .name").all_text_contents()
    return dict(zip(names, page.locator("#bars .value").all_text_contents(), strict=True))


class TestEmotion:
    """Text classification."""

    @pytest.fixture
    def page(self, open_page, gallery_url) -> Page:
        page = open_page(f"{gallery_url}emotion/")
        expect(page.locator("#result-note")).to_contain_text("ms")
        return page

    def locally(self, bundle: Bundle, folder: Path, text: str) -> dict[str, float]:
        feeds = text_classification.preprocess(text, bundle.plan, folder / "emotion/model")
        found = text_classification.postprocess(bundle.run(feeds), bundle.plan)
        return {entry["label"]: entry["score"] for entry in found}

    def test_the_first_sample_has_an_answer(self, page, gallery_folder):
        bundle = Bundle.load(gallery_folder / "emotion")
        shown = bars(page)
        assert set(shown) == EMOTIONS
        text = page.locator("#text").input_value()
        wanted = self.locally(bundle, gallery_folder, text)
        assert list(shown) == list(wanted)
        for label, value in shown.items():
            assert float(value.rstrip("%")) == pytest.approx(100 * wanted[label], abs=0.6)
        expect(page.locator("#verdict")).to_have_text(next(iter(wanted)))
        expect(page.locator("#announce")).to_contain_text(next(iter(wanted)))

    def test_the_answer_follows_the_typing(self, page):
        text = page.locator("#text")
        text.fill("")
        expect(page.locator("#bars li")).to_have_count(0)
        expect(page.locator("#verdict")).to_be_hidden()
        text.press_sequentially("I am so happy for you, what wonderful news!", delay=15)
        expect(page.locator("#verdict")).to_have_text("joy")
        assert page.locator("#bars li").first.evaluate("e => e.style.getPropertyValue('--own')")

    def test_samples_are_reached_by_keyboard(self, page):
        sample = page.locator("#samples button").nth(1)
        page.locator("#text").focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(sample).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#text")).to_have_value(sample.inner_text())
        expect(sample).to_have_attribute("aria-pressed", "true")

    def test_a_text_longer_than_the_model_takes(self, page):
        page.locator("#text").fill("What a lovely day it is today! " * 400)
        expect(page.locator("#verdict")).to_be_visible()
        expect(page.locator("#bars li")).to_have_count(len(EMOTIONS))
        expect(page.get_by_role("alert")).to_be_hidden()

    def test_letters_of_many_kinds(self, page):
        page.locator("#text").fill("😀 café 日本語 Σίσυφος \u200d <script>alert(1)</script>")
        expect(page.locator("#bars li")).to_have_count(len(EMOTIONS))
        expect(page.get_by_role("alert")).to_be_hidden()


class TestSimilarity:
    """Feature extraction."""

    @pytest.fixture
    def page(self, open_page, gallery_url) -> Page:
        page = open_page(f"{gallery_url}similarity/")
        expect(page.locator("#result-note")).to_contain_text("texts in")
        return page

    def test_similarities_are_those_of_the_embeddings(self, page, gallery_folder):
        folder = gallery_folder / "similarity"
        bundle = Bundle.load(folder)

        def embed(text: str) -> np.ndarray:
            feeds = feature_extraction.preprocess(text, bundle.plan, folder / "model")
            return np.array(feature_extraction.postprocess(bundle.run(feeds), bundle.plan))

        query = embed(page.locator("#query").input_value())
        shown = {text: float(value) for text, value in bars(page).items()}
        assert len(shown) >= 4
        for text, value in shown.items():
            vector = embed(text)
            cosine = query @ vector / np.linalg.norm(query) / np.linalg.norm(vector)
            assert value == pytest.approx(cosine, abs=0.0051)
        assert list(shown.values()) == sorted(shown.values(), reverse=True)

    def test_the_table_is_symmetric_with_ones(self, page):
        rows = page.locator("#matrix tbody tr")
        table = np.array(
            [[float(x) for x in rows.nth(i).locator("td").all_text_contents()]
             for i in range(rows.count())]
        )  # fmt: skip
        np.testing.assert_allclose(table, table.T, atol=0.011)
        np.testing.assert_allclose(np.diag(table), 1)

    def test_sentences_come_and_go(self, page):
        count = page.locator("#sentences input").count()
        page.get_by_role("button", name="Add a sentence").click()
        expect(page.locator("#sentences input").last).to_be_focused()
        page.keyboard.type(page.locator("#query").input_value())
        expect(page.locator("#bars li")).to_have_count(count + 1)
        expect(page.locator("#bars .value").first).to_have_text("1.00")
        page.get_by_role("button", name="Remove").last.click()
        expect(page.locator("#bars li")).to_have_count(count)
        page.locator("#query").fill("")
        expect(page.locator("#bars li")).to_have_count(0)
        page.get_by_role("button", name="Reset").click()
        expect(page.locator("#bars li")).to_have_count(count)


class TestAnyModel:
    """The page without a task."""

    @pytest.fixture
    def page(self, open_page, gallery_url) -> Page:
        context = {"permissions": ["clipboard-read", "clipboard-write"]}
        page = open_page(f"{gallery_url}tensors/", **context)
        expect(page.locator("#timing")).to_contain_text("one run")
        return page

    def test_inputs_and_outputs_are_shown(self, page, gallery_folder):
        plan = Bundle.load(gallery_folder / "tensors").plan
        program = plan["programs"][0]
        text = page.locator("#ports").inner_text()
        for port in program["inputs"] + program["outputs"]:
            assert port["name"] in text
            assert " × ".join(str(size) for size in port["shape"]) in text
        expect(page.locator(".output")).to_have_count(len(program["outputs"]))
        expect(page.locator(".output").first).to_contain_text("mean")

    def test_twenty_runs_are_measured(self, page):
        page.get_by_role("button", name="Measure 20 runs").click()
        expect(page.locator("#timing")).to_contain_text("median of 20", timeout=60_000)

    def test_the_copied_lines_run(self, page):
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        code = page.evaluate("navigator.clipboard.readText()")
        body = re.sub(
            r'^import \{ load, Tensor \} from "(.*?)"',
            lambda match: f'const {{ load, Tensor }} = await import("{match[1]}")',
            code,
        )
        found = page.evaluate(f"(async () => {{ {body}\nreturn Object.keys(outputs) }})()")
        expect(page.locator(".output")).to_have_count(len(found))


class TestEveryPage:
    """What all have in common."""

    @pytest.mark.parametrize("app", ["", "photographs/", "emotion/", "similarity/", "tensors/"])
    def test_a_narrow_phone_needs_no_sideways_scrolling(self, open_page, gallery_url, app):
        page = open_page(gallery_url + app, viewport={"width": 360, "height": 740})
        if app:
            expect(page.locator("#state-text")).to_contain_text("Ready")
            page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == 360

    @pytest.mark.parametrize("app", ["", "photographs/", "emotion/", "similarity/", "tensors/"])
    def test_what_can_be_pressed_has_a_name_and_a_size(self, open_page, gallery_url, app):
        page = open_page(gallery_url + app)
        if app:
            expect(page.locator("#state-text")).to_contain_text("Ready")
        for control in page.locator("button:visible, input:visible, textarea:visible").all():
            name = control.evaluate(
                "e => e.ariaLabel || e.textContent.trim() || e.title"
                " || [...(e.labels ?? [])].map((l) => l.textContent.trim()).join()"
            )
            assert name, control.evaluate("e => e.outerHTML")
            box = control.bounding_box()
            assert box is None or box["height"] >= 40, name
        assert page.locator("h1").count() == 1
        assert page.locator("main").count() == 1
