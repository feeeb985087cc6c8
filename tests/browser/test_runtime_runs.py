"""A loaded model's runs in a real Chromium: their queue, what they are given, what they refuse."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.site import Site, fresh_page
from tests.browser.test_runtime import DIST, run
from tests.browser.tiny_bundle import MAX_N, write_tiny_bundle
from webkiln.browser import find_chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
    pytest.mark.skipif(not (DIST / "webkiln.js").exists(), reason="runtime not built"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "bundle"
    shutil.copytree(DIST, folder)
    write_tiny_bundle(folder)
    return folder


@pytest.fixture
def page(folder: Path, webgpu_browser: Browser) -> Iterator[Page]:
    site = Site(folder, isolated=True)
    with fresh_page(webgpu_browser, site.url, 60_000) as page:
        yield page
    site.close()


def test_runs_queue_and_abort(page: Page) -> None:
    result = run(
        page,
        """
        const model = await load("./model/", { device: "wasm" });
        const stop = new AbortController();
        const sizes = [3, 50, 4000, 1];
        const many = sizes.map((n) => model.run(feeds(n)));
        const doomed = failure(model.run(feeds(5), { signal: stop.signal }));
        const after = model.run(feeds(6));
        stop.abort();
        const error = await doomed;
        const late = await failure(model.run(feeds(5), { signal: stop.signal }));
        const all = (await Promise.all(many)).map((out, i) => right(out, sizes[i]));
        return { error, late, all, after: right(await after, 6) };
        """,
    )
    assert result["error"]["code"] == result["late"]["code"] == "aborted"
    assert result["all"] == [True] * 4
    assert result["after"] is True


@pytest.mark.parametrize("device", ["wasm", "webgpu"])
def test_runs_are_sent_and_answered_together(page: Page, device: str) -> None:
    script = """
      let sent = 0;
      const post = Worker.prototype.postMessage;
      Worker.prototype.postMessage = function (message, ...rest) {
        if (message.request) sent++;
        return post.call(this, message, ...rest);
      };
      const model = await load("./model/", args);
      sent = 0;
      const { x, ids } = feeds(3);
      const scaled = (by) => new Tensor("float32", x.data.map((v) => v * by), x.shape);
      const xs = [1, 2, 3].map(scaled);
      const outputs = ["y"];
      const all = await model.runs(xs.map((x) => ({ x, ids })), { outputs });
      const alone = [];
      for (const x of xs) alone.push(await model.run({ x, ids }, { outputs }));
      const twice = await model.runs([{ ids }, { ids }], { carry: { x: "y" }, outputs });
      const none = await model.runs([]);
      const codes = [];
      for (const [one, two] of [
        [feeds(3), feeds(4)],
        [feeds(3), { ...feeds(3), ids: new Tensor("float32", [1, 2, 3]) }],
        [feeds(3), { x }],
        [feeds(3), { x, other: ids }],
        [{ x }, { x }],
      ]) codes.push(await failure(model.runs([one, two])));
      const stop = new AbortController();
      const doomed = failure(model.runs([feeds(4), feeds(4)], { signal: stop.signal }));
      stop.abort();
      codes.push(await doomed);
      const values = (list) => list.map(({ y }) => [...y.data]);
      await model.dispose();
      Worker.prototype.postMessage = post;
      return { sent, names: Object.keys(all[0]), all: values(all), alone: values(alone),
               twice: values(twice), none, codes: codes.map(({ code }) => code) };
    """
    result = run(page, script, device=device, threads=1)
    assert result["sent"] == 1 + 3 + 1 + 1  # the last of them is aborted
    assert result["names"] == ["y"]
    assert result["all"] == result["alone"]
    assert len({tuple(y) for y in result["all"]}) == 3
    once = [2 * x + 1 for x in result["all"][2]]
    assert result["twice"] == [once, [2 * x + 1 for x in once]]
    assert result["none"] == []
    assert result["codes"] == ["input-shape"] * 4 + ["input-name", "aborted"]


def test_runs_that_are_aborted_under_way_stop(page: Page) -> None:
    script = """
      let worker;
      const post = Worker.prototype.postMessage;
      Worker.prototype.postMessage = function (...message) {
        worker = this;
        return post.apply(this, message);
      };
      const model = await load("./model/", { device: "wasm", threads: 1 });
      let given;
      worker.addEventListener("message", ({ data }) => (given ??= data.answer?.value.length));
      Worker.prototype.postMessage = post;
      const stop = new AbortController();
      const one = feeds(8);
      const all = model.runs(Array(100_000).fill(one), { outputs: ["y"], signal: stop.signal });
      const doomed = failure(all);
      await new Promise((done) => setTimeout(done, 50));
      stop.abort();
      const { code } = await doomed;
      const { y } = await model.run(one); // after those that had begun
      await model.dispose();
      return { code, given, elements: y.data.length, wanted: one.x.data.length };
    """
    result = run(page, script)
    assert result["code"] == "aborted"
    assert 0 < result["given"] < 100_000
    assert result["elements"] == result["wanted"]


@pytest.mark.parametrize("device", ["wasm", "webgpu"])
def test_a_run_takes_over_what_the_one_before_gave(page: Page, device: str) -> None:
    script = """
      const model = await load("./model/", args);
      const { x, ids } = feeds(3);
      const first = model.run({ x, ids });
      const second = model.run({ ids }, { carry: { x: "y" } });
      const third = model.run({ ids }, { carry: { x: "y" }, outputs: ["z"] });
      const values = [await first, await second].map(({ y }) => [...y.data]);
      await third;
      const code = async (...run) => model.run(...run).then(() => "none", (error) => error.code);
      const codes = [
        await code({ ids }, { carry: { x: "y" } }),                   // the third did not give it
        await code({ ids }, { carry: { x: "z" } }),                   // of another type
        await code({ ids }, { carry: { x: "no" } }),
        await code({ x, ids }, { carry: { x: "y" } }),                // fed as well
        await code({ x, ids }),
        await code({ ids: feeds(4).ids }, { carry: { x: "y" } }),     // of another size
      ];
      await model.dispose();
      return { x: [...x.data], values, codes };
    """
    result = run(page, script, device=device, threads=1)
    once = [2 * x + 1 for x in result["x"]]
    assert result["values"] == [once, [2 * x + 1 for x in once]]
    assert result["codes"] == ["option-invalid"] * 4 + ["none", "option-invalid"]


def test_dispose_twice_and_run_after(page: Page) -> None:
    result = run(
        page,
        """
        const model = await load("./model/", { device: "wasm" });
        const waiting = failure(model.run(feeds(4)));
        await model.dispose();
        await model.dispose();
        return [await waiting, await failure(model.run(feeds(4)))];
        """,
    )
    assert [error["code"] for error in result] == ["disposed", "disposed"]


WRONG = {
    "unknown": ("{ ...feeds(3), w: feeds(3).x }", "input-name", ['"w"', '"x", "ids"']),
    "missing": ("{ x: feeds(3).x }", "input-name", ['"ids" is missing']),
    "dtype": (
        "{ ...feeds(3), ids: new Tensor('float32', [1, 2, 3]) }",
        "input-dtype",
        ['"ids" is float32', "int64 [n]"],
    ),
    "not a tensor": ("{ ...feeds(3), x: [1, 2, 3] }", "input-dtype", ['"x" is not a Tensor']),
    "rank": (
        "{ ...feeds(3), x: new Tensor('float32', [1, 2, 3], [1, 3]) }",
        "input-shape",
        ['"x" has shape [1, 3]', "[n]"],
    ),
    "disagree": (
        "{ ...feeds(3), ids: feeds(4).ids }",
        "input-shape",
        ['"ids" has shape [4]', '"n" is 3'],
    ),
    "bounds": (f"feeds({MAX_N + 1})", "input-shape", [f"{MAX_N + 1}", f"1 to {MAX_N}"]),
    "range": (
        "{ x: feeds(1).x, ids: new Tensor('int64', [3000000000]) }",
        "input-dtype",
        ['"ids" holds 3000000000', "int32"],
    ),
    "data": ("{ x: new Tensor('float32', [1, 2], [3]) }", "input-shape", ["has 3 elements", "2"]),
    "fraction": ("{ ids: new Tensor('int64', [1.5]) }", "input-dtype", ["1.5"]),
}


def test_wrong_inputs(page: Page) -> None:
    calls = ", ".join(f"failure((async () => model.run({code}))())" for code, *_ in WRONG.values())
    load = "const model = await load('./model/', { device: 'wasm' });"
    errors = run(page, f"{load} return Promise.all([{calls}]);")
    for (code, wanted, parts), error in zip(WRONG.values(), errors, strict=True):
        assert (error["named"], error["code"]) == (True, wanted), (code, error)
        assert all(part in error["message"] for part in parts), (code, error)


def test_int64_takes_what_people_have(page: Page) -> None:
    same = run(
        page,
        """
        const model = await load("./model/", { device: "wasm" });
        const x = new Tensor("float32", [0, 0, 0]);
        const forms = [
          [1, 2, 3], Int32Array.of(1, 2, 3), BigInt64Array.of(1n, 2n, 3n), [1n, 2n, 3n],
        ];
        const outs = [];
        for (const form of forms) {
          outs.push((await model.run({ x, ids: new Tensor("int64", form) })).z.data.join());
        }
        return outs;
        """,
    )
    assert same == ["3,6,9"] * 4


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("load('file:///tmp/model/')", "file-protocol"),
        ("load('./nowhere/')", "not-found"),
        ("load('./webkiln.js/../model/golden.json')", "not-found"),
        ("load('./model/', { device: 'tpu' })", "option-invalid"),
        ("load('./model/', { threads: 0 })", "option-invalid"),
        ("load('./model/').then((m) => m.run(feeds(1), { program: 'no' }))", "option-invalid"),
        ("load('./manifest.json')", "plan-invalid"),
    ],
)
def test_bad_calls(page: Page, call: str, code: str) -> None:
    error = run(page, f"return failure({call})")
    assert (error["named"], error["code"]) == (True, code), error
