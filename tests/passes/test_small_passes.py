"""Passes that move, cancel or drop nodes."""

import numpy as np
import onnx_ir as ir
import pytest

from tests.passes.conftest import operators, parse
from webkiln.passes.fold_constants import fold_constants
from webkiln.passes.fold_pad import explicit_pads, fold_pad
from webkiln.passes.inline_functions import inline_functions, inline_operators
from webkiln.passes.merge_reshapes import merge_reshapes
from webkiln.passes.remove_duplicates import remove_duplicates
from webkiln.passes.remove_no_ops import remove_no_ops
from webkiln.passes.simplify_transposes import simplify_transposes


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("a = Relu(x) y = Identity(a)", "Relu"),
        ("a = Relu(x) y = Dropout(a)", "Relu"),
        ("a = Relu(x) y = Cast<to=1>(a)", "Relu"),
        ("a = Relu(x) y = Add(zero, a)", "Relu"),
        ("a = Relu(x) y = Mul(a, one)", "Relu"),
        ("a = Relu(x) y = Div(a, one)", "Relu"),
        ("a = Relu(x) y = Div(one, a)", "Relu Div"),
        ("a = Relu(x) y = Sub(zero, a)", "Relu Sub"),
        ("a = Relu(x) y = Transpose<perm=[0,1]>(a)", "Relu"),
        ("a = Relu(x) y = Reshape(a, shape)", "Relu"),
        ("a = Relu(x) y = Expand(a, shape)", "Relu"),
        ("a = Relu(x) y = Concat<axis=0>(a)", "Relu"),
        ("a = Relu(x) y = Slice(a, start, far, axis)", "Relu"),
        ("a = Relu(x) b = Slice(a, start, far, axis, back) y = Relu(b)", "Relu Slice Relu"),
        ("a = Relu(x) y = Pad(a, pads)", "Relu"),
        ("y = Identity(x)", "Identity"),
        ("a = Relu(x) y = Pow(a, one)", "Relu"),
    ],
)
def test_what_changes_nothing_goes(check, body, after):
    text = f"""g (float[2,3] x, float[1] zero, float one, int64[2] shape, int64[1] start,
                  int64[1] far, int64[1] axis, int64[1] back, int64[4] pads)
                 => (float[2,3] y) {{ {body} }}"""
    constants = {
        "zero": [0], "one": 1, "shape": [2, 3], "start": [0], "far": [2**63 - 1], "axis": [0],
        "back": [-1], "pads": [0, 0, 0, 0],
    }  # fmt: skip
    if "back" in body:
        constants["start"], constants["far"] = [-1], [-(2**31)]
    check(text, remove_no_ops, after, constants)


def test_adding_zero_may_widen(check):
    check(
        """g (float[3] x, float[2,1] zero) => (float[2,3] y) { y = Add(x, zero) }""",
        remove_no_ops,
        "Add",
        {"zero": [[0], [0]]},
    )


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("b = Reshape(a, flat) y = Reshape(b, out)", "Relu Reshape"),
        ("b = Unsqueeze(a, axis) c = Squeeze(b, axis) y = Relu(c)", "Relu Relu"),
        ("b = Flatten(a) c = Reshape(b, shape) y = Relu(c)", "Relu Reshape Relu"),
    ],
)
def test_chains_of_reshapes_become_one(check, body, after):
    text = f"""g (float[N,3,4] x, int64[2] flat, int64[2] out, int64[3] shape, int64[1] axis)
         => (float[N,?] y) {{ a = Relu(x) {body} }}""".replace("?", "M")
    if "out" not in body:
        text = text.replace("float[N,M] y", "float[N,3,4] y")
    result = check(
        text,
        lambda model: remove_duplicates(merge_reshapes(model)),
        after,
        {"flat": [0, 12], "out": [-1, 6], "shape": [-1, 3, 4], "axis": [0]},
    )
    assert result is not None


@pytest.mark.parametrize(
    ("body", "after", "perm"),
    [
        (
            "a = Transpose<perm=[0,2,3,1]>(x) y = Transpose<perm=[0,3,1,2]>(a)",
            "Transpose",
            [0, 1, 2, 3],
        ),
        (
            """a = Transpose<perm=[0,2,3,1]>(x) b = Relu(a) c = Mul(b, two)
               d = Transpose<perm=[0,3,1,2]>(c) y = Relu(d)""",
            "Relu Mul Relu",
            None,
        ),
        (
            "a = Transpose<perm=[0,2,3,1]>(x) b = Tanh(a) y = Transpose<perm=[0,2,1,3]>(b)",
            "Tanh Transpose",
            [0, 3, 2, 1],
        ),
    ],
)
def test_transposes_cancel_and_merge(check, body, after, perm):
    text = f"g (float[2,3,4,5] x, float two) => (float[a,b,c,d] y) {{ {body} }}"
    result = check(text, lambda m: remove_duplicates(simplify_transposes(m)), after, {"two": 2})
    if perm is not None:
        found = next(node for node in result.graph if node.op_type == "Transpose")
        assert list(found.attributes["perm"].as_ints()) == perm


def test_a_transpose_of_extents_of_one_is_a_reshape(check):
    check(
        """g (float[N,1,4] x) => (float[1,N,4] y) {
            a = Relu(x)
            y = Transpose<perm=[1,0,2]>(a)
        }""",
        simplify_transposes,
        "Relu Reshape",
    )


def test_pad_goes_into_conv_and_pools(check, rng):
    check(
        """g (float[1,2,5,5] x, float[3,2,3,3] w, int64[8] p) => (float[1,3,7,6] y) {
            a = Pad(x, p)
            y = Conv<pads=[1,0,0,0]>(a, w)
        }""",
        fold_pad,
        "Conv",
        {"w": rng.standard_normal((3, 2, 3, 3)), "p": [0, 0, 1, 2, 0, 0, 2, 1]},
    )
    check(
        """g (float[1,2,5,5] x, int64[4] p, int64[2] axes, float none) => (float[1,2,6,5] y) {
            a = Pad(x, p, none, axes)
            y = AveragePool<kernel_shape=[2,2]>(a)
        }""",
        fold_pad,
        "AveragePool",
        {"p": [1, 0, 1, 1], "axes": [2, 3], "none": 0.0},
    )
    check(
        """g (float[1,2,5,5] x, int64[8] p, float low) => (float[1,2,5,5] y) {
            a = Pad(x, p, low)
            y = MaxPool<kernel_shape=[3,3]>(a)
        }""",
        fold_pad,
        "MaxPool",
        {"p": [0, 0, 1, 1, 0, 0, 1, 1], "low": -np.inf},
    )


def test_a_pool_takes_no_padding_as_wide_as_its_window(check):
    check(
        """g (float[1,2,5,5] x, int64[8] p) => (float[1,2,8,5] y) {
            a = Pad(x, p)
            y = AveragePool<kernel_shape=[2,1]>(a)
        }""",
        fold_pad,
        "Pad AveragePool",
        {"p": [0, 0, 2, 0, 0, 0, 2, 0]},
    )


@pytest.mark.parametrize(
    ("mode", "pads", "value"),
    [
        ("reflect", [0, 0, 1, 1, 0, 0, 1, 1], 0.0),
        ("constant", [0, 0, 1, 1, 0, 0, 1, 1], 1.0),
        ("constant", [0, 0, -1, 1, 0, 0, 1, 1], 0.0),
        ("constant", [0, 1, 0, 0, 0, 0, 0, 0], 0.0),
    ],
)
def test_other_pads_stay(check, rng, mode, pads, value):
    channels = 2 + pads[1]
    check(
        f"""g (float[1,2,5,5] x, float[3,{channels},3,3] w, int64[8] p, float v)
             => (float[1,3,a,b] y) {{
            a = Pad<mode="{mode}">(x, p, v)
            y = Conv(a, w)
        }}""",
        fold_pad,
        "Pad Conv",
        {"w": rng.standard_normal((3, channels, 3, 3)), "p": pads, "v": value},
    )


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_automatic_padding_becomes_explicit(check, rng, mode, stride):
    result = check(
        f"""g (float[1,2,8,7] x, float[3,2,4,3] w) => (float[1,3,a,b] y) {{
            y = Conv<auto_pad="{mode}", strides=[{stride},{stride}]>(x, w)
        }}""",
        explicit_pads,
        "Conv",
        {"w": rng.standard_normal((3, 2, 4, 3))},
    )
    assert "auto_pad" not in result.graph.node(0).attributes


def test_constants_fold_but_never_bloat(check):
    check(
        """g (float[2] x, float[2] a, float[2] b) => (float[2] y) {
            c = Mul(a, b)
            y = Add(x, c)
        }""",
        fold_constants,
        "Add",
        {"a": [1, 2], "b": [3, 4]},
    )
    check(
        """g (float[2] x, float[1] a, int64[2] s) => (float[1000,1000] y, float[2] z) {
            y = Expand(a, s)
            z = Relu(x)
        }""",
        fold_constants,
        "Expand Relu",
        {"a": [1], "s": [1000, 1000]},
    )


def test_a_constant_condition_chooses_its_branch(check):
    check(
        """g (float[2] x, int64 rate, int64 wanted) => (float[2] y) {
            same = Equal(rate, wanted)
            y = If(same) <
                then_branch = a () => (float[2] p) { p = Relu(x) },
                else_branch = b () => (float[2] q) { r = Neg(x) q = Relu(r) }
            >
        }""",
        fold_constants,
        "Neg Relu",
        {"rate": 8000, "wanted": 16000},
    )


def test_shapes_of_known_extents_fold(check):
    check(
        """g (float[2,3,4] x) => (float[2,12] y) {
            shape = Shape(x)
            zero = Constant<value_int=0>()
            batch = Gather(shape, zero)
            axes = Constant<value_ints=[0]>()
            rest = Constant<value_ints=[-1]>()
            first = Unsqueeze(batch, axes)
            target = Concat<axis=0>(first, rest)
            y = Reshape(x, target)
        }""",
        fold_constants,
        "Reshape",
    )


def test_equal_constants_and_nodes_become_one(check):
    check(
        """g (float[2] x, float[2] a, float[2] b) => (float[2] y) {
            p = Add(x, a)
            q = Add(x, b)
            unused = Relu(q)
            y = Mul(p, q)
        }""",
        remove_duplicates,
        "Add Mul",
        {"a": [1, 2], "b": [1, 2]},
    )


def test_functions_of_the_model_are_inlined():
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 21, "own": 1]>
        g (float[2] x) => (float[2] y) { y = own.twice(x) }
        <opset_import: ["": 21], domain: "own"> twice (a) => (b) { b = Add(a, a) }"""
    )
    result = inline_functions(model)
    assert [node.op_type for node in result.graph] == ["Add"]
    assert not result.functions


def test_operators_without_a_definition_here_are_inlined(check):
    text = "g (float[N,4] x) => (float[N,4] y) { a = HardSwish(x) y = Relu(a) }"
    check(text, lambda m: inline_operators(m, lambda op, domain: True), "HardSwish Relu")
    check(
        text,
        lambda m: inline_operators(m, lambda op, domain: op != "HardSwish"),
        "HardSigmoid Mul Relu",
    )


def test_a_folded_transpose_is_laid_out_in_order(rng):
    weights = {"w": rng.standard_normal((40, 50)), "v": rng.standard_normal((50, 40))}
    text = """g (float[5,50] x, float[40,50] w, float[50,40] v) => (float[5,40] y) {
        t = Transpose(w)
        a = MatMul(x, t)
        b = MatMul(x, v)
        y = Add(a, b)
    }"""
    model = remove_duplicates(fold_constants(parse(text, weights)))
    assert operators(model) == "MatMul MatMul Add"


def test_a_constant_that_was_replaced_is_compared_anew():
    text = "g (float[2] x, float[2] a, float[2] b) => (float[2] y) { t = Mul(x, a) y = Mul(t, b) }"
    model = remove_duplicates(parse(text, {"a": [1, 2], "b": [3, 4]}))
    initializers = model.graph.initializers
    assert set(initializers) == {"a", "b"}
    initializers["b"].const_value = ir.tensor(np.array([1, 2], np.float32), name="b")
    remove_duplicates(model)
    assert set(initializers) == {"a"}
    assert [node.inputs[1].name for node in model.graph] == ["a", "a"]
