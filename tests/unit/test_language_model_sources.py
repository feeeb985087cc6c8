"""Language models as folders and exports, built and run: logits of the original, text out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.language_models import decode_with_past, export
from tests.shared import variants_that_run
from tests.unit.causal_lm_folders import BASE, logits, write_folder
from tests.unit.test_causal_lm import config_of
from webkiln import compile as compiler
from webkiln import frontends
from webkiln.bundle import Bundle

pytestmark = pytest.mark.slow  # each builds a bundle

CONTEXT, CHUNK = 24, 4
IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


def built(folder, quantize: str = "f32", activations: str = "f32") -> Bundle:
    source = frontends.load(folder, context=CONTEXT)
    source.config["generation"]["chunk"] = CHUNK
    source.config["max"] = {"sequence": CHUNK}
    with variants_that_run(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler.page, "render", lambda *_: {})
        return compiler.compile_model(
            source, targets=("wasm",), quantize=quantize, activations=activations
        )


def rows(bundle: Bundle) -> np.ndarray:
    """Logits after each prefix, long ones first: prefill in chunks, then cut-off caches."""
    model = bundle.language_model
    return np.array([model.logits(IDS[: n + 1]) for n in reversed(range(len(IDS)))])[::-1]


@pytest.mark.parametrize("form", ["optimum", "genai"])
def test_exports_with_a_past(tmp_path, form):
    write_folder(tmp_path, {**BASE, "model_type": "llama"})
    (tmp_path / "model.safetensors").unlink()
    original = export(form)
    onnx.save(original, tmp_path / "model.onnx")
    bundle = built(tmp_path)
    (expected,) = decode_with_past(original, [IDS])
    np.testing.assert_allclose(rows(bundle), expected[0], rtol=2e-3, atol=2e-4)
    assert all(check.ok for check in bundle.check())
    assert bundle.plan["task"]["generation"]["context"] == CONTEXT
    assert isinstance(bundle.generate("a", max_tokens=3), str)


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text"])
def test_folders_of_weights(tmp_path, family):
    config = config_of(family)
    weights = write_folder(tmp_path, config)
    bundle = built(tmp_path)
    np.testing.assert_allclose(rows(bundle), logits(config, weights, IDS), rtol=2e-3, atol=2e-4)
    assert isinstance(bundle.generate("a", max_tokens=3), str)


@pytest.mark.parametrize(("quantize", "least"), [("q8", 0.999), ("q4", 0.97)])
def test_folders_of_weights_quantised(tmp_path, quantize, least):
    config = {**BASE, "model_type": "llama"}
    weights = write_folder(tmp_path, config)
    found, expected = rows(built(tmp_path, quantize)), logits(config, weights, IDS)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(axis=1) / norms).min() > least
