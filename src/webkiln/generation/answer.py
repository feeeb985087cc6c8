"""Answers: the text that a model generates, piece by piece, and conversations made of them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack, overload

from webkiln.errors import InputError
from webkiln.generation.model import CausalModel, Prompt
from webkiln.generation.sampling import Sampling
from webkiln.generation.text import StopFilter, TextStream

__all__ = ["Answer", "Chat", "Options", "Usage"]


class Options(TypedDict, total=False):
    """How an answer is made. What is left out, or None, is the bundle's own default."""

    max_tokens: int | None
    """Tokens of the answer at most; default until the context is full."""
    temperature: float | None
    """0 to 2; 0 always takes the most likely token."""
    top_k: int | None
    """Only so many of the most likely tokens; 0 means all."""
    top_p: float | None
    """0 to 1: only the most likely tokens that together have this probability."""
    min_p: float | None
    """0 to 1: only tokens at least this fraction as likely as the most likely one."""
    repetition_penalty: float | None
    """Above 0; over 1 makes tokens of prompt and answer less likely."""
    presence_penalty: float | None
    """-2 to 2, taken off the logit of each token that the answer has."""
    frequency_penalty: float | None
    """-2 to 2, taken off for each time that the answer has it."""
    seed: int | None
    """The same seed gives the same answer; default random."""
    stop: str | list[str] | None
    """Texts that end the answer; they are not part of it."""
    chat_template_kwargs: Mapping[str, Any] | None
    """More variables for the chat template, such as ``{"enable_thinking": False}``."""


@dataclass
class Usage:
    """Tokens and seconds of an answer. `cached_tokens` of the prompt did not have to be run."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int = 0
    prefill_seconds: float = 0.0
    """Until the answer's first token."""
    decode_seconds: float = 0.0
    """For the tokens after it."""

    @property
    def prefill_tokens_per_second(self) -> float:
        """Of the tokens that were run."""
        return _rate(self.prompt_tokens - self.cached_tokens, self.prefill_seconds)

    @property
    def decode_tokens_per_second(self) -> float:
        """Of the tokens after the first."""
        return _rate(self.completion_tokens - 1, self.decode_seconds)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 and count > 0 else 0.0


class Answer(Iterator[str]):
    """An answer as it grows: iterate over it for the pieces of its text.

    `text` is what there is so far. At the end `finish_reason` is "stop" (the model ended, or a
    `stop` text came) or "length" (`max_tokens`, or the context is full). To leave early, stop
    iterating: what was generated stays in the cache.
    """

    def __init__(self, model: CausalModel, prompt: Prompt, options: Options) -> None:
        """Raises as `CausalModel.encode`, and `InputError` for an option that is not valid."""
        _check_names(options)
        self._model = model
        seed = {"seed": secrets.randbits(32)}
        self._sampling = Sampling.of(options, model.defaults, seed)
        self._stop = StopFilter(options.get("stop"))
        limit = options.get("max_tokens")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise InputError(f"max_tokens should be a whole number from 1, but is {limit!r}")
        self._ids = model.encode(prompt, options.get("chat_template_kwargs"))
        self._start = len(self._ids)
        room = model.context - self._start + 1  # the last token is said, but not read again
        self._limit = room if limit is None else min(limit, room)
        self.text = ""
        self.finish_reason: Literal["stop", "length"] | None = None
        self.usage = Usage(self._start, model.cached(self._ids))
        self._pieces = self._generate()

    @property
    def tokens(self) -> list[int]:
        """The ids generated so far, with the one that ended the answer."""
        return self._ids[self._start :]

    def __next__(self) -> str:
        piece = next(self._pieces)
        self.text += piece
        return piece

    def _generate(self) -> Iterator[str]:
        stream = TextStream()
        for step in range(self._limit):
            token = self._next_token(step)
            if token in self._model.eos:
                self.finish_reason = "stop"
                break
            piece = self._stop.push(stream.push(self._model.vocabulary.bytes_of(token)))
            if self._stop.stopped:
                self.finish_reason = "stop"
            if piece:
                yield piece
            if self._stop.stopped:
                return
        rest = self._stop.push(stream.flush()) + self._stop.flush()
        self.finish_reason = self.finish_reason or "length"
        if rest:
            yield rest

    def _next_token(self, step: int) -> int:
        began = time.perf_counter()
        token = self._model.choose(self._ids, self._start, self._sampling, step)
        seconds = time.perf_counter() - began
        if step == 0:
            self.usage.prefill_seconds = seconds
        else:
            self.usage.decode_seconds += seconds
        self.usage.completion_tokens += 1
        self._ids.append(token)
        return token


def _check_names(options: Mapping[str, Any]) -> None:
    """Refuses what nobody reads: a misspelt option would be ignored in silence."""
    known = Options.__annotations__
    for name in options:
        if name not in known:
            raise InputError(f"there is no option {name!r}", hint=f"one of {', '.join(known)}")


class Chat:
    """A conversation: it remembers what was said, and only what is new is run."""

    def __init__(
        self, model: CausalModel, system: str | None = None, **options: Unpack[Options]
    ) -> None:
        """`system` says who the model is to be. `options` hold for every answer."""
        _check_names(options)
        self._model, self._options = model, options
        self._said: list[dict[str, Any]] = []
        self._last: Answer | None = None
        if system is not None:
            self._said.append({"role": "system", "content": system})

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What was said so far; of an answer under way, what there is of it."""
        if self._last is None:
            return list(self._said)
        return [*self._said, {"role": "assistant", "content": self._last.text}]

    @overload
    def send(self, text: str, *, stream: Literal[True], **options: Unpack[Options]) -> Answer: ...
    @overload
    def send(
        self, text: str, *, stream: Literal[False] = ..., **options: Unpack[Options]
    ) -> str: ...
    def send(self, text: str, *, stream: bool = False, **options: Unpack[Options]) -> str | Answer:
        """The answer to `text`. `options` come before the conversation's own.

        Raises as `Answer`: `ContextFullError` when the conversation has become too long. It is then
        as it was before.
        """
        said = [*self.messages, {"role": "user", "content": text}]
        answer = Answer(self._model, said, {**self._options, **options})
        self._said, self._last = said, answer
        return answer if stream else "".join(answer)
