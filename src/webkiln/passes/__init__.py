"""Graph passes: Model → Model, one a file, in the order below.

Each keeps what the model computes (up to rounding) and is tested to. They work on the ONNX
vocabulary only; layouts, fusion and schedules come later, on the kernel IR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from webkiln import ops
from webkiln.passes.bind_constants import bind_constants, name_dimensions
from webkiln.passes.dequantize_weights import dequantize_weights
from webkiln.passes.fold_affine import fold_affine
from webkiln.passes.fold_constants import fold_constants
from webkiln.passes.fold_pad import explicit_pads, fold_pad
from webkiln.passes.fold_scale import fold_scale
from webkiln.passes.fuse_attention import fuse_attention
from webkiln.passes.infer_shapes import infer_shapes
from webkiln.passes.inline_functions import inline_functions, inline_operators
from webkiln.passes.limit_activations import ACTIVATIONS, limit_activations
from webkiln.passes.merge_parallel_matmuls import merge_parallel_matmuls
from webkiln.passes.merge_quantised_products import merge_quantised_products
from webkiln.passes.merge_reshapes import merge_reshapes
from webkiln.passes.normalize_opset import normalize_opset
from webkiln.passes.quantize_weights import quantize_weights
from webkiln.passes.remove_duplicates import remove_duplicates
from webkiln.passes.remove_no_ops import remove_no_ops
from webkiln.passes.simplify_transposes import simplify_transposes
from webkiln.passes.unroll_recurrent import unroll_recurrent

__all__ = [
    "ACTIVATIONS",
    "SIMPLIFY",
    "dequantize_weights",
    "limit_activations",
    "plain",
    "quantize_weights",
    "run",
]

Pass = Callable[[ir.Model], ir.Model]

# Repeated until none of them finds anything more: each makes work for the others.
SIMPLIFY: tuple[Pass, ...] = (
    fold_constants,
    infer_shapes,
    remove_no_ops,
    merge_reshapes,
    simplify_transposes,
    explicit_pads,
    fold_pad,
    fold_affine,
    fold_scale,
    remove_duplicates,
)

_MAX_ROUNDS = 8


def run(
    model: ir.Model,
    bounds: Mapping[str, int] | None = None,
    constants: Mapping[str, npt.ArrayLike] | None = None,
) -> ir.Model:
    """The model as the compiler wants it; `model` itself is left as it is.

    `bounds` are upper bounds of symbolic dimensions: one whose bound is 1 becomes the number 1.
    `constants` binds inputs to values and dimensions to extents, by name. Afterwards every value
    has a dtype and, where it can be inferred, a shape; symbolic dimensions keep their names; all
    constants are initializers; the opset is 21 or newer.

    Raises `UnsupportedModelError` if an old opset can't be raised, `InputError` if `constants`
    names nothing of the model.
    """
    model = plain(model, bounds, constants)
    before = _fingerprint(model)
    model = fuse_attention(unroll_recurrent(model))
    if _fingerprint(model) != before:  # else nothing is left to simplify
        model = simplify(model)
    model = merge_parallel_matmuls(model)
    model = merge_quantised_products(model)
    return finish(model)


def plain(
    model: ir.Model,
    bounds: Mapping[str, int] | None = None,
    constants: Mapping[str, npt.ArrayLike] | None = None,
) -> ir.Model:
    """The first half of `run`: still of operators as the model's author may have written them.

    Which the reference can run, where it does not know all that the others become.
    """
    model = model.clone()
    # Before IR version 4 every initializer was an input too, and could be overridden.
    common.RemoveInitializersFromInputsPass()(model)
    model = name_dimensions(model)
    model = bind_constants(model, constants or {}, bounds or {})
    model = inline_functions(model)
    model = fold_constants(model)  # resolves constant If branches, at the model's own opset
    model = normalize_opset(model)
    model = inline_operators(model, ops.supports)
    return simplify(model)


def simplify(model: ir.Model) -> ir.Model:
    """Runs `SIMPLIFY` until the graph stays as it is."""
    before = ""
    for _ in range(_MAX_ROUNDS):
        for step in SIMPLIFY:
            model = step(model)
        after = _fingerprint(model)
        if after == before:
            break
        before = after
    return model


def finish(model: ir.Model) -> ir.Model:
    """Names that are unique, outputs that are results of nodes, nothing unused, all shapes."""
    common.RemoveUnusedNodesPass()(model)
    common.OutputFixPass()(model)
    common.NameFixPass()(model)
    common.TopologicalSortPass()(model)
    return infer_shapes(model)


def _fingerprint(model: ir.Model) -> str:
    """The same as long as no node was added, removed or rewired."""
    return "\n".join(
        f"{node.op_type} {[i.name if i else None for i in node.inputs]} {dict(node.attributes)}"
        for node in model.graph
    )
