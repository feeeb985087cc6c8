"""What a model consists of before it is compiled: operators, shapes, what is unsupported."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from webkiln import ops, passes
from webkiln.errors import WebkilnError
from webkiln.frontends import Source

__all__ = ["ModelReport", "NodeReport", "OperatorReport", "model_report"]


@dataclass(frozen=True)
class OperatorReport:
    """An operator, how often the model uses it, and whether it can be compiled.

    `support` is "yes", "rewritten" (the graph passes express it by others) or "no".
    """

    name: str
    domain: str
    count: int
    support: str


@dataclass(frozen=True)
class NodeReport:
    """One node of the graph, in order; `outputs` as `name: dtype[shape]`."""

    name: str
    operator: str
    reads: list[str]
    writes: list[str]
    outputs: list[str]


@dataclass(frozen=True)
class ModelReport:
    """What a model consists of."""

    name: str
    task: str | None
    opset: int
    inputs: list[str]
    outputs: list[str]
    parameters: int
    weights: int
    operators: list[OperatorReport]
    nodes: list[NodeReport]
    provenance: dict[str, str]

    @property
    def unsupported(self) -> list[str]:
        """Operators that cannot be compiled."""
        return [operator.name for operator in self.operators if operator.support == "no"]

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self) | {"unsupported": self.unsupported}


def model_report(source: Source) -> ModelReport:
    """Report on the model that a frontend yielded. Shapes are those that ONNX infers."""
    model = _with_shapes(source.model)
    graph = model.graph
    opset = graph.opset_imports.get("", 0)
    unsupported = _unsupported(source)
    counts = Counter((node.domain, node.op_type) for node in graph)
    operators = [
        OperatorReport(name, domain, count, _support(domain, name, unsupported))
        for (domain, name), count in counts.most_common()
    ]
    weights = [value.const_value for value in graph.initializers.values()]
    return ModelReport(
        name=source.name,
        task=source.task,
        opset=opset,
        inputs=[_value(value) for value in graph.inputs if value.name not in graph.initializers],
        outputs=[_value(value) for value in graph.outputs],
        parameters=sum(tensor.size for tensor in weights if tensor is not None),
        weights=sum(tensor.nbytes for tensor in weights if tensor is not None),
        operators=operators,
        nodes=[_node(node) for node in graph],
        provenance=source.provenance,
    )


def _with_shapes(model: ir.Model) -> ir.Model:
    """The model with inferred shapes; as it is when ONNX cannot infer them."""
    from onnx_ir.passes.common import ShapeInferencePass

    return ShapeInferencePass()(model).model


def _support(domain: str, name: str, unsupported: set[tuple[str, str]]) -> str:
    if (domain, name) in unsupported:
        return "no"
    return "yes" if ops.supports(name, domain) else "rewritten"


def _unsupported(source: Source) -> set[tuple[str, str]]:
    """Operators that are left, without a definition, when the graph passes are through."""
    try:
        model = passes.run(source.model, source.config.get("max"))
    except WebkilnError:  # a model that the passes refuse can still be looked at
        model = source.model
    nodes = {(node.domain, node.op_type) for node in model.graph}
    return {(domain, name) for domain, name in nodes if not ops.supports(name, domain)}


def _node(node: ir.Node) -> NodeReport:
    return NodeReport(
        name=node.name or "",
        operator=node.op_type,
        reads=[value.name for value in node.inputs if value is not None and value.name],
        writes=[value.name for value in node.outputs if value.name],
        outputs=[_value(value) for value in node.outputs if value.name],
    )


def _value(value: ir.Value) -> str:
    dtype = value.dtype.name.lower() if value.dtype is not None else "?"
    shape = "?" if value.shape is None else ", ".join(str(size) for size in value.shape)
    return f"{value.name}: {dtype}[{shape}]"
