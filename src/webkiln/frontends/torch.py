"""torch modules and exported programs, through torch.export (the ``torch`` extra)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from webkiln.errors import (
    InputError,
    InvalidModelError,
    MissingDependencyError,
    UnsupportedModelError,
)
from webkiln.frontends.builder import OPSET
from webkiln.frontends.source import Source

__all__ = ["is_exported_program", "is_torch_object", "load_module", "load_program"]


def is_torch_object(source: object) -> bool:
    """Whether `source` is a module or an exported program; never imports torch."""
    torch = sys.modules.get("torch")  # who has such an object has imported it
    if torch is None:
        return False
    return isinstance(source, torch.nn.Module | torch.export.ExportedProgram)


def is_exported_program(names: Iterable[str]) -> bool:
    """Whether a zip archive with these members is a ``.pt2`` file."""
    tails = {name.partition("/")[2] for name in names}
    return "archive_format" in tails or "serialized_exported_program.json" in tails


def load_module(
    source: Any,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> Source:
    """A `torch.nn.Module` traced on its example `args`, or an `ExportedProgram` as it is.

    Symbolic dimensions are those of `dynamic_shapes` (see torch.export), under the names given
    there. Raises `InputError` without example arguments, `UnsupportedModelError` if torch cannot
    export the module.
    """
    import torch

    if isinstance(source, torch.export.ExportedProgram):
        return _export(source, None, None, None, "model")
    if args is None and kwargs is None:
        raise InputError(
            "a torch module needs example arguments to be traced with",
            hint="webkiln.build(module, args=(torch.zeros(1, 3, 224, 224),))",
        )
    was_training = source.training
    source.eval()  # dropout and batch norm as they are used, not as they are trained
    try:
        return _export(source, tuple(args or ()), kwargs, dynamic_shapes, type(source).__name__)
    finally:
        source.train(was_training)


def load_program(path: Path) -> Source:
    """A ``.pt2`` file that `torch.export.save` wrote."""
    try:
        import torch
    except ImportError:
        raise MissingDependencyError(
            f"{path.name} is a torch ExportedProgram; torch, which reads it, is not installed",
            hint="pip install 'webkiln[torch]'",
        ) from None
    try:
        program = torch.export.load(path)
    except Exception as error:  # the reader raises whatever its parts raise
        raise InvalidModelError(
            f"{path.name} cannot be read by torch {torch.__version__}: {_first_line(error)}",
            hint="save it again with the same version of torch",
        ) from error
    source = _export(program, None, None, None, path.stem)
    source.provenance["origin"] = path.name
    return source


def _export(
    model: Any, args: Any, kwargs: Mapping[str, Any] | None, dynamic_shapes: Any, name: str
) -> Source:
    import torch

    try:
        program = torch.onnx.export(
            model,
            args or (),
            kwargs=dict(kwargs) if kwargs else None,
            dynamic_shapes=dynamic_shapes,
            dynamo=True,
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    except Exception as error:  # torch.onnx.errors and whatever tracing raises
        raise UnsupportedModelError(
            f"torch could not export {name}: {_first_line(error)}",
            hint="run torch.export.export on it first and follow its advice",
        ) from error
    if program is None:
        raise UnsupportedModelError(f"torch exported nothing for {name}")
    return Source(program.model, name, provenance={"producer": f"torch {torch.__version__}"})


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
