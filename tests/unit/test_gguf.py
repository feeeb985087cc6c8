"""SmolLM2 from its GGUF file: what is in the graph, and what the model says."""

import time

import jinja2
import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.unit import smollm
from webkiln.frontends import load
from webkiln.passes.dequantize_weights import dequantize_weights
from webkiln.reference import reference_session

CONTEXT = 96


@pytest.fixture(scope="module")
def source():
    started = time.perf_counter()
    source = load(smollm.path(), context=CONTEXT)
    assert time.perf_counter() - started < 15  # 2 s on an idle machine
    return source


def ops(model):
    found = {}
    for node in model.graph:
        found.setdefault(node.op_type, []).append(node)
    return found


def test_graph_follows_the_contract(source):
    model, generation = source.model, source.config["generation"]
    assert source.task == "text-generation"
    assert model.graph.opset_imports == {"": 24, "com.microsoft": 1}
    shapes = {v.name: (v.dtype.name, [str(d) for d in v.shape]) for v in model.graph.inputs}
    assert shapes["input_ids"] == ("INT64", ["1", "sequence"])
    assert shapes["position"] == ("INT64", ["1"])
    assert shapes["key_cache.29"] == ("FLOAT", ["1", "3", str(CONTEXT), "64"])
    outputs = {v.name: [str(d) for d in v.shape] for v in model.graph.outputs}
    assert outputs["logits"] == ["1", "sequence", "49152"]
    assert len(generation["state"]) == 60
    for given, updated in generation["state"].items():
        assert outputs[updated] == shapes[given][1]
    assert {k: v for k, v in generation.items() if k != "state"} == {
        "context": CONTEXT, "ids": "input_ids", "position": "position", "logits": "logits",
        "eos": [2, 0], "bos": 1, "add_bos": False, "chunk": CONTEXT,
    }  # fmt: skip


def test_weights_stay_packed_and_the_table_is_stored_once(source):
    found = ops(source.model)
    assert len(found["MatMulNBits"]) == 211
    assert len(found["Attention"]) == 30 and len(found["RotaryEmbedding"]) == 60
    (lookup,) = found["GatherBlockQuantized"]
    head = found["MatMulNBits"][-1]
    assert lookup.inputs[0] is head.inputs[1] and lookup.inputs[2] is head.inputs[2]
    assert head.inputs[1].name == "token_embd.weight"
    matrix = found["MatMulNBits"][0]
    kinds = {k: a.value for k, a in matrix.attributes.items()}
    assert kinds == {"K": 576, "N": 576, "bits": 4, "block_size": 32, "accuracy_level": 4}
    assert [str(v.dtype.name) for v in matrix.inputs[1:]] == ["UINT8", "FLOAT", "FLOAT"]
    assert matrix.inputs[1].shape == [576, 18, 16] and matrix.inputs[3].shape == [576, 18]
    size = sum(v.const_value.nbytes for v in source.model.graph.initializers.values())
    assert size < 1.2 * smollm.path().stat().st_size  # scales are float32 here, float16 there


def test_it_knows_the_capital_of_france(source):
    generation = source.config["generation"]
    tokenizer = Tokenizer.from_buffer(source.assets["tokenizer.json"])
    prompt = jinja2.Template(source.config["chat_template"]).render(
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
    )
    run = reference_session(dequantize_weights(source.model.clone()))
    names = [o.name for o in run.get_outputs()]
    state = {name: np.zeros((1, 3, CONTEXT, 64), np.float32) for name in generation["state"]}
    ids, position, answer = tokenizer.encode(prompt).ids, 0, []
    while len(answer) < 16:
        feeds = {"input_ids": np.array([ids]), "position": np.array([position]), **state}
        outputs = dict(zip(names, run.run(None, feeds), strict=True))
        state = {given: outputs[updated] for given, updated in generation["state"].items()}
        position += len(ids)
        ids = [int(outputs["logits"][0, -1].argmax())]
        if ids[0] in generation["eos"]:
            break
        answer += ids
    assert tokenizer.decode(answer) == "The capital of France is Paris."


def test_what_comes_with_it(source):
    assert source.name == "SmolLM2-135M-Instruct.Q4_1"
    assert source.provenance["license"] == "apache-2.0"
    assert source.assets["chat_template.jinja"].decode() == source.config["chat_template"]
    assert source.config["tokens"]["eos"] == "<|im_end|>"
