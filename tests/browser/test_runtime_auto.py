"""Device "auto": WebAssembly answers at once, WebGPU is tried behind it and taken if faster."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import webkiln
from tests.browser.site import Site
from tests.browser.test_runtime import run, with_prefix
from tests.browser.tiny_bundle import write_tiny_bundle
from webkiln.browser import find_chromium

DIST = Path(webkiln.__file__).parent / "runtime" / "dist"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
    pytest.mark.skipif(not (DIST / "webkiln.js").exists(), reason="runtime not built"),
]

# The GPU device comes only when the page says so.
HELD = """
  const request = GPUAdapter.prototype.requestDevice;
  const go = new Promise((done) => (new BroadcastChannel("go").onmessage = done));
  GPUAdapter.prototype.requestDevice = async function (descriptor) {
    await go;
    return request.call(this, descriptor);
  };
"""

# Loads with "auto" and keeps what onDevice said. `until(test)` waits for a state.
AUTO = """
  const states = [];
  const note = ({ device: { type }, comparing, timings }) =>
    ({ type, comparing, timings: { ...timings } });
  let heard = () => {};
  const model = await load("./model/", {
    device: "auto",
    onDevice(changed) {
      states.push(changed === model ? note(model) : "another model");
      heard();
    },
  });
  const until = async (test) => {
    while (!states.some(test)) await new Promise((done) => (heard = done));
  };
  const start = note(model);
"""


@pytest.fixture(scope="module", params=[0])
def bundle(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A tiny model; the parameter makes its WebAssembly slow."""
    folder = tmp_path_factory.mktemp("auto") / "bundle"
    shutil.copytree(DIST, folder)
    write_tiny_bundle(folder, slowness=request.param)
    return folder


@pytest.fixture
def site(bundle: Path) -> Iterator[Site]:
    site = Site(bundle, isolated=True)
    yield site
    site.close()


def _page(browser: Browser, site: Site, problems: list[str]) -> Page:
    page = browser.new_context().new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(site.url)
    return page


@pytest.fixture
def open_page(webgpu_browser: Browser) -> Iterator[Any]:
    """Opens a site in a fresh profile; at the end there must have been no uncaught error."""
    problems: list[str] = []
    pages: list[Page] = []

    def open_one(site: Site) -> Page:
        pages.append(_page(webgpu_browser, site, problems))
        return pages[-1]

    yield open_one
    for page in pages:
        page.context.close()
    assert problems == []


def test_the_first_runs_do_not_wait_for_webgpu(open_page: Any, site: Site) -> None:
    page = open_page(site)
    page.route("**/webkiln.worker.js", with_prefix(HELD))
    result = run(
        page,
        AUTO
        + """
        const first = right(await model.run(feeds(9)), 9);
        await until(({ comparing }) => comparing);
        const meanwhile = right(await model.run(feeds(50)), 50);
        const during = note(model);
        new BroadcastChannel("go").postMessage(0);
        await until(({ comparing }, i) => i && !comparing);
        const after = right(await model.run(feeds(9)), 9);
        const end = note(model);
        await model.dispose();
        return { start, during, end, answers: [first, meanwhile, after], states };
        """,
    )
    assert result["answers"] == [True] * 3
    assert result["start"] == {"type": "wasm", "comparing": False, "timings": {}}
    assert result["during"] == {"type": "wasm", "comparing": True, "timings": {}}
    assert result["end"]["comparing"] is False
    timings = result["end"]["timings"]
    assert set(timings) == {"wasm", "webgpu"}
    assert result["end"]["type"] == min(timings, key=timings.get)
    assert result["states"] == [result["during"], result["end"]]


def test_without_a_run_it_is_tried_when_idle(open_page: Any, site: Site) -> None:
    result = run(
        open_page(site),
        AUTO + "await until(({ comparing }, i) => i && !comparing); return note(model);",
    )
    assert set(result["timings"]) == {"wasm", "webgpu"}


# Most of a second a run: slower than any GPU, be it made of software.
@pytest.mark.parametrize("bundle", [100_000_000], indirect=True)
def test_moves_to_a_faster_gpu_and_starts_there_next_time(open_page: Any, site: Site) -> None:
    page = open_page(site)
    moved = run(
        page,
        AUTO
        + """
        const answers = [right(await model.run(feeds(9)), 9)];
        // Runs that are asked for all the time are right wherever they happen.
        const more = (async () => {
          while (model.device.type === "wasm") answers.push(right(await model.run(feeds(7)), 7));
        })();
        await until(({ comparing }, i) => i && !comparing);
        await more;
        answers.push(right(await model.run(feeds(100)), 100));
        const checks = await model.selfTest();
        const end = note(model);
        await model.dispose();
        return { start, end, answers, ok: checks.every(({ ok }) => ok) };
        """,
    )
    assert moved["start"]["type"] == "wasm"
    assert moved["end"]["type"] == "webgpu"
    assert moved["end"]["timings"]["webgpu"] < moved["end"]["timings"]["wasm"]
    assert moved["ok"] is True
    assert set(moved["answers"]) == {True}
    # Nothing came twice, for two devices and a self-test; but helper threads share one script.
    counts = Counter(path for path, _ in site.seen)
    assert {path for path, n in counts.items() if n > 1} <= {"/some/path/webkiln.worker.js"}
    assert sum(path.endswith(".wasm") for path in counts) == 1

    site.seen.clear()
    again = run(
        page,
        AUTO
        + """
        const answer = right(await model.run(feeds(9)), 9);
        await new Promise((done) => setTimeout(done, 1500));
        await model.dispose();
        return { start, states, answer };
        """,
    )
    assert again["start"] == {**moved["end"], "comparing": False}
    assert (again["states"], again["answer"]) == ([], True)
    assert not [path for path, _ in site.seen if path.endswith(".wasm")]


def test_a_verdict_for_wasm_is_kept_until_the_gpu_is_another(open_page: Any, site: Site) -> None:
    page = open_page(site)
    verdict = """
      const { info } = await navigator.gpu.requestAdapter();
      const own = [info.vendor, info.architecture, info.device, info.description].join("/");
      const timings = { wasm: 1, webgpu: 2 };
      Storage.prototype.getItem = () =>
        JSON.stringify({ device: "wasm", adapter: args.other ?? own, timings });
    """
    body = (
        verdict
        + AUTO
        + """
        await model.run(feeds(9));
        await until(({ comparing }) => !comparing);
        await model.dispose();
        return { start, states };
        """
    )
    same = run(page, body)
    assert same["start"]["timings"] == {"wasm": 1, "webgpu": 2}
    assert same["states"] == [same["start"]]
    other = run(page, body, other="an old GPU")
    assert [state["comparing"] for state in other["states"]] == [True, False]
    assert other["states"][-1]["timings"] != {"wasm": 1, "webgpu": 2}


@pytest.mark.parametrize("when", ["before", "during"])
def test_disposed_while_webgpu_is_tried(open_page: Any, site: Site, when: str) -> None:
    page = open_page(site)
    page.route("**/webkiln.worker.js", with_prefix(HELD))
    result = run(
        page,
        AUTO
        + """
        const run = model.run(feeds(9));
        await run;
        if (args.when === "during") await until(({ comparing }) => comparing);
        const heardOf = states.length;
        const waiting = failure(model.run(feeds(9)));
        await model.dispose();
        new BroadcastChannel("go").postMessage(0);
        await new Promise((done) => setTimeout(done, 500));
        const late = await failure(model.run(feeds(9)));
        return { heardOf, states: states.length, codes: [(await waiting).code, late.code] };
        """,
        when=when,
    )
    assert result["codes"] == ["disposed", "disposed"]
    assert result["states"] == result["heardOf"]


def test_a_failed_comparison_leaves_the_model_alone(open_page: Any, site: Site) -> None:
    page = open_page(site)
    site.faults["kernels.wgsl"] = lambda handler, data: handler.send(404, b"gone")
    result = run(
        page,
        AUTO
        + """
        await model.run(feeds(9));
        await until(({ comparing }, i) => i && !comparing);
        const answer = right(await model.run(feeds(9)), 9);
        const { fallbacks } = model;
        await model.dispose();
        return { end: note(model), answer, fallbacks };
        """,
    )
    assert result["end"]["type"] == "wasm"
    assert result["answer"] is True
    assert "kernels.wgsl is missing" in result["fallbacks"][0]
