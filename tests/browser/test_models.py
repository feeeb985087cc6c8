"""The two models of the gallery in a real Chromium, on every device, against ONNX Runtime.

What a page computes from a photograph or a sentence, number by number, beside what the reference
gives for the model as it was loaded.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image
from playwright.sync_api import Browser, Page

from webkiln import tasks
from webkiln.demo.apps import APPS
from webkiln.frontends.source import Source
from webkiln.reference import reference_outputs

pytestmark = pytest.mark.browser

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SENTENCES = (
    "A cat.",
    "The kiln was still warm in the morning, and nobody had opened it.",
    (
        "Quarterly revenue rose by four percent while costs stayed flat across every region, "
        "said the company on Tuesday, and its shares fell all the same."
    ),
)
DEVICES = {"wasm": "wasm_browser", "webgpu": "webgpu_browser"}

RUN = """
async ({ device, feeds }) => {
  const { load, Tensor } = await import(location.href + "webkiln.js");
  const model = await load("./model/", { device });
  const results = [];
  for (const feed of feeds) {
    const inputs = {};
    for (const [name, { dtype, data, shape }] of Object.entries(feed)) {
      const { buffer } = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
      const values = dtype === "int64" ? new BigInt64Array(buffer) : new Float32Array(buffer);
      inputs[name] = new Tensor(dtype, values, shape);
    }
    const outputs = await model.run(inputs);
    results.push(Object.values(outputs).map((t) => Array.from(t.data)));
  }
  const type = model.device.type;
  await model.dispose();
  return { type, results };
}
"""


def app_source(name: str) -> Source:
    return next(app for app in APPS if app.name == name).source()


def run_in(page: Page, device: str, feeds: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """The first output of the app's model for each of `feeds`, computed by the page's browser."""
    sent = [
        {
            name: {
                "dtype": a.dtype.name,
                "data": base64.b64encode(a.tobytes()).decode(),
                "shape": list(a.shape),
            }
            for name, a in feed.items()
        }
        for feed in feeds
    ]
    page.set_default_timeout(240_000)
    answer = page.evaluate(RUN, {"device": device, "feeds": sent})
    assert answer["type"] == device
    return [np.array(outputs[0], np.float32) for outputs in answer["results"]]


def plan_of(folder: Path, app: str) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((folder / app / "model/plan.json").read_text())
    return plan


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(request: pytest.FixtureRequest, device: str) -> Any:
    browser: Browser = request.getfixturevalue(DEVICES[device])
    context = browser.new_context()
    yield context.new_page()
    context.close()


def test_photographs_give_the_logits_of_the_reference(
    page: Page, device: str, gallery_url: str, gallery_folder: Path, tmp_path: Path
) -> None:
    plan = plan_of(gallery_folder, "photographs")
    task = tasks.get("image-classification")
    feeds = []
    for name in PHOTOGRAPHS:
        Image.fromarray(getattr(skimage.data, name)()).save(tmp_path / f"{name}.png")
        feeds.append(task.preprocess(tmp_path / f"{name}.png", plan, tmp_path))
    source = app_source("photographs")
    page.goto(f"{gallery_url}photographs/")
    for name, feed, got in zip(PHOTOGRAPHS, feeds, run_in(page, device, feeds), strict=True):
        (expected,) = (a.ravel() for a in reference_outputs(source.model, feed).values())
        assert np.argsort(-got)[:5].tolist() == np.argsort(-expected)[:5].tolist(), name
        assert np.abs(got - expected).max() <= 1e-3 * np.abs(expected).max(), name


def test_sentences_give_the_embeddings_of_the_reference(
    page: Page, device: str, gallery_url: str, gallery_folder: Path
) -> None:
    plan = plan_of(gallery_folder, "similarity")
    task = tasks.get("feature-extraction")
    folder = gallery_folder / "similarity/model"
    feeds = [task.preprocess(sentence, plan, folder) for sentence in SENTENCES]
    assert len({feed["input_ids"].shape[1] for feed in feeds}) == len(SENTENCES)
    source = app_source("similarity")
    page.goto(f"{gallery_url}similarity/")
    for feed, got in zip(feeds, run_in(page, device, feeds), strict=True):
        (expected,) = (a.ravel() for a in reference_outputs(source.model, feed).values())
        cosine = got @ expected / np.linalg.norm(got) / np.linalg.norm(expected)
        assert cosine >= 0.9999
        assert np.abs(got - expected).max() <= 1e-3 * np.abs(expected).max()
