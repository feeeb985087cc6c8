"""A language model without weights: what it says is a function of what its cache holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.unit.test_gguf_tokenizer import byte_level
from webkiln.frontends.gguf_tokenizer import tokenizer_from_gguf
from webkiln.generation import CausalModel

TEMPLATE = (
    "{% for m in messages %}<|begin|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant: {% endif %}"
)
TOKENIZER = tokenizer_from_gguf(byte_level())
BEGIN, END, _ = range(TOKENIZER.bos_id, TOKENIZER.bos_id + 3)
VOCABULARY = END + 2

Says = Callable[[list[int]], int]


class FakeRunner:
    """Programs over a cache as a bundle has them; `says` gives the token after those in it."""

    def __init__(self, says: Says, context: int = 256, chunk: int = 8) -> None:
        self.says = says
        self.cache = np.full(context, -1)
        self.chunk = chunk
        self.runs: list[tuple[str, int, int]] = []  # program, position, tokens
        self.fail_at: int | None = None

    def __call__(self, program: str, feeds: Mapping[str, Any]) -> dict[str, Any]:
        ids, position = feeds["input_ids"], int(feeds["position"][0])
        assert ids.dtype == np.int64 and feeds["position"].dtype == np.int64
        count = ids.shape[1]
        assert count == 1 if program == "decode" else 1 <= count <= self.chunk
        assert position + count <= len(self.cache)
        self.runs.append((program, position, count))
        if self.fail_at is not None and position + count > self.fail_at:
            self.cache[position : position + count] = -2  # half a run
            raise KeyboardInterrupt
        self.cache[position : position + count] = ids[0]
        held = self.cache[: position + count].tolist()
        assert min(held) >= 0, "the cache is read where nothing was written"
        logits = np.zeros((1, 1, VOCABULARY), np.float32)
        logits[0, 0, self.says(held)] = 10
        return {"logits": logits}


def plan(context: int = 256, chunk: int = 8, **task: Any) -> dict[str, Any]:
    names = ("prefill", "decode")
    return {
        "programs": [{"name": name, "inputs": [{"name": "input_ids"}]} for name in names],
        "task": {
            "name": "text-generation",
            "tokenizer": "tokenizer.json",
            "generation": {
                "context": context, "chunk": chunk, "ids": "input_ids", "position": "position",
                "logits": "logits", "eos": [END], "bos": BEGIN, "add_bos": False,
            },
            "tokens": TOKENIZER.tokens,
            "chat_template": TEMPLATE,
            "sampling": {"temperature": 0},
        } | task,
    }  # fmt: skip


def model(runner: FakeRunner, **task: Any) -> CausalModel:
    files = {"tokenizer.json": TOKENIZER.tokenizer_json}
    return CausalModel(plan(len(runner.cache), runner.chunk, **task), runner, files.__getitem__)


def script(text: bytes | str, after: int | None = None) -> Says:
    """Says these bytes one token each, then ends; `after` so many tokens, or any `assistant: `."""
    data = text.encode() if isinstance(text, str) else text
    vocabulary = model(FakeRunner(lambda _: 0)).vocabulary
    token = {vocabulary.bytes_of(i): i for i in reversed(range(VOCABULARY))}
    opening = vocabulary.encode("assistant: ")

    def says(held: list[int]) -> int:
        start = after
        if start is None:
            ends = [i for i in range(len(held) + 1) if held[:i][-len(opening) :] == opening]
            if not ends:
                return 0  # within the prompt
            start = ends[-1]
        step = len(held) - start
        return token[data[step : step + 1]] if step < len(data) else END

    return says
