"""The browser runtime in a real Chromium, on a bundle made by hand (see tiny_bundle.py)."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright

import webkiln
from tests.browser.site import (
    Site,
    broken_off,
    busy,
    corrupt,
    fresh_page,
    missing,
    once,
    slow,
    truncated,
)
from tests.browser.tiny_bundle import MAX_N, write_tiny_bundle
from webkiln.browser import chromium_flags, find_chromium

DIST = Path(webkiln.__file__).parent / "runtime" / "dist"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
    pytest.mark.skipif(not (DIST / "webkiln.js").exists(), reason="runtime not built"),
]

# Every script below runs in the page with these in scope. A rejection comes back as its code and
# message instead of failing the evaluation.
PRELUDE = """
async (args) => {
  const { load, pipeline, Tensor, WebkilnError } = await import("./webkiln.js");
  const feeds = (n) => ({
    x: new Tensor("float32", Float32Array.from({ length: n }, (_, i) => i), [n]),
    ids: new Tensor("int64", Array.from({ length: n }, (_, i) => i), [n]),
  });
  const right = ({ y, z }, n) => y.shape[0] === n && z.data.length === n
    && y.data.every((v, i) => v === 2 * i + 1) && z.data.every((v, i) => v === BigInt(3 * i));
  const failure = (promise) => promise.then(
    () => "no error",
    (error) => {
      const { code, message } = error;
      return { named: error instanceof WebkilnError, code, message };
    });
  BODY
}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tiny") / "bundle"
    shutil.copytree(DIST, folder)
    return folder, write_tiny_bundle(folder)


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(
        executable_path=find_chromium(),
        args=[
            *chromium_flags(webgpu=True),
            # Plain http on a name that is not localhost: no WebCrypto, Cache API or WebGPU.
            "--host-resolver-rules=MAP insecure.test 127.0.0.1",
        ],
    )
    yield browser
    browser.close()


@pytest.fixture(params=[True], ids=["isolated"])
def site(bundle: tuple[Path, dict[str, Any]], request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(bundle[0], isolated=request.param)
    yield site
    site.close()


@pytest.fixture
def page(chromium: Browser, site: Site) -> Iterator[Page]:
    with fresh_page(chromium, site.url, 60_000) as page:
        yield page


def run(page: Page, body: str, **args: Any) -> Any:
    """What the JavaScript in `body` returns; it awaits freely."""
    source = PRELUDE.replace("BODY", body).replace("./webkiln.js", page.url + "webkiln.js")
    return page.evaluate(source, args)


def shard(bundle: tuple[Path, dict[str, Any]], index: int) -> str:
    name: str = bundle[1]["weights"]["shards"][index]["file"]
    return name


LOAD_AND_RUN = """
  const phases = [];
  const model = await load("./model/", { ...args, onProgress: (p) => phases.push(p) });
  const answers = [];
  for (const n of [7, 1, 100, MAX_N]) answers.push(right(await model.run(feeds(n)), n));
  const checks = await model.selfTest();
  while (model.comparing) await new Promise((done) => setTimeout(done, 20));
  const { device, fallbacks, timings } = model;
  const steps = await model.profile(feeds(50));
  await model.dispose();
  return { answers, checks, device, fallbacks, timings, steps, phases };
""".replace("MAX_N", str(MAX_N))


def check_run(result: dict[str, Any]) -> None:
    assert result["answers"] == [True] * 4
    assert [check["output"] for check in result["checks"]] == ["y", "z"]
    assert all(check["ok"] and check["maxAbsError"] <= 1e-6 for check in result["checks"])
    assert [step["label"] for step in result["steps"]] == ["Mul_0", "Add_1", "Mul_2"]
    assert all(step["ms"] >= 0 and step["bytes"] == 400 for step in result["steps"])
    last = result["phases"][-1]
    assert (last["phase"], last["loaded"], last["total"]) == ("ready", 196608, 196608)


def test_wasm_threads(page: Page, site: Site) -> None:
    result = run(page, LOAD_AND_RUN, device="wasm", threads=2)
    check_run(result)
    assert result["device"] == {
        "type": "wasm",
        "description": "WebAssembly × 2 threads, SIMD relaxed",
        "threads": 2,
    }
    assert result["fallbacks"] == []
    assert site.requests("simd-relaxed-simd-threads.wasm")


def test_the_page_wakes_threads_that_slept(page: Page) -> None:
    script = """
      const notify = Atomics.notify;
      const woken = [];
      Atomics.notify = (words, at) => (woken.push(4 * at), notify(words, at));
      const model = await load("./model/", { device: "wasm", threads: args.threads });
      const nap = () => new Promise((done) => setTimeout(done, 50));
      await model.run(feeds(7)); // helpers of two cores start after it
          for (let i = 0; i < 4; i++) await nap().then(() => model.run(feeds(7)));
      const answers = [right(await model.run(feeds(7)), 7)];
      await model.dispose();
      return { woken, answers };
    """
    result = run(page, script, threads=2)
    assert result["answers"] == [True]
    assert len(result["woken"]) >= 3
    assert set(result["woken"]) == {512}  # WEBKILN_CALL of wasm_runtime.h
    assert run(page, script, threads=1)["woken"] == []


def test_one_thread_takes_the_variant_without_threads(page: Page, site: Site) -> None:
    result = run(page, LOAD_AND_RUN, device="wasm", threads=1)
    check_run(result)
    assert result["device"]["description"] == "WebAssembly × 1 thread, SIMD relaxed"
    assert not site.requests("threads.wasm")


@pytest.mark.parametrize("site", [False], ids=["not isolated"], indirect=True)
def test_wasm_without_cross_origin_isolation(page: Page) -> None:
    result = run(page, LOAD_AND_RUN, device="wasm", threads=2)
    check_run(result)
    assert result["device"]["threads"] == 1
    assert "cross-origin isolated" in result["fallbacks"][0]


def test_webgpu(page: Page) -> None:
    result = run(page, LOAD_AND_RUN, device="webgpu")
    check_run(result)
    assert result["device"]["type"] == "webgpu"
    assert "swiftshader" in result["device"]["description"].lower()


def test_auto_without_webgpu_says_why(page: Page) -> None:
    page.evaluate("delete Navigator.prototype.gpu")
    page.route("**/webkiln.worker.js", with_prefix("delete WorkerNavigator.prototype.gpu;"))
    result = run(page, LOAD_AND_RUN, device="auto")
    check_run(result)
    assert result["device"]["type"] == "wasm"
    assert "WebGPU can't be used" in result["fallbacks"][0]


def test_webgpu_asked_for_and_absent_is_an_error(page: Page) -> None:
    page.route("**/webkiln.worker.js", with_prefix("delete WorkerNavigator.prototype.gpu;"))
    error = run(page, "return failure(load('./model/', { device: 'webgpu' }))")
    assert (error["named"], error["code"]) == (True, "no-webgpu")


def with_prefix(code: str) -> Any:
    """A route that puts code before a script."""

    def handle(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=code + response.text())

    return handle


KEEP_DEVICE = """
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (descriptor) {
    if (self.noMore) throw new Error("no more devices");
    return (self.kept = await request.call(this, descriptor));
  };
  new BroadcastChannel("lose").onmessage = ({ data }) => {
    self.noMore = data;
    self.kept.destroy();
  };
"""

LOSE_DEVICE = """
  if (args.device === "auto") {
    // An earlier visit's verdict makes "auto" start on WebGPU.
    const { info } = await navigator.gpu.requestAdapter();
    const adapter = [info.vendor, info.architecture, info.device, info.description].join("/");
    const verdict = JSON.stringify({ device: "webgpu", adapter, timings: {} });
    Storage.prototype.getItem = (key) => (key.startsWith("webkiln ") ? verdict : null);
  }
  const model = await load("./model/", { device: args.device });
  const before = [model.device.type, right(await model.run(feeds(9)), 9)];
  new BroadcastChannel("lose").postMessage(args.forGood);
  await new Promise((done) => setTimeout(done, 100));
  const outcome = await model.run(feeds(9)).then((out) => right(out, 9), (error) => error.code);
  const { device: { type }, fallbacks } = model;
  await model.dispose();
  return { before, outcome, type, fallbacks };
"""


@pytest.mark.parametrize(
    ("device", "for_good", "outcome", "then"),
    [
        ("webgpu", False, True, "webgpu"),  # the device comes back, the caller never knows
        ("webgpu", True, "device-lost", "webgpu"),
        ("auto", True, True, "wasm"),
    ],
)
def test_lost_device(
    page: Page, device: str, for_good: bool, outcome: bool | str, then: str
) -> None:
    page.route("**/webkiln.worker.js", with_prefix(KEEP_DEVICE))
    result = run(page, LOSE_DEVICE, device=device, forGood=for_good)
    assert result["before"] == ["webgpu", True]
    assert (result["outcome"], result["type"]) == (outcome, then)
    if then == "wasm":
        assert "no more devices" in result["fallbacks"][0]


def test_corrupt_shard_is_fetched_again(
    page: Page, site: Site, bundle: tuple[Path, dict[str, Any]]
) -> None:
    site.faults[shard(bundle, 1)] = once(corrupt)
    check_run(run(page, LOAD_AND_RUN, device="wasm"))
    assert len(site.requests(shard(bundle, 1))) == 2


@pytest.mark.parametrize("device", ["wasm", "webgpu", "auto"])
@pytest.mark.parametrize(
    ("fault", "code"),
    [(corrupt, "shard-corrupt"), (truncated, "shard-corrupt"), (missing, "shard-missing")],
)
def test_bad_shard(
    page: Page,
    site: Site,
    bundle: tuple[Path, dict[str, Any]],
    device: str,
    fault: Any,
    code: str,
) -> None:
    name = shard(bundle, 2)
    site.faults[name] = fault
    error = run(page, "return failure(load('./model/', args))", device=device)
    assert (error["named"], error["code"]) == (True, code)
    assert name in error["message"]
    # The page asked first, unless it is not known whether the model can run at all.
    by_page = device != "webgpu"
    assert len(site.requests(name)) == (1 if fault is missing and not by_page else 2)


def test_broken_download_resumes(
    page: Page, site: Site, bundle: tuple[Path, dict[str, Any]]
) -> None:
    site.faults[shard(bundle, 0)] = once(broken_off)
    result = run(page, LOAD_AND_RUN, device="wasm")
    check_run(result)
    assert site.requests(shard(bundle, 0)) == [None, "bytes=32768-"]
    assert all(p["loaded"] <= p["total"] for p in result["phases"])


def test_a_busy_server_is_asked_again(
    page: Page, site: Site, bundle: tuple[Path, dict[str, Any]]
) -> None:
    site.faults[shard(bundle, 0)] = once(busy)
    check_run(run(page, LOAD_AND_RUN, device="wasm"))
    assert len(site.requests(shard(bundle, 0))) == 2


def test_insecure_page_runs_on_wasm(page: Page, site: Site) -> None:
    page.goto(site.url.replace("localhost", "insecure.test"))
    assert page.evaluate("[isSecureContext, !!crypto.subtle]") == [False, False]
    result = run(page, LOAD_AND_RUN, device="auto")
    check_run(result)
    assert result["device"]["description"] == "WebAssembly × 1 thread, SIMD relaxed"
    assert "WebGPU can't be used" in result["fallbacks"][0]


def test_abort_while_loading(page: Page, site: Site, bundle: tuple[Path, dict[str, Any]]) -> None:
    site.faults[shard(bundle, 0)] = slow
    error = run(
        page,
        """
        const stop = new AbortController();
        const loading = load("./model/", { device: "wasm", signal: stop.signal });
        setTimeout(() => stop.abort(), 300);
        const began = performance.now();
        return { ...(await failure(loading)), ms: performance.now() - began };
        """,
    )
    assert (error["named"], error["code"]) == (True, "aborted")
    assert error["ms"] < 5000


def test_worker_refused_by_the_browser(page: Page) -> None:
    page.evaluate("() => { window.Worker = function () { throw new Error('not here'); }; }")
    error = run(page, "return failure(load('./model/', { device: 'wasm' }))")
    assert (error["named"], error["code"]) == (True, "worker-failed")
    assert "not here" in error["message"]


def test_worker_missing(page: Page, site: Site) -> None:
    site.faults["webkiln.worker.js"] = missing
    error = run(page, "return failure(load('./model/', { device: 'wasm' }))")
    assert error["code"] == "worker-failed"


def test_threads_that_can_not_start_fall_back(page: Page, site: Site) -> None:
    prefix = b"if (self.name === 'webkiln-thread') throw new Error('no threads today');"
    site.faults["webkiln.worker.js"] = lambda handler, data: handler.send(200, prefix + data)
    result = run(page, LOAD_AND_RUN, device="wasm", threads=2)
    check_run(result)
    assert result["device"]["threads"] == 1
    assert "no threads today" in result["fallbacks"][0]


def test_shader_error_is_named(page: Page, site: Site) -> None:
    site.faults["kernels.wgsl"] = lambda handler, data: handler.send(200, b"fn scale( {")
    error = run(page, "return failure(load('./model/', { device: 'webgpu' }))")
    assert error["code"] == "webgpu-validation"
    assert "line 1" in error["message"]
    auto = run(page, COMPARED, device="auto")
    assert auto["type"] == "wasm"
    assert "shader" in auto["fallbacks"][0]


def test_float16_is_for_adapters_that_have_it(page: Page, site: Site) -> None:
    """SwiftShader has not: what is fetched is the shader that needs nothing."""
    check_run(run(page, LOAD_AND_RUN, device="webgpu", threads=1))
    assert site.requests("kernels.wgsl")
    assert not site.requests("kernels.f16.wgsl")


def test_a_shader_that_the_browser_refuses_gives_way_to_the_next(
    page: Page, bundle: tuple[Path, dict[str, Any]], site: Site
) -> None:
    plan = copy.deepcopy(bundle[1])
    plan["webgpu"]["variants"][0]["features"] = []  # or SwiftShader would not be given it
    site.faults["plan.json"] = lambda handler, _: handler.send(200, json.dumps(plan).encode())
    site.faults["kernels.f16.wgsl"] = lambda handler, _: handler.send(200, b"fn scale( {")
    result = run(page, LOAD_AND_RUN, device="webgpu", threads=1)
    check_run(result)
    assert result["device"]["type"] == "webgpu"
    assert site.requests("kernels.f16.wgsl")
    assert "f16" not in result["device"]["description"]


COMPARED = """
  const model = await load("./model/", { device: "auto" });
  const ended = new Promise((done) => {
    const look = setInterval(() => {
      if (model.fallbacks.length) done(clearInterval(look));
    }, 20);
  });
  await model.run(feeds(9));
  await ended;
  const { device: { type }, fallbacks } = model;
  await model.dispose();
  return { type, fallbacks };
"""


def test_limits_are_checked_before_the_download(
    page: Page, bundle: tuple[Path, dict[str, Any]], site: Site
) -> None:
    plan = copy.deepcopy(bundle[1])
    plan["webgpu"]["limits"]["maxBufferSize"] = 2**50
    site.faults["plan.json"] = lambda handler, data: handler.send(200, json.dumps(plan).encode())
    error = run(page, "return failure(load('./model/', { device: 'webgpu' }))")
    assert error["code"] == "webgpu-limits"
    assert "maxBufferSize" in error["message"]
    assert not site.requests(".bin")


@pytest.mark.parametrize(
    ("threads", "thread"), [(1, 0), (2, 0), (2, 1)], ids=["alone", "first of 2", "second of 2"]
)
def test_a_trap_is_a_named_error_and_the_model_goes_on(
    page: Page, threads: int, thread: int
) -> None:
    result = run(
        page,
        """
        const model = await load("./model/", { device: "wasm", threads: args.threads });
        const bad = { ...feeds(3), ids: new Tensor("int64", [-1 - args.thread, 0, 0]) };
        const before = right(await model.run(feeds(9)), 9);
        const first = failure(model.run(bad));
        const queued = model.run(feeds(100)).then((out) => right(out, 100));
        const errors = [await first, await failure(model.run(bad))];
        const after = right(await model.run(feeds(9)), 9);
        const { device } = model;
        await model.dispose();
        return { errors, answers: [before, await queued, after], threads: device.threads };
        """,
        threads=threads,
        thread=thread,
    )
    assert result["answers"] == [True] * 3
    assert result["threads"] == threads
    for error in result["errors"]:
        assert (error["named"], error["code"]) == (True, "run-failed")
        assert 'The program "main" failed' in error["message"]
        assert "out of range" in error["message"]


def test_generic_pipeline(page: Page) -> None:
    names = run(
        page,
        """
        const run = await pipeline("./", { device: "wasm" });
        const name = run.model.name;
        await run.dispose();
        return [name, run.task.name];
        """,
    )
    assert names == ["tiny", "generic"]
