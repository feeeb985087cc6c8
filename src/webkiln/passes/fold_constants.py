"""Computes at build time what depends on constants only."""

from __future__ import annotations

import logging
import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import _constant_folding

from webkiln.passes.graph import is_op

__all__ = ["fold_constants"]

_log = logging.getLogger(__name__)

# A folded tensor may be this much bigger than what it was made from. Expand, Tile or
# ConstantOfShape would otherwise turn a few bytes into megabytes of download.
_MAX_GROWTH = 4096

# Kept as they are: a compressed weight and its decompression, which a kernel does as it reads.
_KEPT = ("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear")


def fold_constants(model: ir.Model) -> ir.Model:
    """Folds nodes whose inputs are constants, and `If` whose condition is, shapes included."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    fold = _constant_folding.FoldConstantsPass(
        shape_inference=True,
        input_size_limit=1 << 31,
        output_size_limit=1 << 31,
        should_fold=_should_fold,
    )
    try:
        fold(model)
    except RuntimeError as error:
        # An operator that the folder stumbles over (sequences, mostly) stays as it is, and is
        # reported as unsupported later if nothing defines it.
        _log.info("constant folding stopped early: %s", error)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    _lay_out(model)
    return model


def _lay_out(model: ir.Model) -> None:
    """Puts the elements of folded constants in order: a folded Transpose is a view of its input."""
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.Tensor):
            numbers = value.const_value.raw
            if isinstance(numbers, np.ndarray) and not numbers.flags.c_contiguous:
                value.const_value = ir.tensor(np.ascontiguousarray(numbers), name=value.name)


def _should_fold(node: ir.Node) -> bool:
    if is_op(node, *_KEPT):
        return False
    inputs = sum(
        value.const_value.size
        for value in node.inputs
        if value is not None and value.const_value is not None
    )
    outputs = sum(_size(value) for value in node.outputs)
    return outputs <= inputs + _MAX_GROWTH


def _size(value: ir.Value) -> float:
    """The number of elements; unknown counts as endless."""
    if value.shape is None or not value.shape.is_static():
        return math.inf
    return math.prod(value.shape.numpy())
