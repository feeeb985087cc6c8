"""Keeps one of equal constants and of nodes that compute the same."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

__all__ = ["remove_duplicates"]

# In a value's `meta`: (tensor, its content). Weights are hashed once, however often this is run.
_KNOWN = "webkiln.content"

_Content: TypeAlias = tuple[ir.DataType, tuple[int, ...], bytes]


def remove_duplicates(model: ir.Model) -> ir.Model:
    """Merges equal initializers, then equal nodes, and drops what nothing reads any more."""
    for graph in model.graphs():
        _merge_initializers(graph)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    return model


def _merge_initializers(graph: ir.Graph) -> None:
    kept: dict[_Content, ir.Value] = {}
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output():
            continue
        if tensor.dtype == ir.DataType.STRING:
            continue
        first = kept.setdefault(_content(value, tensor), value)
        if first is not value:
            value.replace_all_uses_with(first)
            graph.initializers.pop(str(value.name))


def _content(value: ir.Value, tensor: ir.TensorProtocol) -> _Content:
    """What equal tensors have in common: dtype, shape, and the hash of their elements."""
    known: tuple[ir.TensorProtocol, _Content] | None = value.meta.get(_KNOWN)
    if known is not None and known[0] is tensor:
        return known[1]
    elements = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
    shape = tuple(int(extent) for extent in tensor.shape.numpy())
    content = (tensor.dtype, shape, hashlib.sha256(elements.data).digest())
    value.meta[_KNOWN] = (tensor, content)
    return content
