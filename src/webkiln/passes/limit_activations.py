"""Says how far products with quantised weights may round what they multiply."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["ACTIVATIONS", "limit_activations"]

#: MatMulNBits' accuracy_level. 2 asks for float16, which blocks of 16-bit integers surpass.
ACTIVATIONS = {"int8": 4, "int16": 2, "f32": 1}
_UNSET = 0


def limit_activations(model: ir.Model, activations: str) -> ir.Model:
    """Lowers every MatMulNBits' `accuracy_level` to that of `activations`, where it is above.

    `model` is changed. A node that allows no rounding stays exact.
    """
    most = ACTIVATIONS[activations]
    for node in model.graph:
        if node.op_type == "MatMulNBits" and node.domain == "com.microsoft":
            given = node.attributes.get_int("accuracy_level", _UNSET)
            if given > most or activations == "f32":
                node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", most)
    return model
