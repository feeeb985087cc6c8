"""The page of the image classifier, as a person uses it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from webkiln.bundle import Bundle
from webkiln.server import Server
from webkiln.tasks import image_classification

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def folder(gallery_folder: Path) -> Path:
    return gallery_folder / "photographs"


@pytest.fixture
def url(gallery_url: str) -> str:
    return f"{gallery_url}photographs/"


def classes(page: Page) -> list[str]:
    expect(page.locator("#result-note")).to_contain_text("decoding and resizing included")
    expect(page.locator("body")).not_to_have_class("busy")
    return page.locator("#bars .name").all_text_contents()


def locally(folder: Path, picture: Path) -> list[str]:
    """The classes that the same bundle finds without a browser."""
    bundle = Bundle.load(folder)
    feeds = image_classification.preprocess(picture, bundle.plan, folder / "model")
    found = image_classification.postprocess(bundle.run(feeds), bundle.plan)
    return [entry["label"] for entry in found]


def test_a_sample_is_classified_without_being_asked(open_page, url, folder):
    page = open_page(url)
    assert classes(page) == locally(folder, folder / "model/samples/chelsea.jpg")
    expect(page.locator("#state-text")).to_contain_text("Ready · ")
    expect(page.locator("#fact-device")).to_contain_text("WebAssembly")
    expect(page.locator("#fact-download")).to_have_text("18.5 MB")
    for fact in ("#fact-first", "#fact-run"):
        expect(page.locator(fact)).to_contain_text("s")  # ms or s, no longer a dash


def test_every_sample_is_one_click_away(open_page, url, folder):
    page = open_page(url)
    before = classes(page)
    for name in ("coffee", "rocket", "astronaut"):
        label = page.locator(f"#samples img[src$='{name}.jpg']")
        label.click()
        expect(page.locator("#bars .name").first).not_to_have_text(before[0])
        found = classes(page)
        assert found == locally(folder, folder / f"model/samples/{name}.jpg")
        before = found


def test_the_keyboard_is_enough(open_page, url):
    page = open_page(url)
    first = classes(page)[0]
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the app")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.title") == "A cup of coffee":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#bars .name").first).not_to_have_text(first)
    # what a screen reader is told
    expect(page.locator("#announce")).to_contain_text(
        page.locator("#bars .name").first.inner_text()
    )


def test_a_file_of_ones_own(open_page, url, folder):
    page = open_page(url)
    before = classes(page)[0]
    picture = folder / "model/samples/coffee.jpg"
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#bars .name").first).not_to_have_text(before)
    assert classes(page) == locally(folder, picture)
    expect(page.locator("#preview")).to_have_attribute("alt", "coffee.jpg")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_drop_and_paste(open_page, url, folder, kind):
    page = open_page(url)
    before = classes(page)[0]
    content = base64.b64encode((folder / "model/samples/coffee.jpg").read_bytes()).decode()
    page.evaluate(
        """([kind, content]) => {
          const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
          const data = new DataTransfer();
          data.items.add(new File([bytes], "mine.jpg", { type: "image/jpeg" }));
          const event = kind === "drop"
            ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
          document.getElementById("stage").dispatchEvent(event);
        }""",
        [kind, content],
    )
    expect(page.locator("#bars .name").first).not_to_have_text(before)


def test_a_photograph_of_twelve_megapixels_does_not_freeze_the_page(
    open_page, url, tmp_path, folder
):
    large = Image.open(folder / "model/samples/coffee.jpg").resize((4032, 3024))
    large.save(tmp_path / "large.jpg", quality=85)
    page = open_page(url)
    before = classes(page)[0]
    page.evaluate(
        """() => {
          let last = performance.now();
          window.longest = 0;
          setInterval(() => {
            const now = performance.now();
            window.longest = Math.max(window.longest, now - last);
            last = now;
          }, 10);
        }"""
    )
    page.locator("#file").set_input_files(tmp_path / "large.jpg")
    expect(page.locator("#bars .name").first).not_to_have_text(before)
    assert classes(page)[:1] == locally(folder, tmp_path / "large.jpg")[:1]
    # resampling alone takes longer than that when it runs on the page of a busy machine
    assert page.evaluate("window.longest") < 250


def test_what_is_no_picture_is_refused_and_the_page_goes_on(open_page, url, tmp_path, folder):
    (tmp_path / "notes.jpg").write_text("not a picture")
    page = open_page(url)
    classes(page)
    page.locator("#file").set_input_files(tmp_path / "notes.jpg")
    error = page.get_by_role("alert")
    expect(error).to_contain_text("That is not an image")
    expect(error).to_contain_text("JPEG, PNG, WebP")
    expect(page.locator("#error-retry")).to_be_hidden()
    page.locator("#file").set_input_files(folder / "model/samples/rocket.jpg")
    expect(error).to_be_hidden()
    assert classes(page)


def test_the_camera_starts_and_stops(open_page, url):
    page = open_page(url)
    classes(page)
    camera = page.locator("#camera")
    camera.click()
    expect(camera).to_have_text("Stop the camera")
    expect(page.locator("#video")).to_be_visible()
    expect(page.locator("#bars .name")).to_have_count(5)
    # picture after picture, without being asked; the page's own policy forbids wait_for_function
    times = {page.locator("#result-note").inner_text() for _ in _moments(page, 20)}
    assert len(times) > 1
    camera.click()
    expect(camera).to_have_text("Use the camera")
    assert page.evaluate("document.getElementById('video').srcObject === null")


def _moments(page: Page, count: int) -> Iterator[None]:
    for _ in range(count):
        page.wait_for_timeout(100)
        yield


def test_self_test_and_the_switch_of_devices(open_page, url):
    page = open_page(url)
    shown = classes(page)
    page.get_by_role("button", name="Self-test").click()
    expect(page.locator("#selftest-result")).to_contain_text("Passed")
    page.get_by_role("radio", name="WebGPU").check(force=True)
    error = page.get_by_role("alert")
    expect(error).to_contain_text("WebGPU is not available here")
    expect(page.locator("#state-text")).to_have_text("The model is not loaded")
    error.get_by_role("button", name="Choose a device for me").click()
    expect(page.locator("#state-text")).to_contain_text("Ready")
    expect(page.get_by_role("radio", name="Auto")).to_be_checked()
    assert classes(page) == shown


def test_a_missing_shard_says_so_and_can_be_tried_again(open_page, folder, tmp_path):
    copy = tmp_path / "app"
    shutil.copytree(folder, copy)
    shard = next((copy / "model").glob("?" * 64 + ".bin"))
    hidden = shard.rename(tmp_path / "shard")
    with Server(copy, port=0) as server:
        page = open_page(server.url, allow=("404",))
        error = page.get_by_role("alert")
        expect(error).to_contain_text("A part of the model is missing")
        expect(error).to_contain_text(shard.name)
        expect(page.locator("#state-text")).to_have_text("The model is not loaded")
        hidden.rename(shard)
        error.get_by_role("button", name="Try again").click()
        assert classes(page)
        expect(error).to_be_hidden()


def test_it_works_offline_the_second_time(open_page, folder, tmp_path):
    copy = tmp_path / "app"
    shutil.copytree(folder, copy)
    # what the browser says of every address that it can't reach
    with Server(copy, port=0) as server:
        page = open_page(server.url, allow=("ERR_", "Failed to fetch"))
        shown = classes(page)
        expect(page.locator("#fact-download-note")).to_contain_text("offline")
        page.context.set_offline(True)
    page.reload()
    assert classes(page) == shown


def test_nothing_is_asked_of_another_place(open_page, url):
    page = open_page("about:blank", allow=("https://example.com/",))
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    classes(page)
    expect(page.locator("#fact-download-note")).to_contain_text("offline")
    elsewhere = [u for u in asked if not u.startswith((url, "blob:", "data:"))]
    assert elsewhere == []
    blocked = page.evaluate("fetch('https://example.com/').then(() => 'reached', () => 'blocked')")
    assert blocked == "blocked"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(open_page, url, scheme):
    page = open_page(url, color_scheme=scheme)
    background = "getComputedStyle(document.body).backgroundColor"
    assert (page.evaluate(background) == "rgb(22, 20, 18)") == (scheme == "dark")
    button = page.get_by_role("button", name="Dark theme")
    expect(button).to_have_attribute("aria-pressed", str(scheme == "dark").lower())
    button.click()
    page.reload()
    assert (page.evaluate(background) == "rgb(22, 20, 18)") == (scheme == "light")


def test_opened_as_a_file_it_says_what_to_do(open_page, folder):
    # Chromium reports the module that it may not load
    page = open_page((folder / "index.html").as_uri(), allow=("CORS", "ERR_FAILED", "file:"))
    error = page.get_by_role("alert")
    expect(error).to_contain_text("needs a web server")
    expect(error).to_contain_text("webkiln serve")
    expect(page.locator("#state-text")).to_have_text("Not started")


def test_without_isolation_it_runs_on_one_thread(open_page, folder):
    with Server(folder, port=0, isolation=False) as server:
        page = open_page(server.url)
        assert classes(page)
        expect(page.locator("#fact-device")).to_have_text("WebAssembly × 1 thread")


def test_a_grey_picture_and_one_with_alpha(open_page, url, folder, tmp_path):
    picture = Image.open(folder / "model/samples/chelsea.jpg")
    page = open_page(url)
    classes(page)
    for name, mode in (("grey.png", "L"), ("alpha.png", "RGBA")):
        buffer = BytesIO()
        picture.convert(mode).save(buffer, "PNG")
        (tmp_path / name).write_bytes(buffer.getvalue())
        page.locator("#file").set_input_files(tmp_path / name)
        expect(page.locator("#preview")).to_have_attribute("alt", name)
        page.wait_for_timeout(400)
        assert classes(page) == locally(folder, tmp_path / name)


def test_disposing_ends_what_is_being_prepared(open_page, url):
    page = open_page(url)
    script = """async () => {
      const { pipeline } = await import("./webkiln.js");
      const classify = await pipeline("./", { device: "wasm" });
      const image = new ImageData(2000, 2000);
      const late = () => new Promise((done) => setTimeout(done, 10_000, "still waiting"));
      const failed = (run) => Promise.race([late(), run.then(() => "done", ({ code }) => code)]);
      const underWay = failed(classify(image));
      await new Promise((done) => setTimeout(done)); // it is with the worker now, or nearly
      await classify.dispose();
      return [await underWay, await failed(classify(image))];
    }"""
    assert page.evaluate(script) == ["disposed", "disposed"]


def test_webgpu_finds_the_same(webgpu_browser: Browser, url, folder):
    page = webgpu_browser.new_page()
    page.goto(url)
    if not page.evaluate("navigator.gpu?.requestAdapter().then((adapter) => adapter !== null)"):
        page.close()
        pytest.skip("this Chromium has no WebGPU adapter")
    page.get_by_role("radio", name="WebGPU").check(force=True)
    expect(page.locator("#state-text")).to_contain_text("Ready", timeout=60_000)
    expect(page.locator("#fact-device")).not_to_contain_text("WebAssembly")
    expect(page.locator("#result-note")).to_contain_text("decoding", timeout=60_000)
    assert classes(page) == locally(folder, folder / "model/samples/chelsea.jpg")
    page.get_by_role("button", name="Self-test").click()
    expect(page.locator("#selftest-result")).to_contain_text("Passed", timeout=60_000)
    page.close()
