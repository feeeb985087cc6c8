"""Exports with past and present keys, against ONNX Runtime running them as they were exported."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.language_models import TINY, decode_with_past, decode_with_state, export
from webkiln import passes
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
