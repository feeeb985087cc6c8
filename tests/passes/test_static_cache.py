"""Exports with past and present keys, against ONNX Runtime running them as they were exported."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.language_models import TINY, decode_with_past, decode_with_state, export
from webkiln import passes
from webkiln.errors import InputError, UnsupportedModelError
from webkiln.passes.static_cache import static_cache

CHUNKS = [[3, 1, 4, 1, 5], [9, 2], [6], [5]]
CONTEXT = 24


def generation(model):
    past = {
        f"past_key_values.{i}.{kind}": f"present.{i}.{kind}"
        for i in range(TINY.layers)
        for kind in ("key", "value")
        if any(v.name == f"past_key_values.{i}.key" for v in model.graph.input)
    }
    return {"ids": "input_ids", "logits": "logits", "past": past, "eos": [2], "chunk": 128}


def rewritten(model, context=CONTEXT):
    return static_cache(ir.from_proto(model), generation(model), context)


CASES = [
    ("optimum", "", {}),
    ("optimum", "no position_ids", {}),
    ("optimum", "scaled operands", {}),
    ("optimum", "where", {"kv_heads": 4}),
    ("optimum", "", {"window": 4, "softcap": 5.0}),
    ("genai", "", {}),
    ("genai", "packed", {"kv_heads": 1}),
    ("genai", "interleaved", {}),
    ("genai", "rotary outside", {"softcap": 5.0}),
    ("genai", "", {"window": 4}),
    ("onnx", "", {"softcap": 5.0}),
    ("onnx", "joined", {"softcap": 5.0}),
    ("multi-head", "", {"kv_heads": 4}),
    ("multi-head", "biased", {"kv_heads": 4}),
]


@pytest.mark.parametrize(("form", "style", "changes"), CASES)
def test_the_cache_gives_the_logits_of_the_past(form, style, changes):
    model = export(form, style, replace(TINY, **changes))
    expected = decode_with_past(model, CHUNKS)
    cached, ports = rewritten(model)
    onnx.checker.check_model(ir.to_proto(cached), full_check=True)
    for got, want in zip(decode_with_state(cached, ports, CHUNKS), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    count = Counter(node.op_type for node in cached.graph)
    assert count["Attention"] == TINY.layers
    assert count["TensorScatter"] == 2 * TINY.layers
    assert count["And"] == (1 if changes.get("window") else 0)
    names = [v.name for v in cached.graph.inputs]
    assert names[:2] == ["input_ids", "position"]
    assert set(names[2:]) == set(ports["state"])
    assert [v.name for v in cached.graph.outputs] == ["logits", *ports["state"].values()]
    assert ports["chunk"] == CONTEXT
    assert ports["eos"] == [2]
    assert "past" not in ports
    assert [str(d) for d in cached.graph.inputs[0].shape] == ["1", "sequence"]


@pytest.mark.parametrize(("form", "style"), [("optimum", ""), ("genai", "packed"), ("onnx", "")])
def test_the_passes_after_it_keep_the_results(form, style):
    model = export(form, style)
    cached, ports = rewritten(model)
    after = passes.run(cached, {"sequence": 16})
    expected = decode_with_past(model, CHUNKS)
    for got, want in zip(decode_with_state(after, ports, CHUNKS), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    left = {node.op_type for node in after.graph}
    assert not left & {"Concat", "Expand", "GroupQueryAttention", "Where"} or form == "optimum"


# --- what exporters add ---------------------------------------------------------------------------


def edited(model, change):
    """The export with something changed on its way through onnx_ir."""
    graph = ir.from_proto(model)
    change(graph)
    return ir.to_proto(graph)


def test_half_precision_becomes_float32():
    model = export("optimum")
    expected = decode_with_past(model, CHUNKS)

    def narrow(graph):
        for value in graph.graph.initializers.values():
            if value.dtype == ir.DataType.FLOAT:
                halves = value.const_value.numpy().clip(-65504, 65504).astype(np.float16)
                value.const_value = ir.tensor(halves, name=value.name)
                value.dtype = ir.DataType.FLOAT16
        for node in graph.graph:
            if node.op_type == "Cast" and node.attributes["to"].value == ir.DataType.FLOAT:
                node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT16))
        for value in (*graph.graph.inputs, *graph.graph.outputs):
            if value.dtype == ir.DataType.FLOAT:
                value.dtype = ir.DataType.FLOAT16

    cached, ports = rewritten(edited(model, narrow))
    assert {v.dtype for v in cached.graph.inputs[2:]} == {ir.DataType.FLOAT}
    for got, want in zip(decode_with_state(cached, ports, CHUNKS), expected, strict=True):
        assert np.abs(got - want).max() < 0.02 * np.abs(want).max()


def test_tokens_of_another_type_come_as_int64_all_the_same():
    model = export("genai")
    expected = decode_with_past(model, CHUNKS)

    def narrow(graph):
        graph.graph.inputs[0].dtype = ir.DataType.INT32

    cached, ports = rewritten(edited(model, narrow))
    assert cached.graph.inputs[0].dtype == ir.DataType.INT64
    for got, want in zip(decode_with_state(cached, ports, CHUNKS), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_a_past_of_open_sizes_has_those_of_the_attention():
    """As onnxruntime-genai writes it since the past may be quantised."""
    model = export("genai", "packed")
    expected = decode_with_past(model, CHUNKS)

    def open_up(graph):
        for value in graph.graph.inputs:
            if value.name.startswith("past"):
                value.shape = ir.Shape(["batch_size", 2, "past_sequence_length", "kv_cache_dim"])

    cached, ports = rewritten(edited(model, open_up))
    for got, want in zip(decode_with_state(cached, ports, CHUNKS), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


# --- what is refused ------------------------------------------------------------------------------


def test_a_mask_that_is_not_causal_is_refused():
    def look_ahead(graph):
        node = next(n for n in graph.graph if n.op_type == "LessOrEqual")
        _, rows = node.inputs
        later = ir.node("Add", [rows, ir.val("later")])
        later.inputs[1].const_value = ir.tensor(np.array([[1]]), name="later")
        graph.graph.register_initializer(later.inputs[1])
        node.prepend(later)
        node.replace_input_with(1, later.outputs[0])

    with pytest.raises(UnsupportedModelError, match="does not compute what it looks like"):
        rewritten(edited(export("optimum"), look_ahead))


def test_biases_by_distance_are_refused():
    def distance(graph):
        node = next(n for n in graph.graph if n.op_type == "Where")
        value = node.inputs[1]
        value.const_value = ir.tensor(np.float32(-0.5), name=value.name)

    with pytest.raises(UnsupportedModelError, match="adds biases to the scores"):
        rewritten(edited(export("optimum"), distance))


def test_a_wrong_scale_of_one_head_is_found():
    """What looks like attention, but isn't quite, is compared by numbers before it is replaced."""

    def uneven(graph):
        node = next(n for n in graph.graph if n.op_type == "Softmax")
        value = ir.val("uneven")
        scale = np.array([1, 1, 1, 2], np.float32).reshape(1, 4, 1, 1)
        value.const_value = ir.tensor(scale, name="uneven")
        graph.graph.register_initializer(value)
        made = ir.node("Mul", [node.outputs[0], value])
        node.append(made)
        ir.convenience.replace_all_uses_with(node.outputs[0], made.outputs[0])
        made.replace_input_with(0, node.outputs[0])

    with pytest.raises(UnsupportedModelError, match="softmax"):
        rewritten(edited(export("optimum"), uneven))


@pytest.mark.parametrize("attribute", ["smooth_softmax"])
def test_variants_of_the_fused_operator_are_refused_by_name(attribute):
    def change(graph):
        for node in graph.graph:
            if node.op_type == "GroupQueryAttention":
                node.attributes[attribute] = ir.AttrInt64(attribute, 1)

    with pytest.raises(UnsupportedModelError, match=r"GroupQueryAttention\) has a smooth softmax"):
        rewritten(edited(export("genai"), change))


def test_a_past_that_is_changed_on_its_way_is_refused():
    def change(graph):
        node = next(n for n in graph.graph if n.outputs[0].name == "present.1.key")
        made = ir.node("Relu", [node.inputs[0]])
        node.prepend(made)
        node.replace_input_with(0, made.outputs[0])

    with pytest.raises(UnsupportedModelError, match="does not put new keys and values behind"):
        rewritten(edited(export("optimum"), change))


def test_a_past_without_attention_is_refused():
    def change(graph):
        graph.opset_imports["elsewhere"] = 1
        for node in list(graph.graph):
            if node.op_type == "GroupQueryAttention":
                node.domain = "elsewhere"

    with pytest.raises(UnsupportedModelError, match=r"past_key_values.0.key' is read by Group"):
        rewritten(edited(export("genai"), change))


def test_a_context_beyond_the_rotary_tables_is_refused():
    with pytest.raises(InputError, match=r"the 64 positions.*\n.*sequence=64"):
        rewritten(export("genai"), context=65)
    with pytest.raises(InputError, match="1 tokens is not possible"):
        rewritten(export("genai"), context=1)


def with_number_of_tokens(kind):
    """Adds `kind` of how many tokens there are to the embeddings."""

    def change(graph):
        node = next(n for n in graph.graph if [v.name for v in n.inputs][1:] == ["input_ids"])
        mask = next(v for v in graph.graph.inputs if v.name == "attention_mask")
        total = ir.node("ReduceSum", [mask], {"keepdims": 0})
        number = ir.node("Cast", [mask if kind == "Softmax" else total.outputs[0]], {"to": 1})
        other = ir.node(kind, number.outputs)
        users = list(node.outputs[0].uses())
        one = ir.node("ReduceMax", other.outputs, {"keepdims": 0})
        made = ir.node("Add", [node.outputs[0], one.outputs[0]])
        node.append([total, number, other, one, made])
        for user in users:
            user.node.replace_input_with(user.idx, made.outputs[0])

    return change


def test_the_number_of_tokens_so_far_stays_what_it_is():
    model = edited(export("onnx"), with_number_of_tokens("Sin"))
    expected = decode_with_past(model, CHUNKS)
    cached, ports = rewritten(model)
    for got, want in zip(decode_with_state(cached, ports, CHUNKS), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_another_use_of_the_mask_is_refused_by_name():
    model = edited(export("onnx"), with_number_of_tokens("Softmax"))
    with pytest.raises(UnsupportedModelError, match=r"'attention_mask' is used by .*\(Cast\)"):
        rewritten(model)
