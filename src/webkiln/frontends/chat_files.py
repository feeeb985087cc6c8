"""What the files beside a language model say of talking with it.

tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json, config.json as
transformers saves them, and genai_config.json of onnxruntime-genai.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from webkiln.errors import InputError, InvalidModelError
from webkiln.frontends.past_ports import CHUNK, DEFAULT_CONTEXT
from webkiln.frontends.source import Source

__all__ = ["add_chat_files", "context_length", "read_object"]

_ROLES = ("bos", "eos", "unk", "pad")
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def context_length(path: Path, config: Mapping[str, Any], wanted: int | None) -> int:
    """How many tokens the cache holds: `wanted`, or as many as trained for up to a default.

    Raises `InputError` if more are `wanted` than the model was trained for.
    """
    text = _text_config(config)
    genai = read_object(path / "genai_config.json").get("model", {})
    trained = text.get("max_position_embeddings") or genai.get("context_length")
    if wanted is None:
        return min(int(trained or DEFAULT_CONTEXT), DEFAULT_CONTEXT)
    if wanted < 2:
        raise InputError(f"a context of {wanted} tokens is not possible", hint="2 or more")
    if trained and wanted > int(trained):
        raise InputError(
            f"a context of {wanted} tokens is more than the {trained} that {path.resolve().name} "
            "was trained for",
            hint=f"--max sequence={trained} or less",
        )
    return wanted


def add_chat_files(
    source: Source, path: Path, config: Mapping[str, Any], ports: Mapping[str, Any], context: int
) -> None:
    """Makes `source` a text-generation model with `ports`, by the files in the folder `path`.

    Fills ``generation``, ``tokens``, ``chat_template``, ``sampling`` and ``max`` of its config, and
    its assets. Raises `InvalidModelError` if there is no tokenizer.json, or a file is malformed.
    """
    tokenizer = read_object(path / "tokenizer_config.json")
    settings = read_object(path / "generation_config.json")
    genai = read_object(path / "genai_config.json").get("model", {})
    if not (path / "tokenizer.json").is_file():
        raise InvalidModelError(
            f"{path} has no tokenizer.json, which turns text into the model's input",
            hint="save it with AutoTokenizer.from_pretrained(…).save_pretrained(folder)",
        )
    source.assets["tokenizer.json"] = (path / "tokenizer.json").read_bytes()
    vocabulary = _Vocabulary(source.assets["tokenizer.json"])
    tokens = {role: text for role in _ROLES if (text := _token(tokenizer.get(f"{role}_token")))}
    text_config = _text_config(config)
    said = [settings, genai, text_config]
    bos = next((i for each in said for i in _ids(each.get("bos_token_id"))), None)
    if "bos" in tokens:
        bos = vocabulary.id(tokens["bos"], bos)
    chunk = min(CHUNK, context)
    source.task = "text-generation"
    source.config["generation"] = {
        **ports,
        "context": context,
        "eos": _eos(said, vocabulary.id(tokens.get("eos"), None)),
        "bos": bos,
        "add_bos": vocabulary.begins_with(bos),
        "chunk": chunk,
    }
    source.config["tokens"] = tokens
    source.config["max"] = {"sequence": chunk}
    sampling = {key: settings[key] for key in _SAMPLING if settings.get(key) is not None}
    if sampling and settings.get("do_sample", True):
        source.config["sampling"] = sampling
    template = _template(path, tokenizer)
    if template is not None:
        source.config["chat_template"] = template
        source.assets["chat_template.jinja"] = template.encode()


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _eos(said: list[Mapping[str, Any]], own: int | None) -> list[int]:
    """The first that names any; and the tokenizer's own."""
    found = next((ids for each in said if (ids := _ids(each.get("eos_token_id")))), [])
    return list(dict.fromkeys([*found, *([] if own is None else [own])]))


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int)]


def _token(value: Any) -> str | None:
    """A special token, written as its text or as an object that has it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _template(path: Path, tokenizer: Mapping[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template = tokenizer.get("chat_template")
    if isinstance(template, list):  # several by name
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    if template is None:
        template = read_object(path / "chat_template.json").get("chat_template")
    return template if isinstance(template, str) else None


class _Vocabulary:
    """A tokenizer.json, asked for ids."""

    def __init__(self, data: bytes) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises plain Exception
            raise InvalidModelError(f"tokenizer.json can't be read: {error}") from None

    def id(self, token: str | None, default: int | None) -> int | None:
        if token is None:
            return default
        found: int | None = self._tokenizer.token_to_id(token)
        return default if found is None else found

    def begins_with(self, token: int | None) -> bool:
        """Whether the tokenizer puts `token` before a text by itself."""
        if token is None:
            return False
        ids = self._tokenizer.encode("a").ids
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        return ids[:1] == [token] and plain[:1] != [token]


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file; {} if there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidModelError(f"{path} is not valid JSON ({error})") from None
    return found if isinstance(found, dict) else {}
