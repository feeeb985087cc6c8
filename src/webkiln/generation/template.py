"""Chat templates: a conversation → the text that the model was trained to continue.

They are Jinja templates that come with the model, so they run in a sandbox. The environment is
that of transformers (utils/chat_template_utils.py), for which they are written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from webkiln.errors import ChatTemplateError, InputError

__all__ = ["ChatTemplate", "Message"]

Message = Mapping[str, Any]
"""``{"role": "user", "content": "…"}``; content may be a list of ``{"type": "text", "text"}``."""


class _Generation(Extension):
    """``{% generation %}``, which marks the assistant's part for training; here it is its body."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class ChatTemplate:
    """A model's chat template, ready to render."""

    def __init__(self, text: str, tokens: Mapping[str, str] | None = None) -> None:
        """`tokens` are the special tokens' texts by role: templates know them as ``bos_token``.

        Raises `ChatTemplateError` for a template that is not Jinja.
        """
        self._tokens = {f"{role}_token": token for role, token in (tokens or {}).items()}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(
                f"the model's chat template is broken: {error}",
                hint="give a raw prompt instead of messages",
            ) from None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as the model reads it, up to where its answer begins.

        `variables` go to the template as well. Raises `InputError` for what are not messages,
        `ChatTemplateError` with the template's own words when it refuses them.
        """
        values = {
            "messages": [_checked(message, i) for i, message in enumerate(messages)],
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
            **self._tokens,
            **(variables or {}),
        }
        try:
            return self._template.render(values)
        except _RefusedError as error:
            raise ChatTemplateError(
                f"the model's chat template refuses this conversation: {error}",
                hint="change the order or the roles of the messages",
            ) from None
        except Exception as error:  # a template can fail in any way that Python can
            raise ChatTemplateError(
                f"the model's chat template failed: {error}",
                hint="give a raw prompt instead of messages",
            ) from error


class _RefusedError(Exception):
    """What `raise_exception` in a template raises."""


def _raise(message: object) -> NoReturn:
    raise _RefusedError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: Jinja's own would escape for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _checked(message: object, index: int) -> dict[str, Any]:
    """The message with its content as one text."""
    if not isinstance(message, Mapping):
        raise InputError(
            f"message {index} is {type(message).__name__}, not a dict",
            hint='{"role": "user", "content": "…"}',
        )
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise InputError(f"message {index} has no role", hint='such as "user" or "assistant"')
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(_text_of(part, index) for part in content)
    if content is not None and not isinstance(content, str):
        raise InputError(f"the content of message {index} is {type(content).__name__}, not a text")
    return {**message, "content": content}


def _text_of(part: object, index: int) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text":
        text = part.get("text")
        if isinstance(text, str):
            return text
    raise InputError(
        f"message {index} has a part that is not text", hint='{"type": "text", "text": "…"}'
    )
