"""Gives every value its dtype and, where it can be told, its shape."""

from __future__ import annotations

import onnx
import onnx.shape_inference
import onnx_ir as ir

from webkiln.passes.graph import dims, through_proto

__all__ = ["infer_shapes"]


def infer_shapes(model: ir.Model) -> ir.Model:
    """Infers dtypes and shapes from the inputs on; symbolic dimensions keep their names.

    What an exporter noted on values inside the graph stays where it is numbers and the inputs' own
    symbols, and is dropped otherwise: after dimensions were bound other symbols may contradict.
    """
    symbols = {dim for value in model.graph.inputs for dim in dims(value) or () if dim is not None}
    for node in model.graph:
        for value in node.outputs:
            shape = dims(value)
            if shape is not None and not all(
                isinstance(dim, int) or dim in symbols for dim in shape
            ):
                known = [dim if isinstance(dim, int) or dim in symbols else None for dim in shape]
                value.shape = ir.Shape(known) if value.is_graph_output() else None
    inferred = through_proto(
        model, lambda proto: onnx.shape_inference.infer_shapes(proto, data_prop=True)
    )
    found = {value.name: value for node in inferred.graph.all_nodes() for value in node.outputs}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            other = found.get(value.name)
            if other is not None:
                value.type = value.type or other.type
                if other.shape is not None:
                    value.shape = other.shape
    for initializer in model.graph.initializers.values():
        if initializer.const_value is not None:
            initializer.dtype = initializer.const_value.dtype
            initializer.shape = ir.Shape(list(initializer.const_value.shape.numpy()))
    return model
