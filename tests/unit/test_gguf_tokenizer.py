"""Tokenizers out of GGUF metadata: SmolLM2's own, and small ones of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.unit import smollm
from webkiln.errors import InvalidModelError, UnsupportedModelError
from webkiln.frontends.gguf_tokenizer import PRE_TOKENIZERS, tokenizer_from_gguf

CORPUS = json.loads((Path(__file__).parents[1] / "data/tokenizer_corpus.json").read_text("utf-8"))


def byte_letters() -> dict[int, str]:
    """The letters that byte-level tokens are written in (GPT-2's encoder.py)."""
    kept = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in kept]
    return {b: chr(b) for b in kept} | {b: chr(256 + k) for k, b in enumerate(rest)}


def byte_level(pre: str | None = "gpt-2", **changes) -> dict:
    """Every byte, a few merges, two control tokens and one that a user defined."""
    letters = byte_letters()
    merges = ["h e", "l l", "he ll", "hell o", "Ġ hello", "1 2", "12 3", "Ġ Ġ"]
    tokens = [*letters.values(), *(merge.replace(" ", "") for merge in merges)]
    types = [1] * len(tokens) + [3, 3, 4]
    tokens += ["<|begin|>", "<|im_end|>", "<custom tag>"]
    fields = {
        "model": "gpt2", "pre": pre, "tokens": tokens, "token_type": types, "merges": merges,
        "bos_token_id": tokens.index("<|begin|>"), "eos_token_id": tokens.index("<|begin|>"),
    }  # fmt: skip
    return {f"tokenizer.ggml.{k}": v for k, v in (fields | changes).items() if v is not None}


def sentence_piece(**changes) -> dict:
    """Bytes, letters, and pieces whose scores say which is made first."""
    scored = {"he": -1.0, "el": -0.5, "lo": -1.5, "▁h": -3.0, "▁hello": -9.0,
              "hello": -4.0, "▁▁": -0.1}  # fmt: skip
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [2, 3, 3] + [6] * 256
    scores = [0.0] * len(tokens)
    for piece in [*"helo▁ab", *scored]:
        tokens.append(piece)
        types.append(1)
        scores.append(scored.get(piece, -100.0))
    fields = {
        "model": "llama", "tokens": tokens, "token_type": types, "scores": scores,
        "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0,
    }  # fmt: skip
    return {f"tokenizer.ggml.{k}": v for k, v in (fields | changes).items() if v is not None}


def read(metadata: dict) -> Tokenizer:
    return Tokenizer.from_buffer(tokenizer_from_gguf(metadata).tokenizer_json)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.encode(text, add_special_tokens=False).tokens


def test_smollm2_knows_its_own_ids():
    """Ids as transformers gives them for HuggingFaceTB/SmolLM2-135M-Instruct."""
    found = smollm.tokenizer()
    assert found.tokens == {
        "bos": "<|im_start|>", "eos": "<|im_end|>", "unk": "<|endoftext|>", "pad": "<|im_end|>"
    }  # fmt: skip
    assert found.eos_ids == [2, 0]
    assert (found.bos_id, found.add_bos) == (1, False)
    tokenizer = Tokenizer.from_buffer(found.tokenizer_json)
    assert tokenizer.get_vocab_size() == 49152
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    prompt = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nHello world! 123"
    expected = [
        1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411,
        407, 19712, 8182, 2, 198, 1, 4093, 198, 19556, 905, 17, 216, 33, 34, 35,
    ]  # fmt: skip
    assert tokenizer.encode(prompt).ids == expected


@pytest.mark.parametrize("text", CORPUS)
def test_smollm2_gives_back_what_it_read(text):
    tokenizer = Tokenizer.from_buffer(smollm.tokenizer().tokenizer_json)
    ids = tokenizer.encode(text).ids
    # Its vocabulary lacks 21 bytes, of which the corpus has this one.
    assert tokenizer.decode(ids, skip_special_tokens=False) == text.replace("\x1d", "")


@pytest.mark.parametrize("pre", [*PRE_TOKENIZERS, None])
def test_every_pre_tokenizer_gives_back_what_it_read(pre):
    tokenizer = read(byte_level(pre))
    for text in CORPUS:
        ids = tokenizer.encode(text).ids
        expected = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        assert tokenizer.decode(ids, skip_special_tokens=False) == expected


def cuts(pre: str, text: str) -> list[str]:
    """Where a pre-tokenizer cuts `text` (of ASCII)."""
    found = read(byte_level(pre)).pre_tokenizer.pre_tokenize_str(text)
    return [piece.replace("Ġ", " ").replace("Ċ", "\n").replace("ĉ", "\t") for piece, _ in found]


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("gpt-2", "We've 1234  x\n\ny!?", ["We", "'ve", " 1234", " ", " x", "\n", "\n", "y", "!?"]),
        ("gpt-2", "WE'VE", ["WE", "'", "VE"]),
        ("smollm", "a 123 b", ["a", " ", "1", "2", "3", " b"]),
        ("default", "x=12345", ["x", "=", "123", "45"]),
        ("llama-bpe", "WE'VE 12345\n\n a", ["WE", "'VE", " ", "123", "45", "\n\n", " a"]),
        ("qwen2", "WE'VE 123 (x)\n", ["WE", "'VE", " ", "1", "2", "3", " (", "x", ")\n"]),
    ],
)  # fmt: skip
def test_pre_tokenizers_cut_where_their_models_did(pre, text, expected):
    assert cuts(pre, text) == expected


GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("pre", "reference"),
    [
        # As the models' own tokenizer.json spell them.
        ("gpt-2", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
        ("llama-bpe", GPT4.replace("NUMBER", r"\p{N}{1,3}")),
        ("qwen2", GPT4.replace("NUMBER", r"\p{N}")),
    ],
)
def test_portable_patterns_cut_like_the_originals(pre, reference):
    from tokenizers import Regex, pre_tokenizers

    original = pre_tokenizers.Split(Regex(reference), "isolated")
    pattern = json.loads(read(byte_level(pre)).to_str())["pre_tokenizer"]["pretokenizers"][0]
    portable = pre_tokenizers.Split(Regex(pattern["pattern"]["Regex"]), "isolated")
    for text in CORPUS:
        assert portable.pre_tokenize_str(text) == original.pre_tokenize_str(text)


def test_byte_level_merges_and_added_tokens():
    tokenizer = read(byte_level())
    assert pieces(tokenizer, "hello hello 123") == ["hello", "Ġhello", "Ġ", "123"]
    assert pieces(tokenizer, "he<custom tag>he<|im_end|>") == [
        "he", "<custom tag>", "he", "<|im_end|>"
    ]  # fmt: skip
    ids = tokenizer.encode("he<custom tag><|im_end|>").ids
    assert tokenizer.decode(ids) == "he<custom tag>"  # control tokens are left out


def test_a_piece_that_is_a_token_is_not_merged_in_llama_3():
    changed = byte_level("llama-bpe")
    # "123" can't be made from its parts without the first merge.
    changed["tokenizer.ggml.merges"].remove("1 2")
    changed["tokenizer.ggml.merges"].remove("12 3")
    assert pieces(read(changed), "123") == ["123"]
    assert pieces(read(changed | {"tokenizer.ggml.pre": "gpt-2"}), "123") == ["1", "2", "3"]


def test_sentence_piece_merges_by_score():
    tokenizer = read(sentence_piece())
    # "el" joins before "he": what is left of "helo" has no piece
    assert pieces(tokenizer, " helo") == ["▁▁", "h", "el", "o"]
    assert pieces(tokenizer, "lo") == ["▁", "lo"]


def test_sentence_piece_bytes_prefix_and_decoding():
    tokenizer = read(sentence_piece())
    assert pieces(tokenizer, "aé") == ["▁", "a", "<0xC3>", "<0xA9>"]
    for text in ["a b", " a", "é😀\n", "ab  ab"]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    bare = read(sentence_piece(add_space_prefix=False))  # as in Gemma 3
    assert pieces(bare, "a b") == ["a", "▁", "b"]
    assert bare.decode(bare.encode(" a").ids) == " a"


def test_ends_and_beginnings():
    found = tokenizer_from_gguf(byte_level())
    begin = found.bos_id
    assert found.eos_ids == [begin, begin + 1]  # <|im_end|> by its name
    custom = tokenizer_from_gguf(byte_level(eot_token_id=5, eom_token_id=6))
    assert custom.eos_ids[:3] == [begin, 5, 6]
    assert not found.add_bos
    assert tokenizer_from_gguf(byte_level("llama-bpe")).add_bos
    assert not tokenizer_from_gguf(byte_level("llama-bpe", add_bos_token=False)).add_bos
    assert tokenizer_from_gguf(sentence_piece()).add_bos
    none = tokenizer_from_gguf(sentence_piece(bos_token_id=None))
    assert (none.bos_id, none.add_bos) == (None, False)
    assert none.chat_template is None
    said = byte_level() | {"tokenizer.chat_template": "{{ messages }}"}
    assert tokenizer_from_gguf(said).chat_template == "{{ messages }}"


@pytest.mark.parametrize(
    ("metadata", "error", "says"),
    [
        ({}, InvalidModelError, "no tokenizer"),
        ({"tokenizer.ggml.model": "gpt2"}, InvalidModelError, "tokens"),
        (byte_level(model="bert"), UnsupportedModelError, "'bert'.*gpt2"),
        (byte_level("klingon"), UnsupportedModelError, "'klingon'.*smollm"),
        (byte_level(merges=None), InvalidModelError, "merges"),
        (byte_level(merges=["no such"]), InvalidModelError, "broken"),
        (byte_level(merges=["one"]), InvalidModelError, "broken"),
        (byte_level(token_type=[1]), InvalidModelError, "types of 1"),
        (byte_level(bos_token_id=9999), InvalidModelError, "bos_token_id is 9999"),
        (sentence_piece(scores=[0.0]), InvalidModelError, "scores of 1"),
    ],
)
def test_what_is_wrong_is_named(metadata, error, says):
    with pytest.raises(error, match=f"(?s){says}"):
        tokenizer_from_gguf(metadata)
