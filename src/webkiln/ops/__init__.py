"""Operator definitions, found by (domain, ONNX name)."""

from webkiln.ops import elementwise, linear
from webkiln.ops.core import OPERATORS, Context, Tensor, Unsupported

__all__ = ["OPERATORS", "Context", "Tensor", "Unsupported", "supports"]

del elementwise, linear


def supports(op_type: str, domain: str = "") -> bool:
    """Whether a definition exists here; what ONNX defines as a function of others is inlined instead."""
    return ("" if domain == "ai.onnx" else domain, op_type) in OPERATORS
