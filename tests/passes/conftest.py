"""What the tests of passes share: a graph as text, before and after, both run by ONNX Runtime."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from webkiln.passes.inline_functions import inline_operators

# Stands for a symbolic extent when inputs are made up.
EXTENT = 3


def parse(text: str, weights: Mapping[str, Any] | None = None, opset: int = 21) -> ir.Model:
    """A model from ONNX's textual form; `weights` turns inputs of these names into constants."""
    version = 10 if opset >= 21 else 8
    model = ir.from_onnx_text(
        f'<ir_version: {version}, opset_import: ["": {opset}, "com.microsoft": 1]>\n{text}'
    )
    inputs = {value.name: value for value in model.graph.inputs}
    for name, numbers in (weights or {}).items():
        value = inputs[name]
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(np.asarray(numbers, value.dtype.numpy()), name=name)
        value.shape = ir.Shape(np.shape(numbers))
        model.graph.register_initializer(value)
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    return ir.from_proto(proto)


def run(model: ir.Model, feeds: Mapping[str, Any]) -> list[Any]:
    if any(map(_has_small_bias, model.graph)):
        model = inline_operators(model.clone(), lambda op_type, _: op_type != "Attention")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return session.run(None, dict(feeds))


def _has_small_bias(node: ir.Node) -> bool:
    """Attention with a bias that broadcasts, which ONNX defines and ONNX Runtime does not take."""
    bias = node.inputs[3] if node.op_type == "Attention" and len(node.inputs) > 3 else None
    return bias is not None and bias.shape is not None and [1, *bias.shape][-2] == 1


def feeds_for(model: ir.Model, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.inputs:
        shape = [dim if isinstance(dim, int) else EXTENT for dim in value.shape]
        if value.dtype.is_floating_point():
            feeds[value.name] = rng.standard_normal(shape).astype(value.dtype.numpy())
        else:
            feeds[value.name] = rng.integers(0, 4, shape).astype(value.dtype.numpy())
    return feeds


def operators(model: ir.Model) -> str:
    return " ".join(node.op_type for node in model.graph)


@pytest.fixture
def check() -> Callable[..., ir.Model]:
    """Applies a pass to a graph: operators before and after, and outputs that stay the same."""

    def check(
        text: str,
        step: Callable[[ir.Model], ir.Model],
        after: str,
        weights: Mapping[str, Any] | None = None,
        opset: int = 21,
    ) -> ir.Model:
        model = parse(text, weights, opset)
        feeds = feeds_for(model)
        expected = run(model, feeds)
        names = [value.name for value in model.graph.outputs]
        result = step(model)
        assert operators(result) == after
        assert [value.name for value in result.graph.outputs] == names
        onnx.checker.check_model(ir.to_proto(result), full_check=True)
        kept = {value.name for value in result.graph.inputs}
        feeds = {name: value for name, value in feeds.items() if name in kept}
        for got, want in zip(run(result, feeds), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        return result

    return check


@pytest.fixture
def compare() -> Callable[..., None]:
    """Two models on the same made-up inputs; the second may have lost bound ones."""

    def compare(
        before: ir.Model, after: ir.Model, feeds: Mapping[str, Any], tolerance: float = 1e-4
    ) -> None:
        kept = {value.name for value in after.graph.inputs}
        expected = run(before, feeds)
        got = run(after, {name: value for name, value in feeds.items() if name in kept})
        assert [v.name for v in after.graph.outputs] == [v.name for v in before.graph.outputs]
        for value, want in zip(got, expected, strict=True):
            assert value.shape == want.shape
            np.testing.assert_allclose(value, want, rtol=tolerance, atol=tolerance)

    return compare


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)
