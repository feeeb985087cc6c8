"""Gives every value its dtype and, where it can be told, its shape."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.shape_inference
import onnx_ir as ir

from webkiln.passes.graph import dims, light_proto

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
    proto, _ = light_proto(model)
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    found = {info.name: info.type for info in _value_infos(inferred.graph)}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            kind = found.get(str(value.name))
            if kind is not None:
                value.type = value.type or ir.serde.deserialize_type_proto_for_type(kind)
                told = ir.serde.deserialize_type_proto_for_shape(kind)
                value.shape = value.shape if told is None else told
    for initializer in model.graph.initializers.values():
        if initializer.const_value is not None:
            initializer.dtype = initializer.const_value.dtype
            initializer.shape = ir.Shape(list(initializer.const_value.shape.numpy()))
    return model


def _value_infos(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """What is said of the values of `graph` and of the graphs inside its nodes."""
    yield from graph.value_info
    yield from graph.output
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if _has_graph(attribute) else ():
                yield from _value_infos(inner)


def _has_graph(attribute: onnx.AttributeProto) -> bool:
    return attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
