"""A causal language model with its cache of keys and values: token ids in, the next token out.

The cache belongs to the bundle's memory, so it is one for all conversations. Each call says all the
ids; what the cache already holds of them is not run again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from webkiln.errors import ContextFullError, InputError, PromptTooLongError
from webkiln.generation.sampling import DEVICE_TOP_K, Sampling, device_inputs, penalise, sample
from webkiln.generation.template import ChatTemplate, Message
from webkiln.generation.text import Vocabulary

__all__ = ["CausalModel", "Prompt", "Run"]

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[str, Arrays], Arrays]
"""Runs the program of that name on these inputs."""

Prompt = str | Sequence[int] | Sequence[Message]
"""A text to continue, its token ids, or a conversation to answer."""


class CausalModel:
    """What a text-generation bundle's plan describes, over the programs that `run` runs."""

    def __init__(self, plan: Mapping[str, Any], run: Run, read: Callable[[str], bytes]) -> None:
        """`read` gives the files beside plan.json.

        Raises `InputError` for a bundle of another task, `ChatTemplateError` for a broken template.
        """
        task = plan["task"]
        if "generation" not in task:
            raise InputError(
                f"the bundle's task is {task['name']}, which generates no text",
                hint="build a language model: webkiln build MODEL.gguf",
            )
        self._run, self._ports = run, task["generation"]
        self._programs = {program["name"]: program for program in plan["programs"]}
        self.vocabulary = Vocabulary(read(task["tokenizer"]))
        self.defaults: Mapping[str, Any] = task.get("sampling") or {}
        self.context: int = self._ports["context"]
        self.eos = frozenset(self._ports["eos"])
        template = task.get("chat_template")
        self.template = ChatTemplate(template, task.get("tokens")) if template else None
        self._cached: list[int] = []
        self._lock = threading.Lock()

    # --- prompts ----------------------------------------------------------------------------------

    def encode(self, prompt: Prompt, variables: Mapping[str, Any] | None = None) -> list[int]:
        """Ids of a prompt, with the token that begins a text if the model wants it.

        `variables` are for the chat template.

        Raises `InputError` for an empty prompt, ids that are none, or messages without a template;
        `PromptTooLongError`, or for a conversation `ContextFullError`, if there are more than
        `context`; `ChatTemplateError`.
        """
        if isinstance(prompt, str):
            ids = self._with_bos(self.vocabulary.encode(prompt))
        elif all(isinstance(item, int | np.integer) for item in prompt):
            ids = [self._checked_id(item) for item in prompt]  # type: ignore[arg-type]
        else:
            text = self.render(prompt, variables)  # type: ignore[arg-type]
            ids = self._with_bos(self.vocabulary.encode(text))
        if not ids:
            raise InputError("the prompt is empty", hint="give at least one character")
        if len(ids) > self.context:
            self._refuse(prompt, len(ids))
        return ids

    def render(
        self, messages: Sequence[Message], variables: Mapping[str, Any] | None = None
    ) -> str:
        """The conversation as the model reads it. Raises as `encode`."""
        if not messages:
            raise InputError("there are no messages", hint="give at least one")
        if self.template is None:
            raise InputError(
                "the model has no chat template, so it can't answer messages",
                hint="give the prompt as a text",
            )
        return self.template.render(messages, variables=variables)

    def _with_bos(self, ids: list[int]) -> list[int]:
        """Most templates write the token themselves; it is never there twice."""
        bos = self._ports["bos"]
        wanted = self._ports["add_bos"] and bos is not None and ids[:1] != [bos]
        return [bos, *ids] if wanted else ids

    def _checked_id(self, token: int) -> int:
        if not 0 <= token < self.vocabulary.size:
            raise InputError(
                f"there is no token {token}; the vocabulary has {self.vocabulary.size}"
            )
        return int(token)

    def _refuse(self, prompt: Prompt, length: int) -> NoReturn:
        last = prompt[-1]
        if len(prompt) > 1 and isinstance(last, Mapping):
            alone = len(self.vocabulary.encode(str(last.get("content"))))
            if alone < self.context:
                raise ContextFullError(
                    f"the conversation has {length} tokens, the model's context {self.context}",
                    hint="start a new conversation, or leave out its first messages",
                )
        raise PromptTooLongError(
            f"the prompt has {length} tokens, the model's context {self.context}",
            hint="shorten it, or build the model again with a larger --max sequence=N",
        )

    # --- tokens -----------------------------------------------------------------------------------

    def cached(self, ids: Sequence[int]) -> int:
        """How many of `ids`, from the first on, need no run. The last one always does."""
        limit = min(len(self._cached), len(ids) - 1)
        if self._cached[:limit] == list(ids[:limit]):
            return limit
        pairs = zip(self._cached, ids, strict=False)
        return next(i for i, (held, wanted) in enumerate(pairs) if held != wanted)

    def choose(self, ids: Sequence[int], start: int, sampling: Sampling, step: int) -> int:
        """The token after `ids`, whose answer begins at `start`; it is the answer's `step`-th.

        Chosen on the device where the bundle has a sampler that can do it, else from the logits.
        """
        with self._lock:
            outputs = self._advance(ids, self._device(sampling, ids, start, step))
        if "token" in outputs and sampling.top_k <= DEVICE_TOP_K:
            return int(outputs["token"].reshape(-1)[0])
        logits = outputs[self._ports["logits"]].reshape(-1)
        return sample(penalise(logits, ids, start, sampling), sampling, step)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [vocabulary] of the token after `ids`, which must be 1 … `context` many."""
        with self._lock:
            outputs = self._advance(ids, self._device(Sampling(), ids, len(ids), 0))
        return outputs[self._ports["logits"]].reshape(-1)

    def _device(self, sampling: Sampling, ids: Sequence[int], start: int, step: int) -> Arrays:
        """The inputs of the bundle's sampler, if it has one."""
        inputs = self._programs[self._decode]["inputs"]
        words = next((port["shape"][0] for port in inputs if port["name"] == "token_mask"), None)
        return {} if words is None else device_inputs(sampling, ids, start, step, 32 * words)

    def reset(self) -> None:
        """Forget what the cache holds: the next prompt is run as a whole."""
        with self._lock:
            self._cached = []

    @property
    def _decode(self) -> str:
        return "decode" if "decode" in self._programs else next(iter(self._programs))

    def _advance(self, ids: Sequence[int], extra: Arrays) -> Arrays:
        """Brings the cache to `ids`; the outputs of the run that had the last of them."""
        position = self.cached(ids)
        chunk = self._ports["chunk"] if "prefill" in self._programs else 1
        outputs: Arrays = {}
        # A run that fails or is interrupted leaves the rest of the cache as it may be.
        del self._cached[position:]
        while position < len(ids):
            part = list(ids[position : position + chunk])
            feeds = {
                self._ports["ids"]: np.array([part], np.int64),
                self._ports["position"]: np.array([position], np.int64),
                **extra,
            }
            outputs = self._run("prefill" if len(part) > 1 else self._decode, feeds)
            self._cached += part
            position += len(part)
        return outputs
