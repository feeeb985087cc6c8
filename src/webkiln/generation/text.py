"""Tokens ↔ text: ids of a prompt, and text as an answer grows.

What comes out is made of whole characters, and of nothing that may become a stop text.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tokenizers import Tokenizer

from webkiln.errors import InputError

__all__ = ["StopFilter", "TextStream", "Vocabulary"]

_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


class Vocabulary:
    """A language model's tokenizer: ids of a text, and the bytes that each id stands for."""

    def __init__(self, content: bytes) -> None:
        """`content` is a tokenizer.json."""
        self._tokenizer = Tokenizer.from_buffer(content)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        decoder = json.loads(content).get("decoder")
        self._letters = _byte_letters() if "ByteLevel" in set(_types(decoder)) else None
        self._added = self._tokenizer.get_added_tokens_decoder()
        self.size: int = self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens written out, such as ``<|im_end|>``, become theirs."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens written out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def bytes_of(self, token: int) -> bytes:
        """UTF-8 of the token, maybe a part of a character; of a special token none."""
        added = self._added.get(token)
        if added is not None:
            return b"" if added.special else added.content.encode()
        written: str = self._tokenizer.id_to_token(token) or ""
        if self._letters is not None:
            known = [self._letters.get(letter) for letter in written]
            return written.encode() if None in known else bytes(b for b in known if b is not None)
        byte = _BYTE_TOKEN.fullmatch(written)  # SentencePiece
        return bytes([int(byte[1], 16)]) if byte else written.replace("▁", " ").encode()


def _types(decoder: Any) -> Iterator[str]:
    if decoder:
        yield decoder["type"]
        for part in decoder.get("decoders", []):
            yield from _types(part)


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: those that can't be printed come after the first 256."""
    printable = [b for b in range(256) if 32 < b < 127 or (b > 160 and b != 173)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + k): b for k, b in enumerate(others)}


class TextStream:
    """Bytes → text. A character comes out once its last byte is there."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, data: bytes) -> str:
        """What is complete now."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for half a character."""
        return self._decoder.decode(b"", final=True)


class StopFilter:
    """Ends a text before the first stop text; holds back what may be the beginning of one."""

    def __init__(self, stops: str | Sequence[str] | None) -> None:
        """Raises `InputError` unless `stops` is a text or some, none of them empty."""
        self._stops = [stops] if isinstance(stops, str) else list(stops or [])
        if not all(isinstance(stop, str) and stop for stop in self._stops):
            raise InputError(f"stop should be a text, or a list of texts, but is {stops!r}")
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """What may be shown; nothing more once `stopped`."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        shown = len(text) - self._unsure(text)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """What was held back, when nothing more comes."""
        rest, self._held = self._held, ""
        return rest

    def _unsure(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop text."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
