"""Keeps products with quantised weights from rounding what they multiply."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["exact_activations"]

_FLOAT32 = 1  # of accuracy_level: 0 says nothing, 1 float32, 2 and 3 half precision, 4 int8


def exact_activations(model: ir.Model) -> ir.Model:
    """Sets every MatMulNBits' `accuracy_level` to float32, whatever its exporter allowed.

    `model` is changed.
    """
    for node in model.graph:
        if node.op_type == "MatMulNBits" and node.domain == "com.microsoft":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _FLOAT32)
    return model
