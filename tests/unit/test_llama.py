"""Each architecture of the llama family against plain NumPy: at once, in chunks, by tokens."""

import json
import math

import numpy as np
import pytest

import webkiln
from tests.unit.tiny_gguf import VOCABULARY, Session, Tiny, forward, weights, write
from webkiln.frontends import load
from webkiln.frontends.rope import rope, tables

IDS = np.random.default_rng(11).integers(0, VOCABULARY, 23).tolist()
DIVISORS = np.linspace(1, 8, 8).astype(np.float32)
GEMMA = Tiny("gemma3", gemma=True, qk_norm=True, tied=True, base=1e6, local_base=1e4, layers=7,
             windows=(5, 5, 5, 5, 5, None, 5),
             metadata={"{arch}.attention.sliding_window": 5})  # fmt: skip
LLAMA = Tiny("llama", permuted=True)

MODELS = {
    "llama": LLAMA,
    "llama, tied": LLAMA.with_(tied=True),
    "llama, one kv head": LLAMA.with_(kv_heads=1),
    "llama, as many kv heads": LLAMA.with_(kv_heads=4),
    "llama, wide heads": LLAMA.with_(head_size=32),
    "qwen2, part of the head turned": Tiny("qwen2", bias=True, rotated=8, metadata={
        "{arch}.rope.dimension_count": 8}),
    "llama 3": LLAMA.with_(divisors=DIVISORS, base=5e5),
    "llama, capped": LLAMA.with_(logit_cap=3.0, metadata={
        "{arch}.final_logit_softcapping": 3.0}),
    "llama, linear scaling": LLAMA.with_(linear=4.0, metadata={
        "{arch}.rope.scaling.type": "linear", "{arch}.rope.scaling.factor": 4.0}),
    "llama, old linear scaling": LLAMA.with_(linear=2.0, metadata={
        "{arch}.rope.scale_linear": 2.0}),
    "llama, no scaling": LLAMA.with_(metadata={
        "{arch}.rope.scaling.type": "none", "{arch}.rope.scaling.factor": 4.0}),
    "qwen2, yarn": Tiny("qwen2", bias=True, yarn=(4.0, 16), metadata={
        "{arch}.rope.scaling.type": "yarn", "{arch}.rope.scaling.factor": 4.0,
        "{arch}.rope.scaling.original_context_length": 16}),
    "qwen2": Tiny("qwen2", bias=True, base=1e6),
    "qwen2, tied": Tiny("qwen2", bias=True, tied=True),
    "qwen3": Tiny("qwen3", qk_norm=True, base=1e6, head_size=32),
    "smollm3": Tiny("smollm3", permuted=True, layers=4, windows=(None,) * 4, no_rope=(3,)),
    "gemma3": GEMMA,
    "gemma3, scaled": GEMMA.with_(linear=8.0, metadata=GEMMA.metadata | {
        "{arch}.rope.scaling.type": "linear", "{arch}.rope.scaling.factor": 8.0}),
    "gemma3, own pattern": GEMMA.with_(windows=(None, 5, None), layers=3, metadata={
        "{arch}.attention.sliding_window": 5,
        "{arch}.attention.sliding_window_pattern": [False, True, False]}),
    "gemma3, every third": GEMMA.with_(windows=(5, 5, None, 5), layers=4, metadata={
        "{arch}.attention.sliding_window": 5, "{arch}.attention.sliding_window_pattern": 3}),
    "gemma3, local base": GEMMA.with_(local_base=500.0, metadata=GEMMA.metadata | {
        "{arch}.rope.freq_base_swa": 500.0}),
    "gemma2": Tiny("gemma2", gemma=True, tied=True, attention_cap=50.0, logit_cap=30.0,
                   windows=(4, None, 4), layers=3,
                   metadata={"{arch}.attention.sliding_window": 4}),
    "gemma2, tight caps": Tiny("gemma2", gemma=True, tied=True, attention_cap=0.5, logit_cap=2.0,
                               windows=(4, None), metadata={
                                   "{arch}.attention.sliding_window": 4,
                                   "{arch}.attn_logit_softcapping": 0.5,
                                   "{arch}.final_logit_softcapping": 2.0}),
    "own attention scale": LLAMA.with_(scale=0.1, metadata={"{arch}.attention.scale": 0.1}),
}  # fmt: skip


@pytest.fixture(params=MODELS, scope="module")
def case(request, tmp_path_factory):
    tiny = MODELS[request.param]
    made = weights(tiny)
    path = write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", tiny, made)
    return load(path, context=32), forward(tiny, made.floats, IDS)


def close(found, expected):
    assert expected.std() > 0.3
    assert np.abs(found - expected).max() < 1e-4


def test_logits(case):
    source, expected = case
    close(Session(source).feed(IDS), expected)


def test_chunks_and_single_tokens_are_the_same(case):
    source, expected = case
    session = Session(source)
    found = [session.feed(IDS[:9]), session.feed(IDS[9:16])]
    found += [session.feed([token]) for token in IDS[16:]]
    close(np.concatenate(found), expected)


def test_a_turn_may_be_taken_back(case):
    """The cache beyond `position` is never read."""
    source, expected = case
    session = Session(source)
    session.feed(IDS[:10])
    session.feed([1, 2, 3, 4])
    session.position = 10
    close(session.feed(IDS[10:]), expected[10:])


def test_the_cases_differ():
    """A setting that changed nothing would prove nothing."""
    base = forward(LLAMA, weights(LLAMA).floats, IDS)
    for name in ("llama 3", "llama, linear scaling", "own attention scale"):
        other = MODELS[name]
        assert np.abs(forward(other, weights(other).floats, IDS) - base).max() > 0.01, name


def test_yarn_keeps_fast_angles_and_slows_the_others():
    plain = rope(10_000.0, 64).angles
    scaled = rope(10_000.0, 64, scaling="yarn", factor=8.0, original_context=4096)
    assert np.array_equal(scaled.angles[:8], plain[:8])
    assert np.allclose(scaled.angles[-4:], plain[-4:] / 8)
    assert (np.diff(plain / scaled.angles) >= -1e-12).all()
    assert scaled.magnitude == pytest.approx(0.1 * math.log(8) + 1)
    cos, sin = tables(scaled, 10)
    assert cos.shape == sin.shape == (10, 32) and cos.dtype == np.float32
    assert np.allclose(np.hypot(cos, sin), scaled.magnitude)


HF_NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
GEMMA_NAMES = {
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip


def hf_name(tiny, name):
    if not name.startswith("blk."):
        top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
        return top[name] + ".weight"
    _, layer, part, *bias = name.split(".")
    names = HF_NAMES | (GEMMA_NAMES if tiny.gemma else {})
    return f"model.layers.{layer}.{names[part]}.{'bias' if bias else 'weight'}"


def hf_config(tiny):
    config = {
        "hidden_size": tiny.width, "num_attention_heads": tiny.heads, "vocab_size": VOCABULARY,
        "num_key_value_heads": tiny.kv_heads, "head_dim": tiny.head_size,
        "intermediate_size": tiny.inner, "num_hidden_layers": tiny.layers,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": tiny.tied, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": tiny.base}
    if tiny.yarn:
        rope |= {"rope_type": "yarn", "factor": tiny.yarn[0],
                 "original_max_position_embeddings": tiny.yarn[1]}  # fmt: skip
    if tiny.linear != 1:
        rope |= {"rope_type": "linear", "factor": tiny.linear}
    config["rope_parameters"] = rope
    if tiny.gemma:
        window = next(w for w in tiny.windows if w)
        config |= {
            "sliding_window": window, "query_pre_attn_scalar": tiny.head_size,
            "attn_logit_softcapping": tiny.attention_cap or None,
            "final_logit_softcapping": tiny.logit_cap or None,
            "layer_types": [f"{'sliding' if w else 'full'}_attention" for w in tiny.windows],
        }  # fmt: skip
    if tiny.architecture == "gemma3":
        local = {"rope_type": "default", "rope_theta": tiny.local_base}
        config["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
    if tiny.architecture == "smollm3":
        config["no_rope_layers"] = [int(i not in tiny.no_rope) for i in range(tiny.layers)]
    kind = "gemma3_text" if tiny.architecture == "gemma3" else tiny.architecture
    return kind, config


@pytest.mark.parametrize(
    "name",
    ["llama", "llama, tied", "llama, wide heads", "llama, linear scaling", "qwen2", "qwen2, yarn",
     "qwen3", "smollm3", "gemma2", "gemma2, tight caps", "gemma3", "gemma3, scaled"],
)  # fmt: skip
def test_numpy_agrees_with_transformers(name):
    """The reading of the papers in `forward`, by the models' own code where it is installed."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tiny = MODELS[name]
    made = weights(tiny)
    kind, settings = hf_config(tiny)
    config = transformers.AutoConfig.for_model(kind, **json.loads(json.dumps(settings)))
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = {hf_name(tiny, k): torch.from_numpy(v) for k, v in made.floats.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    with torch.no_grad():
        found = model.eval()(torch.tensor([IDS])).logits[0].numpy()
    close(found, forward(tiny, made.floats, IDS))


@pytest.mark.slow
@pytest.mark.parametrize(
    "tiny",
    [
        # Blocks of 32 with a zero point, windows shorter than a chunk, a table used twice.
        GEMMA.with_(kind="Q4_1", layers=2, windows=(5, None), metadata={
            "{arch}.attention.sliding_window": 5,
            "{arch}.attention.sliding_window_pattern": [True, False]}),
        # Bytes in blocks of 16, a table of floats read by rows.
        Tiny("qwen2", bias=True, width=256, head_size=64, inner=256, layers=1, kind="Q6_K",
             head_kind="BF16"),
    ],
    ids=["gemma3-Q4_1", "qwen2-Q6_K"],
)  # fmt: skip
def test_compiled(tmp_path, tiny):
    made = weights(tiny)
    path = write(tmp_path / "tiny.gguf", tiny, made)
    bundle = webkiln.build(path, max={"sequence": 32}, targets=("wasm",), activations="f32")
    expected = forward(tiny, made.floats, IDS)
    # The K types' scales are rounded to half precision in memory.
    tolerance = 0.01 if tiny.kind == "Q6_K" else 1e-4
    for length in (1, 9, 10, len(IDS)):
        found = bundle.language_model.logits(IDS[:length])
        assert np.abs(found - expected[length - 1]).max() < tolerance
