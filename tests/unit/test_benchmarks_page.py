"""The benchmark's page in Chromium: it refuses wrong outputs, and lets the engines take turns."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import site
from benchmarks.cases import CASES
from benchmarks.server import CountingServer
from webkiln.browser import find_chromium

pytest.importorskip("playwright")
from playwright.sync_api import Page, Playwright

from benchmarks.browser import call, chromium, page_at
from benchmarks.coldstart import cold_start

MATMUL = next(case for case in CASES if case.name == "matmul")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
]

# Engines that need no compiler: they answer with the reference times a factor, and log their runs.
FAKE_ENGINES = """
window.log = [];
const fake = (engine, factor) => async (name, testcase) => ({
  description: engine,
  async run() {
    window.log.push(engine);
    const [{ name: output, data }] = (await testcase).outputs;
    return { [output]: data.map((x) => factor * x) };
  },
  async dispose() { window.log.push(`${engine} disposed`); },
});
export const ENGINES = {
  a: fake("a", 1),
  b: fake("b", 1 + 1e-5),
  wrong: fake("wrong", 2),
  nan: fake("nan", NaN),
};
"""
OPTIONS = {
    "name": "matmul",
    "device": "wasm",
    "threads": 1,
    "warmup": 0,
    "least": 3,
    "most": 3,
    "seconds": 0,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountingServer]:
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(site.HERE / "pages", folder, dirs_exist_ok=True)
    Path(folder, "engines.js").write_text(FAKE_ENGINES)
    case = folder / "cases" / MATMUL.name
    case.mkdir(parents=True)
    site._write_case(case, MATMUL)
    with CountingServer(folder) as server:
        yield server


@pytest.fixture(scope="module")
def page(server: CountingServer, playwright: Playwright) -> Iterator[Page]:
    with chromium(playwright) as browser, page_at(browser, server.url + "compare.html") as opened:
        yield opened


def _compare(page: Page, *engines: str) -> Any:
    page.evaluate("() => { window.log.length = 0; }")
    return call(page, "compare", {**OPTIONS, "engines": list(engines)})["engines"]


def test_engines_take_turns(page: Page) -> None:
    measured = _compare(page, "a", "b")
    # A check each, three rounds in alternating order, a check each at the end.
    order = ["a", "b", "a", "b", "b", "a", "a", "b", "a", "a disposed", "b", "b disposed"]
    assert page.evaluate("() => window.log") == order
    assert [len(measured[name]["ms"]) for name in ("a", "b")] == [3, 3]
    assert measured["a"]["error"] == 0
    assert 0 < measured["b"]["error"] < 1e-4


@pytest.mark.parametrize("engine", ["wrong", "nan"])
def test_wrong_outputs_end_the_run(page: Page, engine: str) -> None:
    with pytest.raises(RuntimeError, match=f"{engine}: relative error"):
        _compare(page, "a", engine)


def test_a_cold_start_needs_no_inspector(server: CountingServer) -> None:
    found = cold_start(server, MATMUL, engines=("a",), device="wasm", threads=1, rounds=1)
    (ms,) = found["engines"]["a"]["ms"]
    assert ms > 0
    assert {"/cold.html", "/cold.js", "/engines.js"} <= found["engines"]["a"]["files"].keys()
    assert "/start.html" not in found["engines"]["a"]["files"]


def test_a_cold_start_with_wrong_outputs_ends_the_run(server: CountingServer) -> None:
    with pytest.raises(RuntimeError, match="wrong: relative error"):
        cold_start(server, MATMUL, engines=("wrong",), device="wasm", threads=1, rounds=1)
