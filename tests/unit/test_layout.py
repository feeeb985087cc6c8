"""Layouts and the copies that kernels read: where elements lie, and that numbers stay."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import interpret, lower, parse, random_inputs
from webkiln.interpret.compute import value_of
from webkiln.ir.buffer import Buffer, Layout, packed, row_major
from webkiln.ir.dtypes import F32
from webkiln.ir.expr import Load, walk
from webkiln.ir.program import Compute, Program
from webkiln.ir.verify import verify_program
from webkiln.lower.fuse import fuse
from webkiln.lower.layout import PANEL, assign_layouts

LAST = row_major((0, 2, 3, 1))


def relaid(graph: str, **dims: int) -> Program:
    """The program with its layouts, after comparing its outputs with those before."""
    model = parse(graph)
    before = fuse(lower(model))
    after = assign_layouts(before)
    verify_program(after, "layouts")
    inputs = random_inputs(model, dims)
    old, new = interpret(before, inputs, dims), interpret(after, inputs, dims)
    for a, b in zip(before.outputs, after.outputs, strict=True):
        np.testing.assert_allclose(new[b], old[a], rtol=1e-5, atol=1e-6)
    return after


def computing(program: Program, name: str) -> Compute:
    return next(c for c in program.computes if c.out.name == name)


def loaded(compute: Compute) -> dict[str, Buffer]:
    return {n.buffer.name: n.buffer for n in walk(compute.value) if isinstance(n, Load)}


def kinds(program: Program) -> list[str]:
    """What each computation is: its own name for copies, else `compute`."""
    words = ("pad", "pack", "to")
    return [
        next((w for w in words if c.label.startswith(w + " ")), "compute") for c in program.computes
    ]


# --- activations ----------------------------------------------------------------------------------


def test_images_are_channels_last_inside() -> None:
    program = relaid("""g (float[1,3,6,6] x, float[8,3,3,3] w0, float[8,8,1,1] w1)
        => (float[1,8,6,6] y) {
        a = Conv<pads=[1,1,1,1]>(x, w0)
        b = Relu(a)
        y = Conv(b, w1)
    }""")
    inner = [c.out for c in program.computes if c.out.role == "temporary"]
    assert all(b.layout == LAST for b in inner if b.name.startswith("t"))
    assert program.inputs[0].layout == row_major(4)
    assert program.outputs[0].layout == row_major(4)


def test_an_output_keeps_the_order_of_the_model() -> None:
    program = relaid("""g (float[1,4,5,5] x, float[8,4,1,1] w) => (float[1,8,5,5] y) {
        y = Conv(x, w)
    }""")
    last = program.computes[-1]
    assert last.out is program.outputs[0]
    assert last.label == "to the model's layout"
    assert last.out.layout == row_major(4)


def test_texts_stay_as_they_are() -> None:
    program = relaid(
        """g (float[1,n,8] x, float[8,16] w) => (float[1,n,16] y) {
        a = MatMul(x, w)
        b = Relu(a)
        c = Exp(b)
        d = Sin(c)
        y = Tanh(d)
    }""",
        n=5,
    )
    assert all(c.out.layout == row_major(3) for c in program.computes)


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [8, 13, 5])
def test_weights_of_a_product_lie_in_panels(columns: int) -> None:
    program = relaid(f"""g (float[3,6] x, float[6,{columns}] w) => (float[3,{columns}] y) {{
        y = MatMul(x, w)
    }}""")
    (weights,) = program.constants
    assert weights.layout == packed((0, 1), 1, PANEL)
    assert repr(weights.size) == str(-(-columns // PANEL) * PANEL * 6)


def test_transposed_weights_are_packed_alike() -> None:
    program = relaid("""g (float[3,6] x, float[16,6] w) => (float[3,16] y) {
        y = Gemm<transB=1>(x, w)
    }""")
    (weights,) = program.constants
    assert weights.layout == packed((0, 1), 0, PANEL)


def test_weights_of_a_convolution_follow_the_image() -> None:
    """k runs through both alike: rows, columns, channels."""
    program = relaid("""g (float[1,4,6,6] x, float[8,4,1,1] w0, float[16,8,3,3] w1)
        => (float[1,16,4,4] y) {
        a = Conv(x, w0)
        b = Relu(a)
        y = Conv(b, w1)
    }""")
    weights = next(b for b in program.constants if b.name == "w1")
    assert [p.axis for p in weights.layout.parts] == [0, 2, 3, 1, 0]


def test_one_wish_of_two_users_is_one_copy() -> None:
    program = relaid("""g (float[3,6] x, float[2,6] z, float[6,8] w)
        => (float[3,8] y, float[2,8] v) {
        y = MatMul(x, w)
        v = MatMul(z, w)
    }""")
    assert len(program.constants) == 1


def test_a_depthwise_weight_has_its_channels_last() -> None:
    program = relaid("""g (float[1,8,6,6] x, float[8,1,3,3] w) => (float[1,8,6,6] y) {
        y = Conv<group=8, pads=[1,1,1,1]>(x, w)
    }""")
    (weights,) = program.constants
    assert weights.layout.order[-1] == 0


# --- copies ---------------------------------------------------------------------------------------


def test_a_padded_convolution_reads_a_padded_copy() -> None:
    program = relaid("""g (float[1,4,6,5] x, float[8,4,3,3] w) => (float[1,8,6,5] y) {
        y = Conv<pads=[1,1,1,1]>(x, w)
    }""")
    assert kinds(program) == ["pad", "compute", "to"]
    copy = program.computes[0].out
    assert [repr(e) for e in copy.shape] == ["1", "4", "8", "7"]
    assert copy.layout == LAST


@pytest.mark.parametrize("pads", ["1,0,0,1", "0,2,1,0", "2,2,2,2"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding_on_any_side(pads: str, stride: int, dilation: int) -> None:
    relaid(f"""g (float[2,3,7,8] x, float[4,3,3,2] w) => (float[2,4,p,q] y) {{
        y = Conv<pads=[{pads}], strides=[{stride},{stride}],
                 dilations=[{dilation},{dilation}]>(x, w)
    }}""")


def test_without_padding_no_copy() -> None:
    program = relaid("""g (float[1,4,6,5] x, float[8,4,3,3] w) => (float[1,8,4,3] y) {
        y = Conv(x, w)
    }""")
    assert kinds(program) == ["compute", "to"]


@pytest.mark.parametrize("n", [1, 5, 17])
def test_keys_of_attention_are_packed_when_running(n: int) -> None:
    program = relaid(
        """g (float[2,n,4] q, float[2,n,4] k) => (float[2,n,n] y) {
        t = Transpose<perm=[0,2,1]>(k)
        y = MatMul(q, t)
    }""",
        n=n,
    )
    assert kinds(program) == ["pack", "compute"]
    copy = program.computes[0].out
    assert copy.layout.parts[-1].modulus == PANEL


def test_values_of_attention_are_read_where_they_are() -> None:
    program = relaid(
        "g (float[2,n,n] p, float[2,n,8] v) => (float[2,n,8] y) { y = MatMul(p, v) }", n=6
    )
    assert kinds(program) == ["compute"]


# --- layouts themselves ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (row_major(3), (2, 3, 4)),
        (row_major((0, 2, 1)), (2, 3, 4)),
        (packed((0, 1), 1, 8), (3, 13)),
        (packed((0, 1, 2), 0, 4), (6, 2, 3)),
    ],
    ids=str,
)
def test_every_element_has_a_place_of_its_own(layout: Layout, shape: tuple[int, ...]) -> None:
    buffer = Buffer("b", F32, shape, layout=layout)
    places = [value_of(buffer.offset(at), {}) for at in np.ndindex(*shape)]
    assert len(set(places)) == len(places)
    assert set(places) <= set(range(value_of(buffer.size, {})))
