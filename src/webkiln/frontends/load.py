"""Decides by content which frontend a source belongs to."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from webkiln.errors import InputError, InvalidModelError, ModelNotFoundError, UnsupportedModelError
from webkiln.frontends.onnx import load_onnx, source_from_model
from webkiln.frontends.pth import is_legacy_checkpoint
from webkiln.frontends.safetensors import is_safetensors
from webkiln.frontends.source import Source
from webkiln.frontends.tokenizer_json import portable

__all__ = ["load"]

Progress = Callable[[str, float | None], None]

# A repository on the Hugging Face Hub: an owner and a name.
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIXES = {
    ".onnx", ".pth", ".pt", ".pt2", ".bin", ".ckpt", ".safetensors", ".json", ".gguf", ".tflite",
    ".keras", ".h5", ".pb", ".zip",
}  # fmt: skip

# Formats that are recognised in order to say so.
_KNOWN_UNSUPPORTED = (
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x89HDF", "an HDF5 file (Keras)"),
)


def load(
    source: str | os.PathLike[str] | object,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    revision: str | None = None,
    context: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Takes a model from wherever it is.

    `source` is a path (an ONNX or GGUF file, a torch checkpoint of a known architecture, a ``.pt2``
    file, or a folder in Hugging Face layout), a Hugging Face repository id (``owner/name``, with an
    optional `revision`), or an object: `onnx.ModelProto`, `onnx_ir.Model`, or — with the ``torch``
    extra — a `torch.nn.Module` (with its example `args`, `kwargs` and `dynamic_shapes`) or
    `torch.export.ExportedProgram`. What a file is, is decided by its content.

    `context` (tokens that the cache holds) matters to language models.

    `progress(what, fraction)` is called during downloads.

    Raises `ModelNotFoundError`, `InvalidModelError`, `UnsupportedModelError`,
    `MissingDependencyError`, or `InputError` if `source` is of no such type.
    """
    if isinstance(source, onnx.ModelProto | ir.Model):
        return source_from_model(source)
    if not isinstance(source, str | os.PathLike):
        from webkiln.frontends import torch

        if torch.is_torch_object(source):
            return torch.load_module(source, args, kwargs, dynamic_shapes)
        raise InputError(
            f"a model can't be an object of type {type(source).__name__}",
            hint="give a path, a repository id, an ONNX model or a torch module",
        )
    found = _load_named(source, revision, context, progress)
    if "tokenizer.json" in found.assets:
        found.assets["tokenizer.json"] = portable(found.assets["tokenizer.json"])
    return found


def _load_named(
    source: str | os.PathLike[str],
    revision: str | None,
    context: int | None,
    progress: Progress | None,
) -> Source:
    path = Path(source).expanduser()
    if path.is_dir():
        from webkiln.frontends.folder import load_folder

        return load_folder(path, context)
    if path.is_file():
        return _load_file(path, context)
    text = str(source)
    if _REPO_ID.fullmatch(text) and path.suffix.lower() not in _FILE_SUFFIXES:
        from webkiln.frontends.hub import load_repo

        return load_repo(text, revision=revision, context=context, progress=progress)
    raise ModelNotFoundError(
        f"no such file or folder: {text}",
        hint="check the path, or give a Hugging Face repository as owner/name",
    )


def _load_file(path: Path, context: int | None) -> Source:
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"GGUF"):
        from webkiln.frontends.gguf import load_gguf

        return load_gguf(path, context=context)
    if zipfile.is_zipfile(path):
        return _load_zip(path)
    if is_legacy_checkpoint(head):
        from webkiln.frontends.checkpoint import load_checkpoint

        return load_checkpoint(path)
    for offset, magic, what in _KNOWN_UNSUPPORTED:
        if head[offset:].startswith(magic):
            raise UnsupportedModelError(
                f"{path.name} is {what}, which this version cannot read",
                hint="convert the model to ONNX",
            )
    if is_safetensors(path):
        from webkiln.frontends.folder import load_folder

        if (path.parent / "config.json").is_file():
            return load_folder(path.parent, context)
        raise InvalidModelError(
            f"{path.name} has weights only; the architecture is in the config.json beside it, "
            "which is missing",
            hint="give the folder that has both",
        )
    if head.startswith(b"\x80") and path.suffix != ".onnx":
        raise InvalidModelError(f"{path.name} is a pickle, but no torch checkpoint")
    return load_onnx(path, context)


def _load_zip(path: Path) -> Source:
    from webkiln.frontends import torch
    from webkiln.frontends.checkpoint import load_checkpoint

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if torch.is_exported_program(names):
        return torch.load_program(path)
    if any(name.endswith("data.pkl") for name in names):
        return load_checkpoint(path)
    raise UnsupportedModelError(
        f"{path.name} is a zip archive of no kind that is known",
        hint="convert the model to ONNX",
    )
