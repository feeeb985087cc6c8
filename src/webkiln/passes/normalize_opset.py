"""Raises models of old opsets to the one that the operator definitions are written for.

Operators have changed their signatures over the years: axes, pads and limits were attributes
before they were inputs, Softmax flattened its input before opset 13, Upsample became Resize. Since
opset 21 every change was an addition, so newer models stay as they are.
"""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common

from webkiln.errors import UnsupportedModelError
from webkiln.passes.graph import through_proto

__all__ = ["OPSET", "normalize_opset"]

OPSET = 21


def normalize_opset(model: ir.Model) -> ir.Model:
    """The model at opset `OPSET` at least.

    Conversion works on the main graph only, hence after constant `If` branches were resolved and
    functions inlined. Raises `UnsupportedModelError` if an operator of the old opset has no
    present form.
    """
    opset = model.opset_imports.get("", OPSET)
    if opset >= OPSET:
        return model
    unknown = sorted({node.op_type for node in model.graph if not _is_known(node, opset)})
    if unknown:
        raise UnsupportedModelError(
            f"ONNX opset {opset}, which the model claims, has no {', '.join(unknown)}",
            hint="export the model again with a recent opset",
        )
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    # Before IR version 4 every initializer was an input too, and the converter insists on that.
    model.ir_version = max(4, model.ir_version)
    try:
        converted = through_proto(
            model, lambda proto: onnx.version_converter.convert_version(proto, OPSET)
        )
    except (RuntimeError, onnx.version_converter.ConvertError) as error:  # whatever the reason
        reason = str(error).rpartition("failed: ")[2]
        raise UnsupportedModelError(
            f"the model's opset {opset} could not be raised to {OPSET}: {reason}",
            hint="export the model again with a recent opset",
        ) from None
    # The opset says which IR version the file must have at least; 10 is the one of opset 21.
    converted.ir_version = max(10, converted.ir_version)
    return converted


def _is_known(node: ir.Node, opset: int) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return True
    if node.op_type == "Scan" and opset < 9:
        return False  # another operator by the same name, which had a batch axis
    try:
        onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    return True
