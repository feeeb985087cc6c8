"""A page's cold start: its head begins the downloads, and load() takes them over."""

from __future__ import annotations

import copy
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import webkiln
from tests.browser.site import Site, broken_off, corrupt, missing, once, slow
from tests.browser.tiny_bundle import write_tiny_bundle
from webkiln.browser import find_chromium
from webkiln.tasks.page import render

DIST = Path(webkiln.__file__).parent / "runtime" / "dist"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
    pytest.mark.skipif(not (DIST / "webkiln.js").exists(), reason="runtime not built"),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The tiny bundle with the page that every bundle has."""
    folder = tmp_path_factory.mktemp("cold") / "bundle"
    plan = write_tiny_bundle(folder)
    for name, content in render("generic", plan, "Tiny", DIST).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder, plan


@pytest.fixture
def site(bundle: tuple[Path, dict[str, Any]]) -> Iterator[Site]:
    # The page brings its own policy.
    site = Site(bundle[0], isolated=True, policy="object-src 'none'")
    yield site
    site.close()


def first_result(page: Page) -> None:
    expect(page.locator("#fact-first")).to_contain_text(re.compile(r"\d"))
    page.locator("#selftest").click()
    expect(page.locator("#selftest-result")).to_contain_text("Passed")


def test_nothing_comes_twice(open_page: Any, site: Site) -> None:
    # The service worker keeps a copy of everything, later.
    page = open_page(site.url + "index.html", service_workers="block")
    first_result(page)
    assert page.evaluate("globalThis.webkilnEarly") is None
    counts = Counter(path.removeprefix("/some/path/") for path, _ in site.seen)
    threads = page.evaluate("Math.min(4, navigator.hardwareConcurrency)")
    # One for the page's inference worker; helper threads may find it in a cache or ask for it.
    assert 1 <= counts.pop("webkiln.worker.js") <= threads
    assert {name for name, count in counts.items() if count > 1} <= {"icon.svg"}
    assert sum(name.endswith(".bin") for name in counts) == 4
    assert sum(name.endswith(".wasm") for name in counts if "threads" in name) == 1


def test_the_weights_are_asked_for_before_the_modules_ran(
    open_page: Any, site: Site, bundle: tuple[Path, dict[str, Any]]
) -> None:
    def held(handler: Any, data: bytes) -> None:
        while len([path for path, _ in site.seen if path.endswith(".bin")]) < 3:
            pass  # ends with the test's time if the page waits for its script
        handler.send(200, data)

    site.faults["webkiln.js"] = held
    first_result(open_page(site.url + "index.html"))


def test_a_second_visit_downloads_no_weights(open_page: Any, site: Site) -> None:
    page = open_page(site.url + "index.html")
    first_result(page)
    page.evaluate(
        """async () => {
          const { storage } = await import("./webkiln.js");
          const kept = storage("./model/");
          while ((await kept.bytes()) < 196608) await new Promise((done) => setTimeout(done, 50));
        }"""
    )
    site.seen.clear()
    page.reload()
    first_result(page)
    weights = {path for path, _ in site.seen if path.endswith(".bin")}
    assert {path.rsplit("/")[-1] for path in weights} <= {"golden.bin"}


def test_an_early_shard_is_verified(
    open_page: Any, site: Site, bundle: tuple[Path, dict[str, Any]]
) -> None:
    name = bundle[1]["weights"]["shards"][1]["file"]
    site.faults[name] = once(corrupt)
    first_result(open_page(site.url + "index.html"))
    assert len(site.requests(name)) == 2


def test_a_broken_early_download_resumes(
    open_page: Any, site: Site, bundle: tuple[Path, dict[str, Any]]
) -> None:
    name = bundle[1]["weights"]["shards"][0]["file"]
    site.faults[name] = once(broken_off)
    first_result(open_page(site.url + "index.html", allow=("net::ERR",)))
    assert site.requests(name) == [None, "bytes=32768-"]


@pytest.mark.parametrize(
    ("fault", "title"),
    [(corrupt, "A part of the model is damaged"), (missing, "A part of the model is missing")],
)
def test_a_bad_shard_shows_no_result(
    open_page: Any, site: Site, bundle: tuple[Path, dict[str, Any]], fault: Any, title: str
) -> None:
    site.faults[bundle[1]["weights"]["shards"][2]["file"]] = fault
    page = open_page(site.url + "index.html", allow=("404",))
    expect(page.locator("#error-title")).to_have_text(title)
    expect(page.locator("#fact-first")).to_have_text("–")


def test_a_missing_worker_is_reported(open_page: Any, site: Site) -> None:
    site.faults["webkiln.worker.js"] = missing
    page = open_page(site.url + "index.html", allow=("404",))
    expect(page.locator("#error-message")).to_contain_text("inference worker failed")


# The worker asks for a file named after each step that runs, and the n that it runs with.
TELLING = b"""
  const { Instance } = WebAssembly;
  WebAssembly.Instance = function (module, imports) {
    const { exports } = new Instance(module, imports);
    const step = (program, step) => {
      const [n] = new Int32Array(imports.env.memory.buffer, 64, 1);
      fetch(`./warm-${step}-${n}`);
      exports.step(program, step);
    };
    return { exports: { ...exports, step } };
  };
"""


def hold_weights(site: Site, plan: dict[str, Any], warm: Sequence[str]) -> None:
    """No shard comes before the worker has asked for all of `warm`."""

    def held(handler: Any, data: bytes) -> None:
        while not all(site.requests(name) for name in warm):
            time.sleep(0.01)  # ends with the test's time if nothing runs before the weights
        handler.send_file(data)

    for shard in plan["weights"]["shards"]:
        site.faults[shard["file"]] = held


def test_every_step_runs_once_while_weights_are_awaited(
    open_page: Any, site: Site, bundle: tuple[Path, dict[str, Any]]
) -> None:
    site.faults["webkiln.worker.js"] = lambda handler, data: handler.send(200, TELLING + data)
    hold_weights(site, bundle[1], [f"/warm-{step}-16" for step in range(3)])
    first_result(open_page(site.url + "index.html"))


def test_a_trap_while_weights_are_awaited_does_no_harm(
    open_page: Any, site: Site, bundle: tuple[Path, dict[str, Any]]
) -> None:
    trapping = TELLING.replace(
        b"exports.step(program, step);", b"throw new WebAssembly.RuntimeError('not yet');"
    )
    site.faults["webkiln.worker.js"] = lambda handler, data: handler.send(200, trapping + data)
    hold_weights(site, bundle[1], ["/warm-0-16"])
    first_result(open_page(site.url + "index.html"))


def test_steps_become_warm_within_the_bounds_of_dimensions(
    open_page: Any, site: Site, bundle: tuple[Path, dict[str, Any]]
) -> None:
    plan = copy.deepcopy(bundle[1])
    plan["dims"][0]["min"] = 20
    plan["golden"] = []
    site.faults["webkiln.worker.js"] = lambda handler, data: handler.send(200, TELLING + data)
    site.faults["plan.json"] = lambda handler, _: handler.send(200, json.dumps(plan).encode())
    for shard in plan["weights"]["shards"]:
        site.faults[shard["file"]] = slow
    page = open_page(site.url + "index.html")
    for _ in range(100):
        if site.requests("/warm-2-20"):
            break
        page.wait_for_timeout(100)
    assert [site.requests(f"/warm-{step}-20") for step in range(3)] == [[None]] * 3
