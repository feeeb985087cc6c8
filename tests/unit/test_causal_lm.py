"""Language models in Hugging Face layout: the llama family from its weights, others by mobius."""

import json
import sys
import types

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from safetensors.numpy import save_file

from tests.language_models import decode_with_state, export
from tests.unit.causal_lm_folders import BASE, logits, write_folder
from webkiln import passes
from webkiln.errors import (
    InputError,
    InvalidModelError,
    MissingDependencyError,
    UnsupportedModelError,
)
from webkiln.frontends import load
from webkiln.frontends.causal_lm import is_built_here
from webkiln.frontends.past_ports import past_ports
from webkiln.passes.static_cache import static_cache

CHUNKS = [[3, 1, 4, 1, 5, 9], [2, 6], [5]]
IDS = [token for chunk in CHUNKS for token in chunk]

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LOCAL = ["sliding_attention", "full_attention", "sliding_attention"]

FAMILIES = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True, "rope_theta": 500.0},
    "llama 3": {"rope_scaling": LLAMA3},
    "llama, linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "mistral": {"sliding_window": 4, "layer_types": ["sliding_attention"] * 3},
    "qwen2": {"sliding_window": None, "use_sliding_window": False},
    "qwen3": {"num_key_value_heads": 1},
    "gemma2": {
        "sliding_window": 4,
        "layer_types": LOCAL,
        "query_pre_attn_scalar": 32,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "gemma3_text": {
        "sliding_window": 4,
        "layer_types": LOCAL,
        "query_pre_attn_scalar": 32,
        "rope_local_base_freq": 100.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "hidden_activation": "gelu_pytorch_tanh",
    },
}


def config_of(family):
    kind = family.partition(",")[0].split()[0]
    return {**BASE, "model_type": kind, **FAMILIES[family]}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_computes_what_its_paper_says(tmp_path, family):
    config = config_of(family)
    weights = write_folder(tmp_path, config)
    source = load(tmp_path, context=24)
    assert source.task == "text-generation"
    got = decode_with_state(source.model, source.config["generation"], CHUNKS)
    expected = logits(config, weights, IDS)
    np.testing.assert_allclose(np.concatenate(got, axis=1)[0], expected, rtol=1e-3, atol=1e-4)


def test_how_older_and_newer_configs_say_the_same(tmp_path):
    """Windows and RoPE have moved about in config.json; the graphs must be equal."""
    new = config_of("gemma3_text")
    new["layer_types"] = [LOCAL[0], LOCAL[0], "full_attention"]
    old = {k: v for k, v in new.items() if k != "layer_types"} | {"sliding_window_pattern": 3}
    newest = {k: v for k, v in new.items() if k not in ("rope_scaling", "rope_local_base_freq")}
    newest["rope_parameters"] = {
        "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }
    results = []
    for name, config in (("new", new), ("old", old), ("newest", newest)):
        write_folder(tmp_path / name, config)
        source = load(tmp_path / name, context=24)
        results.append(decode_with_state(source.model, source.config["generation"], CHUNKS))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


# --- what comes with the model --------------------------------------------------------------------


def test_what_the_files_say_of_talking(tmp_path):
    write_folder(
        tmp_path,
        {**config_of("llama"), "eos_token_id": 9, "bos_token_id": 0},
        tokenizer_config={
            "bos_token": "<s>",
            "eos_token": {"content": "</s>", "lstrip": False},
            "pad_token": None,
            "chat_template": [
                {"name": "tool_use", "template": "no"},
                {"name": "default", "template": "{{ messages }}"},
            ],
        },
        generation_config={
            "eos_token_id": [7, 1],
            "temperature": 0.6,
            "top_p": 0.9,
            "max_length": 9,
        },
    )
    source = load(tmp_path, context=64)
    generation = source.config["generation"]
    assert {k: v for k, v in generation.items() if k != "state"} == {
        "context": 64, "ids": "input_ids", "position": "position", "logits": "logits",
        "eos": [7, 1], "bos": 0, "add_bos": True, "chunk": 64,
    }  # fmt: skip
    assert list(generation["state"].items())[:2] == [
        ("key_cache.0", "key_cache_out.0"),
        ("value_cache.0", "value_cache_out.0"),
    ]
    assert source.config["tokens"] == {"bos": "<s>", "eos": "</s>"}
    assert source.config["chat_template"] == "{{ messages }}"
    assert source.config["sampling"] == {"temperature": 0.6, "top_p": 0.9}
    assert source.config["max"] == {"sequence": 64}
    assert source.assets.keys() == {"tokenizer.json", "chat_template.jinja"}
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}ü")
    assert load(tmp_path).assets["chat_template.jinja"].decode() == "{{ bos_token }}ü"


def test_the_context_is_what_was_trained_for_up_to_a_default(tmp_path):
    write_folder(tmp_path, config_of("llama"))
    assert load(tmp_path).config["generation"]["context"] == 128
    with pytest.raises(InputError, match=r"129 tokens is more than the 128.*\n.*sequence=128"):
        load(tmp_path, context=129)
    with pytest.raises(InputError, match="1 tokens is not possible"):
        load(tmp_path, context=1)
    write_folder(tmp_path, {**config_of("llama"), "max_position_embeddings": 1 << 17})
    assert load(tmp_path).config["generation"]["context"] == 2048


# --- bad input ------------------------------------------------------------------------------------


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    write_folder(tmp_path, config_of("llama"))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InvalidModelError, match=r"has no tokenizer\.json"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidModelError, match=r"tokenizer\.json can't be read"):
        load(tmp_path)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    config = config_of("llama")
    weights = write_folder(tmp_path, config)
    lost = {k: v for k, v in weights.items() if k != "model.layers.1.mlp.up_proj.weight"}
    save_file(lost, tmp_path / "model.safetensors")
    with pytest.raises(InvalidModelError, match=r"no tensor 'blk\.1\.ffn_up\.weight'"):
        load(tmp_path)
    more = {**weights, "model.layers.0.self_attn.sinks": np.ones(4, np.float32)}
    save_file(more, tmp_path / "model.safetensors")
    with pytest.raises(
        UnsupportedModelError, match=r"'llama' models don't have: blk\.0\.self_attn"
    ):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 65}))
    with pytest.raises(InvalidModelError, match="has shape"):
        load(tmp_path)
    del config["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidModelError, match="hidden_size"):
        load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "phi"},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"hidden_act": "relu"},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        {"partial_rotary_factor": 0.5},
        {"quantization_config": {"quant_method": "gptq"}},
    ],
)
def test_what_is_left_to_mobius(tmp_path, monkeypatch, change):
    config = {**config_of("llama"), **change}
    assert not is_built_here(config)
    monkeypatch.setitem(sys.modules, "mobius", None)
    write_folder(tmp_path, config)
    with pytest.raises(MissingDependencyError, match=r"mobius-onnx.*\n.*webkiln\[hf\]"):
        load(tmp_path)


def test_whatever_mobius_raises_is_one_error(tmp_path, monkeypatch):
    def build(*_, **__):
        raise AttributeError("no setter")

    monkeypatch.setitem(sys.modules, "mobius", types.SimpleNamespace(build=build))
    write_folder(tmp_path, {**config_of("llama"), "model_type": "falcon"})
    with pytest.raises(UnsupportedModelError, match=r"cannot build .*'falcon': no setter"):
        load(tmp_path)


def test_what_mobius_builds_gets_its_ports_and_chat_files(tmp_path, monkeypatch):
    """Its models in this test's hands: an export with a past, weights not in order."""
    model = ir.from_proto(export("onnx"))
    for value in model.graph.initializers.values():
        if len(value.shape) == 2 and value.dtype == ir.DataType.FLOAT:
            turned = np.asfortranarray(value.const_value.numpy())
            value.const_value = ir.LazyTensor(
                lambda turned=turned: ir.tensor(turned), dtype=value.dtype, shape=value.shape
            )
    built = types.SimpleNamespace(build=lambda *_, **__: {"model": model})
    monkeypatch.setitem(sys.modules, "mobius", built)
    write_folder(tmp_path, {**config_of("llama"), "model_type": "phi", "eos_token_id": 1})
    source = load(tmp_path, context=32)
    generation = source.config["generation"]
    assert (generation["context"], generation["eos"]) == (32, [1])
    assert "tokenizer.json" in source.assets
    cached, ports = static_cache(source.model, generation, 32)
    cached = passes.run(cached, {"sequence": 8})
    assert decode_with_state(cached, ports, CHUNKS)[0].shape == (1, 6, 64)


# --- exports with past inputs ---------------------------------------------------------------------


@pytest.mark.parametrize("where", [".", "onnx"])
def test_an_export_beside_its_tokenizer_is_a_language_model(tmp_path, where):
    write_folder(tmp_path, {**config_of("llama"), "eos_token_id": 1})
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / where).mkdir(exist_ok=True)
    onnx.save(export("optimum"), tmp_path / where / "model.onnx")
    source = load(tmp_path, context=32)
    assert source.task == "text-generation"
    generation = source.config["generation"]
    assert generation["past"]["past_key_values.1.value"] == "present.1.value"
    assert generation["context"] == 32
    assert generation["eos"] == [1]
    assert "state" not in generation
    model, ports = static_cache(source.model, generation, generation["context"])
    assert len(ports["state"]) == 4
    assert decode_with_state(model, ports, CHUNKS)[0].shape == (1, 6, 64)


def test_genai_folders_say_what_they_need_in_their_own_file(tmp_path):
    write_folder(
        tmp_path,
        {**BASE, "model_type": "llama"},
        genai_config={"model": {"context_length": 48, "eos_token_id": [4], "bos_token_id": 0}},
    )
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).unlink()
    onnx.save(export("genai", "packed"), tmp_path / "model.onnx")
    generation = load(tmp_path / "model.onnx").config["generation"]
    assert (generation["context"], generation["eos"], generation["bos"]) == (48, [4], 0)
    assert load(tmp_path).config["generation"] == generation


def test_an_export_without_tokenizer_is_a_model_like_any_other(tmp_path):
    onnx.save(export("optimum"), tmp_path / "model.onnx")
    source = load(tmp_path / "model.onnx")
    assert source.task is None
    assert "generation" not in source.config


@pytest.mark.parametrize(
    ("past", "present"),
    [
        ("past_key_values.{}.{}", "present.{}.{}"),
        ("past_key_values_{}_{}", "present_key_values_{}_{}"),
        ("past_{1}_{0}", "present_{1}_{0}"),
        ("past.{}.{}", "present.{}.{}"),
    ],
)
def test_names_of_past_and_present(past, present):
    ports = [(i, kind) for i in (0, 1, 10) for kind in ("key", "value")]
    inputs = [ir.val(name) for name in ("input_ids", *(past.format(*port) for port in ports))]
    outputs = [ir.val(name) for name in ("logits", *(present.format(*port) for port in ports))]
    model = ir.Model(ir.Graph(inputs, outputs, nodes=[]), ir_version=10)
    found = past_ports(model)
    assert found["past"] == {past.format(*port): present.format(*port) for port in ports}


@pytest.mark.parametrize(
    "name", ["past_key_values.0.decoder.key", "past_key_values.0", "last_key_values.0.key"]
)
def test_other_names_are_no_past(name):
    graph = ir.Graph(
        [ir.val("input_ids"), ir.val(name)], [ir.val("logits"), ir.val("present.0.key")], nodes=[]
    )
    assert past_ports(ir.Model(graph, ir_version=10)) is None
