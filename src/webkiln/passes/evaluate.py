"""Runs parts of a graph at build time, to see what they compute rather than how they say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from webkiln.errors import UnsupportedModelError

__all__ = ["evaluate"]

Array = npt.NDArray[Any]


def evaluate(
    model: ir.Model, wanted: Sequence[ir.Value], feeds: Mapping[ir.Value, Array]
) -> list[Array]:
    """What the values are when those in `feeds`, anywhere in the graph, are given.

    The graph is sorted and every value has a name of its own. Raises `UnsupportedModelError` if a
    value depends on an input that isn't fed, or ONNX Runtime can't compute it.
    """
    known = dict(feeds)
    nodes, initializers, missing = _needed(model, wanted, known)
    if missing:
        names = ", ".join(sorted(missing))
        raise UnsupportedModelError(
            f"what depends on the input {names} can't be told at build time"
        )
    computed = [v for v in dict.fromkeys(wanted) if v not in known and v.const_value is None]
    if computed:
        proto = _graph(model, nodes, initializers, known, computed)
        known.update(zip(computed, _run(proto, known), strict=True))
    return [known[v] if v in known else _constant(v) for v in wanted]


def _constant(value: ir.Value) -> Array:
    assert value.const_value is not None
    return value.const_value.numpy()


def _needed(
    model: ir.Model, wanted: Sequence[ir.Value], known: Mapping[ir.Value, Array]
) -> tuple[list[ir.Node], list[ir.Value], set[str]]:
    """The nodes between `known` and `wanted` in order, their constants, and inputs not known."""
    reached: set[ir.Value] = set()
    nodes: set[ir.Node] = set()
    initializers: dict[ir.Value, None] = {}
    missing: set[str] = set()
    todo = list(wanted)
    while todo:
        value = todo.pop()
        if value in known or value in reached:
            continue
        reached.add(value)
        node = value.producer()
        if node is not None:
            nodes.add(node)
            todo += [v for v in _inputs(node) if v is not None]
        elif value.const_value is not None and not value.is_graph_input():
            initializers[value] = None
        else:
            missing.add(str(value.name))
    return [n for n in model.graph if n in nodes], list(initializers), missing


def _inputs(node: ir.Node) -> list[ir.Value | None]:
    """What the node reads, inside its subgraphs too."""
    inputs = list(node.inputs)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            inner = ir.traversal.RecursiveGraphIterator(attribute.as_graph())
            inputs += [
                v for n in inner for v in n.inputs if v is not None and v.graph is node.graph
            ]
    return inputs


def _graph(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    initializers: Sequence[ir.Value],
    known: Mapping[ir.Value, Array],
    computed: Sequence[ir.Value],
) -> onnx.ModelProto:
    made = {v for n in nodes for v in n.outputs}
    inputs = [
        onnx.helper.make_tensor_value_info(
            str(v.name), int(ir.DataType.from_numpy(a.dtype)), list(a.shape)
        )
        for v, a in known.items()
        if v not in made
    ]
    constants = []
    for value in initializers:
        assert value.const_value is not None
        tensor = ir.serde.serialize_tensor(value.const_value)
        tensor.name = str(value.name)
        constants.append(tensor)
    outputs = [onnx.ValueInfoProto(name=str(v.name)) for v in computed]
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(n) for n in nodes], "part", inputs, outputs, constants
    )
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)


def _run(proto: onnx.ModelProto, known: Mapping[ir.Value, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    feeds = {str(v.name): a for v, a in known.items()}
    try:
        session = ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        wanted = {i.name for i in session.get_inputs()}
        results = session.run(None, {k: a for k, a in feeds.items() if k in wanted})
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UnsupportedModelError(
            f"a part of the model can't be run at build time: {reason}"
        ) from error
    return [np.asarray(r) for r in results]
