"""Texts → token ids with the model's own tokenizer; the same as runtime/src/tasks/text.ts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from webkiln.errors import InputError, ShardError
from webkiln.frontends.source import Source
from webkiln.tasks import ports

__all__ = ["read_text", "reads_text", "sample_inputs", "text_config", "text_feeds"]

FILE = "tokenizer.json"

# No tokenizer puts more special tokens around one text. Shorter than that, they are cut too.
_MOST_SPECIAL = 4

# Read often by people who test type and speech; has most English sounds and some punctuation.
_SAMPLE = (
    "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow. "
    "The rainbow is a division of white light into many beautiful colors. "
)


def reads_text(source: Source) -> bool:
    """Whether the model takes token ids, and their tokenizer came with it."""
    return FILE in source.assets and _ids_input(source) is not None


def text_config(source: Source) -> dict[str, Any]:
    """``plan["task"]["text"]``. Raises `InputError` without a tokenizer or token ids to make."""
    ids = _ids_input(source)
    if FILE not in source.assets:
        raise InputError(
            "the model has no tokenizer.json, so text can't become its input",
            hint="put tokenizer.json beside the model, or build with --task generic",
        )
    if ids is None:
        raise InputError(
            "the model has no input of token ids [batch, tokens]", hint="build with --task generic"
        )
    tokenizer = json.loads(source.assets[FILE])
    pad = source.config.get("pad_token_id")
    if pad is None:
        pad = (tokenizer.get("padding") or {}).get("pad_id", 0)
    names: dict[str, str] = {"ids": ids.name}
    for port in ports.inputs(source.model):
        if "mask" in port.name:
            names["mask"] = port.name
        elif "type" in port.name or "segment" in port.name:
            names["types"] = port.name
    return {"tokenizer": FILE, "inputs": names, "pad": pad}


def _ids_input(source: Source) -> ports.Port | None:
    """The first whole-number input [batch, tokens] that is not a mask or token types."""
    for port in ports.inputs(source.model):
        other = any(word in port.name for word in ("mask", "type", "segment", "position"))
        if port.dtype.kind == "i" and len(port.shape) == 2 and not other:
            return port
    return None


def sample_inputs(source: Source, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
    """A sentence, repeated or cut so that it fills the shape at `dims`."""
    tokenizer = _tokenizer(source.assets[FILE])
    config, by_name = text_config(source), {p.name: p for p in ports.inputs(source.model)}
    batch, length = by_name[config["inputs"]["ids"]].concrete(dims)
    each = len(tokenizer.encode(_SAMPLE, add_special_tokens=False).ids)
    text = _SAMPLE * (1 + length // max(1, each))
    if length > _MOST_SPECIAL:
        tokenizer.enable_truncation(length)
    feeds = _feeds(tokenizer.encode(text).ids[:length], length, config)
    return {
        name: np.repeat(values, batch, axis=0).astype(by_name[name].dtype)
        for name, values in feeds.items()
    }


def read_text(value: str | Path) -> str:
    """The content of a text file if `value` is the path of one, else `value` itself."""
    try:
        is_file = Path(value).is_file()
    except (OSError, ValueError):  # a sentence can be longer than a path may be
        is_file = False
    if not is_file:
        return str(value)
    try:
        return Path(value).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{value} is not text in UTF-8 ({error.reason})") from error


def text_feeds(value: str | Path, plan: Mapping[str, Any], base: Path) -> dict[str, np.ndarray]:
    """A text, or a file that holds one, → the model's inputs of shape [1, tokens]."""
    config = plan["task"]["text"]
    try:
        tokenizer = _tokenizer((base / config["tokenizer"]).read_bytes())
    except OSError as error:
        raise ShardError(
            f"{config['tokenizer']} can't be read ({error.strerror})", hint="build the bundle again"
        ) from error
    dtypes = {port["name"]: port["dtype"] for port in plan["programs"][0]["inputs"]}
    longest, fixed = _longest(plan, config["inputs"]["ids"])
    tokenizer.enable_truncation(longest)
    ids = tokenizer.encode(read_text(value)).ids
    feeds = _feeds(ids, longest if fixed else max(1, len(ids)), config)
    return {name: values.astype(dtypes[name]) for name, values in feeds.items()}


def _longest(plan: Mapping[str, Any], name: str) -> tuple[int, bool]:
    """How many tokens the input takes at most, and whether it takes no fewer."""
    port = next(port for port in plan["programs"][0]["inputs"] if port["name"] == name)
    extent = port["shape"][1]
    if isinstance(extent, int):
        return extent, True
    return next(dim["max"] for dim in plan["dims"] if dim["name"] == extent), False


@lru_cache(maxsize=1)
def _read(content: bytes) -> Tokenizer:
    """Kept for the next text: reading a vocabulary takes longer than a sentence does."""
    return Tokenizer.from_buffer(content)


def _tokenizer(content: bytes) -> Tokenizer:
    """It is one object for all callers, each of whom sets how it cuts."""
    tokenizer = _read(content)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _feeds(ids: list[int], length: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """int64 [1, length] an input, filled up with the padding token."""
    names, used = config["inputs"], len(ids)
    feeds = {names["ids"]: np.array([ids + [config["pad"]] * (length - used)], np.int64)}
    if "mask" in names:
        feeds[names["mask"]] = (np.arange(length) < used)[None].astype(np.int64)
    if "types" in names:
        feeds[names["types"]] = np.zeros((1, length), np.int64)
    return feeds
