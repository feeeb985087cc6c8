"""Operator definitions, found by (domain, ONNX name)."""

from importlib import import_module

from webkiln.ops.core import OPERATORS, Context, Tensor, Unsupported

__all__ = ["OPERATORS", "Context", "Tensor", "Unsupported", "supports"]

for _family in (
    "activations",
    "attention",
    "convolution",
    "elementwise",
    "gather",
    "linear",
    "logic",
    "matmul_nbits",
    "normalization",
    "pooling",
    "quantized",
    "reductions",
    "resize",
    "rotary",
    "sampling",
    "shape",
    "slicing",
    "sorting",
):
    import_module(f"webkiln.ops.{_family}")


def supports(op_type: str, domain: str = "") -> bool:
    """Whether it is defined here; what ONNX defines as a function of others is inlined instead."""
    return ("" if domain == "ai.onnx" else domain, op_type) in OPERATORS
