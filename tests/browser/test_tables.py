"""Tables in Chromium: a run waits for the rows that it reads, and the others follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import webkiln
from tests.browser.site import Site, fresh_page, missing
from tests.lookup_model import embedding_model
from webkiln.browser import find_chromium
from webkiln.compile import compile_model
from webkiln.frontends.source import Source

DIST = Path(webkiln.__file__).parent / "runtime" / "dist"
ROWS, WIDTH = 70_000, 32
SHARD_ROWS = (512 << 10) // (4 * WIDTH)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
    pytest.mark.skipif(not (DIST / "webkiln.js").exists(), reason="runtime not built"),
]

# A script of a test has these in scope.
PRELUDE = """
async (args) => {
  const { load, Tensor } = await import(args.module);
  const open = (options) => load("./model/", { device: args.device, threads: 1, ...options });
  const rows = async (model, ...ids) => {
    const { y } = await model.run({ ids: new Tensor("int64", ids, [ids.length]) });
    return ids.map((_, i) => y.data[i * args.width]);
  };
  const failure = (work) => work.then(() => null, ({ code, message }) => ({ code, message }));
  const kept = async (model) => {
    while (model.storage.state === "pending") await new Promise((done) => setTimeout(done, 50));
    return model.storage.state;
  };
  { BODY }
}
"""


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """The bundle, what its table holds, and the table's files by shard."""
    model, values = embedding_model(ROWS, WIDTH)
    bundle = compile_model(Source(model, "lookup"), bounds={"sequence": 8})
    shards = bundle.plan["weights"]["shards"]
    return {"bundle": bundle, "values": values, "files": [s["file"] for s in shards]}


@pytest.fixture
def site(table: dict[str, Any], tmp_path: Path) -> Iterator[Site]:
    table["bundle"].save(tmp_path / "app")
    site = Site(tmp_path / "app", isolated=True)
    yield site
    site.close()


@pytest.fixture
def page(wasm_browser: Browser, site: Site) -> Iterator[Page]:
    with fresh_page(wasm_browser, site.url) as page:
        yield page


def run(page: Page, body: str, device: str = "wasm") -> Any:
    """What the JavaScript in `body` returns."""
    args = {"module": page.url + "webkiln.js", "device": device, "width": WIDTH}
    return page.evaluate(PRELUDE.replace("BODY", body), args)


def asked(site: Site, table: dict[str, Any]) -> list[int]:
    """The shards that were asked for, in that order."""
    names = [path.rsplit("/")[-1] for path, _ in site.seen]
    return [table["files"].index(name) for name in names if name in table["files"]]


def test_a_run_asks_for_its_rows(page: Page, site: Site, table: dict[str, Any]) -> None:
    numbers = [0, -1, 3 * SHARD_ROWS, 3 * SHARD_ROWS + 1]
    found = run(
        page,
        f"""
        const seen = [];
        const model = await open({{ onProgress: (progress) => seen.push(progress) }});
        return [await rows(model, ...{numbers}), seen.at(-1)];
        """,
    )
    assert found[0] == [float(v) for v in table["values"][numbers, 0]]
    assert found[1] == {"phase": "ready", "loaded": 0, "total": 0}
    last = len(table["files"]) - 1
    assert {0, 3, last} <= set(asked(site, table)[:5])  # two may have followed by themselves


def test_the_others_follow_and_are_kept(page: Page, site: Site, table: dict[str, Any]) -> None:
    assert run(page, "return kept(await open());") == "kept"
    every = list(range(len(table["files"])))
    assert sorted(asked(site, table)) == every
    page.reload()
    site.seen.clear()
    found = run(page, f"return rows(await open(), 7, {ROWS - 1});")
    assert found == [float(v) for v in table["values"][[7, -1], 0]]
    assert asked(site, table) == []


def test_a_shard_that_is_missing_fails_the_runs_that_need_it(
    page: Page, site: Site, table: dict[str, Any]
) -> None:
    site.faults[table["files"][2]] = missing
    row = 2 * SHARD_ROWS
    body = f"""
      globalThis.model ??= await open();
      return [await rows(model, 1), await failure(rows(model, 1, {row}))];
    """
    right, failure = run(page, body)
    assert right == [float(table["values"][1, 0])]
    assert failure["code"] == "shard-missing"
    assert table["files"][2] in failure["message"]
    site.faults.clear()
    assert run(page, body)[1] is None


def test_on_webgpu(webgpu_browser: Browser, site: Site, table: dict[str, Any]) -> None:
    numbers = [5, ROWS - 2]
    with fresh_page(webgpu_browser, site.url, 60_000) as page:
        found = run(page, f"return rows(await open(), ...{numbers});", "webgpu")
    assert found == [float(v) for v in table["values"][numbers, 0]]
    assert {0, len(table["files"]) - 1} <= set(asked(site, table)[:4])


def test_devices_are_compared_with_all_of_it(
    webgpu_browser: Browser, site: Site, table: dict[str, Any]
) -> None:
    numbers = [1, SHARD_ROWS, ROWS - 1]
    script = f"""
      const model = await open();
      await rows(model, 0);
      const timed = () => Object.keys(model.timings).length === 2;
      while (!timed()) await new Promise((done) => setTimeout(done, 50));
      return rows(model, ...{numbers});
    """
    with fresh_page(webgpu_browser, site.url, 60_000) as page:
        found = run(page, script, "auto")
    assert found == [float(v) for v in table["values"][numbers, 0]]
    assert sorted(asked(site, table)) == list(range(len(table["files"])))
