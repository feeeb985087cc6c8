"""Every WebAssembly rule: the kernel computes what the definition says, inside its buffers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.graphs import lower, parse, random_inputs, scheduled
from tests.unit.test_fuse import graphs
from webkiln.lower.fuse import fuse
from webkiln.lower.layout import PANEL, assign_layouts
from webkiln.schedule.wasm import schedule


def kinds(graph: str, **dims: int) -> list[str]:
    """The kinds of the graph's kernels, after comparing each with its definition."""
    model = parse(graph)
    program = assign_layouts(fuse(lower(model)))
    found = []
    # a vector may reach past the end of a buffer: the memory plan has that slack
    runs = scheduled(program, schedule, random_inputs(model, dims), dims, slack=PANEL - 1)
    for kernel, actual, expected in runs:
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-6)
        found.append(kernel.kind)
    return found


# --- contractions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 11, 13])
@pytest.mark.parametrize("columns", [8, 5])
def test_rows_that_tiles_do_not_divide(rows: int, columns: int) -> None:
    graph = f"""g (float[{rows},6] x, float[6,{columns}] w, float[{columns}] wb)
        => (float[{rows},{columns}] y) {{
        p = MatMul(x, w)
        a = Add(p, wb)
        y = Relu(a)
    }}"""
    assert kinds(graph) == ["contraction"]


@pytest.mark.parametrize("columns", [1, 3, 4, 7, 9, 13, 16, 17])
def test_columns_that_panels_do_not_divide(columns: int) -> None:
    graph = f"""g (float[5,6] x, float[6,{columns}] w, float[{columns}] wb, float[5,{columns}] z)
        => (float[5,{columns}] y) {{
        p = MatMul(x, w)
        a = Add(p, wb)
        y = Add(a, z)
    }}"""
    kinds(graph)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 12, 13])
def test_symbolic_rows(n: int) -> None:
    graph = "g (float[2,n,6] x, float[6,16] w) => (float[2,n,16] y) { y = MatMul(x, w) }"
    assert kinds(graph, n=n) == ["contraction"]


@pytest.mark.parametrize("n", [1, 3, 8, 9])
def test_attention(n: int) -> None:
    """Symbolic rows, columns and depth; the keys packed by a kernel of their own."""
    graph = """g (float[2,n,8] q, float[2,n,8] k, float[2,n,8] v) => (float[2,n,8] y) {
        t = Transpose<perm=[0,2,1]>(k)
        s = MatMul(q, t)
        p = Softmax(s)
        y = MatMul(p, v)
    }"""
    assert kinds(graph, n=n).count("contraction") == 2


@pytest.mark.parametrize("depth", [1, 2, 3, 8, 300])
def test_depths(depth: int) -> None:
    kinds(f"g (float[3,{depth}] x, float[{depth},8] w) => (float[3,8] y) {{ y = MatMul(x, w) }}")


def test_batches_that_broadcast() -> None:
    kinds("g (float[2,1,3,4] x, float[3,4,8] z) => (float[2,3,3,8] y) { y = MatMul(x, z) }")
    kinds("g (float[4] x, float[2,4,8] z) => (float[2,8] y) { y = MatMul(x, z) }")
    kinds("g (float[3,4] x, float[4] z) => (float[3] y) { y = MatMul(x, z) }")


@pytest.mark.parametrize("attributes", ["pads=[1,1,1,1]", "strides=[2,2]", "dilations=[2,2]"])
def test_convolutions(attributes: str) -> None:
    graph = f"""g (float[1,4,7,6] x, float[8,4,3,3] w, float[8] wb) => (float[1,8,p,q] y) {{
        a = Conv<{attributes}>(x, w, wb)
        y = Clip(a)
    }}"""
    assert "contraction" in kinds(graph)


# --- columns, rows, elements ----------------------------------------------------------------------


@pytest.mark.parametrize("channels", [4, 8, 16, 24, 33])
def test_depthwise_convolutions(channels: int) -> None:
    graph = f"""g (float[1,2,5,6] x, float[{channels},2,1,1] w0, float[{channels},1,3,3] w1)
        => (float[1,{channels},3,3] y) {{
        a = Conv(x, w0)
        b = Relu(a)
        y = Conv<group={channels}, pads=[1,1,1,1], strides=[2,2]>(b, w1)
    }}"""
    assert kinds(graph)[1] == "columns"


def test_a_window_of_as_many_places_as_a_tile_has_taps_in_the_padding_alone() -> None:
    graph = """g (float[1,2,6,11] x, float[8,2,1,1] w) => (float[1,8,6,4] y) {
        a = Conv(x, w)
        y = MaxPool<kernel_shape=[1,4], pads=[0,2,0,1], strides=[1,3]>(a)
    }"""
    assert kinds(graph)[1] == "window"


@pytest.mark.parametrize("width", [1, 3, 7, 8, 9, 16, 23, 40])
def test_reductions_of_rows(width: int) -> None:
    graph = f"g (float[3,{width}] x) => (float[3,{width}] y) {{ y = Softmax(x) }}"
    assert len(kinds(graph)) == 1


@pytest.mark.parametrize("n", [1, 7, 8, 17])
def test_symbolic_reductions_of_rows(n: int) -> None:
    kinds("g (float[2,n] x) => (float[2,n] y) { y = Softmax(x) }", n=n)
    kinds("g (float[n,16] x, float[16] w) => (float[n,16] y) { y = LayerNormalization(x, w) }", n=n)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"])
def test_reductions_over_any_axis(kind: str, axis: int) -> None:
    kinds(f"""g (float[3,16,5] x) => (float[p,q,r] y) {{
        a = Constant<value_ints=[{axis}]>()
        y = {kind}(x, a)
    }}""")


@pytest.mark.parametrize("extra", ["", "exclusive=1, ", "reverse=1, "])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_guard_that_differs_along_the_lanes_is_no_loop_bound(extra: str, axis: int) -> None:
    attributes = f"<{extra.rstrip(', ')}>" if extra else ""
    kinds(f"""g (float[3,16] x) => (float[3,16] y) {{
        a = Constant<value_int={axis}>()
        y = CumSum{attributes}(x, a)
    }}""")


@pytest.mark.parametrize("size", [1, 5, 16, 31, 4097, 8200])
def test_long_elementwise_loops(size: int) -> None:
    graph = f"g (float[{size}] x, float[{size}] z) => (float[{size}] y) {{ y = Add(x, z) }}"
    kinds(graph)


@pytest.mark.parametrize("n", [1, 3, 8, 13])
def test_symbolic_elementwise_loops(n: int) -> None:
    kinds("g (float[2,n] x, float[n] z) => (float[2,n] y) { y = Mul(x, z) }", n=n)


def test_moves() -> None:
    kinds("g (float[3,5,7] x) => (float[7,3,5] y) { y = Transpose<perm=[2,0,1]>(x) }")
    kinds("g (float[3,8] x, float[3,5] z) => (float[3,13] y) { y = Concat<axis=1>(x, z) }")
    kinds("""g (float[5,8] x, int64[3] i) => (float[3,8] y) { y = Gather(x, i) }""")
    kinds("""g (float[4,4] x) => (float[6,7] y) {
        p = Constant<value_ints=[1,1,1,2]>()
        y = Pad(x, p)
    }""")


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("shape", ["1,3,8", "1,8,9", "2,16,7"])
def test_pooling_of_signals(kind: str, shape: str) -> None:
    kinds(f"""g (float[{shape}] x) => (float[p,q,r] y) {{
        y = {kind}<kernel_shape=[3], pads=[1,1], strides=[2]>(x)
    }}""")


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_any_small_graph(graph: str) -> None:
    kinds(graph)
