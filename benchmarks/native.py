"""The yardstick: the bundle's own wasm in wasmtime, and how far its decoding is from memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from webkiln.bundle import Bundle

__all__ = ["bandwidth", "native"]

_STEPS = 32


def native(folder: Path, prompt_tokens: int) -> dict[str, Any]:
    """Tokens a second of decoding and prefill in wasmtime, and the bytes that a token reads."""
    bundle = Bundle.load(folder)
    model = bundle.language_model
    ids = [7919 * i % 40000 + 100 for i in range(prompt_tokens)]
    model.logits(ids)  # once for the engine's sake
    model.reset()
    start = time.perf_counter()
    model.logits(ids)
    prefill = time.perf_counter() - start
    start = time.perf_counter()
    for k in range(_STEPS):
        ids.append(1000 + k)
        model.logits(ids)
    decode = (time.perf_counter() - start) / _STEPS
    # Every weight is read for every token: the embeddings, of which one row counts, are the head.
    weights = bundle.plan["weights"]["bytes"]
    speed = bandwidth()
    return {
        "prefill_per_s": prompt_tokens / prefill,
        "decode_per_s": 1 / decode,
        "bytes_a_token": weights,
        "bandwidth": speed,
        "floor_ms": 1000 * weights / speed,
        "decode_ms": 1000 * decode,
    }


def bandwidth() -> float:
    """Bytes a second that one thread reads from main memory: the best of several sums."""
    data = np.ones(64 << 20, np.float32)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        data.max()
        best = max(best, data.nbytes / (time.perf_counter() - start))
    return best
