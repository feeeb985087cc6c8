"""Whole models through the compiler and, as WebAssembly, through wasmtime, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper

from tests.graphs import BOUND, onnx_outputs, parse, random_inputs
from tests.unit.test_fuse import graphs
from webkiln import compile as compiler
from webkiln.bundle.bundle import Bundle
from webkiln.compile import compile_model
from webkiln.errors import InputError, InternalError
from webkiln.frontends.source import Source
from webkiln.ir.program import Program
from webkiln.targets.toolchain import VARIANTS


@pytest.fixture(autouse=True, scope="module")
def _one_variant() -> object:
    """Plain SIMD alone: a module takes a second to compile; all have the same kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "VARIANTS", VARIANTS[-1:])
        yield


def compiled(model: onnx.ModelProto, bound: int = BOUND) -> Bundle:
    bounds = {
        d.dim_param: bound
        for v in model.graph.input
        for d in v.type.tensor_type.shape.dim
        if d.dim_param
    }
    source = Source(onnx_ir.from_proto(model), "test")
    return compile_model(source, bounds=bounds, targets=("wasm",))


def check(bundle: Bundle, model: onnx.ModelProto, dims: Mapping[str, int] | None = None) -> None:
    inputs = random_inputs(model, dims)
    expected = onnx_outputs(model, inputs)
    actual = bundle.run(inputs)
    assert list(actual) == list(expected)
    for name, wanted in expected.items():
        assert actual[name].dtype == wanted.dtype
        np.testing.assert_allclose(actual[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def network(inputs: Mapping[str, str], nodes: Mapping[str, str]) -> onnx.ModelProto:
    """Nodes side by side, each with an output of its own: many cases, one module to compile."""
    declared = ", ".join(f"float[{shape}] {name}" for name, shape in inputs.items())
    outputs = ", ".join(f"float {name}" for name in nodes)
    body = "\n".join(f"{name} = {node}" for name, node in nodes.items())
    return parse(f"g ({declared}) => ({outputs}) {{ {body} }}")


def test_convolutions() -> None:
    model = network(
        {
            "x": "2,6,9,7",
            "s": "1,4,11",
            "w33": "8,6,3,3",
            "wb": "8",
            "wg": "6,2,3,3",
            "wd": "6,1,3,3",
            "wd5": "6,1,5,5",
            "wm": "12,1,3,3",
            "w1": "5,4,3",
            "wd1": "4,1,5",
            "wt": "6,5,3,3",
            "wt1": "4,3,4",
            "wtg": "6,2,2,2",
        },
        {
            "plain": "Conv(x, w33, wb)",
            "same": "Conv<pads=[1,1,1,1]>(x, w33)",
            "lower": 'Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w33)',
            "strided": "Conv<pads=[0,1,2,1], strides=[2,3]>(x, w33)",
            "dilated": "Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w33)",
            "grouped": "Conv<group=3, pads=[1,1,1,1]>(x, wg)",
            "depthwise": "Conv<group=6, pads=[1,1,1,1], strides=[2,2]>(x, wd)",
            "depthwise_dilated": "Conv<group=6, pads=[2,2,2,2], dilations=[2,2]>(x, wd)",
            "depthwise_5": "Conv<group=6, pads=[2,2,2,2], strides=[3,1]>(x, wd5)",
            "multiplied": "Conv<group=6>(x, wm)",
            "signal": "Conv<pads=[1,1], strides=[2]>(s, w1)",
            "signal_depthwise": "Conv<group=4, pads=[2,2]>(s, wd1)",
            "transposed": "ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, wt)",
            "transposed_signal": "ConvTranspose<strides=[2], output_padding=[1]>(s, wt1)",
            "transposed_grouped": "ConvTranspose<group=2, strides=[2,2]>(x, wtg)",
        },
    )
    check(compiled(model), model)


def test_products() -> None:
    model = network(
        {
            "a": "5,6",
            "b": "6,13",
            "v": "6",
            "u": "3,1,5,6",
            "t": "2,6,7",
            "w": "6,17",
            "wt": "9,6",
            "wb": "9",
            "tall": "1500,6",
            "deep": "70,2000",
            "wdeep": "2000,9",
        },
        {
            "blocks": "MatMul(tall, w)",
            "few_rows_a_block": "MatMul(deep, wdeep)",
            "plain": "MatMul(a, b)",
            "weights": "MatMul(a, w)",
            "row": "MatMul(v, b)",
            "column": "MatMul(a, v)",
            "dot": "MatMul(v, v)",
            "batched": "MatMul(u, t)",
            "shared": "MatMul(u, w)",
            "many": "MatMul(a, t)",
            "gemm": "Gemm<transB=1, alpha=0.5, beta=2.0>(a, wt, wb)",
            "gemm_t": "Gemm<transA=1>(a, a)",
        },
    )
    check(compiled(model), model)


def test_softmax_over_each_axis() -> None:
    shapes = {"x": "3,8,5", "y": "2,16,33"}
    nodes = {
        f"{kind}_{name}_{axis + 1}": f"{kind}<axis={axis}>({name})"
        for kind in ("Softmax", "LogSoftmax")
        for name in shapes
        for axis in (-1, 0, 1)
    }
    model = network(shapes, nodes)
    check(compiled(model), model)


LENGTHS = (1, 3, 4, 5, 17, BOUND)


def test_one_bundle_serves_every_length() -> None:
    """A transformer layer with masking, two heads, symbolic sequence."""
    model = parse("""g (float[1,n,16] x, float[1,n] mask, float[16,48] w0, float[48] wb0,
            float[16,16] w1, float[16] wb1, float[16,32] w2, float[32,16] w3,
            float[16] ws, float[16] wb) => (float[1,n,16] y, float[1,16] pooled) {
        qkv = MatMul(x, w0)
        biased = Add(qkv, wb0)
        q, k, v = Split<axis=2, num_outputs=3>(biased)
        heads = Constant<value_ints=[0,0,2,8]>()
        qh = Reshape(q, heads)
        kh = Reshape(k, heads)
        vh = Reshape(v, heads)
        qt = Transpose<perm=[0,2,1,3]>(qh)
        kt = Transpose<perm=[0,2,3,1]>(kh)
        vt = Transpose<perm=[0,2,1,3]>(vh)
        scores = MatMul(qt, kt)
        scale = Constant<value_float=0.35>()
        scaled = Mul(scores, scale)
        axes = Constant<value_ints=[1,2]>()
        wide = Unsqueeze(mask, axes)
        masked = Add(scaled, wide)
        weights = Softmax(masked)
        mixed = MatMul(weights, vt)
        back = Transpose<perm=[0,2,1,3]>(mixed)
        joined = Constant<value_ints=[0,0,16]>()
        flat = Reshape(back, joined)
        out = MatMul(flat, w1)
        outb = Add(out, wb1)
        residual = Add(outb, x)
        normed = LayerNormalization(residual, ws, wb)
        up = MatMul(normed, w2)
        act = Gelu(up)
        down = MatMul(act, w3)
        y = Add(down, normed)
        one = Constant<value_ints=[1]>()
        pooled = ReduceMean<keepdims=0>(y, one)
    }""")
    bundle = compiled(model)
    for n in LENGTHS:
        check(bundle, model, {"n": n})


def test_symbolic_rows_in_several_blocks() -> None:
    model = parse("""g (float[n,200] x, float[200,17] w, float[17] wb, float[n,17] z)
        => (float[n,17] y) {
        p = MatMul(x, w)
        a = Add(p, wb)
        y = Add(a, z)
    }""")
    bundle = compiled(model, 2000)
    for n in (1, 5, 6, 7, 63, 64, 65, 301, 999, 2000):
        check(bundle, model, {"n": n})


def test_two_symbolic_dimensions() -> None:
    model = parse("""g (float[b,n,6] x, float[6,10] w, float[b,1,10] z)
        => (float[b,n,10] y, float[n,b,10] t, float[b,10] m) {
        p = MatMul(x, w)
        y = Add(p, z)
        t = Transpose<perm=[1,0,2]>(y)
        a = Constant<value_ints=[1]>()
        m = ReduceMax<keepdims=0>(y, a)
    }""")
    bundle = compiled(model)
    for b, n in ((1, 1), (3, 5), (2, BOUND)):
        check(bundle, model, {"b": b, "n": n})


def test_conditions_of_one_row_meet_those_of_its_elements() -> None:
    """A scalar condition is 0 or 1, a lane of a mask 0 or -1."""
    model = parse("""g (float[4,16] x, float[4,1] r, float[16] w)
        => (float[4,16] both, float[4,16] either, bool[4,16] flags) {
        zero = Constant<value_float=0.0>()
        row = Less(r, zero)
        element = Less(x, w)
        a = And(row, element)
        both = Where(a, x, w)
        o = Or(element, row)
        not = Not(o)
        either = Where(not, x, w)
        flags = Xor(row, element)
    }""")
    check(compiled(model), model)


def test_a_small_network() -> None:
    """Images channels-last inside: convolutions, pooling, a residual, the classifier."""
    model = parse("""g (float[2,3,12,12] x, float[16,3,3,3] w0, float[16] wb0, float[16,1,3,3] w1,
            float[16,16,1,1] w2, float[16,10] w3) => (float[2,10] y, float[2,16,3,3] features) {
        a = Conv<strides=[2,2], pads=[0,0,1,1]>(x, w0, wb0)
        b = Clip(a)
        c = Conv<group=16, pads=[1,1,1,1]>(b, w1)
        d = Relu(c)
        e = Conv(d, w2)
        f = Add(e, b)
        features = MaxPool<kernel_shape=[2,2], strides=[2,2]>(f)
        g = GlobalAveragePool(features)
        h = Flatten(g)
        i = MatMul(h, w3)
        y = Softmax(i)
    }""")
    check(compiled(model), model)


@settings(max_examples=4, deadline=None)
@given(graphs())
def test_any_small_graph(graph: str) -> None:
    model = parse(graph)
    check(compiled(model), model)


# --- what the compiler says -----------------------------------------------------------------------

TINY = "g (float[2,3] x, float[3,8] w) => (float[2,8] y) { p = MatMul(x, w) y = Relu(p) }"


@pytest.mark.parametrize(
    ("level", "shown", "hidden"),
    [
        (0, [], ["webkiln:", "MatMul"]),
        (1, ["webkiln: lower ", "webkiln: schedule "], ["contraction", "KERNEL void"]),
        (2, ["wasm: contraction: MatMul", "112 flops, 184 bytes"], ["after fuse", "KERNEL void"]),
        (3, ["after fuse:", "sum(k", "task panel < 1", "for "], ["KERNEL void"]),
        (4, ["KERNEL void k0(", "webkiln_step"], []),
    ],
)
def test_debug_levels(
    level: int,
    shown: list[str],
    hidden: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WEBKILN_DEBUG", str(level))
    compiled(parse(TINY))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert all(text in captured.err for text in shown), captured.err
    assert not any(text in captured.err for text in hidden)


def test_debug_shows_the_shader_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEBKILN_DEBUG", "4")
    compile_model(Source(onnx_ir.from_proto(parse(TINY)), "test"), targets=("webgpu",))
    err = capfd.readouterr().err
    assert "webgpu: " in err
    assert "@compute" in err


def test_a_pass_that_breaks_the_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(program: Program) -> Program:
        program.computes.reverse()
        return program

    monkeypatch.setattr(compiler, "fuse", broken)
    with pytest.raises(InternalError, match=r"“fuse”.*has been computed before"):
        compiled(parse(TINY))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "q3"}, "quantize='q3'"),
        ({"targets": ("metal",)}, "no such target: metal"),
        ({"targets": ()}, "no such target: none given"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    source = Source(onnx_ir.from_proto(parse(TINY)), "test")
    with pytest.raises(InputError, match=message):
        compile_model(source, **options)


def test_a_tensor_of_no_elements_needs_no_kernel() -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    nodes = [
        helper.make_node("Slice", ["x", "at", "at"], ["empty"]),
        helper.make_node("Concat", ["empty", "x"], ["y"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "empty",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("empty", "y")],
        [numpy_helper.from_array(np.array([2]), "at")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    outputs = compiled(model).run({"x": x})
    assert outputs["empty"].shape == (0, 3)
    np.testing.assert_array_equal(outputs["y"], x)


def test_vectors_of_unsigned_integers_alone_compile() -> None:
    graph = helper.make_graph(
        [helper.make_node("BitwiseOr", ["a", "b"], ["y"])],
        "unsigned",
        [helper.make_tensor_value_info(n, TensorProto.UINT32, [8]) for n in "ab"],
        [helper.make_tensor_value_info("y", TensorProto.UINT32, [8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    a, b = np.arange(8, dtype=np.uint32), np.full(8, 2**31, np.uint32)
    outputs = compiled(model).run({"a": a, "b": b})
    np.testing.assert_array_equal(outputs["y"], a | b)
