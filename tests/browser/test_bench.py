"""`webkiln bench` on a small model in a real browser: right first, then timed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

import webkiln
from webkiln.bench import Options, Report
from webkiln.bench import run as run_bench
from webkiln.bench.measure import BrowserError
from webkiln.bench.report import Configuration, Kernel
from webkiln.browser import find_chromium
from webkiln.bundle import Bundle
from webkiln.errors import InputError, MissingDependencyError
from webkiln.log import Progress, silent

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
    pytest.mark.skipif(
        not (Path(webkiln.__file__).parent / "runtime/dist/webkiln.js").exists(),
        reason="runtime not built",
    ),
]


def run(bundle: Path, options: Options, progress: Progress = silent) -> Report:
    """In a thread of its own: this one may have the Playwright of other tests."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run_bench, bundle, options, progress=progress).result()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        toy (float[64, 256] x) => (float[64, 256] y) <float[256, 256] w> {
            t = MatMul(x, w)
            y = Relu(t)
        }"""
    )
    weights = np.random.default_rng(0).standard_normal((256, 256), dtype=np.float32)
    del model.graph.value_info[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    folder = tmp_path_factory.mktemp("bench") / "toy"
    webkiln.build(model, output=folder)
    return folder


def test_medians_and_the_distance_from_the_floor(bundle: Path) -> None:
    seen: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        seen.append((done, total))

    report = run(
        bundle, Options(devices=("wasm", "webgpu"), threads=(1,), runs=3), progress=progress
    )
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]
    assert [entry.device for entry in report.configurations] == ["wasm", "webgpu"]
    assert all(len(entry.ms) == 3 and entry.median > 0 for entry in report.configurations)
    assert report.peak is not None
    assert 1 < report.peak.gflops < 1000
    assert 0.5 < report.peak.gbps < 1000
    kernel = report.kernels["wasm"][0]
    assert kernel.flops >= 2 * 64 * 256 * 256
    assert kernel.floor_ms == pytest.approx(
        max(kernel.flops / report.peak.gflops, kernel.bytes / report.peak.gbps) / 1e6
    )
    assert report.kernels["webgpu"][0].floor_ms is None
    data = json.loads(json.dumps(report.to_json()))
    assert data["configurations"][0]["median"] > 0


def test_a_wrong_result_is_not_timed(bundle: Path, tmp_path: Path) -> None:
    """The golden sample says otherwise: the report must not be made."""
    files = dict(Bundle.load(bundle).files)
    plan = json.loads(bytes(files["model/plan.json"]))
    golden = bytearray(files["model/golden.bin"])
    output = plan["golden"][0]["outputs"]["y"]
    golden[output["offset"] : output["offset"] + 4] = np.float32(12345.0).tobytes()
    files["model/golden.bin"] = bytes(golden)
    broken = Bundle(files).save(tmp_path / "broken")
    with pytest.raises(BrowserError, match="wrong result on wasm"):
        run(broken, Options(threads=(1,), runs=1))


def test_no_such_browser(bundle: Path) -> None:
    with pytest.raises(MissingDependencyError, match="no browser at /no/such"):
        run(bundle, Options(browser="/no/such"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(devices=("npu",)), "no such device: npu"),
        (Options(against=("tfjs",)), "no such peer: tfjs"),
        (Options(against=("onnxruntime-web",)), "needs the model"),
    ],
)
def test_options_that_cannot_be(bundle: Path, options: Options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(bundle, options)


def test_statistics() -> None:
    entry = Configuration("webkiln", "wasm", 1, "", 1.0, 1.0, [4.0, 1.0, 3.0, 2.0, 5.0])
    assert entry.median == 3.0
    assert entry.spread == pytest.approx(0.5)
    assert Kernel("a", "k0", 2.0, 1, 1, 0.5).distance == 4.0
    assert Kernel("a", "k0", 2.0, 1, 1, None).distance is None
