"""The reference that says what a model means: ONNX Runtime on the model as it was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from webkiln.errors import UnsupportedModelError
from webkiln.passes.graph import light_proto

__all__ = ["reference_outputs", "reference_session"]


def reference_outputs(
    model: ir.Model, inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.generic]]:
    """The outputs by name; raises `UnsupportedModelError` where the reference can't run `model`."""
    try:
        session = reference_session(model)
        wanted = {i.name for i in session.get_inputs()}
        outputs = session.run(None, {k: v for k, v in inputs.items() if k in wanted})
    except Exception as error:
        raise UnsupportedModelError(
            f"ONNX Runtime, the reference for the golden sample, can't run the model: {error}",
            hint="check the model with onnx.checker",
        ) from error
    return {o.name: np.asarray(v) for o, v in zip(session.get_outputs(), outputs, strict=True)}


def reference_session(model: ir.Model) -> ort.InferenceSession:
    """ONNX Runtime on the model, node by node as it is written.

    The weights go there as arrays. Inside the protobuf, which ends at 2 GiB, they would be copied
    again and again: of SmolLM2's 650 MB that took three quarters of the time.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto, tensors = light_proto(model)
    del proto.graph.input[len(model.graph.inputs) :]
    shared = {name: t.numpy() for name, t in tensors.items() if _in_memory_alike(t)}
    for name, tensor in tensors.items():
        made = _beside(tensor) if name in shared else ir.serde.serialize_tensor(tensor)
        made.name = name
        proto.graph.initializer.append(made)
    values = [ort.OrtValue.ortvalue_from_numpy(a) for a in shared.values()]
    options.add_external_initializers(list(shared), values)
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _in_memory_alike(tensor: ir.TensorProtocol) -> bool:
    """Whether NumPy itself has the type: not those of 4 or 8 bits, nor bfloat16."""
    return tensor.dtype.numpy().isbuiltin == 1 and tensor.dtype != ir.DataType.STRING


def _beside(tensor: ir.TensorProtocol) -> onnx.TensorProto:
    """An initializer whose data are given beside the model."""
    proto = onnx.TensorProto(
        data_type=int(tensor.dtype),
        dims=tensor.shape.numpy(),
        data_location=onnx.TensorProto.EXTERNAL,
    )
    proto.external_data.add(key="location", value="beside the model")
    return proto
