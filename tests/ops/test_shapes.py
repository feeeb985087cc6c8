"""Shape inference against NumPy on random shapes, and shape arithmetic as exporters write it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper, parser

from tests.ops.harness import interpreter
from webkiln.errors import UnsupportedModelError
from webkiln.ir.expr import Expr
from webkiln.lower.graph import lower_graph


def run(
    op: str,
    inputs: list[np.ndarray],
    constants: list[np.ndarray] | None = None,
    symbolic: tuple[int, ...] = (),
    **attributes: Any,
) -> np.ndarray:
    """One node; axes `symbolic` of the first input are symbolic dimensions."""
    infos = []
    dims: dict[str, int] = {}
    for k, array in enumerate(inputs):
        shape: list[int | str] = list(array.shape)
        for axis in symbolic if k == 0 else ():
            shape[axis] = f"d{axis}"
            dims[f"d{axis}"] = array.shape[axis]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        infos.append(helper.make_tensor_value_info(f"x{k}", kind, shape))
    fixed = [numpy_helper.from_array(c, f"c{k}") for k, c in enumerate(constants or [])]
    names = [i.name for i in infos] + [f.name for f in fixed]
    node = helper.make_node(op, names, ["y"], **attributes)
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name="y")], fixed)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return interpreter(model, {f"x{k}": a for k, a in enumerate(inputs)}, dims)[0]


def numbered(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


EXTENT = st.integers(1, 4)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(EXTENT, st.sampled_from(["both", "left", "right"])), max_size=4), EXTENT)
def test_broadcasting_is_numpys(axes: list[tuple[int, str]], drop: int) -> None:
    left = [1 if kind == "right" else n for n, kind in axes]
    right = [1 if kind == "left" else n for n, kind in axes][min(drop, len(axes)) - 1 :]
    a, b = numbered(*left), numbered(*right)
    np.testing.assert_array_equal(run("Sub", [a, b]), a - b)


POSITION = st.one_of(st.integers(-9, 9), st.sampled_from([2**63 - 1, -(2**63), 2**31 - 1]))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6), POSITION, POSITION, st.sampled_from([1, 2, 3, -1, -2, -4]), st.booleans())
def test_slices_are_numpys(n: int, start: int, end: int, step: int, symbolic: bool) -> None:
    # a symbolic extent can't be compared with positions inside of it: those of exporters are 0,
    # ±1 and "to the end"
    assume(not symbolic or all(p in (0, 1, -1) or abs(p) > 2**30 for p in (start, end)))
    # going backwards ONNX clamps a start before the front to 0, where NumPy has nothing left
    assume(step > 0 or start >= -n)
    x = numbered(n, 2)
    arrays = [np.array([v], np.int64) for v in (start, end, 0, step)]
    result = run("Slice", [x], arrays, (0,) if symbolic else ())
    np.testing.assert_array_equal(result, x[start:end:step])


@settings(max_examples=60, deadline=None)
@given(st.permutations([0, 1, 2]), st.permutations([2, 3, 4]), st.booleans())
def test_transposes_and_reshapes_are_numpys(
    order: list[int], shape: list[int], symbolic: bool
) -> None:
    x = numbered(2, 3, 4)
    result = run("Transpose", [x], None, (1,) if symbolic else (), perm=order)
    np.testing.assert_array_equal(result, x.transpose(order))
    result = run("Reshape", [x], [np.array(shape, np.int64)])
    np.testing.assert_array_equal(result, x.reshape(shape))


# --- as exporters write it ------------------------------------------------------------------------


def lower(text: str) -> tuple[Expr, ...]:
    """The first output's shape of a graph in ONNX's text form with inputs b × n at most 8 × 64."""
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> agraph {text}'
    )
    program, _ = lower_graph(onnx_ir.from_proto(model), {"b": 8, "n": 64})
    return program.outputs[0].shape


HEADS = """(float[b, n, 12] x) => (y)
<int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] h = {3}, int64[1] d = {-1}> {
  s = Shape (x)
  batch = Gather (s, i0)
  length = Gather (s, i1)
  split = Concat <axis = 0> (batch, length, h, d)
  heads = Reshape (x, split)
  moved = Transpose <perm = [0, 2, 1, 3]> (heads)
  back = Transpose <perm = [0, 2, 1, 3]> (moved)
  merged = Concat <axis = 0> (batch, length, d)
  y = Reshape (back, merged)
}"""

WHERE = """(float[1, n] x, float[b, n] like) => (y)
<int64[1] minus = {-1}> {
  s = Shape (like)
  rank = Shape (s)
  ones = ConstantOfShape <value = int64[1] {1}> (rank)
  given = Equal (s, minus)
  target = Where (given, ones, s)
  y = Expand (x, target)
}"""

POSITIONS = """(int64[b, n] ids, int64[1, 64] table) => (y)
<int64[1] i0 = {0}, int64[1] i1 = {1}> {
  s = Shape (ids)
  length = Gather (s, i1)
  part = Slice (table, i0, length, i1)
  y = Add (ids, part)
}"""

MASK = """(int64[b, n] mask) => (y)
<int64[1] a1 = {1}, int64[1] a2 = {2}, int64[1] i1 = {1}, int64 one = {1}, int64 zero = {0}> {
  s = Shape (mask)
  length = Gather (s, i1)
  scalar = Squeeze (length)
  range = Range (zero, scalar, one)
  row = Unsqueeze (range, a1)
  causal = LessOrEqual (range, row)
  keys = Cast <to = 9> (mask)
  wide = Unsqueeze (keys, a1)
  y = And (wide, causal)
}"""

HALF = """(float[b, n, 12] x) => (y)
<int64 two = {2}, int64[1] i2 = {2}, int64[1] i0 = {0}> {
  s = Shape (x)
  width = Gather (s, i2)
  half = Div (width, two)
  left = Slice (x, i0, half, i2)
  right = Slice (x, half, width, i2)
  y = Mul (left, right)
}"""


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (HEADS, "(b, n, 12)"),
        (WHERE, "(b, n)"),
        (POSITIONS, "(b, n)"),
        (MASK, "(b, n, n)"),
        (HALF, "(b, n, 6)"),
    ],
    ids=["heads", "expand", "positions", "mask", "half"],
)
def test_shape_arithmetic_disappears(text: str, shape: str) -> None:
    assert repr(lower(text)) == shape


def test_shapes_that_do_not_broadcast_are_named() -> None:
    with pytest.raises(UnsupportedModelError, match=r"\[2, 3\], \[4\] do not broadcast"):
        run("Add", [numbered(2, 3), numbered(4)])


def test_a_shape_that_depends_on_values_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="the shape depends on the input's values"):
        run("Reshape", [numbered(2, 3), np.array([3, 2], np.int64)])


def test_a_type_that_no_target_stores_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="complex64"):
        run("Cast", [numbered(2)], to=int(onnx.TensorProto.COMPLEX64))


def test_a_recurrent_layer_that_was_not_unrolled_says_what_it_needs() -> None:
    weights = [numbered(1, 2, 3), numbered(1, 2, 2)]
    with pytest.raises(UnsupportedModelError, match="a fixed number of steps, at most 256"):
        run("RNN", [numbered(5, 1, 3), *weights], hidden_size=2)


def test_an_input_that_is_no_tensor_is_refused() -> None:
    text = """(optional(seq(float[2])) x) => (optional(seq(float[2])) y) { y = Identity (x) }"""
    with pytest.raises(UnsupportedModelError, match="input 'x' is no tensor but Optional"):
        lower(text)
