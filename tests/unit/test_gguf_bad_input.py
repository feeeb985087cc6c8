"""What a GGUF file can have wrong: one clear error each, never a traceback or wrong numbers."""

from contextlib import suppress

import gguf
import numpy as np
import pytest

from tests.unit.tiny_gguf import Tiny, weights, write
from webkiln.compile import compile_model
from webkiln.errors import InputError, InvalidModelError, UnsupportedModelError, WebkilnError
from webkiln.frontends import load
from webkiln.passes import limit_activations

LLAMA = Tiny("llama", permuted=True)


def file(tmp_path, tiny=LLAMA, change=None, **options):
    made = weights(tiny)
    if change is not None:
        change(made)
    return write(tmp_path / "tiny.gguf", tiny, made, **options)


def test_unknown_architecture(tmp_path):
    path = file(tmp_path, Tiny("mamba"))
    with pytest.raises(UnsupportedModelError, match=r"tiny\.gguf is of architecture 'mamba'") as e:
        load(path)
    assert "gemma2, gemma3, llama, qwen2, qwen3, smollm3" in e.value.hint


def test_unsupported_tensor_types_are_all_named(tmp_path):
    def change(made):
        for name, kind in (("blk.0.attn_q", "IQ4_XS"), ("blk.1.attn_q", "IQ4_XS"),
                           ("output", "Q2_K")):  # fmt: skip
            size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
            raw = np.zeros((made.floats[name].shape[0], size), np.uint8)
            made.rows[name] = raw, gguf.GGMLQuantizationType[kind]

    path = file(tmp_path, LLAMA.with_(permuted=False, width=256), change)
    with pytest.raises(UnsupportedModelError) as e:
        load(path)
    assert "Q2_K (output.weight)" in e.value.message
    assert "IQ4_XS (blk.0.attn_q.weight and 1 more)" in e.value.message
    assert "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K" in e.value.hint


def test_a_tensor_type_that_nobody_knows(tmp_path):
    path = file(tmp_path)
    data = bytearray(path.read_bytes())
    name = b"blk.0.ffn_up.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8  # the name, how many extents, the extents
    data[at : at + 4] = (99).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(UnsupportedModelError, match=r"number 99 \(blk\.0\.ffn_up\.weight\)"):
        load(path)


@pytest.mark.parametrize("part", [0.0002, 0.003, 0.01, 0.02, 0.03, 0.3, 0.6, 0.999])
def test_truncated(tmp_path, part):
    path = file(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: max(8, int(len(data) * part))])
    with pytest.raises(InvalidModelError, match=r"tiny\.gguf is truncated: "):
        load(path)


def test_truncated_in_a_tensor_names_it(tmp_path):
    path = file(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(
        InvalidModelError, match=r"truncated: \d+ bytes of tensor 'blk\.1\.\S+' are"
    ):
        load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF\x63\x00\x00\x00" + bytes(64), "is no valid GGUF file: .*version 99"),
        (b"GGUF\x00\x00\x00\x03" + bytes(64), "big-endian"),
    ],
)
def test_versions(tmp_path, content, message):
    path = tmp_path / "thing.gguf"
    path.write_bytes(content)
    with pytest.raises(WebkilnError, match=message):
        load(path)


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_in_the_header(tmp_path, seed):
    """Whatever is wrong, the answer is a model or an error of ours."""
    path = file(tmp_path)
    data = bytearray(path.read_bytes())
    header = data.index(b"output.weight") + 2000
    rng = np.random.default_rng(seed)
    for at in rng.integers(4, header, 3):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    with suppress(WebkilnError):
        load(path)


@pytest.mark.parametrize(
    ("tiny", "skip"),
    [
        (LLAMA, "token_embd.weight"),
        (LLAMA, "blk.1.ffn_down.weight"),
        (LLAMA, "output_norm.weight"),
        (Tiny("qwen2", bias=True), "blk.1.attn_k.bias"),
        (Tiny("qwen3", qk_norm=True), "blk.0.attn_q_norm.weight"),
        (Tiny("gemma3", gemma=True, qk_norm=True), "blk.0.post_ffw_norm.weight"),
    ],
)
def test_missing_tensor(tmp_path, tiny, skip):
    path = file(tmp_path, tiny, skip=skip)
    with pytest.raises(InvalidModelError, match=f"no tensor '{skip}'"):
        load(path)


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_misshapen_tensor(tmp_path, kind):
    path = file(tmp_path, LLAMA.with_(kind=kind, metadata={"{arch}.feed_forward_length": 97}))
    with pytest.raises(InvalidModelError) as e:
        load(path)
    assert e.value.message == (
        "tensor 'blk.0.ffn_gate.weight' has shape [96, 64]; the config says [97, 64]"
    )


def test_misshapen_norm(tmp_path):
    path = file(tmp_path, LLAMA, lambda made: made.floats.update(output_norm=np.ones(5, "f")))
    with pytest.raises(InvalidModelError, match=r"'output_norm\.weight' has shape \[5\]"):
        load(path)


def test_misshapen_rope_divisors(tmp_path):
    path = file(tmp_path, LLAMA.with_(divisors=np.ones(5, np.float32)))
    with pytest.raises(InvalidModelError, match=r"'rope_freqs\.weight' has shape \[5\]"):
        load(path)


def test_surplus_tensors(tmp_path):
    path = file(tmp_path, Tiny("llama", permuted=True, qk_norm=True))
    with pytest.raises(UnsupportedModelError) as e:
        load(path)
    assert "'llama' models don't have: blk.0.attn_q_norm.weight" in e.value.message
    assert "and 1 more" in e.value.message


@pytest.mark.parametrize(
    ("metadata", "kind", "message"),
    [
        ({"{arch}.block_count": "two"}, InvalidModelError, r"say 'two' for llama\.block_count"),
        ({"{arch}.context_length": 0}, InvalidModelError, r"say 0 for llama\.context_length"),
        ({"{arch}.rope.freq_base": "high"}, InvalidModelError, r"say 'high' for llama\.rope"),
        ({"{arch}.attention.head_count_kv": 3}, InvalidModelError, "4 heads can't share 3"),
        ({"{arch}.attention.head_count_kv": [2, 1]}, UnsupportedModelError, "layer to layer"),
        ({"{arch}.expert_count": 8}, UnsupportedModelError, "a mixture of 8 experts"),
        ({"{arch}.attention.value_length": 8}, UnsupportedModelError, "values of 8 beside keys"),
        ({"{arch}.attention.causal": False}, UnsupportedModelError, "both directions"),
        ({"{arch}.rope.scaling.type": "longrope"}, UnsupportedModelError, "longrope"),
        ({"{arch}.rope.dimension_count": 18}, UnsupportedModelError, "18 out of 16"),
        ({"split.count": 3}, UnsupportedModelError, "one of 3 parts"),
    ],
)
def test_metadata(tmp_path, metadata, kind, message):
    path = file(tmp_path, LLAMA.with_(metadata=metadata))
    with pytest.raises(kind, match=message) as e:
        load(path)
    assert "tiny.gguf" in e.value.message and e.value.hint


def test_more_tokens_than_embeddings(tmp_path):
    tokens = [*"he", "he", "<>", *(f"<{i}>" for i in range(260))]
    path = file(tmp_path, LLAMA.with_(metadata={
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1] * len(tokens),
        "tokenizer.ggml.merges": ["h e"], "tokenizer.ggml.eos_token_id": 0,
    }))  # fmt: skip
    with pytest.raises(InvalidModelError, match="264 tokens, but embeddings of 259"):
        load(path)


def test_a_list_of_equal_numbers_is_a_number(tmp_path):
    path = file(tmp_path, LLAMA.with_(metadata={"{arch}.attention.head_count_kv": [2, 2]}))
    assert load(path).task == "text-generation"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "a context of 0 tokens"),
        ({"context": 65}, "65 tokens is more than tiny.gguf was trained for"),
    ],
)
def test_options(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        load(file(tmp_path), **options)


def test_other_activations_are_refused(tmp_path):
    with pytest.raises(InputError, match="activations='int4'"):
        compile_model(load(file(tmp_path)), activations="int4")


def test_context_and_activations(tmp_path):
    path = file(tmp_path, LLAMA.with_(kind="Q4_0"))
    assert load(path).config["generation"]["context"] == 64  # all that it was trained for
    source = load(path, context=12)
    limit_activations(source.model, "f32")
    assert source.config["generation"]["chunk"] == source.config["max"]["sequence"] == 12
    levels = {
        node.attributes["accuracy_level"].value
        for node in source.model.graph
        if node.op_type == "MatMulNBits"
    }
    assert levels == {1}
