"""Replaces calls of functions by their bodies: the model's own, and what ONNX defines by others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import onnx
import onnx.inliner
import onnx_ir as ir
from onnx_ir.passes import common

from webkiln.passes.graph import through_proto

__all__ = ["inline_functions", "inline_operators"]

_log = logging.getLogger(__name__)


def inline_functions(model: ir.Model) -> ir.Model:
    """Inlines the functions that the model itself brings."""
    common.InlinePass()(model)
    common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    common.RemoveUnusedOpsetsPass()(model)
    return model


def inline_operators(model: ir.Model, supports: Callable[[str, str], bool]) -> ir.Model:
    """Inlines operators that ONNX defines as functions of others.

    Only those for which `supports(op_type, domain)` is false: an own definition says more to the
    schedules than a dozen small nodes.
    """
    wanted = {
        (node.domain, node.op_type)
        for node in model.graph.all_nodes()
        if not supports(node.op_type, node.domain) and _has_body(node, model)
    }
    for operator in sorted(wanted):
        try:
            model = through_proto(model, partial(_inline, operator=operator))
        except RuntimeError as error:
            # The C++ inliner doesn't manage every optional input. What stays is reported by name
            # as unsupported later, which says more than what went wrong in here.
            _log.info("%s could not be inlined: %s", operator[1], error)
    return model


def _inline(proto: onnx.ModelProto, *, operator: tuple[str, str]) -> onnx.ModelProto:
    return onnx.inliner.inline_selected_functions(
        proto, [operator], exclude=False, inline_schema_functions=True
    )


def _has_body(node: ir.Node, model: ir.Model) -> bool:
    try:
        schema = onnx.defs.get_schema(
            node.op_type, model.opset_imports.get(node.domain, 1), node.domain
        )
    except onnx.defs.SchemaError:
        return False
    body: bool = schema.has_function  # type: ignore[attr-defined]
    depends: bool = schema.has_context_dependent_function  # type: ignore[attr-defined]
    return body or depends
