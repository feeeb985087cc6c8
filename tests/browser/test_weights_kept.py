"""Weights on the device: second visits, downloads that go on, damage, full disks."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, expect

import webkiln
from tests.browser.site import Handler, Site, broken_off, corrupt, etag, fresh_page, missing
from tests.browser.tiny_bundle import write_tiny_bundle
from webkiln.browser import find_chromium
from webkiln.server import Server
from webkiln.tasks.page import render

DIST = Path(webkiln.__file__).parent / "runtime" / "dist"
TOTAL, SHARD = 196608, 65536
FILE = SHARD + 32  # with its checksum
BEGINNING = 40000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
    pytest.mark.skipif(not (DIST / "webkiln.js").exists(), reason="runtime not built"),
]

Bundle = tuple[Path, dict[str, Any]]

# A script of a test has these in scope.
PRELUDE = """
async (args) => {
  const { load, storage, Tensor } = await import("./webkiln.js");
  const open = (options) => load("./model/", { device: "wasm", threads: 1, ...options });
  const right = async (model) => {
    const x = new Tensor("float32", [1, 2, 3], [3]);
    const { y } = await model.run({ x, ids: new Tensor("int64", [1, 2, 3], [3]) });
    return y.data.join() === "3,5,7";
  };
  const folder = async () => {
    const name = "webkiln " + encodeURIComponent(new URL("./model/", location));
    return (await navigator.storage.getDirectory()).getDirectoryHandle(name, { create: true });
  };
  // A file may be removed between its being listed and being looked at.
  const gone = (error) => {
    if (error.name !== "NotFoundError") throw error;
  };
  const files = async () => {
    const found = {};
    for await (const [name, handle] of await folder()) {
      const file = await handle.getFile().catch(gone);
      if (file) found[name] = file.size;
    }
    return found;
  };
  const put = async (name, bytes) => {
    const handle = await (await folder()).getFileHandle(name, { create: true });
    const stream = await handle.createWritable(); // empties it
    await stream.write(bytes);
    await stream.close();
  };
  // As a page remembers it, so that it looks on the device first.
  const visited = (first) =>
    localStorage.setItem("webkiln early " + new URL("./model/plan.json", location), first);
  const until = async (test) => {
    while (!(await test())) await new Promise((done) => setTimeout(done, 50));
  };
  { BODY }
}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("tiny") / "bundle"
    shutil.copytree(DIST, folder)
    plan = write_tiny_bundle(folder)
    for name, content in render("generic", plan, "Tiny", DIST).items():
        (folder / name).write_bytes(content)
    return folder, plan


@pytest.fixture
def names(bundle: Bundle) -> list[str]:
    """The shards' files."""
    return [shard["file"] for shard in bundle[1]["weights"]["shards"]]


@pytest.fixture
def site(bundle: Bundle) -> Iterator[Site]:
    site = Site(bundle[0], isolated=True)
    yield site
    site.close()


@pytest.fixture
def page(wasm_browser: Browser, site: Site) -> Iterator[Page]:
    with fresh_page(wasm_browser, site.url) as page:
        yield page


def run(page: Page, body: str, **args: Any) -> Any:
    """What the JavaScript in `body` returns."""
    source = PRELUDE.replace("BODY", body).replace("./webkiln.js", page.url + "webkiln.js")
    return page.evaluate(source, args)


VISIT = """
  const model = await open();
  const first = model.storage.state;
  const answer = await right(model);
  await until(() => model.storage.state !== "pending");
  const { storage } = model;
  await model.dispose();
  return { right: answer, first, storage, files: await files() };
"""


def weights(site: Site) -> int:
    """Bytes of weights sent."""
    return sum(count for name, count in site.sent.items() if re.match(r"[0-9a-f]{64}\.bin", name))


class TestSecondVisit:
    """What is on the device is not downloaded."""

    def test_it_asks_for_no_weights(self, page: Page, site: Site, names: list[str]) -> None:
        first = run(page, VISIT)
        assert (first["right"], first["first"]) == (True, "pending")
        assert first["storage"] == {"state": "kept", "bytes": TOTAL, "reason": ""}
        assert first["files"] == dict.fromkeys(names, FILE)
        assert weights(site) == TOTAL
        page.reload()
        second = run(page, VISIT)
        # Nothing has to be written, so it is known at once.
        assert (second["right"], second["first"]) == (True, "kept")
        assert weights(site) == TOTAL

    def test_runs_without_a_pause_do_not_put_it_off_for_ever(
        self, page: Page, names: list[str]
    ) -> None:
        found = run(
            page,
            """
            const model = await open();
            while (model.storage.state === "pending") await right(model);
            return [model.storage.state, await files()];
            """,
        )
        assert found == ["kept", dict.fromkeys(names, FILE)]

    def test_the_network_is_off(self, wasm_browser: Browser, bundle: Bundle) -> None:
        page = wasm_browser.new_page()
        page.set_default_timeout(30_000)
        with Server(bundle[0], port=0) as server:
            page.goto(server.url)
            note = page.locator("#fact-download-note")
            expect(note).to_contain_text("kept for use offline", timeout=20_000)
        for address in (server.url, f"{server.url}index.html"):
            page.goto(address)
            expect(page.locator("#fact-first")).to_contain_text(re.compile(r"\d"), timeout=20_000)
            page.locator("#selftest").click()
            expect(page.locator("#selftest-result")).to_contain_text("Passed")
        with pytest.raises(Error, match="ERR_"):  # the server is gone indeed
            page.goto(f"{server.url}not-kept.html")
        page.close()

    def test_only_webassembly_that_the_browser_takes_is_kept(
        self, wasm_browser: Browser, bundle: Bundle
    ) -> None:
        kept = """async () => {
          const wasm = async () => {
            const found = [];
            for (const key of await caches.keys()) {
              for (const { url } of await (await caches.open(key)).keys()) found.push(url);
            }
            const names = found.map((url) => url.split("/").pop());
            return names.filter((name) => name.endsWith(".wasm"));
          };
          while (!navigator.serviceWorker.controller || !(await wasm()).length) {
            await new Promise((done) => setTimeout(done, 50));
          }
          return wasm();
        }"""
        variants = bundle[1]["wasm"]["variants"]
        relaxed = {v["file"] for v in variants if "relaxed-simd" in v["features"]}
        assert 0 < len(relaxed) < len(variants)
        page = wasm_browser.new_page()
        page.set_default_timeout(30_000)
        with Server(bundle[0], port=0) as server:
            page.goto(server.url)
            assert set(page.evaluate(kept)) == relaxed
            # An updated browser that takes another one keeps that when it does.
            page.evaluate(
                """async () => {
                  for (const key of await caches.keys()) await caches.delete(key);
                }"""
            )
            page.reload()
            assert set(page.evaluate(kept)) < relaxed
        page.close()

    def test_shards_of_an_earlier_build_go(self, page: Page, names: list[str]) -> None:
        old = {f"{'0' * 64}.bin": SHARD, f"{'0' * 64}.bin.etag": 5}
        run(page, "for (const [name, size] of args.old) await put(name, new Uint8Array(size));",
            old=list(old.items()))  # fmt: skip
        assert run(page, "return files()") == old
        run(page, VISIT)
        # Also when nothing is written, a little after loading.
        run(page, f"await put('{'1' * 64}.bin', 'x'); await open();"
            "await until(async () => Object.keys(await files()).length === 3)")  # fmt: skip
        assert sorted(run(page, "return files()")) == sorted(names)

    def test_a_model_that_fails_on_the_first_visit_comes_back_without_a_network(
        self, page: Page, site: Site, names: list[str]
    ) -> None:
        run(
            page,
            """
            globalThis.model = await open();
            await until(() => model.storage.state === "kept");
            """,
        )
        site.faults = dict.fromkeys(names, missing)
        found = run(
            page,
            """
            const ids = new Tensor("int64", [-1, 0, 0], [3]); // the program traps
            const failed = await model.run({ x: new Tensor("float32", [1, 2, 3], [3]), ids })
              .then(() => "no", ({ code }) => code);
            return [failed, await right(model)];
            """,
        )
        assert found == ["run-failed", True]

    def test_two_tabs_at_once(self, page: Page, site: Site, names: list[str]) -> None:
        found = run(
            page,
            """
            const models = await Promise.all([open(), open()]);
            await until(() => models.every(({ storage }) => storage.state === "kept"));
            return [await right(models[0]), await right(models[1]), await files()];
            """,
        )
        assert found == [True, True, dict.fromkeys(names, FILE)]


class TestDamage:
    """What is on the device is trusted as little as the network."""

    def damage(self, page: Page, name: str, at: int, size: int) -> None:
        """Changes a bit of a file, and its size."""
        run(
            page,
            """
            const handle = await (await folder()).getFileHandle(args.name);
            const old = new Uint8Array(await (await handle.getFile()).arrayBuffer());
            const bytes = new Uint8Array(args.size);
            bytes.set(old.subarray(0, args.size));
            bytes[args.at] ^= 1;
            await put(args.name, bytes);
            """,
            name=name,
            at=at,
            size=size,
        )

    @pytest.mark.parametrize(
        ("at", "size"),
        [(0, FILE), (SHARD - 1, FILE), (7, SHARD), (7, FILE + 1), (7, FILE - 1)],
        ids=["first bit", "last byte", "no checksum", "too long", "half a checksum"],
    )
    def test_a_damaged_file_is_fetched_again(
        self, page: Page, site: Site, names: list[str], at: int, size: int
    ) -> None:
        run(page, VISIT)
        page.reload()
        self.damage(page, names[1], at, size)
        site.seen.clear()
        found = run(page, VISIT)
        assert (found["right"], found["storage"]["state"]) == (True, "kept")
        assert found["files"] == dict.fromkeys(names, FILE)
        assert [len(site.requests(name)) for name in names] == [0, 1, 0]
        page.reload()
        assert run(page, VISIT)["first"] == "kept"
        assert [len(site.requests(name)) for name in names] == [0, 1, 0]

    @pytest.mark.parametrize("size", [FILE, FILE - 1])
    def test_a_damaged_checksum_costs_no_download(
        self, page: Page, site: Site, names: list[str], size: int
    ) -> None:
        run(page, VISIT)
        page.reload()
        self.damage(page, names[0], SHARD + 3, size)
        assert run(page, VISIT)["files"] == dict.fromkeys(names, FILE)
        page.reload()
        assert run(page, VISIT)["first"] == "kept"
        assert weights(site) == TOTAL

    def leave_zeros(self, page: Page, names: list[str]) -> None:
        """What should be the beginning of the last shard."""
        leave = "visited(args.names[0]); await put(args.names[2], new Uint8Array(30000))"
        run(page, leave, names=names)

    def test_a_damaged_beginning(self, page: Page, site: Site, names: list[str]) -> None:
        self.leave_zeros(page, names)
        assert run(page, VISIT)["right"]
        assert site.requests(names[2]) == ["bytes=30000-", None]

    def test_a_damaged_beginning_excuses_no_bad_server(
        self, page: Page, site: Site, names: list[str]
    ) -> None:
        self.leave_zeros(page, names)
        site.faults[names[2]] = corrupt
        failure = run(page, "return open().catch(({ code }) => code)")
        assert failure == "shard-corrupt"
        assert site.requests(names[2]) == ["bytes=30000-", None, None]
        assert names[2] not in run(page, "return files()")


def held(handler: Handler, data: bytes) -> None:
    """The beginning; the rest never comes."""
    handler.head(200, len(data), {"ETag": etag(data)})
    handler.body(data[:BEGINNING])
    handler.connection.settimeout(20)
    handler.rfile.read(1)  # until the page is gone


def another_version(handler: Handler, data: bytes) -> None:
    """As `held`, of a file that is replaced before the next visit."""
    held(handler, bytes(len(data)))


def deaf(handler: Handler, data: bytes) -> None:
    """A host that knows no ranges."""
    handler.send(200, data)


def unsatisfiable(handler: Handler, data: bytes) -> None:
    """416 to any range."""
    if handler.headers.get("Range"):
        return handler.send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    return handler.send_file(data)


def elsewhere(handler: Handler, data: bytes) -> None:
    """A range, but not the one asked for."""
    if handler.headers.get("Range"):
        return handler.send(206, data[9:], {"Content-Range": f"bytes 9-{SHARD - 1}/{SHARD}"})
    return handler.send_file(data)


class TestBrokenDownload:
    """It goes on where it stopped, also after the page was closed."""

    def break_off(
        self, page: Page, site: Site, name: str, fault: Callable[[Handler, bytes], None] = held
    ) -> None:
        """A visit that ends in the middle of a shard."""
        site.faults[name] = fault
        run(
            page,
            "void open().catch(() => undefined);"
            "await until(async () => (await files())[args.name] === args.size)",
            name=name,
            size=BEGINNING,
        )
        page.reload()
        del site.faults[name]
        site.seen.clear()
        site.sent.clear()

    def test_the_next_visit_goes_on(self, page: Page, site: Site, names: list[str]) -> None:
        self.break_off(page, site, names[1])
        found = run(page, VISIT)
        assert (found["right"], found["storage"]["state"]) == (True, "kept")
        assert found["files"] == dict.fromkeys(names, FILE)
        assert site.requests(names[1]) == [f"bytes={BEGINNING}-"]
        assert site.sent[names[1]] == SHARD - BEGINNING

    def test_progress_counts_what_is_here(self, page: Page, site: Site, names: list[str]) -> None:
        self.break_off(page, site, names[1])
        loaded = run(
            page,
            """
            const loaded = [];
            await open({ onProgress: (progress) => loaded.push(progress.loaded) });
            return loaded;
            """,
        )
        assert loaded == sorted(loaded)
        assert loaded[-1] == TOTAL

    def test_a_file_that_was_replaced(self, page: Page, site: Site, names: list[str]) -> None:
        self.break_off(page, site, names[1], another_version)
        assert run(page, VISIT)["right"]
        # If-Range did not hold, so the answer was the whole: no second request.
        assert site.requests(names[1]) == [f"bytes={BEGINNING}-"]
        assert site.sent[names[1]] == SHARD

    @pytest.mark.parametrize(("fault", "requests"), [(deaf, 1), (unsatisfiable, 2), (elsewhere, 2)])
    def test_hosts_that_do_not_go_on(
        self, page: Page, site: Site, names: list[str], fault: Any, requests: int
    ) -> None:
        self.break_off(page, site, names[0])
        site.faults[names[0]] = fault
        assert run(page, VISIT)["right"]
        assert len(site.requests(names[0])) == requests

    def test_a_line_that_breaks_again_and_again(
        self, page: Page, site: Site, names: list[str]
    ) -> None:
        def a_little(handler: Handler, data: bytes) -> None:
            start = int(re.findall(r"\d+", handler.headers.get("Range") or "0")[0])
            extra = {"ETag": etag(data)}
            if start:
                extra["Content-Range"] = f"bytes {start}-{SHARD - 1}/{SHARD}"
            handler.head(206 if start else 200, SHARD - start, extra)
            handler.body(data[start : start + 8192])
            time.sleep(0.2)  # lets the browser hand them on before it sees the end
            handler.close_connection = True

        site.faults[names[0]] = a_little
        assert run(page, VISIT)["right"]
        assert len(site.requests(names[0])) == 8
        assert site.sent[names[0]] == SHARD

    def test_the_pages_own_early_download(
        self, wasm_browser: Browser, bundle: Bundle, names: list[str]
    ) -> None:
        site = Site(bundle[0], isolated=True, policy="object-src 'none'")
        page = wasm_browser.new_context(service_workers="block").new_page()
        page.set_default_timeout(30_000)
        site.faults[names[0]] = held
        page.goto(f"{site.url}index.html")
        source = PRELUDE.replace("BODY", "await until(async () => (await files())[args] === 40000)")
        page.evaluate(source, names[0])
        site.faults.clear()
        site.sent.clear()
        page.reload()
        expect(page.locator("#fact-first")).to_contain_text(re.compile(r"\d"))
        assert site.sent[names[0]] == SHARD - BEGINNING
        page.context.close()
        site.close()


class TestNoRoom:
    """The model runs all the same, and says why it is not kept."""

    def quota(self, page: Page, size: int) -> None:
        session = page.context.new_cdp_session(page)
        origin = re.match(r"https?://[^/]+", page.url)
        assert origin
        session.send("Storage.overrideQuotaForOrigin", {"origin": origin[0], "quotaSize": size})

    def test_a_full_disk(self, page: Page, names: list[str]) -> None:
        self.quota(page, 100_000)
        found = run(
            page,
            """
            const told = [];
            const model = await open({ onStorage: (storage) => told.push(storage) });
            const answer = await right(model);
            await until(() => model.storage.state !== "pending");
            return { answer, told, storage: model.storage, files: await files() };
            """,
        )
        assert found["answer"]
        assert found["told"] == [found["storage"]]
        state, count, reason = (found["storage"][key] for key in ("state", "bytes", "reason"))
        assert state == "full"
        assert count == SHARD * len(found["files"]) < TOTAL
        assert set(found["files"].values()) <= {FILE}  # no beginnings take the last room
        assert reason.startswith("There is no room to keep the model on this device: of its 0.2 MB")
        assert "next visit downloads" in reason

    def test_the_page_says_so(self, wasm_browser: Browser, bundle: Bundle) -> None:
        site = Site(bundle[0], isolated=True, policy="object-src 'none'")
        page = wasm_browser.new_page()
        page.set_default_timeout(30_000)
        page.goto(site.url)
        self.quota(page, 1000)
        page.goto(f"{site.url}index.html")
        note = page.locator("#fact-download-note")
        expect(note).to_have_text("model weights, not kept: no room on this device", timeout=20_000)
        expect(note).to_have_attribute("title", re.compile("Free some space"))
        expect(page.locator("#fact-first")).to_contain_text(re.compile(r"\d"))
        page.close()
        site.close()

    def test_plain_http(self, bundle: Bundle, playwright: Any) -> None:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(),
            args=["--no-sandbox", "--host-resolver-rules=MAP insecure.test 127.0.0.1"],
        )
        site = Site(bundle[0], isolated=False)
        page = browser.new_page()
        page.goto(site.url.replace("localhost", "insecure.test"))
        found = run(
            page,
            """
            const model = await open();
            await until(() => model.storage.state !== "pending");
            const kept = storage("./model/");
            return [await right(model), model.storage, await kept.bytes(), await kept.persist()];
            """,
        )
        browser.close()
        site.close()
        assert found[0]
        assert found[1]["state"] == "unavailable"
        assert "over plain http" in found[1]["reason"]
        assert found[2:] == [0, False]


class TestApi:
    """`storage()`, for pages."""

    def test_bytes_and_clear(self, page: Page, site: Site) -> None:
        assert run(page, "return storage('./model/').bytes()") == 0
        run(page, VISIT)
        assert run(page, "return storage('./model/plan.json').bytes()") == 3 * FILE
        assert run(page, "return storage('./other/').bytes()") == 0
        found = run(
            page,
            """
            const model = await open();
            const kept = storage("./model/");
            await kept.clear();
            return [await right(model), await kept.bytes()];
            """,
        )
        assert found == [True, 0]
        assert run(page, VISIT)["right"]
        assert weights(site) == 2 * TOTAL

    def test_persist(self, page: Page) -> None:
        granted, before, after = run(
            page,
            """
            const kept = storage("./model/");
            const before = await kept.persisted();
            return [await kept.persist(), before, await kept.persisted()];
            """,
        )
        assert before is False
        assert granted is after  # headless Chromium declines; a browser that agrees says so too

    def test_not_an_address(self, page: Page) -> None:
        body = "try { storage('http://'); } catch ({ code }) { return code; }"
        assert run(page, body) == "option-invalid"


def test_a_line_lost_and_found_in_one_visit(page: Page, site: Site, names: list[str]) -> None:
    left = [broken_off]
    site.faults[names[0]] = lambda handler, data: (left.pop() if left else Handler.send_file)(
        handler, data
    )
    found = run(page, VISIT)
    assert (found["right"], found["storage"]["state"]) == (True, "kept")
    assert site.sent[names[0]] == SHARD


def test_the_documentation_runs(page: Page) -> None:
    text = (Path(__file__).parents[2] / "docs/offline.md").read_text()
    [code] = re.findall(r"```ts\n(.*?)```", text, re.DOTALL)
    assert run(page, re.sub(r"^import.*$", "", code, flags=re.MULTILINE)) is None
    [union] = re.findall(r"readonly state: (\"pending\".*);", (DIST / "webkiln.d.ts").read_text())
    assert re.findall(r"^\| `(\"\w+\")` \|", text, re.MULTILINE) == union.split(" | ")
