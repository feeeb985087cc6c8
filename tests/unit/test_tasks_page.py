"""The files around the model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from webkiln import tasks
from webkiln.errors import MissingDependencyError
from webkiln.tasks import page

SHARD = "5" * 64 + ".bin"
PLAN = {
    "weights": {"bytes": 1, "shards": [{"file": SHARD, "bytes": 1}]},
    "wasm": {"variants": [{"file": "simd.wasm", "features": ["simd"]}]},
    "webgpu": {"variants": [{"file": "kernels.f16.wgsl"}, {"file": "kernels.wgsl"}]},
    "golden": [{"file": "golden.bin"}],
    "task": {"name": "generic", "about": {"origin": "a <b> farm", "license": "MIT"}},
}


@pytest.fixture
def dist(tmp_path):
    """A stand-in of the built runtime: pages only care which files there are."""
    core = ["webkiln.js", "webkiln.worker.js", "webkiln.d.ts", "NOTICES.txt"]
    names = tasks.names()
    built = {
        "core": core,
        "tasks": {name: [f"tasks/{name}.js"] for name in names},
        "app": {name: [f"app/{name}.js", "app/shared.js"] for name in names},
    }
    for file in [
        *core,
        "head.js",
        "app/shared.js",
        *(f"{part}/{n}.js" for n in names for part in ("tasks", "app")),
    ]:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("code")
    (tmp_path / "manifest.json").write_text(json.dumps(built))
    return tmp_path


def html(files) -> str:
    return files["index.html"].decode()


def modules(file: Path, found: set[Path]) -> set[Path]:
    """The script and those that it imports; page.ts has helpers, which not every page calls."""
    found.add(file)
    for name in re.findall(r'^import [^"]*"(\.\.?/[\w./-]+)\.js"', file.read_text(), re.M):
        path = (file.parent / f"{name}.ts").resolve()
        if path.is_file() and "app" in path.parts and path.name != "page.ts" and path not in found:
            modules(path, found)
    return found


@pytest.mark.parametrize("task", tasks.names())
def test_a_page_has_every_element_that_its_script_wants(task, dist):
    app = Path(tasks.__file__).parents[1] / "runtime/src/app"
    scripts = modules(app / f"{task}.ts", set())
    wanted = {i for s in scripts for i in re.findall(r'byId(?:<\w+>)?\("([\w-]+)"', s.read_text())}
    ids = re.findall(r'\bid="([\w-]+)"', html(page.render(task, PLAN, "Title", dist)))
    assert wanted <= set(ids)
    assert len(ids) == len(set(ids))
    labels = set(
        re.findall(r'(?:for|aria-labelledby)="([\w-]+)"', html(page.render(task, PLAN, "T", dist)))
    )
    assert labels <= set(ids)


def test_the_policy_allows_what_is_inline_and_no_other_origin(dist):
    text = html(page.render("generic", PLAN, "Title", dist))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "http" not in policy
    assert "*" not in policy
    for tag in ("script", "style"):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        assert page._hash(inline) in policy


def test_nothing_is_loaded_from_elsewhere(dist):
    for task in tasks.names():
        text = html(page.render(task, PLAN, "Title", dist))
        assert not re.search(r'(?:src|href)="(?:https?:)?//', text)


def test_titles_and_provenance_are_escaped(dist):
    files = page.render("generic", PLAN, '</title><script>alert("1")', dist)
    assert "<script>alert" not in html(files)
    assert "a &lt;b&gt; farm, licence MIT" in html(files)
    assert json.loads(files["manifest.webmanifest"])["name"].startswith("</title>")


def test_samples_cannot_close_their_element(dist):
    plan = PLAN | {"task": {"name": "text-classification", "samples": ["</script><b>", "é"]}}
    text = html(page.render("text-classification", plan, "T", dist))
    found = re.search(r'id="samples-data">(.*?)</script>', text)[1]
    assert json.loads(found) == ["</script><b>", "é"]


def test_an_unknown_task_gets_the_generic_page(dist):
    assert "app/generic.js" in page.render("astrology", PLAN, "Title", dist)


def test_the_service_worker_changes_with_anything_that_it_keeps(dist):
    first = page.render("generic", PLAN, "Title", dist)["sw.js"]
    assert first == page.render("generic", PLAN, "Title", dist)["sw.js"]
    assert first != page.render("generic", PLAN | {"name": "other"}, "Title", dist)["sw.js"]
    (dist / "app/shared.js").write_text("new code")
    assert first != page.render("generic", PLAN, "Title", dist)["sw.js"]


def test_the_service_worker_keeps_all_but_the_weights(dist):
    files = page.render("generic", PLAN, "Title", dist)
    kept = json.loads(re.search(r"const FILES = (.*);", files["sw.js"].decode())[1])
    assert {
        "./",
        "app/generic.js",
        "model/plan.json",
        "model/simd.wasm",
        "model/kernels.f16.wgsl",
        "model/kernels.wgsl",
    } <= set(kept)
    assert not any(SHARD in name for name in kept)
    assert all(name in files or name == "./" or name.startswith("model/") for name in kept)


@pytest.mark.parametrize("relaxed", [True, False])
def test_the_service_worker_leaves_out_variants_that_the_browser_would_not_take(dist, relaxed):
    made = [{"file": "simd.wasm", "features": ["simd"]}]
    if relaxed:
        made.insert(0, {"file": "simd-relaxed.wasm", "features": ["simd", "relaxed-simd"]})
    plan = PLAN | {"wasm": {"variants": made}}
    text = page.render("generic", plan, "Title", dist)["sw.js"].decode()
    with_it, without = re.search(r"const UNUSED = .*\? (.*) : (.*);", text).groups()
    assert json.loads(with_it) == (["model/simd.wasm"] if relaxed else [])
    assert json.loads(without) == (["model/simd-relaxed.wasm"] if relaxed else [])


def test_hosts_are_told_what_threads_need(dist):
    files = page.render("generic", PLAN, "Title", dist)
    headers = files["_headers"].decode()
    assert headers.startswith("/*\n  Cross-Origin-Opener-Policy: same-origin\n")
    assert f"/model/{SHARD}\n  Cache-Control: public, max-age=31536000, immutable\n" in headers
    assert "/model/simd.wasm\n  Content-Type: application/wasm\n" in headers
    keys = {entry["key"] for entry in json.loads(files["vercel.json"])["headers"][0]["headers"]}
    assert keys == set(page.HEADERS)
    readme = files["README.md"].decode()
    assert readme.startswith("---\n")
    assert "cross-origin-embedder-policy: require-corp" in readme


def test_an_unbuilt_runtime_is_said_to_be(tmp_path):
    with pytest.raises(MissingDependencyError, match="runtime is not built"):
        page.render("generic", PLAN, "Title", tmp_path)


def test_a_runtime_without_the_script_of_heads_is_said_to_be_unbuilt(dist):
    (dist / "head.js").unlink()
    with pytest.raises(MissingDependencyError, match=r"head\.js is missing"):
        page.render("generic", PLAN, "Title", dist)


def test_the_head_begins_with_as_many_shards_as_memory_allows(dist):
    def early(sizes):
        shards = [{"file": f"{i}.bin", "bytes": size << 20} for i, size in enumerate(sizes)]
        weights = {"weights": {"bytes": 1, "shards": shards}}
        text = html(page.render("generic", PLAN | weights, "Title", dist))
        return re.search(r'<script data-shards="(.*?)">', text)[1].split()

    assert early([]) == []
    assert early([5, 5, 4]) == ["0.bin", "1.bin", "2.bin"]
    assert early([5] * 9) == ["0.bin", "1.bin", "2.bin", "3.bin"]
    assert early([24] * 9) == ["0.bin", "1.bin"]
