"""The reference that says what a model means: ONNX Runtime on the model as it was given."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from webkiln.errors import UnsupportedModelError

__all__ = ["reference_outputs"]

_IN_MEMORY = 1 << 30  # bytes of weights; protobuf stops at 2 GiB


def reference_outputs(
    model: ir.Model, inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.generic]]:
    """The outputs by name; raises `UnsupportedModelError` where the reference can't run `model`."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="webkiln-") as folder:
        try:
            session = ort.InferenceSession(
                _serialised(model, Path(folder)), options, providers=["CPUExecutionProvider"]
            )
            wanted = {i.name for i in session.get_inputs()}
            outputs = session.run(None, {k: v for k, v in inputs.items() if k in wanted})
        except Exception as error:
            raise UnsupportedModelError(
                f"ONNX Runtime, the reference for the golden sample, can't run the model: {error}",
                hint="check the model with onnx.checker",
            ) from error
    return {o.name: np.asarray(v) for o, v in zip(session.get_outputs(), outputs, strict=True)}


def _serialised(model: ir.Model, folder: Path) -> bytes | str:
    """In memory while it fits a protobuf, else as a file with external data."""
    weights = sum(
        v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None
    )
    if weights < _IN_MEMORY:
        return bytes(ir.serde.serialize_model(model).SerializeToString())
    path = folder / "model.onnx"
    ir.save(model, path, external_data="weights.bin")
    return str(path)
