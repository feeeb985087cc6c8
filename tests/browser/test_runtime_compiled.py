"""A model that the compiler built, loaded by the runtime in a real Chromium on every device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from playwright.sync_api import Browser, Playwright

import webkiln
from tests.browser.site import Site
from tests.browser.tiny_bundle import write_tiny_bundle
from webkiln.browser import chromium_flags, find_chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
]

CHECK = """
async (device) => {
  const { load, Tensor } = await import(location.href + "webkiln.js");
  const model = await load("./model/", { device });
  const sums = [];
  for (const n of [1, 5, 64]) {
    const data = Float32Array.from({ length: n * 24 }, (_, i) => Math.sin(i));
    const { y } = await model.run({ x: new Tensor("float32", data, [n, 24]) });
    for (let row = 0; row < n; row++) {
      sums.push(y.data.subarray(row * 10, row * 10 + 10).reduce((a, b) => a + b));
    }
  }
  const checks = await model.selfTest();
  const steps = await model.profile();
  const result = { type: model.device.type, fallbacks: model.fallbacks, sums, checks, steps };
  await model.dispose();
  return result;
}
"""


def mlp(path: Path) -> None:
    """softmax(gelu(x W1) W2), the number of rows symbolic."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(size=(24, 100)).astype(np.float32),
        "w2": rng.normal(size=(100, 10)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Gelu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("compiled")
    mlp(folder / "mlp.onnx")
    webkiln.build(str(folder / "mlp.onnx"), max={"n": 64}, output=str(folder / "out"))
    site = Site(folder / "out", isolated=True)
    yield site
    site.close()


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(
        executable_path=find_chromium(), args=chromium_flags(webgpu=True)
    )
    yield browser
    browser.close()


@pytest.mark.parametrize("device", ["wasm", "webgpu", "auto"])
def test_compiled_model(chromium: Browser, site: Site, device: str) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(site.url)
    result = page.evaluate(CHECK, device)
    context.close()
    if device != "auto":
        assert result["type"] == device
    assert result["fallbacks"] == []
    assert result["sums"] == pytest.approx([1.0] * 70, abs=1e-5)
    assert len(result["checks"]) == 1
    assert all(check["ok"] for check in result["checks"])
    assert result["steps"]
    assert all(step["flops"] > 0 for step in result["steps"])


def test_the_bundle_made_by_hand_follows_the_schema(tmp_path: Path) -> None:
    schema: Any = json.loads(
        resources.files("webkiln.bundle").joinpath("plan.schema.json").read_text()
    )
    jsonschema.Draft202012Validator(schema).validate(write_tiny_bundle(tmp_path / "bundle"))


def embedding(path: Path) -> None:
    """Rows of a table, by token ids."""
    table = np.arange(50 * 24, dtype=np.float32).reshape(50, 24)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "embedding",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 24])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, path)


LOOK_UP = """
async (threads) => {
  const { load, Tensor } = await import(location.href + "webkiln.js");
  const model = await load("./model/", { device: "wasm", threads });
  const look = (ids) => model.run({ ids: new Tensor("int64", ids) }).then(
    ({ y }) => y.data[y.data.length - 1], ({ code, message }) => ({ code, message }));
  const many = Array.from({ length: 256 }, (_, i) => i % 50);
  const answers = [];
  for (const place of [0, 128, 255]) {
    answers.push(await look(many), await look(many.with(place, 20_000_000)));
  }
  answers.push(await look([49]));
  await model.dispose();
  return answers;
}
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_token_ids_far_out_of_range(webgpu_browser: Browser, tmp_path: Path, threads: int) -> None:
    embedding(tmp_path / "embedding.onnx")
    output = tmp_path / "out"
    webkiln.build(str(tmp_path / "embedding.onnx"), max={"n": 256}, output=str(output))
    site = Site(output, isolated=True)
    page = webgpu_browser.new_context().new_page()
    page.goto(site.url)
    answers = page.evaluate(LOOK_UP, threads)
    page.context.close()
    site.close()
    right = 50 * 24 - 1
    assert answers[-1] == right
    assert answers[:-1:2] == [(255 % 50 + 1) * 24 - 1] * 3
    for error in answers[1:-1:2]:
        assert error["code"] == "run-failed"
        assert "out of range" in error["message"]
