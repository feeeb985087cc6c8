"""A folder: Hugging Face layout, or ONNX files with what belongs to them beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from webkiln.errors import InvalidModelError, ModelNotFoundError
from webkiln.frontends import causal_lm, hf
from webkiln.frontends.onnx import load_onnx
from webkiln.frontends.source import Source

__all__ = ["load_folder"]

# Where exporters put ONNX files, and the plain float32 model among variants.
_ONNX_FOLDERS = (".", "onnx")
_PLAIN_NAME = "model.onnx"


def load_folder(path: Path, context: int | None = None) -> Source:
    """The model in `path`; `context` is how many tokens a language model's cache holds.

    Weights of an architecture that is built here come first, then the folder's ONNX file, then any
    other architecture through mobius-onnx. Raises `ModelNotFoundError` if there is no model in the
    folder, `InvalidModelError` if it can't be told which of several is meant.
    """
    config = read_json(path / "config.json")
    onnx_file = _onnx_file(path)
    if config is not None and hf.has_weights(path) and hf.is_built_here(config):
        return hf.load_hf(path, config)
    if config is not None and hf.has_weights(path) and causal_lm.is_built_here(config):
        source = causal_lm.load_causal_lm(path, config, hf.read_weights(path), context)
        hf.describe(source, path, config)
        return source
    if onnx_file is not None:
        source = load_onnx(onnx_file, context, path)
        source.name = path.resolve().name
        hf.describe(source, path, config or {})
        return source
    if config is not None and hf.has_weights(path):
        return hf.load_with_mobius(path, config, context)
    if config is not None:
        raise ModelNotFoundError(
            f"{path} has a config.json, but no weights",
            hint="put model.safetensors beside it",
        )
    if hf.has_weights(path):
        raise InvalidModelError(
            f"{path} has weights, but no config.json that names the architecture",
            hint="download the whole model folder",
        )
    checkpoints = sorted(path.glob("*.pth"))
    if len(checkpoints) == 1:
        from webkiln.frontends.checkpoint import load_checkpoint

        return load_checkpoint(checkpoints[0])
    raise ModelNotFoundError(
        f"no model in the folder {path}",
        hint="it should have an .onnx file, or config.json with model.safetensors",
    )


def read_json(path: Path) -> Any:
    """The file's content, None if there is no such file."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidModelError(f"{path} is not valid JSON ({error})") from None


def _onnx_file(path: Path) -> Path | None:
    for folder in _ONNX_FOLDERS:
        files = sorted((path / folder).glob("*.onnx"))
        plain = path / folder / _PLAIN_NAME
        if plain in files:
            return plain
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise InvalidModelError(
                f"{path / folder} has several ONNX models: {names}", hint="give the one you want"
            )
        if files:
            return files[0]
    return None
