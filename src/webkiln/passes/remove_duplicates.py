"""Keeps one of equal constants and of nodes that compute the same."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes import common

__all__ = ["remove_duplicates"]

# It warns of every constant that is a graph output, which is nothing that a user could change.
logging.getLogger("onnx_ir.passes.common.initializer_deduplication").setLevel(logging.ERROR)


def remove_duplicates(model: ir.Model) -> ir.Model:
    """Merges equal initializers, then equal nodes, and drops what nothing reads any more."""
    common.DeduplicateHashedInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    return model
