"""What the Python half of the tasks decides, from small models made here."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from webkiln import tasks
from webkiln.errors import InputError
from webkiln.frontends import Source, load
from webkiln.tasks import generic, image, image_classification, scores


def source(nodes, inputs, outputs, *, constants=(), **kwargs) -> Source:
    """A model from nodes, and ports as {name: (dtype, shape)}."""

    def ports(given):
        return [helper.make_tensor_value_info(n, d, s) for n, (d, s) in given.items()]

    graph = helper.make_graph(
        nodes,
        "test",
        ports(inputs),
        ports(outputs),
        [numpy_helper.from_array(*c) for c in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.checker.check_model(model)
    found = load(model)
    for key, value in kwargs.items():
        setattr(found, key, value)
    return found


def image_source(shape=(1, 3, 32, 40), last="Flatten", **kwargs) -> Source:
    classes = int(np.prod(shape[1:]))
    return source(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node(last, ["flat"], ["y"])],
        {"x": (TensorProto.FLOAT, shape)},
        {"y": (TensorProto.FLOAT, [1, classes])},
        **kwargs,
    )


def text_source(output=(1, 3), **kwargs) -> Source:
    ids = {"input_ids": (TensorProto.INT64, [1, "tokens"])}
    mask = {"attention_mask": (TensorProto.INT64, [1, "tokens"])}
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["product"]),
        helper.make_node("Cast", ["product"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Expand", ["one", "shape"], ["y"]),
    ]
    constants = [(np.ones(1, np.float32), "one"), (np.array([1, 3]), "shape")]
    outputs = {"y": (TensorProto.FLOAT, output)}
    return source(nodes, ids | mask, outputs, constants=constants, **kwargs)


TOKENIZER = {
    "version": "1.0",
    "pre_tokenizer": {"type": "Whitespace"},
    "padding": {
        "strategy": "BatchLongest", "direction": "Right", "pad_id": 9,
        "pad_type_id": 0, "pad_token": "<pad>",
    },
    "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "the": 1}, "unk_token": "<unk>"},
}  # fmt: skip
ASSETS = {"tokenizer.json": json.dumps(TOKENIZER).encode()}


def test_names_are_those_of_the_browsers_modules():
    runtime = Path(tasks.__file__).parents[1] / "runtime/src"
    for name in tasks.names():
        assert (runtime / f"tasks/{name}.ts").is_file()
        assert (runtime / f"app/{name}.ts").is_file()


def test_an_unknown_task_names_those_there_are():
    with pytest.raises(InputError, match="horoscope") as caught:
        tasks.get("horoscope")
    assert "image-classification" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("wanted", "make"),
    [
        ("image-classification", lambda: image_source(config={"labels": ["a", "b"]})),
        ("generic", lambda: image_source()),  # an image, but of what kinds nobody knows
        ("text-classification", lambda: text_source(assets=ASSETS, config={"labels": list("abc")})),
        ("feature-extraction", lambda: text_source(assets=ASSETS)),
        ("generic", lambda: text_source()),  # no tokenizer, no text
        ("feature-extraction", lambda: image_source(task="feature-extraction")),
    ],
)
def test_detect(wanted, make):
    assert tasks.detect(make()) == wanted


def test_a_task_that_the_model_cannot_serve_is_refused():
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        tasks.get("text-classification").plan_config(text_source())
    with pytest.raises(InputError, match=r"x of shape \[1, 5\] takes no images"):
        tasks.get("image-classification").plan_config(image_source((1, 5)))


@pytest.mark.parametrize(
    ("shape", "layout", "channels"),
    [((1, 3, 32, 40), "NCHW", 3), ((1, 32, 40, 3), "NHWC", 3), ((1, 1, 32, 40), "NCHW", 1)],
)
def test_image_settings_follow_the_input(shape, layout, channels):
    model = image_source(shape)
    settings = image_classification.plan_config(model)["preprocess"]
    assert (settings["layout"], settings["crop"]) == (layout, [32, 40])
    assert len(settings["mean"]) == channels
    assert image_classification.sample(model, {})["x"].shape == shape


def test_a_preprocessor_config_of_another_size_is_refused():
    model = image_source(config={"preprocessor_config": {"size": {"height": 64, "width": 64}}})
    with pytest.raises(InputError, match="images of 64 × 64, but input x takes 32 × 40"):
        image_classification.plan_config(model)


@pytest.mark.parametrize(
    ("config", "resize", "crop"),
    [
        ({"size": 224}, {"size": [224, 224]}, None),
        (
            {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True},
            {"shortest": 256},
            [224, 224],
        ),
        ({"size": {"height": 96, "width": 128}}, {"size": [96, 128]}, None),
        # ConvNeXt: 224 ÷ 0.875
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, {"shortest": 256}, [224, 224]),
    ],
)
def test_hugging_face_preprocessors(config, resize, crop):
    settings = image.from_preprocessor(config | {"resample": 3}, "NCHW")
    assert settings["resize"] == resize | {"resample": "bicubic"}
    assert settings.get("crop") == crop


@pytest.mark.parametrize(
    ("last", "kind"), [("Softmax", "none"), ("Sigmoid", "none"), ("Flatten", "softmax")]
)
def test_activation_is_what_the_graph_leaves_to_do(last, kind):
    assert scores.activation(image_source(last=last)) == kind


def test_the_sample_sentence_fills_the_shape():
    task = tasks.get("text-classification")
    model = text_source(assets=ASSETS)
    for length in (1, 2, 7, 300):
        feeds = task.sample(model, {"tokens": length})
        assert {name: x.shape for name, x in feeds.items()} == {
            "input_ids": (1, length),
            "attention_mask": (1, length),
        }
        assert feeds["attention_mask"].all()  # no padding


def test_pad_comes_from_the_tokenizer():
    config = tasks.get("text-classification").plan_config(text_source(assets=ASSETS))
    assert config["text"]["pad"] == 9
    assert config["text"]["inputs"] == {"ids": "input_ids", "mask": "attention_mask"}


def test_classification_of_a_file(tmp_path):
    model = image_source(config={"labels": ["first", "second"]})
    task = tasks.get("image-classification")
    port = {"name": "x", "dtype": "float32", "shape": [1, 3, 32, 40]}
    plan = {
        "task": task.plan_config(model),
        "programs": [{"inputs": [port], "outputs": [{"name": "y"}]}],
    }
    Image.new("RGB", (64, 48), "white").save(tmp_path / "white.png")
    x = task.preprocess(tmp_path / "white.png", plan, tmp_path)["x"]
    mean, std = np.array(image._MEAN), np.array(image._STD)
    np.testing.assert_allclose(x[0, :, 3, 3], (1 - mean) / std, rtol=1e-5)
    found = task.postprocess({"y": np.array([[0.0, 1.0, 3.0]])}, plan)
    assert [entry["label"] for entry in found] == ["class 2", "second", "first"]
    assert sum(entry["score"] for entry in found) == pytest.approx(1)

    with pytest.raises(InputError, match="no such file"):
        task.preprocess(tmp_path / "none.png", plan, tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"text\.png is not an image"):
        task.preprocess(tmp_path / "text.png", plan, tmp_path)


def test_the_cameras_orientation_counts():
    picture = Image.new("RGB", (30, 20), "red")
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    buffer = BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    assert image.open_image(buffer.getvalue()).size == (20, 30)


def test_generic_indices_stay_inside_their_table():
    table = (np.zeros((7, 4), np.float32), "table")
    model = source(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        {"i": (TensorProto.INT64, [400])},
        {"y": (TensorProto.FLOAT, [400, 4])},
        constants=[table],
    )
    indices = generic.sample(model, {})["i"]
    assert set(indices.tolist()) == set(range(7))


@pytest.mark.parametrize("operator", ["Div", "Mod"])
def test_generic_divisors_are_not_zero(operator):
    model = source(
        [helper.make_node(operator, ["a", "b"], ["y"])],
        {"a": (TensorProto.INT64, [400]), "b": (TensorProto.INT64, [400])},
        {"y": (TensorProto.INT64, [400])},
    )
    feeds = generic.sample(model, {})
    assert 0 in feeds["a"]
    assert 0 not in feeds["b"]


def test_generic_reads_arrays(tmp_path):
    ports = [{"name": "a", "dtype": "float32"}, {"name": "b", "dtype": "float32"}]
    plan = {"programs": [{"inputs": ports}]}
    np.savez(tmp_path / "in.npz", a=np.ones(2), b=np.zeros(3))
    np.save(tmp_path / "one.npy", np.ones(2))
    feeds = generic.preprocess(tmp_path / "in.npz", plan, tmp_path)
    assert {name: x.tolist() for name, x in feeds.items()} == {"a": [1, 1], "b": [0, 0, 0]}
    with pytest.raises(InputError, match=r"one array; the model has inputs a, b"):
        generic.preprocess(tmp_path / "one.npy", plan, tmp_path)
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk\.npz holds no arrays"):
        generic.preprocess(tmp_path / "junk.npz", plan, tmp_path)
