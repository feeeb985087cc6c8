"""`webkiln inspect --html` in a real browser: what it draws, and that it needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

from tests.unit.toy_plan import plan
from webkiln.browser import chromium_flags, find_chromium
from webkiln.inspect import bundle_page, bundle_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
]


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    running = playwright.chromium.launch(
        executable_path=find_chromium(), args=chromium_flags(webgpu=False)
    )
    yield running
    running.close()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """The report of the toy plan, opened from disk as a user would."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/plan.json").write_text(json.dumps(plan()))
    report = tmp_path / "report.html"
    report.write_text(bundle_page(bundle_report(tmp_path)))
    context = browser.new_context(offline=True)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: problems.append(request.url))
    opened.goto(report.as_uri())
    yield opened
    assert problems == [report.as_uri()]
    context.close()


def test_a_row_a_step_with_what_was_fused(page: Page) -> None:
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0).locator(".chip")).to_have_text(["MatMul_0", "Relu_1"])
    expect(rows.nth(0)).to_contain_text("contraction")
    expect(rows.nth(0)).to_contain_text("6.40 K")
    expect(rows.nth(0)).to_contain_text("90.1 %")
    assert page.locator("td.rail circle").count() == 3


def test_memory_is_drawn_over_time(page: Page) -> None:
    buffers = page.locator("rect.buffer")
    expect(buffers).to_have_count(4)
    boxes = [buffers.nth(i).bounding_box() for i in range(4)]
    assert all(box is not None for box in boxes)
    x, a, _, y = boxes
    assert x is not None
    assert a is not None
    assert y is not None
    assert a["width"] > 2 * x["width"]  # a lives for three steps, x for one
    assert abs(x["y"] - y["y"]) < 1  # y takes the place of x
    assert y["x"] > x["x"]


def test_a_buffer_tells_its_name_and_place(page: Page) -> None:
    page.locator("rect.buffer").nth(1).hover()
    expect(page.locator("#tip")).to_contain_text("a")
    expect(page.locator("#tip")).to_contain_text("temporary, 1.00 KiB")


def test_a_row_points_at_its_buffers(page: Page) -> None:
    page.locator("tbody tr").nth(1).focus()
    expect(page.locator("rect.buffer.near")).to_have_count(2)


def test_costs_follow_the_dimension(page: Page) -> None:
    expect(page.locator(".card b").first).to_have_text("7.10 K")
    page.get_by_role("slider", name="n").fill("2")
    expect(page.locator(".card b").first).to_have_text("222")
    expect(page.locator("output")).to_have_text("2")


@pytest.mark.parametrize("width", [360, 1280])
def test_no_width_makes_the_page_itself_scroll(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
