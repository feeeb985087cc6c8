"""A tiny Llama with random weights and a byte-level tokenizer, built into a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit import tiny_gguf
from tests.unit.fake_llm import TEMPLATE
from tests.unit.test_gguf_tokenizer import byte_letters
from webkiln import compile as compiler
from webkiln import frontends
from webkiln.bundle import Bundle

CONTEXT, CHUNK = 192, 8
BEGIN, END = 257, 258  # after the bytes and one merge
METADATA = {
    "llama.context_length": CONTEXT,
    "general.sampling.temp": 0.5,
    "general.sampling.top_k": 20,
    "general.sampling.top_p": 1.5,  # impossible
    "tokenizer.ggml.tokens": [*byte_letters().values(), "he", "<|begin|>", "<|im_end|>"],
    "tokenizer.ggml.token_type": [1] * 257 + [3, 3],
    "tokenizer.ggml.merges": ["h e"],
    "tokenizer.ggml.bos_token_id": BEGIN,
    "tokenizer.ggml.eos_token_id": END,
    "tokenizer.chat_template": TEMPLATE,
}
TINY = tiny_gguf.Tiny("llama", permuted=True, metadata=METADATA)


def weights() -> dict[str, np.ndarray]:
    return tiny_gguf.weights(TINY).floats


def build(folder: Path, targets: tuple[str, ...] = ("wasm",)) -> Bundle:
    """The bundle, without the page."""
    pytest.importorskip("gguf")
    path = tiny_gguf.write(folder / "tiny.gguf", TINY, tiny_gguf.weights(TINY))
    source = frontends.load(path)
    source.config["generation"]["chunk"] = CHUNK  # so that short prompts have several
    source.config["max"] = {"sequence": CHUNK}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler.page, "render", lambda *_: {})
        return compiler.compile_model(source, targets=targets)
