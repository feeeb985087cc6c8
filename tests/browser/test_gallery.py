"""The gallery's page."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from webkiln.demo.apps import APPS

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_a_card_leads_to_its_app_and_back(open_page, gallery_url, app):
    page = open_page(gallery_url)
    card = page.locator(".card", has=page.get_by_role("link", name=app.title))
    expect(card).to_contain_text(app.summary)
    expect(card).to_contain_text("MB")
    expect(card).to_contain_text("Apache-2.0")
    card.get_by_role("link").click()
    expect(page).to_have_url(f"{gallery_url}{app.name}/")
    expect(page.get_by_role("heading", level=1)).to_have_text(app.title)
    expect(page.locator("#state-text")).to_contain_text("Ready")
    if app.task != "text-generation":  # which answers when it is asked
        expect(page.locator("#fact-first")).to_contain_text("s")
    page.get_by_role("link", name="webkiln").click()
    expect(page).to_have_url(gallery_url)


def test_the_keyboard_leads_to_an_app(open_page, gallery_url):
    page = open_page(gallery_url)
    page.keyboard.press("Tab")  # the theme
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name=APPS[0].title)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{gallery_url}{APPS[0].name}/")


def test_pictures_load_and_the_theme_is_remembered(open_page, gallery_url):
    page = open_page(gallery_url, color_scheme="light")
    cover = page.locator(".cover img").first
    expect(cover).to_be_visible()
    assert cover.evaluate("e => e.decode().then(() => e.naturalWidth)") > 100
    page.get_by_role("button", name="Dark theme").click()
    page.get_by_role("link", name=APPS[0].title).click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
