"""The benchmark harness's own arithmetic, tables and byte counts."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import report, site
from benchmarks.cases import CASES, SEED, Case, onnx_bytes, reference
from benchmarks.download import grouped
from benchmarks.server import CountingServer
from benchmarks.stats import ratio, summarize

MATMUL = next(case for case in CASES if case.name == "matmul")


def test_summary_is_median_and_quartiles() -> None:
    summary = summarize([5, 1, 3, 2, 4])
    assert (summary.low, summary.median, summary.high, summary.count) == (2, 3, 4, 5)


def test_ratio_is_taken_within_pairs() -> None:
    # The machine slowed down threefold in the middle; within pairs the ratio stays 2.
    assert ratio([20, 60, 22], [10, 30, 11]).median == 2
    with pytest.raises(ValueError, match="shorter"):
        ratio([1, 2], [1])


def test_reference_of_the_matmul_case() -> None:
    inputs = MATMUL.inputs(np.random.default_rng(SEED))
    model = MATMUL.load().model
    w = model.graph.initializers["w"].const_value
    assert w is not None
    outputs = reference(onnx_bytes(MATMUL.load()), inputs)
    np.testing.assert_allclose(outputs["y"], inputs["x"] @ w.numpy(), rtol=1e-3, atol=1e-2)


def test_case_files_hold_inputs_and_outputs(tmp_path: Path) -> None:
    site._write_case(tmp_path, MATMUL)
    description = json.loads((tmp_path / "case.json").read_text())
    data = (tmp_path / "data.bin").read_bytes()
    (x,), (y,) = description["inputs"], description["outputs"]
    assert (x["name"], y["name"], x["dtype"]) == ("x", "y", "float32")
    for entry in (x, y):
        assert entry["offset"] % 8 == 0
        assert entry["bytes"] == 4 * np.prod(entry["shape"])
    back = np.frombuffer(data, np.float32, offset=x["offset"], count=x["bytes"] // 4)
    inputs = MATMUL.inputs(np.random.default_rng(SEED))
    np.testing.assert_array_equal(back.reshape(x["shape"]), inputs["x"])
    assert len(data) == y["offset"] + y["bytes"]


def test_tensors_are_aligned_for_64_bit_elements() -> None:
    data = bytearray()
    arrays = {"a": np.zeros(3, np.float32), "b": np.arange(2, dtype=np.int64)}
    first, second = site._tensors(arrays, data)
    assert (first["offset"], second["offset"], len(data)) == (0, 16, 32)


def test_server_counts_compressed_bytes(tmp_path: Path) -> None:
    (tmp_path / "page.js").write_text("const x = 1;\n" * 10_000)
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    with CountingServer(tmp_path) as server:
        for name in ("page.js", "weights.bin"):
            request = urllib.request.Request(server.url + name, headers={"Accept-Encoding": "gzip"})
            with urllib.request.urlopen(request) as answer:
                assert answer.headers["cross-origin-opener-policy"] == "same-origin"
                length = len(answer.read())
            assert server.sent[f"/{name}"] == length
    assert server.sent["/page.js"] < 2_000  # of 130,000
    assert server.sent["/weights.bin"] == 10_000


def test_server_hears_a_report(tmp_path: Path) -> None:
    with CountingServer(tmp_path) as server:
        url = server.other_site + "report"
        urllib.request.urlopen(urllib.request.Request(url, b'{"ms": 12.5}', method="POST")).close()
        assert server.report(timeout=5) == {"ms": 12.5}
        with pytest.raises(TimeoutError, match="no page reported"):
            server.report(timeout=0.01)


def test_bytes_are_sorted_into_code_weights_and_data() -> None:
    sent = {
        "/cold.html": 1,
        "/ort/ort.wasm": 2,
        "/cases/m/model.onnx": 4,
        "/cases/m/bundle/model/0a1b.bin": 8,
        "/cases/m/bundle/model/golden.bin": 16,
        "/cases/m/data.bin": 32,
        "/cases/m/bundle/samples/cat.jpg": 64,
    }
    assert grouped(sent)["sent"] == {"code": 3, "weights": 12, "data": 112}


def _results(**changes: Any) -> dict[str, Any]:
    environment = {
        "date": "2026-01-02T03:04:05+00:00",
        "webkiln": "0.1.0",
        "commit": "abc",
        "onnxruntime-web": "1.30.0",
        "chromium": "156",
        "cpu": "CPU",
        "cores": 2,
        "load_average": 0.1,
    }
    empty: dict[str, Any] = {"inference": [], "cold_start": [], "download": [], "build": []}
    return {"environment": environment, **empty, **changes}


def _engine(*ms: float) -> dict[str, Any]:
    return {"ms": list(ms), "summary": summarize(ms).to_json(), **grouped({"/a.js": 2000})}


def test_table_shows_medians_ratio_and_work() -> None:
    row = {
        "case": "matmul",
        "device": "wasm",
        "threads": 2,
        "engines": {"webkiln": _engine(10, 10, 10), "ort": _engine(20, 25, 30)},
        "ratio": ratio([20, 25, 30], [10, 10, 10]).to_json(),
    }
    text = report.render(_results(inference=[row]))
    assert "wasm, 2 threads | 10.0 [10.0–10.0], 91 GFLOP/s | 25.0 [22.5–27.5], 36 GFLOP/s" in text
    assert "**2.50×** [2.25–2.75]" in text
    assert "Cold start" not in text
    assert "busy" not in text


def test_table_says_what_was_not_measured_and_when_the_machine_was_busy() -> None:
    row = {"case": "minilm", "device": "webgpu", "threads": None, "engines": {"ort": _engine(5)}}
    results = _results(cold_start=[row])
    results["environment"]["load_average"] = 3.5
    text = report.render(results)
    assert "| WebGPU (SwiftShader) | not measured | 5.0 [5.0–5.0] | not measured |" in text
    assert "| bare page, WebGPU (SwiftShader) | not measured | 2 KB |" in text
    assert "The machine was busy (load average 3.5)." in text


def test_insert_replaces_only_what_is_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for text in ("new", "newer"):
        report.insert(page, text)
    assert page.read_text() == f"before\n{report.BEGIN}\nnewer\n{report.END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        report.insert(page, "text")
    assert page.read_text() == "no markers"


def test_peer_is_pinned_exactly() -> None:
    pinned = json.loads((site.HERE / "package.json").read_text())["dependencies"]
    locked = json.loads((site.HERE / "package-lock.json").read_text())["packages"]
    assert locked["node_modules/onnxruntime-web"]["version"] == pinned["onnxruntime-web"]


def test_cases_are_told_apart_by_name() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert all(isinstance(case, Case) and 0 < case.tolerance <= 1e-3 for case in CASES)
