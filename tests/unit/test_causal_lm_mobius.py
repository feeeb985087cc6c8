"""Architectures through mobius-onnx and the llama family here, against transformers itself.

Needs the ``hf`` extra (torch, transformers, mobius-onnx), which is gigabytes; skipped without it.
"""

import numpy as np
import pytest

from tests.language_models import decode_with_state
from tests.unit.causal_lm_folders import BASE, write_folder
from webkiln import passes
from webkiln.frontends import load
from webkiln.passes.static_cache import static_cache

pytest.importorskip("mobius", reason="the hf extra is not installed: pip install 'webkiln[hf]'")
import torch
import transformers

CHUNKS = [[3, 1, 4, 1, 5, 9, 2], [6, 5], [3], [5]]
IDS = [token for chunk in CHUNKS for token in chunk]
SHAPE = {k: v for k, v in BASE.items() if k != "head_dim"}

SETTINGS = {
    # built here
    "llama": {**BASE, "attention_bias": True},
    "smollm3": {**BASE, "num_hidden_layers": 4, "pad_token_id": 0},
    "qwen2": {**SHAPE, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "gemma3_text": {**BASE, "sliding_window": 4, "query_pre_attn_scalar": 32},
    # through mobius
    "phi3": {**SHAPE, "pad_token_id": 0},
    "olmo2": SHAPE,
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 64},
    "gpt_neox": {k: v for k, v in SHAPE.items() if k != "num_key_value_heads"},
    "qwen2_moe": {
        **SHAPE,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_logits_are_those_of_transformers(tmp_path, kind):
    write_folder(tmp_path, {**BASE, "model_type": "llama"})  # for its tokenizer
    config = transformers.AutoConfig.for_model(kind, **SETTINGS[kind])
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.eval().parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        expected = model(torch.tensor([IDS])).logits.numpy()
    model.save_pretrained(tmp_path)

    source = load(tmp_path, context=24)
    graph, generation = source.model, source.config["generation"]
    if "past" in generation:
        graph, generation = static_cache(graph, generation, generation["context"])
        graph = passes.run(graph, {"sequence": 24})
    got = np.concatenate(decode_with_state(graph, generation, CHUNKS), axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
