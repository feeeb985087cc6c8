"""Constants in memory lie where the kernels' index arithmetic looks for them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webkiln.ir.buffer import Buffer, Layout, Part, packed, row_major
from webkiln.ir.dtypes import BOOL, F16, F32, I8, I32, U8
from webkiln.ir.expr import const
from webkiln.memory.layout import _scatter, pack, store
from webkiln.memory.size import evaluate


@st.composite
def layouts(draw):
    """A shape, and a layout that splits and orders its axes."""
    shape = draw(st.lists(st.integers(1, 7), min_size=0, max_size=3))
    parts = []
    for axis in range(len(shape)):
        widths = draw(st.lists(st.integers(2, 5), max_size=2))
        divisor = 1
        for width in widths:
            parts.append(Part(axis, divisor, width))
            divisor *= width
        parts.append(Part(axis, divisor))
    return tuple(shape), Layout(tuple(draw(st.permutations(parts))))


@settings(deadline=None, max_examples=50)
@given(layouts())
def test_every_element_lies_at_its_offset_and_the_rest_is_zero(drawn):
    shape, layout = drawn
    values = np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    b = Buffer("w", F32, shape, "constant", layout)
    memory = pack(values, b)
    assert memory.shape == (evaluate(b.size, {}),)
    expected = np.zeros_like(memory)
    for index in np.ndindex(shape):
        expected[evaluate(b.offset([const(i, I32) for i in index]), {})] = values[index]
    np.testing.assert_array_equal(memory, expected)
    np.testing.assert_array_equal(_scatter(values, b), expected)


def test_panels():
    values = np.arange(2 * 5).reshape(2, 5)
    b = Buffer("w", I32, (2, 5), "constant", packed((0, 1), axis=1, width=4))
    assert pack(values, b).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 4, 0, 0, 0, 9, 0, 0, 0]


def test_transposed():
    b = Buffer("w", I32, (2, 3), "constant", row_major((1, 0)))
    assert pack(np.arange(6).reshape(2, 3), b).tolist() == [0, 3, 1, 4, 2, 5]


def test_layout_that_is_no_split_is_scattered():
    layout = Layout((Part(0, 1, 4), Part(0, 4), Part(1)))
    overlapping = Layout((Part(0), Part(1), Part(0, 1, 2)))
    for chosen in (layout, overlapping):
        b = Buffer("w", I32, (6, 2), "constant", chosen)
        values = np.arange(1, 13).reshape(6, 2)
        expected = np.zeros(evaluate(b.size, {}), np.int32)
        for index in np.ndindex(6, 2):
            expected[evaluate(b.offset(index), {})] = values[index]
        assert pack(values, b).tolist() == expected.tolist()


def test_scalar_and_empty():
    assert pack(np.float64(3), Buffer("s", F32, (), "constant")).tolist() == [3.0]
    assert pack(np.zeros((0, 4)), Buffer("e", F32, (0, 4), "constant")).shape == (0,)


def test_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"w has shape \[2, 3\], its values \[3, 2\]"):
        pack(np.zeros((3, 2)), Buffer("w", F32, (2, 3), "constant"))


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (np.array([2**63 - 1, -(2**63), 5]), I32, [2**31 - 1, -(2**31), 5]),
        (np.array([True, False]), BOOL, [1, 0]),
        (np.array([True, False]), I32, [1, 0]),
        (np.array([1.5, 1e300]), F32, [1.5, np.inf]),
        (np.array([1.5], np.float32), F16, [1.5]),
        (np.array([300, -300]), I8, [127, -128]),
        (np.array([300, -300]), U8, [255, 0]),
        (np.array([7], np.uint8), I32, [7]),
    ],
)
def test_storage_types(values, dtype, expected):
    stored = store(values, dtype)
    assert stored.tolist() == expected
    assert stored.dtype == ("int32" if dtype is BOOL else dtype.name)
