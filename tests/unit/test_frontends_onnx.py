"""ONNX files and objects: what is taken, and how everything else is named."""

import json
import random

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from webkiln.errors import (
    InputError,
    InvalidModelError,
    ModelNotFoundError,
    UnsupportedModelError,
    WebkilnError,
)
from webkiln.frontends import load

TEXT = """<ir_version: 10, opset_import: ["" : 21], producer_name: "pen">
small (float[batch,4] x, float[4,3] w) => (float[batch,3] y) { y = MatMul(x, w) }"""


def proto(text=TEXT, weights=True):
    model = ir.from_onnx_text(text)
    if weights:
        w = model.graph.inputs[1]
        model.graph.inputs.remove(w)
        w.const_value = ir.tensor(np.arange(12, dtype=np.float32).reshape(4, 3), name="w")
        model.graph.register_initializer(w)
    return ir.to_proto(model)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.onnx"
    onnx.save(proto(), path)
    return path


def external(tmp_path):
    path = tmp_path / "big.onnx"
    onnx.save(proto(), path, save_as_external_data=True, location="big.onnx.data", size_threshold=0)
    return path


def test_a_file(file):
    source = load(str(file))
    assert source.name == "small"
    assert source.provenance == {"producer": "pen", "origin": "small.onnx"}
    assert source.model.graph.inputs[0].shape == ["batch", 4]
    assert source.task is None


def test_the_content_decides_not_the_name(file):
    renamed = file.rename(file.with_suffix(".model"))
    assert [node.op_type for node in load(renamed).model.graph] == ["MatMul"]


def test_external_data_is_read_when_needed(tmp_path):
    source = load(external(tmp_path))
    weights = source.model.graph.initializers["w"].const_value
    np.testing.assert_array_equal(weights.numpy(), np.arange(12).reshape(4, 3))
    # A serialized model has its weights inside again.
    onnx.checker.check_model(ir.to_proto(source.model))


def test_models_in_memory(file):
    from_proto = load(onnx.load(file))
    from_ir = load(ir.load(file))
    for source in (from_proto, from_ir):
        assert source.name == "small"
        assert [node.op_type for node in source.model.graph] == ["MatMul"]
    model = ir.load(file)
    load(model).model.graph.inputs[0].name = "changed"
    assert model.graph.inputs[0].name == "x"


@pytest.mark.parametrize("opset", [7, 13, 21, 26, 28])
def test_opsets_up_to_28(opset):
    model = proto(TEXT.replace('"" : 21', f'"" : {opset}'))
    assert load(model).model.opset_imports[""] == opset


def test_a_newer_opset_is_refused():
    with pytest.raises(UnsupportedModelError, match="opset 29; up to 28"):
        load(proto(TEXT.replace('"" : 21', '"" : 29')))


def test_no_such_file(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no such file or folder: .*nowhere\.onnx"):
        load(tmp_path / "nowhere.onnx")
    # Looks like a repository id, but for the suffix.
    with pytest.raises(ModelNotFoundError, match=r"no such file or folder: models/small\.onnx"):
        load("models/small.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, I am no model at all", "is not an ONNX model"),
        (b"%PDF-1.7 something", "is not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"\x00" * 200, "is not an ONNX model"),
        (b"\x08\x0a", "is not an ONNX model"),
    ],
)
def test_not_a_model(tmp_path, content, message):
    path = tmp_path / "thing.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=rf"thing\.onnx {message}"):
        load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1c\x00\x00\x00TFL3", "a TensorFlow Lite model"),
        (b"\x89HDF\r\n\x1a\n", r"an HDF5 file \(Keras\)"),
    ],
)
def test_other_formats_are_recognised(tmp_path, content, message):
    path = tmp_path / "thing.bin"
    path.write_bytes(content + bytes(64))
    with pytest.raises(UnsupportedModelError, match=message):
        load(path)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated(tmp_path, file, part):
    data = file.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InvalidModelError, match=r"cut\.onnx is truncated: it has \d+ bytes"):
        load(path)


def test_missing_truncated_and_escaping_external_data(tmp_path):
    path = external(tmp_path)
    data = tmp_path / "big.onnx.data"
    content = data.read_bytes()
    data.write_bytes(content[:-8])
    with pytest.raises(InvalidModelError, match=r"big\.onnx\.data is truncated.*'w'"):
        load(path)
    data.unlink()
    with pytest.raises(InvalidModelError, match=r"big\.onnx\.data is missing.*'w'"):
        load(path)
    model = onnx.load(path, load_external_data=False)
    for location in ("../secret", "/etc/passwd", "a/../../b", "C:\\data"):
        model.graph.initializer[0].external_data[0].value = location
        onnx.save(model, path)
        with pytest.raises(InvalidModelError, match="outside the model's folder"):
            load(path)


def test_objects_of_other_types():
    for thing in (None, 3, [1, 2], object()):
        with pytest.raises(InputError, match=f"object of type {type(thing).__name__}"):
            load(thing)


def test_a_folder_with_one_model(tmp_path, file):
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["ViTForImageClassification"], "id2label": {"0": "a"}})
    )
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
             "resample": 3, "size": {"shortest_edge": 248}, "do_center_crop": True,
             "crop_size": {"height": 224, "width": 220}, "rescale_factor": 1 / 255}
        )
    )  # fmt: skip
    source = load(tmp_path)
    assert source.task == "image-classification"
    assert source.config["labels"] == ["a"]
    assert source.config["preprocess"] == {
        "resize": {"shortest": 248, "resample": "bicubic"},
        "crop": [224, 220],
        "rescale": 1 / 255,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "layout": "NCHW",
    }


def test_labels_beside_a_model(tmp_path, file):
    (tmp_path / "labels.txt").write_text("cat\ndog\n\n")
    assert load(tmp_path).config["labels"] == ["cat", "dog"]


def test_a_folder_with_several_models_or_none(tmp_path, file):
    (tmp_path / "other.onnx").write_bytes(file.read_bytes())
    with pytest.raises(InvalidModelError, match=r"several ONNX models: other\.onnx, small\.onnx"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="no model in the folder"):
        load(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match=r"config\.json, but no weights"):
        load(tmp_path / "empty")


def test_weights_without_their_config(tmp_path):
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(InvalidModelError, match=r"config\.json beside it, which is missing"):
        load(tmp_path / "model.safetensors")
    with pytest.raises(InvalidModelError, match=r"no config\.json"):
        load(tmp_path)


def test_damaged_files_end_in_a_named_error(file, tmp_path):
    data = file.read_bytes()
    rng = random.Random(5)
    path = tmp_path / "damaged.onnx"
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        try:
            load(path)
        except WebkilnError as error:
            assert "damaged" in error.message or "'w'" in error.message  # noqa: PT017
