"""Raises models of old opsets to the one that the operator definitions are written for.

Operators have changed their signatures over the years: axes, pads and limits were attributes
before they were inputs, Softmax flattened its input before opset 13, Upsample became Resize. Since
opset 21 every change was an addition, so newer models stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common

from webkiln.errors import UnsupportedModelError
from webkiln.passes.graph import (
    array,
    attribute,
    constant,
    nodes_of,
    remove,
    replace,
    through_proto,
)

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
    _keep_meaning(converted, opset)
    return converted


def _keep_meaning(model: ir.Model, opset: int) -> None:
    """Says in today's terms what the converter leaves as it was, though it means something else.

    Resize had neither attributes nor half pixels before opset 11, Hardmax took all axes from `axis`
    on before 13, GroupNormalization had a scale and a bias a group before 21.
    """
    for node in nodes_of(model, "Resize") if opset < 11 else ():
        node.attributes["coordinate_transformation_mode"] = ir.AttrString(
            "coordinate_transformation_mode", "asymmetric"
        )
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", _old_rounding(node))
    for node in nodes_of(model, "Hardmax") if opset < 13 else ():
        rows = ir.node("Flatten", node.inputs, {"axis": attribute(node, "axis", 1)})
        _reshaped(model, node, rows, ir.node("Hardmax", rows.outputs, {"axis": -1}))
    for node in nodes_of(model, "GroupNormalization") if opset < 21 else ():
        x, *affine = node.inputs
        shape = constant(model, np.array([0, attribute(node, "num_groups"), -1]), "groups")
        groups = ir.node("Reshape", [x, shape])
        epsilon: dict[str, Any] = {"epsilon": attribute(node, "epsilon", 1e-5)}
        inner = ir.node("InstanceNormalization", [groups.outputs[0], *affine], epsilon)
        _reshaped(model, node, groups, inner)


def _old_rounding(resize: ir.Node) -> str:
    """To which neighbour Resize of opset 10 went: by its example up where an image shrinks.

    An Upsample always grew, and its scales may be no constant yet.
    """
    scales = array(resize.inputs[2])
    if scales is None or (scales >= 1).all():
        return "floor"
    if (scales > 1).any() and attribute(resize, "mode", "nearest") == "nearest":
        raise UnsupportedModelError(
            f"Resize of opset 10 by {scales.tolist()} ({resize.name or resize.outputs[0].name}): "
            "some axes shrink and some grow",
            hint="export the model again with a recent opset",
        )
    return "ceil"


def _reshaped(model: ir.Model, node: ir.Node, before: ir.Node, inner: ir.Node) -> None:
    """Puts `before`, which changes the shape, `inner` and a Reshape back in the place of `node`."""
    shape = ir.node("Shape", [node.inputs[0]])
    after = ir.node("Reshape", [inner.outputs[0], shape.outputs[0]])
    made = [before, inner, shape, after]
    for k, new in enumerate(made):
        new.name = new.outputs[0].name = f"{node.outputs[0].name}/{new.op_type}_{k}"
    node.prepend(made)
    replace(node.outputs[0], after.outputs[0])
    remove(model, [node])


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
