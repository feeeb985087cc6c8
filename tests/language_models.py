"""Tiny language models with random weights, as exporters write them, and a loop that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

__all__ = ["TINY", "Shape", "decode_with_past", "decode_with_state", "export"]

Array = NDArray[Any]
F, I, B = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL


@dataclass(frozen=True)
class Shape:
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    size: int = 16
    inner: int = 96
    vocabulary: int = 64
    window: int = 0
    softcap: float = 0.0

    @property
    def width(self) -> int:
        return self.heads * self.size


TINY = Shape()
TABLE_ROWS = 64  # of the rotary tables in the file


class _Graph:
    """Nodes, initializers and fresh names."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape, self.rng = shape, np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, Array] = {}

    def op(
        self, kind: str, *inputs: str, out: int | Sequence[str] = 1, domain: str = "", **at: Any
    ):
        names = (
            [f"{kind}_{len(self.nodes)}_{i}" for i in range(out)] if isinstance(out, int) else out
        )
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **at))
        return names[0] if len(names) == 1 else list(names)

    def const(self, numbers: Any, dtype: Any = np.int64) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers[name] = np.asarray(numbers, dtype)
        return name

    def matmul(self, x: str, k: int, n: int) -> str:
        weight = self.rng.standard_normal((k, n)) / np.sqrt(k)
        return self.op("MatMul", x, self.const(weight, np.float32))

    def norm(self, x: str) -> str:
        """RMSNorm in the operators that a tracer leaves behind."""
        square = self.op("Pow", x, self.const(2.0, np.float32))
        mean = self.op("ReduceMean", square, axes=[-1])
        root = self.op("Sqrt", self.op("Add", mean, self.const(1e-5, np.float32)))
        scale = self.const(1 + 0.1 * self.rng.standard_normal(self.shape.width), np.float32)
        return self.op("Mul", self.op("Div", x, root), scale)

    def heads(self, x: str, count: int, traced: bool = False) -> str:
        """Traced: the batch and the length are read off the shape, the heads are what is left."""
        if traced:
            shape = self.op("Shape", x)
            outer = [self.op("Gather", shape, self.const(i)) for i in (0, 1)]
            outer = [self.op("Unsqueeze", i, self.const([0])) for i in outer]
            shape = self.op(
                "Concat", *outer, self.const([-1]), self.const([self.shape.size]), axis=0
            )
            split = self.op("Reshape", x, shape)
        else:
            split = self.op("Reshape", x, self.const([0, 0, count, self.shape.size]))
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def merge(self, x: str) -> str:
        y = self.op("Transpose", x, perm=[0, 2, 1, 3])
        return self.op("Reshape", y, self.const([0, 0, self.shape.width]))

    def tables(self) -> tuple[str, str]:
        half = self.shape.size // 2
        angles = np.arange(TABLE_ROWS)[:, None] * 100.0 ** (-np.arange(half) / half)
        return self.const(np.cos(angles), np.float32), self.const(np.sin(angles), np.float32)

    def mlp(self, x: str) -> str:
        s = self.shape
        gate, up = self.matmul(x, s.width, s.inner), self.matmul(x, s.width, s.inner)
        gated = self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up)
        return self.matmul(gated, s.inner, s.width)


def _optimum(g: _Graph, style: str):
    """Eager attention of transformers as torch.onnx.export writes it."""
    s = g.shape
    length = g.op("Gather", g.op("Shape", "input_ids"), g.const(1))
    past = g.op("Gather", g.op("Shape", "past_key_values.0.key"), g.const(2))
    total = g.op("Add", past, length)
    places = g.op("Range", past, total, g.const(1))
    rows = g.op("Unsqueeze", places, g.const([1]))
    keys = g.op("Unsqueeze", g.op("Range", g.const(0), total, g.const(1)), g.const([0]))
    allowed = (
        g.op("LessOrEqual", keys, rows)
        if s.window == 0
        else g.op(
            "And",
            g.op("LessOrEqual", keys, rows),
            g.op("Greater", keys, g.op("Sub", rows, g.const(s.window))),
        )
    )
    there = g.op("Cast", g.op("Unsqueeze", "attention_mask", g.const([1, 2])), to=B)
    allowed = g.op("And", g.op("Unsqueeze", allowed, g.const([0, 1])), there)
    low = g.const(np.finfo(np.float32).min, np.float32)
    bias = g.op("Where", allowed, g.const(0.0, np.float32), low)

    if style == "no position_ids":
        sums = g.op("Sub", g.op("CumSum", "attention_mask", g.const(1)), g.const(1))
        ids = g.op(
            "Slice", sums, g.op("Unsqueeze", past, g.const([0])), g.const([2**40]), g.const([1])
        )
    else:
        ids = "position_ids"
    half = s.size // 2
    frequencies = g.const(100.0 ** (-np.arange(half) / half), np.float32)
    turn = g.op("Mul", g.op("Unsqueeze", g.op("Cast", ids, to=F), g.const([2])), frequencies)
    turn = g.op("Unsqueeze", g.op("Concat", turn, turn, axis=-1), g.const([1]))
    cos, sin = g.op("Cos", turn), g.op("Sin", turn)

    def rotate(x: str) -> str:
        a, b = g.op("Split", x, g.const([half, half]), out=2, axis=-1)
        turned = g.op("Concat", g.op("Neg", b), a, axis=-1)
        return g.op("Add", g.op("Mul", x, cos), g.op("Mul", turned, sin))

    def repeat(x: str) -> str:
        group = s.heads // s.kv_heads
        wide = g.op("Unsqueeze", x, g.const([2]))
        at = g.op(
            "Concat",
            g.const([1, s.kv_heads, group]),
            g.op("Unsqueeze", total, g.const([0])),
            g.const([s.size]),
            axis=0,
        )
        return g.op("Reshape", g.op("Expand", wide, at), g.const([0, s.heads, -1, s.size]))

    def attention(i: int, x: str) -> str:
        kv = s.kv_heads * s.size
        traced = style == "scaled operands"
        q = rotate(g.heads(g.matmul(x, s.width, s.width), s.heads, traced))
        k = rotate(g.heads(g.matmul(x, s.width, kv), s.kv_heads, traced))
        v = g.heads(g.matmul(x, s.width, kv), s.kv_heads, traced)
        k = g.op("Concat", f"past_key_values.{i}.key", k, out=[f"present.{i}.key"], axis=2)
        v = g.op("Concat", f"past_key_values.{i}.value", v, out=[f"present.{i}.value"], axis=-2)
        k, v = repeat(k), repeat(v)
        turned = g.op("Transpose", k, perm=[0, 1, 3, 2])
        if style == "scaled operands":  # scaled_dot_product_attention: √scale on either side
            root = _root_of_scale(g, q)
            scores = g.op("MatMul", g.op("Mul", q, root), g.op("Mul", turned, root))
        else:
            scores = g.op("MatMul", q, turned)
            scores = g.op("Div", scores, g.const(np.sqrt(s.size), np.float32))
        if s.softcap:
            cap = g.const(s.softcap, np.float32)
            scores = g.op("Mul", g.op("Tanh", g.op("Div", scores, cap)), cap)
        if style == "where":
            scores = g.op("Where", g.op("Not", allowed), low, scores)
        else:
            scores = g.op("Add", scores, bias)
        p = g.op("Softmax", scores, axis=-1)
        if style == "scaled operands":
            p = g.op("Where", g.op("IsNaN", p), g.const(0.0, np.float32), p)
        return g.merge(g.op("MatMul", p, v))

    return attention


def _root_of_scale(g: _Graph, query: str) -> str:
    """√(1/√size), the size read off the query's shape, as a tracer writes it."""
    size = g.op("Slice", g.op("Shape", query), g.const([-1]), g.const([2**63 - 1]))
    size = g.op("Sqrt", g.op("Cast", size, to=F))
    return g.op("Sqrt", g.op("Div", g.const([1.0], np.float32), size))


def _microsoft(g: _Graph, style: str):
    """onnxruntime-genai's: GroupQueryAttention, lengths from the attention mask."""
    s = g.shape
    sums = g.op("ReduceSum", "attention_mask", g.const([1]), keepdims=0)
    lengths = g.op("Cast", g.op("Sub", sums, g.const(1)), to=onnx.TensorProto.INT32)
    total = g.op("Gather", g.op("Shape", "attention_mask"), g.const(1))
    total = g.op("Cast", total, to=onnx.TensorProto.INT32)
    cos, sin = g.tables()
    outside = style == "rotary outside"

    def attention(i: int, x: str) -> str:
        kv = s.kv_heads * s.size
        if style == "packed":
            inputs = [g.matmul(x, s.width, s.width + 2 * kv), "", ""]
        else:
            inputs = [g.matmul(x, s.width, n) for n in (s.width, kv, kv)]
        if outside:
            for j, heads in ((0, s.heads), (1, s.kv_heads)):
                inputs[j] = g.op(
                    "RotaryEmbedding",
                    inputs[j],
                    "position_ids",
                    cos,
                    sin,
                    domain="com.microsoft",
                    num_heads=heads,
                )
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        present = [f"present.{i}.key", f"present.{i}.value"]
        return g.op(
            "GroupQueryAttention",
            *inputs,
            *past,
            lengths,
            total,
            *([] if outside else [cos, sin]),
            out=[f"mixed_{i}", *present],
            domain="com.microsoft",
            num_heads=s.heads,
            kv_num_heads=s.kv_heads,
            do_rotary=int(not outside),
            scale=s.size**-0.5,
            rotary_interleaved=int(style == "interleaved"),
            softcap=s.softcap,
            local_window_size=s.window or -1,
        )[0]

    return attention


def _onnx(g: _Graph, style: str):
    """ONNX's Attention with past inputs; a mask of padding, causal by itself."""
    s = g.shape
    cos, sin = g.tables()
    there = g.op("Cast", g.op("Unsqueeze", "attention_mask", g.const([1, 2])), to=B)
    length = g.op("Shape", "input_ids", start=1, end=2)
    there = g.op("Expand", there, g.op("Concat", g.const([1, 1]), length, g.const([1]), axis=0))

    def joined(i: int, q: str, k: str, v: str) -> str:
        """Concat first, Attention over all keys behind it."""
        q, k, v = g.heads(q, s.heads), g.heads(k, s.kv_heads), g.heads(v, s.kv_heads)
        past = g.op("Shape", "past_key_values.0.key", start=2, end=3)
        total = g.op("Add", past, length)
        keys = g.op("Range", g.const(0), g.op("Squeeze", total), g.const(1))
        rows = g.op("Range", g.op("Squeeze", past), g.op("Squeeze", total), g.const(1))
        seen = g.op("LessOrEqual", keys, g.op("Unsqueeze", rows, g.const([1])))
        k = g.op("Concat", f"past_key_values.{i}.key", k, out=[f"present.{i}.key"], axis=2)
        v = g.op("Concat", f"past_key_values.{i}.value", v, out=[f"present.{i}.value"], axis=2)
        return g.merge(g.op("Attention", q, k, v, seen, softcap=s.softcap, scale=0.3))

    def attention(i: int, x: str) -> str:
        kv = s.kv_heads * s.size
        q, k, v = (g.matmul(x, s.width, n) for n in (s.width, kv, kv))
        q = g.op("RotaryEmbedding", q, cos, sin, "position_ids", num_heads=s.heads)
        k = g.op("RotaryEmbedding", k, cos, sin, "position_ids", num_heads=s.kv_heads)
        if style == "joined":
            return joined(i, q, k, v)
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        present = [f"present.{i}.key", f"present.{i}.value"]
        return g.op(
            "Attention",
            q,
            k,
            v,
            there,
            *past,
            out=[f"mixed_{i}", *present],
            q_num_heads=s.heads,
            kv_num_heads=s.kv_heads,
            is_causal=1,
            softcap=s.softcap,
        )[0]

    return attention


def _multi_head(g: _Graph, style: str):
    """com.microsoft's MultiHeadAttention, with a mask of its own; as many heads of keys."""
    s = g.shape
    length = g.op("Gather", g.op("Shape", "input_ids"), g.const(1))
    total = g.op("Gather", g.op("Shape", "attention_mask"), g.const(1))
    rows = g.op("Range", g.op("Sub", total, length), total, g.const(1))
    keys = g.op("Range", g.const(0), total, g.const(1))
    later = g.op(
        "Greater", g.op("Unsqueeze", keys, g.const([0])), g.op("Unsqueeze", rows, g.const([1]))
    )
    bias = g.op("Mul", g.op("Cast", later, to=F), g.const(-1e9, np.float32))
    bias = g.op("Unsqueeze", bias, g.const([0, 1]))
    biases = g.const(g.rng.standard_normal(3 * s.width), np.float32) if style == "biased" else ""

    def attention(i: int, x: str) -> str:
        parts = [g.matmul(x, s.width, s.width) for _ in range(3)]
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        present = [f"present.{i}.key", f"present.{i}.value"]
        return g.op(
            "MultiHeadAttention",
            *parts,
            biases,
            "",
            bias,
            *past,
            out=[f"mixed_{i}", *present],
            domain="com.microsoft",
            num_heads=s.heads,
        )[0]

    return attention


_FORMS = {
    "optimum": (_optimum, 17),
    "genai": (_microsoft, 17),
    "multi-head": (_multi_head, 17),
    "onnx": (_onnx, 24),
}


def export(form: str, style: str = "", shape: Shape = TINY, seed: int = 0) -> onnx.ModelProto:
    """A causal language model with past and present, of the `form` of one exporter."""
    make, opset = _FORMS[form]
    g = _Graph(shape, seed)
    attention = make(g, style)
    table = g.const(g.rng.standard_normal((shape.vocabulary, shape.width)), np.float32)
    x = g.op("Gather", table, "input_ids")
    for i in range(shape.layers):
        y = g.matmul(attention(i, g.norm(x)), shape.width, shape.width)
        x = g.op("Add", x, y)
        x = g.op("Add", x, g.mlp(g.norm(x)))
    head = g.op("Transpose", table, perm=[1, 0])
    g.op("MatMul", g.norm(x), head, out=["logits"])
    if opset >= 18:
        _axes_as_inputs(g)
    return _model(g, opset)


def _axes_as_inputs(g: _Graph) -> None:
    for node in g.nodes:
        if node.op_type == "ReduceMean":
            del node.attribute[:]
            node.input.append(g.const([-1]))


def _model(g: _Graph, opset: int) -> onnx.ModelProto:
    s = g.shape
    used = {name for node in g.nodes for name in node.input}
    inputs = [helper.make_tensor_value_info("input_ids", I, ["batch_size", "sequence_length"])]
    ports = {"attention_mask": "total_sequence_length", "position_ids": "sequence_length"}
    for name, extent in ports.items():
        if name in used:
            inputs.append(helper.make_tensor_value_info(name, I, ["batch_size", extent]))
    outputs = [
        helper.make_tensor_value_info("logits", F, ["batch_size", "sequence_length", s.vocabulary])
    ]
    for i in range(s.layers):
        for kind in ("key", "value"):
            for ports_, prefix, extent in (
                (inputs, "past_key_values", "past_sequence_length"),
                (outputs, "present", "total_sequence_length"),
            ):
                shape = ["batch_size", s.kv_heads, extent, s.size]
                ports_.append(helper.make_tensor_value_info(f"{prefix}.{i}.{kind}", F, shape))
    constants = [onnx.numpy_helper.from_array(a, name) for name, a in g.initializers.items()]
    graph = helper.make_graph(g.nodes, "tiny", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    version = 12 if opset > 21 else 10
    return helper.make_model(graph, opset_imports=opsets, ir_version=version)


# --- running --------------------------------------------------------------------------------------


def _session(model: onnx.ModelProto | ir.Model) -> ort.InferenceSession:
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options)


def decode_with_past(model: onnx.ModelProto, chunks: Sequence[Sequence[int]]) -> list[Array]:
    """The logits of each chunk of tokens, as the exporter meant the model to be called."""
    session = _session(model)
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = [o.name for o in session.get_outputs()]
    state = {
        name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32)
        for name, i in inputs.items()
        if name.startswith("past_key_values")
    }
    results, past = [], 0
    for chunk in chunks:
        total = past + len(chunk)
        feeds = {
            "input_ids": np.array([chunk]),
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(past, total)[None],
            **state,
        }
        found = dict(zip(outputs, session.run(None, {k: feeds[k] for k in inputs}), strict=True))
        results.append(found["logits"])
        state = {name: found[name.replace("past_key_values", "present")] for name in state}
        past = total
    return results


def decode_with_state(
    model: ir.Model, generation: dict[str, Any], chunks: Sequence[Sequence[int]]
) -> list[Array]:
    """The same of a model with caches of fixed length."""
    session = _session(model)
    outputs = [o.name for o in session.get_outputs()]
    state = {
        i.name: np.full(i.shape, 7.0, np.float32)  # never to be seen before it is written
        for i in session.get_inputs()
        if i.name in generation["state"]
    }
    results, position = [], 0
    for chunk in chunks:
        feeds = {generation["ids"]: np.array([chunk]), generation["position"]: np.array([position])}
        found = dict(zip(outputs, session.run(None, {**feeds, **state}), strict=True))
        results.append(found[generation["logits"]])
        state = {name: found[after] for name, after in generation["state"].items()}
        position += len(chunk)
    return results
