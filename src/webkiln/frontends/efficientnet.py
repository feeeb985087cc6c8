"""EfficientNet-Lite0 … Lite4 from their state dict.

Source: Tan & Le, "EfficientNet" (arXiv:1905.11946); the Lite variants drop squeeze-and-excitation
and use ReLU6, and keep the stem and head at fixed width. The tensors are named as in the PyTorch
port that most checkpoints come from (``_conv_stem``, ``_blocks.N._expand_conv``, …).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from webkiln.errors import UnsupportedModelError
from webkiln.frontends.builder import GraphBuilder, Weights, sizes

__all__ = ["build_efficientnet_lite", "is_efficientnet", "preprocessing"]


@dataclass(frozen=True)
class _Variant:
    name: str
    width: float
    depth: float
    size: int


# Width and depth coefficients and input size of each variant.
_VARIANTS = (
    _Variant("efficientnet-lite0", 1.0, 1.0, 224),
    _Variant("efficientnet-lite1", 1.0, 1.1, 240),
    _Variant("efficientnet-lite2", 1.1, 1.2, 260),
    _Variant("efficientnet-lite3", 1.2, 1.4, 280),
    _Variant("efficientnet-lite4", 1.4, 1.8, 300),
)

# Of each of the seven stages at coefficients 1: number of blocks, and the stride of its first.
_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_LAST_WIDTH = 320

_BATCH_NORM_EPSILON = 1e-3  # TensorFlow's default, which the weights were trained with


def is_efficientnet(weights: Weights) -> bool:
    """Whether the tensors are named like an EfficientNet's."""
    return "_conv_stem.weight" in weights and "_blocks.0._depthwise_conv.weight" in weights


def build_efficientnet_lite(weights: Weights) -> tuple[ir.Model, str, int]:
    """The model, the variant's name and the size of its square input.

    Input ``image``, float32 [1, 3, size, size]; output ``logits``, float32 [1, classes]. Raises
    `UnsupportedModelError` if the weights are those of another EfficientNet.
    """
    variant = _variant(weights)
    g = GraphBuilder(variant.name, weights)
    image = g.input("image", ir.DataType.FLOAT, [1, 3, variant.size, variant.size])
    net = _Network(g)
    x, size = net.conv(image, "_conv_stem", "_bn0", "stem", variant.size, stride=2)
    for index, stride in enumerate(_block_strides(variant)):
        x, size = net.block(x, f"_blocks.{index}.", f"block{index}", size, stride)
    x, size = net.conv(x, "_conv_head", "_bn1", "head", size)
    x = g.op("GlobalAveragePool", x, name="pool")
    x = g.op("Flatten", x, name="flatten", axis=1)
    logits = g.linear(x, "_fc", "classifier")
    classes = sizes(weights["_fc.weight"])[0]
    g.output(logits, "logits", ir.DataType.FLOAT, [1, classes])
    return g.model(), variant.name, variant.size


def preprocessing(size: int) -> dict[str, Any]:
    """How the weights want their image: what they were evaluated with on ImageNet."""
    return {
        # 32 pixels of border are cut off, as in the reference evaluation.
        "resize": {"shortest": size + 32, "resample": "bicubic"},
        "crop": [size, size],
        "rescale": 1 / 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "layout": "NCHW",
    }


def _repeats(variant: _Variant) -> list[int]:
    """Blocks of each stage; the first and the last stage are not scaled in the Lite family."""
    inner = [math.ceil(n * variant.depth) for n in _REPEATS[1:-1]]
    return [_REPEATS[0], *inner, _REPEATS[-1]]


def _block_strides(variant: _Variant) -> Iterator[int]:
    for count, stride in zip(_repeats(variant), _STRIDES, strict=True):
        yield stride
        yield from [1] * (count - 1)


def _round_channels(channels: float) -> int:
    """To the nearest multiple of 8, and never down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _variant(weights: Weights) -> _Variant:
    blocks = sum(1 for name in weights if name.endswith("._depthwise_conv.weight"))
    last = f"_blocks.{blocks - 1}._project_conv.weight"
    width = sizes(weights[last])[0] if last in weights else 0
    if not any("._se_" in name for name in weights):
        for variant in _VARIANTS:
            fits = sum(_repeats(variant)) == blocks
            if fits and _round_channels(_LAST_WIDTH * variant.width) == width:
                return variant
    raise UnsupportedModelError(
        f"an EfficientNet with {blocks} blocks, the last {width} channels wide, is not one of "
        + ", ".join(variant.name for variant in _VARIANTS),
        hint="export the model to ONNX and build from that",
    )


class _Network:
    def __init__(self, g: GraphBuilder) -> None:
        self.g = g

    def block(
        self, x: ir.Value, prefix: str, name: str, size: int, stride: int
    ) -> tuple[ir.Value, int]:
        """An inverted residual: expand, depthwise convolution, project."""
        y = x
        if prefix + "_expand_conv.weight" in self.g.weights:
            y, _ = self.conv(y, prefix + "_expand_conv", prefix + "_bn0", name + "/expand", size)
        y, out = self.conv(
            y, prefix + "_depthwise_conv", prefix + "_bn1", name + "/depthwise", size,
            stride=stride, depthwise=True,
        )  # fmt: skip
        project = prefix + "_project_conv"
        y, _ = self.conv(y, project, prefix + "_bn2", name + "/project", out, relu=False)
        before = self.g.weights[self._first(prefix) + ".weight"].shape
        after = self.g.weights[project + ".weight"].shape
        narrow = before[0] if self._is_depthwise_first(prefix) else before[1]
        if stride == 1 and narrow == after[0]:
            y = self.g.op("Add", x, y, name=name + "/residual")
        return y, out

    def conv(
        self,
        x: ir.Value,
        conv: str,
        norm: str,
        name: str,
        size: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        relu: bool = True,
    ) -> tuple[ir.Value, int]:
        """Convolution, batch norm and (if `relu`) ReLU6; returns the output and its size."""
        g = self.g
        weight = g.weight(conv + ".weight")
        filters, _, kernel, _ = sizes(g.weights[conv + ".weight"])
        out = -(-size // stride)
        # TensorFlow's SAME: what is missing on both sides, the odd pixel at the end.
        missing = max((out - 1) * stride + kernel - size, 0)
        begin, end = missing // 2, missing - missing // 2
        y = g.op(
            "Conv", x, weight,
            name=name + "/Conv",
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[begin, begin, end, end],
            group=filters if depthwise else 1,
        )  # fmt: skip
        statistics = ("weight", "bias", "running_mean", "running_var")
        y = g.op(
            "BatchNormalization",
            y,
            *(g.weight(f"{norm}.{part}", [filters]) for part in statistics),
            name=name + "/BatchNorm",
            epsilon=_BATCH_NORM_EPSILON,
        )
        if relu:
            low, high = (g.constant(np.float32(limit), f"relu{limit}") for limit in (0, 6))
            y = g.op("Clip", y, low, high, name=name + "/Relu6")
        return y, out

    def _first(self, prefix: str) -> str:
        expand = prefix + "_expand_conv"
        return expand if expand + ".weight" in self.g.weights else prefix + "_depthwise_conv"

    def _is_depthwise_first(self, prefix: str) -> bool:
        return self._first(prefix).endswith("_depthwise_conv")
