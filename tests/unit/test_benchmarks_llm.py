"""The language-model benchmark: its peers' models say what the file says, its tables have all."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

from benchmarks import llm, llm_report
from benchmarks.llm_onnx import ORT_TYPES, onnx_model
from benchmarks.stats import ratio, summarize
from tests.unit import smollm
from tests.unit.test_smollm2 import cosines, reference

QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


class _Peer:
    """onnx_model in ONNX Runtime, run as pages/llm.js runs it."""

    def __init__(self, kind: str) -> None:
        data = ir.serde.serialize_model(onnx_model(kind)).SerializeToString()
        self.session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]
        self.past = {
            i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32)
            for i in self.session.get_inputs()
            if i.name.startswith("past.")
        }
        self.length = 0

    def logits(self, ids: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """After `ids`, which follow those of earlier calls."""
        self.length += len(ids)
        feeds = {
            "input_ids": np.array([ids]),
            "seqlens_k": np.array([self.length - 1], np.int32),
            "total_sequence_length": np.array(self.length, np.int32),
        }
        found = dict(zip(self.names, self.session.run(None, feeds | self.past), strict=True))
        logits = found.pop("logits")
        self.past = {name.replace("present", "past"): value for name, value in found.items()}
        return np.asarray(logits[0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ORT_TYPES)
def test_onnx_model_knows_the_capital_of_france(kind: str) -> None:
    tokenizer, peer = Tokenizer.from_buffer(smollm.tokenizer().tokenizer_json), _Peer(kind)
    ids, answer = tokenizer.encode(QUESTION, add_special_tokens=False).ids, []
    for _ in range(6):
        ids = [int(peer.logits(ids).argmax())]
        answer += ids
    assert tokenizer.decode(answer) == "The capital of France is Paris"


@pytest.mark.slow
def test_4_bit_onnx_model_has_the_weights_of_the_file() -> None:
    ids = list(range(1000, 1024))
    peer, wanted = _Peer("4-bit"), reference()(ids)
    found = np.stack([peer.logits(ids[:20]), *(peer.logits([token]) for token in ids[20:])])
    assert cosines(found, wanted[19:]).min() > 0.999999


def test_every_peer_is_in_a_place_of_wasm() -> None:
    names = list(llm._engines("wasm"))
    assert names[0] == "webkiln"  # the page takes its tokenizer for those that follow
    assert names[-2:] == ["onnxruntime-web 4-bit", "onnxruntime-web int8"]
    assert sum(name.startswith("wllama") for name in names) == 3


def _entry(prefill: float, decode: float, **more: Any) -> dict[str, Any]:
    speeds = {"prefill": prefill, "decode": decode}
    return {name: summarize([speed]).to_json() for name, speed in speeds.items()} | more


def test_tables_name_every_peer_and_its_ratio() -> None:
    ratios = {
        "prefill_ratio": ratio([2.0], [1.0]).to_json(),
        "decode_ratio": ratio([60.0], [4.0]).to_json(),
    }
    engines = {
        "webkiln": _entry(150, 60),
        "onnxruntime-web 4-bit": _entry(75, 4, **ratios),
        "wllama Q4_1": _entry(15, 10, places=["CPU"], **ratios),
    }
    at = {"device": "webgpu", "threads": 1}
    results = {
        "environment": {
            "date": "2026-01-02T03:04:05+00:00",
            "webkiln": "0.1.0",
            "commit": "abc",
            "wllama": "3.8.1",
            "onnxruntime-web": "1.30.0",
            "chromium": "156",
            "cpu": "CPU",
            "cores": 2,
            "load_average": 0.1,
        },
        "places": [{"place": "webgpu", **at, "engines": engines}],
        "threads": {
            "2 threads": _entry(300, 90),
            "1 thread": _entry(
                200, 60, prefill_ratio={"median": 1.5}, decode_ratio={"median": 1.6}
            ),
        },
        "second_visit": {"first_ms": 1500.0, "summary": summarize([1000.0]).to_json()},
        "native": {
            "prefill_per_s": 124.0,
            "decode_per_s": 77.0,
            "bytes_a_token": 99e6,
            "bandwidth": 15.4e9,
            "floor_ms": 6.4,
            "decode_ms": 13.0,
        },
    }
    text = llm_report.render(results)
    assert "wllama 3.8.1, onnxruntime-web 1.30.0, Chromium 156" in text
    row = "| onnxruntime-web 4-bit | 75.0 [75.0–75.0] | 4.0 [4.0–4.0] | **2.0×** | **15.0×** |"
    assert row in text
    assert "wllama Q4_1, in truth on the CPU" in text
    assert "decode 90.0 [90.0–90.0] and 60.0 [60.0–60.0], 1.60×" in text
