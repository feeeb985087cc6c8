"""Tokenizers as models publish them: the browser's ids are those of `tokenizers`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.unit import smollm
from tests.unit.test_generation_tokens import SPECIAL, compare
from tests.unit.test_gguf_tokenizer import CORPUS, sentence_piece
from tests.unit.test_tasks_text import strange_texts
from webkiln.frontends.gguf_tokenizer import tokenizer_from_gguf
from webkiln.frontends.tokenizer_json import portable

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES = GPT2 | {"use_regex": False}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    (
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
)


def sequence(*steps: dict) -> dict:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(pattern: str) -> dict:
    regex = {"Regex": pattern}
    return {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}


def byte_level(pre_tokenizer: dict, normalizer: dict | None = None, **model: Any) -> dict:
    document = json.loads(smollm.tokenizer().tokenizer_json)
    own = {"pre_tokenizer": pre_tokenizer, "normalizer": normalizer}
    return document | own | {"model": document["model"] | model}


def pieces(pre_tokenizer: dict | None, normalizer: dict | None = None) -> dict:
    document = json.loads(tokenizer_from_gguf(sentence_piece()).tokenizer_json)
    return document | {"pre_tokenizer": pre_tokenizer, "normalizer": normalizer}


SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
WORDS = {
    "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False
}  # fmt: skip
DIGITS = {"type": "Digits", "individual_digits": True}
# Made when a test asks: what a module makes, every test process makes before its first test.
LIKE = {
    "gpt-2": lambda: byte_level(GPT2),
    "gpt-2 with a space before": lambda: byte_level(GPT2 | {"add_prefix_space": True}),
    "smollm": lambda: byte_level(sequence(DIGITS, GPT2)),
    "numbers apart": lambda: byte_level(sequence(DIGITS | {"individual_digits": False}, GPT2)),
    "llama 3": lambda: byte_level(sequence(split(LLAMA3), BYTES), ignore_merges=True),
    "qwen": lambda: byte_level(
        sequence(split(LLAMA3.replace("{1,3}", "")), BYTES), {"type": "NFC"}
    ),
    "deepseek": lambda: byte_level(sequence(*map(split, DEEPSEEK), BYTES)),
    "gemma": lambda: pieces(WORDS, SPACES),
    "mistral": lambda: pieces(METASPACE | {"split": False}),
    "metaspace": lambda: pieces(METASPACE),
    "metaspace always": lambda: pieces(METASPACE | {"prepend_scheme": "always", "split": True}),
    "metaspace never": lambda: pieces(sequence(METASPACE | {"prepend_scheme": "never"})),
}
SAID_DIFFERENTLY = {"smollm", "numbers apart", "metaspace", "metaspace always", "metaspace never"}


TEXTS = [*CORPUS, *SPECIAL, *strange_texts(100)]


@pytest.mark.parametrize("kind", LIKE)
def test_ids_stay(kind):
    published = json.dumps(LIKE[kind]()).encode()
    content = portable(published)
    assert (content != published) == (kind in SAID_DIFFERENTLY)
    before, after = (Tokenizer.from_buffer(each) for each in (published, content))
    for text in TEXTS:
        assert after.encode(text).ids == before.encode(text).ids, text


def test_ids_are_the_browsers(tmp_path):
    made = [portable(json.dumps(make()).encode()) for make in LIKE.values()]
    compare(tmp_path, made, TEXTS, marks=False)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"{}", b'{"pre_tokenizer": 3}'])
def test_what_is_no_tokenizer_is_left_alone(content):
    assert portable(content) == content


def test_loading_a_folder_makes_its_tokenizer_portable(tmp_path):
    from webkiln import frontends
    from webkiln.frontends import load

    document = json.dumps(LIKE["smollm"]()).encode()

    def folder(path, context):
        return frontends.Source(None, "x", assets={"tokenizer.json": document})

    with pytest.MonkeyPatch.context() as patch:
        import webkiln.frontends.folder as module

        patch.setattr(module, "load_folder", folder)
        found = load(tmp_path)
    assert found.assets["tokenizer.json"] == portable(document) != document
