"""Binding inputs and dimensions; raising old opsets; the whole list on small graphs."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from webkiln import passes
from webkiln.errors import InputError, UnsupportedModelError
from webkiln.passes.bind_constants import bind_constants, name_dimensions
from webkiln.passes.normalize_opset import OPSET, normalize_opset


def model(text, opset=21, version=8):
    return ir.from_onnx_text(f'<ir_version: {version}, opset_import: ["": {opset}]>\n{text}')


SCALED = "g (float[batch, N] x, float s) => (float[batch, N] y) { y = Mul(x, s) }"


def test_a_bound_input_is_a_constant():
    result = bind_constants(model(SCALED), {"s": 2, "N": 7}, {"batch": 1, "N": 9})
    assert [value.name for value in result.graph.inputs] == ["x"]
    assert list(result.graph.inputs[0].shape) == [1, 7]
    assert result.graph.node(0).inputs[1].const_value.numpy() == np.float32(2)


def test_a_bound_above_one_leaves_the_dimension_symbolic():
    result = bind_constants(model(SCALED), {}, {"batch": 8})
    assert result.graph.inputs[0].shape == ["batch", "N"]


def test_binding_what_is_not_there_names_what_is():
    with pytest.raises(InputError, match="'speed' is neither") as error:
        bind_constants(model(SCALED), {"speed": 2}, {})
    assert "N, batch, s, x" in str(error.value)
    with pytest.raises(InputError, match="input 's' has 0 dimensions; the value to bind has 1"):
        bind_constants(model(SCALED), {"s": [1, 2]}, {})


def test_nameless_dimensions_get_a_name():
    result = name_dimensions(model("g (float[?, 3, ?] x) => (float[?, 3, ?] y) { y = Relu(x) }"))
    assert result.graph.inputs[0].shape == ["x_0", 3, "x_2"]


OLD = [
    (9, "g (float[2,6] x) => (float[2,4] y) { y = Slice<starts=[1], ends=[5], axes=[1]>(x) }"),
    (9, "g (float[1,1,2,3] x, float[4] s) => (float[1,1,4,6] y) { y = Upsample(x, s) }"),
    (9, "g (float[2,3] x) => (float[2,5] y) { y = Pad<pads=[0,1,0,1]>(x) }"),
    (10, "g (float[2,3] x) => (float[2,3] y) { y = Clip<min=-0.5, max=0.5>(x) }"),
    (11, "g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax<axis=1>(x) }"),
    (11, "g (float[2,1,3] x) => (float[2,3] y) { y = Squeeze<axes=[1]>(x) }"),
    (11, "g (float[2,3] x) => (float[1,2,3] y) { y = Unsqueeze<axes=[0]>(x) }"),
    (11, "g (float[2,3] x) => (float[2,1] y) { y = ReduceSum<axes=[1]>(x) }"),
    (13, "g (float[2,3] x) => (float[2,1] y) { y = ReduceMean<axes=[1]>(x) }"),
    (13, "g (float[2,4] x) => (float[2,2] y, float[2,2] z) { y, z = Split<axis=1>(x) }"),
    (7, 'g (float[1,1,2,3] x) => (y) { y = Upsample<mode="linear", scales=[1.0,1.0,2.0,1.5]>(x) }'),
    (9, 'g (float[1,1,2,3] x, float[4] s) => (y) { y = Upsample<mode="linear">(x, s) }'),
    (10, 'g (float[1,1,2,3] x, float[4] s) => (y) { y = Resize<mode="linear">(x, s) }'),
    (10, "g (float[1,1,5,7] x) => (y) <float[4] s = {1.0,1.0,1.7,1.0}> { y = Resize(x, s) }"),
    (10, "g (float[1,1,5,7] x) => (y) <float[4] s = {1.0,1.0,0.6,0.7}> { y = Resize(x, s) }"),
    (12, "g (float[2,3,4] x) => (y) { y = Hardmax<axis=1>(x) }"),
    (11, "g (float[2,3,4] x) => (float[2,3,4] z) { y = Hardmax(x) z = Neg(y) }"),
    (
        20,
        """g (float[2,4,3] x) => (float[2,4,3] y) <float[2] s = {2.0, 3.0}, float[2] b = {1.0, 0.5}>
        { y = GroupNormalization<num_groups=2, epsilon=0.1>(x, s, b) }""",
    ),
]


@pytest.mark.parametrize(("opset", "text"), OLD, ids=lambda value: str(value)[:60])
def test_old_operators_are_raised(compare, rng, opset, text):
    before = model(text, opset, version=4 if opset < 15 else 8)
    feeds = {"x": rng.standard_normal([int(d) for d in before.graph.inputs[0].shape])}
    if len(before.graph.inputs) > 1:
        before = bind_constants(before, {"s": np.array([1, 1, 2, 2])}, {})
    after = normalize_opset(before.clone())
    assert after.opset_imports[""] == OPSET
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    compare(before, after, {name: value.astype(np.float32) for name, value in feeds.items()})


def test_a_file_so_old_that_its_weights_are_inputs_too_is_raised(compare):
    before = model(
        """g (float[2,3] x, float[3] b) => (float[2,3] y) <float[3] b = {1.0, 2.0, 3.0}> {
            one = Constant<value = float[1] {1.0}>()
            shifted = Add(x, b)
            y = Mul(shifted, one)
        }""",
        opset=7,
        version=3,
    )
    after = passes.run(before)
    assert [value.name for value in after.graph.inputs] == ["x"]
    compare(before, after, {"x": np.ones((2, 3), np.float32)})


def test_what_the_converter_refuses_is_told_with_its_reason():
    text = "g (float[2] x) => (float[2] y) { y = Add(x, nowhere) }"
    with pytest.raises(UnsupportedModelError, match=r"raised to 21: .*nowhere is undefined"):
        normalize_opset(model(text, 13))


def test_new_opsets_stay_as_they_are():
    after = normalize_opset(model("g (float[2] x) => (float[2] y) { y = Relu(x) }", 23))
    assert after.opset_imports == {"": 23}


def test_operators_that_the_opset_never_had_are_listed():
    text = "g (float[2] x) => (float[2] y) { a = Gelu(x) b = NotThere(a) y = Relu(b) }"
    with pytest.raises(UnsupportedModelError, match=r"opset 8.* has no Gelu, NotThere"):
        normalize_opset(model(text, 8, 3))


def test_operators_of_other_domains_pass_through():
    before = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 13, "com.microsoft": 1]>
        g (float[2] x) => (float[2] y) { a = com.microsoft.QuickGelu(x) y = Relu(a) }"""
    )
    after = normalize_opset(before)
    assert next((n.domain, n.op_type) for n in after.graph) == ("com.microsoft", "QuickGelu")
    assert after.opset_imports == {"": OPSET, "com.microsoft": 1}


def test_run_leaves_the_model_alone_and_describes_every_value(compare, rng):
    before = model(
        """g (float[batch, 3, 8, 8] x, float[4,3,3,3] w, float mode) => (float[batch, 4] y) {
            zero = Constant<value_float=0.0>()
            on = Equal(mode, zero)
            c = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)
            d = If(on) <
                then_branch = a () => (float[batch,4,4,4] p) { p = Relu(c) },
                else_branch = b () => (float[batch,4,4,4] q) { q = Neg(c) }
            >
            e = Identity(d)
            m = ReduceMean<axes=[2,3], keepdims=0>(e)
            y = Softmax<axis=1>(m)
        }""",
        opset=13,
    )
    weights = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    after = passes.run(before, {"batch": 4}, {"w": weights, "mode": 0})
    assert [value.name for value in before.graph.inputs] == ["x", "w", "mode"]
    assert [node.op_type for node in after.graph if node.op_type != "Shape"][:2] == ["Conv", "Relu"]
    for node in after.graph:
        for value in node.outputs:
            assert value.dtype is not None
            assert value.shape is not None
            assert value.shape[0] == "batch"
    x = rng.standard_normal((3, 3, 8, 8)).astype(np.float32)
    compare(before, after, {"x": x, "w": weights, "mode": np.array(0, np.float32)})


def test_an_output_that_is_an_input_or_a_constant_survives(compare):
    before = model(
        """g (float[2] x) => (float[2] y, float[2] z, float[2] c) {
            y = Identity(x)
            z = Relu(x)
            c = Constant<value_floats=[1.0, 2.0]>()
        }"""
    )
    after = passes.run(before)
    compare(before, after, {"x": np.array([-1, 1], np.float32)})
