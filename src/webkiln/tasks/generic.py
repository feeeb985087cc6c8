"""A model whose task is unknown: tensors in, tensors out."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from webkiln.errors import InputError
from webkiln.frontends.source import Source
from webkiln.tasks import ports

__all__ = ["NAME", "matches", "plan_config", "postprocess", "preprocess", "sample"]

NAME = "generic"


def matches(source: Source) -> bool:
    """Any model."""
    return True


def plan_config(source: Source) -> dict[str, Any]:
    """Where the model is from: such a page shows what the plan itself says."""
    return {"name": NAME, "about": source.provenance}


def sample(source: Source, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Seeded random inputs: normal floats, and whole numbers that are valid indices.

    What a whole number means cannot be known. One that picks rows of a table stays inside the
    table, a divisor is not 0; any other is 0 or 1, which is right for masks and flags.
    """
    rng = np.random.default_rng(0)
    graph = source.model.graph
    feeds = {}
    for port, value in zip(ports.inputs(source.model), graph.inputs, strict=False):
        shape = port.concrete(dims)
        if port.dtype.kind in "iub":
            least = int(_divides(value))
            end = max(least + 1, _rows(value))
            feeds[port.name] = rng.integers(least, end, shape).astype(port.dtype)
        else:
            feeds[port.name] = rng.standard_normal(shape).astype(port.dtype)
    return feeds


def _rows(value: ir.Value) -> int:
    """The smallest number of rows of the tables that `value` indexes; 2 if it indexes none."""
    sizes = []
    for node, position in value.uses():
        table = node.inputs[0] if node.op_type == "Gather" and position == 1 else None
        if table is not None and table.shape is not None:
            axis = node.attributes.get_int("axis", 0)
            size = table.shape[axis]
            sizes += [size] if isinstance(size, int) else []
    return min(sizes, default=2)


def _divides(value: ir.Value) -> bool:
    """Whether something is divided by `value`: whole numbers stop at a division by 0."""
    return any(node.op_type in ("Div", "Mod") and at == 1 for node, at in value.uses())


def preprocess(value: str | Path, plan: Mapping[str, Any], base: Path) -> dict[str, np.ndarray]:
    """A ``.npz`` with an array an input, or a ``.npy`` for a model of one input.

    Raises `InputError` for another file. Names, dtypes and shapes are checked where it is run.
    """
    path = Path(value)
    hint = "save the inputs with numpy.savez(file, name=array, …)"
    if not path.is_file():
        raise InputError(f"no such file: {value}", hint=hint)
    try:
        content = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path.name} holds no arrays that NumPy reads", hint=hint) from error
    if isinstance(content, np.ndarray):
        inputs = plan["programs"][0]["inputs"]
        if len(inputs) != 1:
            names = ", ".join(port["name"] for port in inputs)
            raise InputError(
                f"{path.name} holds one array; the model has inputs {names}", hint=hint
            )
        return {inputs[0]["name"]: content}
    with content:
        return dict(content.items())


def postprocess(outputs: Mapping[str, np.ndarray], plan: Mapping[str, Any]) -> Any:
    """Of every output its dtype, shape and extent, and its first values."""
    return {name: _summary(array) for name, array in outputs.items()}


def _summary(array: np.ndarray) -> dict[str, Any]:
    flat = array.reshape(-1)
    summary: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if flat.size:
        numbers = flat.astype(np.float64)
        summary |= {
            "min": float(numbers.min()), "max": float(numbers.max()), "mean": float(numbers.mean()),
        }  # fmt: skip
    return summary | {"first": flat[:8].tolist()}
