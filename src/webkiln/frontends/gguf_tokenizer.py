"""The tokenizer inside a GGUF file → tokenizer.json, as Hugging Face's libraries read it.

GGUF stores a tokenizer as lists (tokens, scores, types, merges) and two names: which algorithm, and
which pre-tokenizer. `tokenizer_from_gguf` spells them out. Patterns are written so that
Oniguruma's and JavaScript's regular expressions agree on them: white space and ignored case, on
which they do not, are written out.

Sources: the GGUF specification (ggml, docs/gguf.md), the tokenizer.json of the models that each
pre-tokenizer is named after.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from tokenizers import Tokenizer

from webkiln.errors import InvalidModelError, UnsupportedModelError

__all__ = ["PRE_TOKENIZERS", "GgufTokenizer", "tokenizer_from_gguf"]

Json = dict[str, Any]


@dataclass(frozen=True)
class GgufTokenizer:
    """What a GGUF file says of text: how it becomes token ids, and what a conversation looks like.

    `tokens` are the special tokens' texts by role (bos, eos, unk, pad); `eos_ids` every token that
    ends an answer. `tokenizer_json` adds no special tokens by itself: `add_bos` says whether the
    model wants `bos` before a text.
    """

    tokenizer_json: bytes
    tokens: dict[str, str]
    eos_ids: list[int]
    bos_id: int | None
    add_bos: bool
    chat_template: str | None


class TokenType(IntEnum):
    """``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# The code points that Unicode calls white space. JavaScript's \s has U+FEFF too and lacks U+0085.
_SPACE = "\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

# (?i:'s|'t|'re|'ve|'m|'ll|'d); ſ is s to Unicode's case folding.
_SUFFIX_ANY_CASE = "'[sSſ]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"

_GPT2 = (
    rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^{_SPACE}\p{{L}}\p{{N}}]+"
    rf"|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
)


def _gpt4(number: str) -> str:
    """The pattern of Llama 3 and Qwen 2, which differ in how many digits stay together."""
    return (
        rf"{_SUFFIX_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{number}"
        rf"| ?[^{_SPACE}\p{{L}}\p{{N}}]+[\r\n]*|[{_SPACE}]*[\r\n]+"
        rf"|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    )


@dataclass(frozen=True)
class _PreTokenizer:
    """How text is cut before byte-pair encoding: by each pattern in turn, matches apart."""

    patterns: tuple[str, ...]
    normalizer: str | None = None
    add_bos: bool = False
    # A piece that is a token as a whole is not merged from its parts.
    ignore_merges: bool = False


_LLAMA3 = _PreTokenizer((_gpt4(r"\p{N}{1,3}"),), add_bos=True, ignore_merges=True)
_QWEN2 = _PreTokenizer((_gpt4(r"\p{N}"),), normalizer="NFC")
_PLAIN = _PreTokenizer((_GPT2,))
_DIGITS = _PreTokenizer((r"\p{N}", _GPT2))
_DEFAULT = _PreTokenizer((r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))

# By the name in tokenizer.ggml.pre.
PRE_TOKENIZERS = {
    "default": _DEFAULT,
    "gpt-2": _PLAIN,
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "olmo": _PLAIN,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
}

# Control tokens that end an answer by what they are called; files often name only one of them.
_ENDS = {
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
    "<|end_of_text|>", "</s>", "<eos>",
}  # fmt: skip

_GGML = "tokenizer.ggml."


def tokenizer_from_gguf(source: Any) -> GgufTokenizer:
    """The tokenizer of a GGUF file.

    `source` is a `gguf.GGUFReader`, its `fields`, or the metadata as plain values by key.

    Raises `UnsupportedModelError` for an algorithm or pre-tokenizer that is not known (named, with
    those that are), `InvalidModelError` for lists that are missing or contradict each other.
    """
    metadata = _Metadata(source)
    algorithm = metadata.get("model")
    if algorithm is None:
        raise InvalidModelError("the GGUF file has no tokenizer", hint="convert the model again")
    lists = _Lists.read(metadata)
    if algorithm == "gpt2":
        document, add_bos = _byte_level(metadata, lists)
    elif algorithm == "llama":
        document, add_bos = _sentence_piece(metadata, lists)
    else:
        raise UnsupportedModelError(
            f"the GGUF file's tokenizer is {algorithm!r}, which is not supported",
            hint="supported: gpt2 (byte-level BPE) and llama (SentencePiece BPE)",
        )
    content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    try:
        Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises plain Exception
        raise InvalidModelError(
            f"the GGUF file's tokenizer is broken: {error}", hint="download it again"
        ) from None
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {role: metadata.token_id(key, lists.tokens) for role, key in roles.items()}
    return GgufTokenizer(
        tokenizer_json=content,
        tokens={role: lists.tokens[index] for role, index in ids.items() if index is not None},
        eos_ids=_eos_ids(metadata, lists, ids["eos"]),
        bos_id=ids["bos"],
        add_bos=bool(metadata.get("add_bos_token", add_bos)) and ids["bos"] is not None,
        chat_template=metadata.chat_template(),
    )


class _Metadata:
    """The metadata under ``tokenizer.``, whichever form it came in."""

    def __init__(self, source: Any) -> None:
        self._fields: Mapping[str, Any] = getattr(source, "fields", source)

    def _value(self, key: str) -> Any:
        value: Any = self._fields.get(key)
        return value.contents() if hasattr(value, "contents") else value

    def get(self, key: str, default: Any = None) -> Any:
        value = self._value(_GGML + key)
        return default if value is None else value

    def chat_template(self) -> str | None:
        template = self._value("tokenizer.chat_template")
        return template if isinstance(template, str) and template.strip() else None

    def token_id(self, role: str, tokens: Sequence[str]) -> int | None:
        index = self.get(f"{role}_token_id")
        if index is None:
            return None
        if not 0 <= int(index) < len(tokens):
            raise InvalidModelError(
                f"{_GGML}{role}_token_id is {index}, but there are {len(tokens)} tokens",
                hint="convert the model to GGUF again",
            )
        return int(index)


@dataclass(frozen=True)
class _Lists:
    tokens: list[str]
    types: list[int]

    @classmethod
    def read(cls, metadata: _Metadata) -> _Lists:
        tokens = metadata.get("tokens")
        if not tokens:
            raise InvalidModelError(
                f"the GGUF file has no {_GGML}tokens", hint="convert the model to GGUF again"
            )
        types = metadata.get("token_type") or [TokenType.NORMAL] * len(tokens)
        if len(types) != len(tokens):
            raise InvalidModelError(
                f"the GGUF file has {len(tokens)} tokens, but types of {len(types)}",
                hint="download it again",
            )
        return cls(list(tokens), [int(kind) for kind in types])

    def of_type(self, *kinds: int) -> Iterable[tuple[int, str, int]]:
        for index, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True)):
            if kind in kinds:
                yield index, token, kind

    def vocabulary(self) -> dict[str, int]:
        """Ids by token; of a token that is listed twice, the first."""
        vocabulary: dict[str, int] = {}
        for index, token in enumerate(self.tokens):
            vocabulary.setdefault(token, index)
        return vocabulary


def _eos_ids(metadata: _Metadata, lists: _Lists, eos: int | None) -> list[int]:
    """`eos` first, then what ends a turn or a message, then those known by their name."""
    named = [metadata.token_id(role, lists.tokens) for role in ("eot", "eom")]
    by_text = [index for index, token, _ in lists.of_type(TokenType.CONTROL) if token in _ENDS]
    found = (index for index in (eos, *named, *by_text) if index is not None)
    return list(dict.fromkeys(found))


def _byte_level(metadata: _Metadata, lists: _Lists) -> tuple[Json, bool]:
    """Byte-level BPE, as in GPT-2: tokens are bytes written as printable letters."""
    name = metadata.get("pre", "default")
    if name not in PRE_TOKENIZERS:
        raise UnsupportedModelError(
            f"the GGUF file's pre-tokenizer is {name!r}, which is not supported",
            hint=f"supported: {', '.join(PRE_TOKENIZERS)}",
        )
    pre = PRE_TOKENIZERS[name]
    merges = metadata.get("merges")
    if merges is None:
        raise InvalidModelError(
            f"the GGUF file has no {_GGML}merges", hint="convert the model to GGUF again"
        )
    splits = [
        {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
        for p in pre.patterns
    ]
    # Bytes only: cutting is done above.
    level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    byte_level = {"type": "ByteLevel", **level}
    document = _document(
        lists,
        normalizer={"type": pre.normalizer} if pre.normalizer else None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        decoder=byte_level,
        # Only tokens with a space inside can't be told from the space between the two.
        model=_bpe(
            lists.vocabulary(),
            [merge.split(" ", 1) for merge in merges],
            ignore_merges=pre.ignore_merges,
        ),
    )
    return document, pre.add_bos


def _sentence_piece(metadata: _Metadata, lists: _Lists) -> tuple[Json, bool]:
    """SentencePiece's BPE: pieces with scores, ▁ for a space, bytes for what has no piece."""
    scores = metadata.get("scores")
    if scores is None or len(scores) != len(lists.tokens):
        raise InvalidModelError(
            f"the GGUF file has {len(lists.tokens)} tokens, but scores of {len(scores or ())}",
            hint="convert the model to GGUF again",
        )
    unknown = metadata.token_id("unknown", lists.tokens)
    if unknown is None:
        unknown = next((i for i, _, _ in lists.of_type(TokenType.UNKNOWN)), None)
    prefix = bool(metadata.get("add_space_prefix", True))
    steps: list[Json] = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    decoders: list[Json] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    document = _document(
        lists,
        normalizer={"type": "Sequence", "normalizers": steps},
        pre_tokenizer=None,
        decoder={"type": "Sequence", "decoders": decoders},
        model=_bpe(
            lists.vocabulary(),
            _merges_of_scores(lists, scores),
            unk_token=None if unknown is None else lists.tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        ),
    )
    return document, True


def _merges_of_scores(lists: _Lists, scores: Sequence[float]) -> list[list[str]]:
    """The merges that SentencePiece's scores stand for, first the one that is done first.

    SentencePiece joins the two neighbours whose union scores best; so each way to cut a piece in
    two is a merge, ranked by the piece's score.
    """
    ids = {t: i for i, t, _ in lists.of_type(TokenType.NORMAL, TokenType.UNUSED)}
    found: list[tuple[float, int, int, str, str]] = []
    for piece, index in ids.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                found.append((-float(scores[index]), ids[left], ids[right], left, right))
    return [[left, right] for *_, left, right in sorted(found)]


def _bpe(
    vocabulary: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    *,
    unk_token: str | None = None,
    fuse_unk: bool = False,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> Json:
    return {
        "type": "BPE", "dropout": None, "unk_token": unk_token,
        "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": fuse_unk, "byte_fallback": byte_fallback, "ignore_merges": ignore_merges,
        "vocab": vocabulary, "merges": merges,
    }  # fmt: skip


def _document(
    lists: _Lists,
    *,
    normalizer: Json | None,
    pre_tokenizer: Json | None,
    decoder: Json,
    model: Json,
) -> Json:
    """A tokenizer.json. Control tokens are special: they are left out of what people read."""
    special = (TokenType.CONTROL, TokenType.UNKNOWN)
    added = [
        {
            "id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": kind in special,
        }
        for index, token, kind in lists.of_type(*special, TokenType.USER_DEFINED)
        if token
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": None,
        "decoder": decoder, "model": model,
    }  # fmt: skip
