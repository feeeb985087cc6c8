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
def page(tmp_path_factory: pytest.TempPathFactory, playwright: Playwright) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(site.HERE / "pages", folder, dirs_exist_ok=True)
    Path(folder, "engines.js").write_text(FAKE_ENGINES)
    case = folder / "cases" / MATMUL.name
    case.mkdir(parents=True)
    site._write_case(case, MATMUL)
    with (
        CountingServer(folder) as server,
        chromium(playwright) as browser,
        page_at(browser, server.url + "compare.html") as opened,
    ):
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
