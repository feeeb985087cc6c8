"""The browser's preprocessing of images against Pillow's."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests.unit.typescript import run
from webkiln.tasks import image

PHOTOGRAPHS = {
    "astronaut": data.astronaut(),
    "cat": data.chelsea(),
    "coffee": data.coffee(),
    "noise": np.random.default_rng(0).integers(0, 256, (97, 61, 3), dtype=np.uint8),
    "tall": data.astronaut()[:, 100:220],
}
SIZES = [(224, 224), (341, 256), (700, 33), (61, 90), (33, 700)]  # width, height

RESAMPLE = """
import { resample, sourceOf } from "src/tasks/resample.ts";
const bytes = (text) => new Uint8ClampedArray(Buffer.from(text, "base64"));
export function answer(job) {
  return job.cases.map(({ image, width, height, filter, region }) => {
    const source = job.images[image];
    const rows = sourceOf({ ...source, data: bytes(source.data) });
    const result = resample(rows, width, height, filter, region);
    return Buffer.from(result.data).toString("base64");
  });
}
"""

PREPARE = """
import { prepare } from "src/tasks/prepare.ts";
import { sourceOf } from "src/tasks/resample.ts";
export function answer({ image, settings }) {
  const data = new Uint8ClampedArray(Buffer.from(image.data, "base64"));
  return settings.map((one) => {
    const { data: result, shape } = prepare(sourceOf({ ...image, data }), one);
    return { shape, data: Buffer.from(result.buffer).toString("base64") };
  });
}
"""


def pixels(array: np.ndarray) -> dict[str, object]:
    height, width = array.shape[:2]
    rgba = np.dstack([array, np.full((height, width), 255, np.uint8)])
    return {"width": width, "height": height, "data": base64.b64encode(rgba.tobytes()).decode()}


def decoded(text: str, dtype: type) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


@pytest.fixture(scope="module")
def resampled(tmp_path_factory):
    """(photograph, filter, size) → RGB as the browser makes it; all in one process."""
    keys = [(name, flt, size) for name in PHOTOGRAPHS for flt in image.FILTERS for size in SIZES]
    cases = [{"image": name, "filter": flt, "width": w, "height": h} for name, flt, (w, h) in keys]
    images = {name: pixels(array) for name, array in PHOTOGRAPHS.items()}
    folder = tmp_path_factory.mktemp("resample")
    results = run(folder, RESAMPLE, {"images": images, "cases": cases})
    return {
        key: decoded(text, np.uint8).reshape(key[2][1], key[2][0], 4)[..., :3].astype(int)
        for key, text in zip(keys, results, strict=True)
    }


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("flt", image.FILTERS)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_pixels_are_pillows(resampled, name, flt, size):
    wanted = Image.fromarray(PHOTOGRAPHS[name]).resize(size, image.FILTERS[flt])
    difference = np.abs(resampled[name, flt, size] - np.asarray(wanted))
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 1e-3


def test_a_region_is_a_crop_of_the_whole(tmp_path):
    region = {"x": 58, "y": 16, "width": 224, "height": 224}
    case = {"image": "cat", "filter": "bicubic", "width": 385, "height": 256}
    job = {
        "images": {"cat": pixels(PHOTOGRAPHS["cat"])},
        "cases": [case, case | {"region": region}],
    }
    whole, part = (decoded(text, np.uint8) for text in run(tmp_path, RESAMPLE, job))
    whole = whole.reshape(256, 385, 4)[16:240, 58:282]
    np.testing.assert_array_equal(whole, part.reshape(224, 224, 4))


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "rescale": 1 / 255}


@pytest.mark.parametrize("name", ["astronaut", "cat", "tall"])
def test_tensors_are_those_of_python(tmp_path, name):
    shortest = {"resize": {"shortest": 256, "resample": "bicubic"}, "crop": [224, 224]}
    settings = [
        shortest | IMAGENET | {"layout": "NCHW"},
        {"resize": {"size": [190, 211], "resample": "bilinear"}, "layout": "NHWC"} | IMAGENET,
        # one channel: grey
        shortest | {"mean": [0.0], "std": [1.0], "rescale": 1.0, "layout": "NCHW"},
    ]
    job = {"image": pixels(PHOTOGRAPHS[name]), "settings": settings}
    for setting, result in zip(settings, run(tmp_path, PREPARE, job), strict=True):
        wanted = image.prepare(Image.fromarray(PHOTOGRAPHS[name]), setting)
        assert tuple(result["shape"]) == wanted.shape
        got = decoded(result["data"], np.float32).reshape(wanted.shape)
        step = setting["rescale"] / min(setting["std"])  # one of 255
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1.01 * step)
        assert np.mean(np.abs(got - wanted) > 1e-5) < 1e-3
