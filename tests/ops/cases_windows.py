"""Cases of contractions, convolutions, pooling and normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.harness import Case, Constant

MS = "com.microsoft"


def conv(x: str, w: str | Constant, bias: str | None = None, **attributes: Any) -> Case:
    return Case("Conv", [x, w, *([bias] if bias else [])], attributes)


def transposed(x: str, w: str, bias: str | None = None, **attributes: Any) -> Case:
    return Case("ConvTranspose", [x, w, *([bias] if bias else [])], attributes)


def pool(op: str, x: str, outputs: int = 1, opset: int = 21, **attributes: Any) -> Case:
    return Case(op, [x], attributes, outputs=outputs, opset=opset)


CASES = [
    *(
        Case("MatMul", list(operands))
        for operands in [
            ("f32[3,4]", "f32[4,5]"),
            ("f32[4]", "f32[4,5]"),
            ("f32[3,4]", "f32[4]"),
            ("f32[4]", "f32[4]"),
            ("f32[b=2,n=3,4]", "f32[4,5]"),
            ("f32[b=2,3,n=4]", "f32[b=2,n=4,5]"),
            ("f32[2,1,3,4]", "f32[5,4,2]"),
            ("f32[3,4]", "f32[2,4,5]"),
            ("f32[4]", "f32[2,4,5]"),
            ("f32[2,3,4]", "f32[4]"),
            ("i32[3,4]", "i32[4,5]"),
            ("f64[3,4]", "f64[4,5]"),
        ]
    ),
    Case("Gemm", ["f32[3,4]", "f32[4,5]"]),
    Case("Gemm", ["f32[n=3,4]", "f32[4,5]", "f32[5]"]),
    Case("Gemm", ["f32[4,3]", "f32[5,4]", "f32[3,1]"], {"transA": 1, "transB": 1}),
    Case("Gemm", ["f32[3,4]", "f32[5,4]", "f32[]"], {"alpha": 0.5, "beta": 2.0, "transB": 1}),
    Case("MatMulInteger", ["u8[3,4]", "i8[4,5]"]),
    Case("MatMulInteger", ["u8[3,4]", "u8[4,5]", np.array(7, np.uint8), np.array([9], np.uint8)]),
    Case("MatMulInteger", ["u8[3,4]", "i8[4,2]", Constant(np.uint8(7)), np.array([1, 2], np.int8)]),
    *(
        Case("Einsum", list(operands), {"equation": equation})
        for equation, operands in [
            ("ij,jk->ik", ("f32[2,3]", "f32[3,n=4]")),
            ("ij,jk", ("f32[2,3]", "f32[3,4]")),
            ("bhqd,bhkd->bhqk", ("f32[2,2,n=3,4]", "f32[2,2,5,4]")),
            ("...ij,...jk->...ik", ("f32[2,1,3,4]", "f32[2,5,4,2]")),
            ("ij->ji", ("f32[2,3]",)),
            ("ii->i", ("f32[3,3]",)),
            ("ij->", ("f32[2,3]",)),
            ("i,j->ij", ("f32[2]", "f32[3]")),
            ("abc,cd,de->abe", ("f32[2,3,4]", "f32[4,2]", "f32[2,3]")),
            ("b...->...b", ("f32[2,3,4]",)),
        ]
    ),
    # convolution
    conv("f32[1,2,5,6]", "f32[3,2,3,3]"),
    conv("f32[2,2,5,6]", "f32[3,2,3,2]", "f32[3]", pads=[1, 0, 2, 1], strides=[2, 1]),
    conv("f32[1,4,7,7]", "f32[6,2,3,3]", "f32[6]", group=2, dilations=[2, 1], pads=[2, 1, 2, 1]),
    conv("f32[1,4,5,5]", "f32[4,1,3,3]", group=4, pads=[1, 1, 1, 1]),
    conv("f32[1,4,5,5]", "f32[8,1,1,1]", group=4),
    conv("f32[1,12,5,7]", Constant("f32[32,3,4,1]"), group=4, pads=[1, 0, 1, 0]),
    *(
        conv("f32[1,2,6,5]", "f32[3,2,3,2]", auto_pad=mode, strides=[2, 2])
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    conv("f32[1,2,9]", "f32[3,2,4]", "f32[3]", pads=[2, 1], strides=[3]),
    conv("f32[1,2,n=9]", "f32[3,2,3]", pads=[1, 1], strides=[2]),
    conv("f32[b=2,2,h=5,w=6]", "f32[3,2,3,3]", pads=[1, 1, 1, 1]),
    conv("f32[1,2,3,4,4]", "f32[2,2,2,3,2]", pads=[0, 1, 0, 1, 1, 0]),
    Case("ConvInteger", ["u8[1,2,4,4]", "u8[3,2,2,2]", Constant(np.uint8(5))]),
    transposed("f32[1,2,3,4]", "f32[2,3,3,3]"),
    transposed("f32[1,2,3,4]", "f32[2,3,3,2]", "f32[3]", strides=[2, 3], pads=[1, 0, 1, 1]),
    transposed("f32[1,2,3,3]", "f32[2,3,3,3]", strides=[2, 2], output_padding=[1, 1]),
    transposed("f32[1,2,3,3]", "f32[2,3,3,3]", strides=[3, 2], output_shape=[10, 8]),
    transposed("f32[1,2,3,3]", "f32[2,3,2,2]", dilations=[2, 2], pads=[1, 1, 1, 1]),
    transposed("f32[1,4,3,3]", "f32[4,3,3,3]", "f32[6]", group=2, strides=[2, 2]),
    transposed("f32[1,2,3,3]", "f32[2,3,3,3]", strides=[2, 2], auto_pad="SAME_UPPER"),
    transposed("f32[1,2,3,3]", "f32[2,3,4,4]", strides=[2, 2], auto_pad="SAME_LOWER"),
    transposed("f32[1,2,n=5]", "f32[2,3,4]", strides=[2], pads=[1, 1]),
    # pooling
    *(
        case
        for op in ("MaxPool", "AveragePool", "LpPool")
        for case in [
            pool(op, "f32[1,2,6,7]", kernel_shape=[2, 3]),
            pool(op, "f32[1,2,6,7]", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            pool(op, "f32[1,2,5,7]", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
            pool(op, "f32[1,2,5,7]", kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
            pool(op, "f32[1,2,9]", kernel_shape=[3], strides=[2]),
            pool(op, "f32[1,2,n=9]", kernel_shape=[3], strides=[2], pads=[1, 0]),
        ]
    ),
    *(
        pool(op, "f32[1,2,6,8]", kernel_shape=[3, 3], strides=[2, 3], ceil_mode=1, **extra)
        for op in ("MaxPool", "AveragePool")
        for extra in [{}, {"pads": [1, 1, 1, 1]}, {"dilations": [2, 1]}]
    ),
    pool("MaxPool", "f32[1,1,n=6,6]", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    pool("MaxPool", "f32[1,2,7,7]", kernel_shape=[2, 2], dilations=[2, 3]),
    pool("MaxPool", "i8[1,2,7,7]", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    pool("MaxPool", "u8[1,2,7,7]", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    pool("MaxPool", "f32[2,2,5,6]", outputs=2, kernel_shape=[3, 2], pads=[1, 1, 1, 0]),
    pool("MaxPool", "f32[1,2,5,6]", outputs=2, kernel_shape=[2, 2], storage_order=1),
    *(
        pool("AveragePool", "f32[1,2,6,7]", kernel_shape=[3, 3], count_include_pad=1, **extra)
        for extra in [
            {"pads": [1, 1, 1, 1]},
            {"pads": [1, 0, 1, 2], "strides": [2, 2], "ceil_mode": 1},
            {"pads": [1, 1, 1, 1], "dilations": [2, 1]},
        ]
    ),
    pool("AveragePool", "f32[1,2,6,7]", kernel_shape=[3, 3], pads=[2, 2, 2, 2], dilations=[2, 2]),
    pool("LpPool", "f32[1,2,6,7]", kernel_shape=[2, 3], p=3),
    pool("LpPool", "f32[1,2,6,7]", kernel_shape=[2, 3], p=1),
    Case("GlobalAveragePool", ["f32[2,3,h=4,5]"]),
    Case("GlobalMaxPool", ["f32[2,3,4,5]"]),
    Case("GlobalLpPool", ["f32[2,3,4,5]"]),
    # normalisation
    Case("BatchNormalization", ["f32[2,3,h=4,5]", *["f32[3]"] * 4], low=0.1),
    Case("BatchNormalization", ["f32[2,3]", *["f32[3]"] * 4], {"epsilon": 1e-2}, low=0.1),
    Case("LayerNormalization", ["f32[2,n=3,8]", "f32[8]", "f32[8]"]),
    Case("LayerNormalization", ["f32[2,3,8]", "f32[8]"], {"epsilon": 1e-2}),
    Case("LayerNormalization", ["f32[2,3,4]", "f32[3,4]", "f32[3,4]"], {"axis": 1}, outputs=3),
    Case("SimplifiedLayerNormalization", ["f32[2,n=3,8]", "f32[8]"]),
    Case("RMSNormalization", ["f32[2,n=3,8]", "f32[8]"], opset=23, oracle="reference"),
    Case("SkipLayerNormalization", ["f32[2,3,8]", "f32[2,3,8]", "f32[8]", "f32[8]"], domain=MS),
    Case(
        "SkipLayerNormalization",
        ["f32[2,3,8]", "f32[2,3,8]", "f32[8]", "f32[8]", "f32[8]"],
        domain=MS,
    ),
    Case("SkipSimplifiedLayerNormalization", ["f32[2,3,8]", "f32[2,3,8]", "f32[8]"], domain=MS),
    *(
        Case(op, ["f32[2,3,8]", "f32[2,3,8]", "f32[8]"], outputs=4, unused=(1, 2), domain=MS)
        for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
    ),
    Case("InstanceNormalization", ["f32[2,3,h=4,5]", "f32[3]", "f32[3]"]),
    Case("InstanceNormalization", ["f32[2,3,7]", "f32[3]", "f32[3]"], {"epsilon": 1e-2}),
    Case("GroupNormalization", ["f32[2,4,3,5]", "f32[4]", "f32[4]"], {"num_groups": 2}),
    Case("GroupNormalization", ["f32[2,4,3,w=5]", "f32[2]", "f32[2]"], {"num_groups": 2}, opset=18),
    Case("MeanVarianceNormalization", ["f32[2,3,4,5]"]),
    Case("MeanVarianceNormalization", ["f32[2,3,4]"], {"axes": [-1]}),
    Case("LpNormalization", ["f32[2,n=5]"]),
    Case("LpNormalization", ["f32[2,5]"], {"p": 1, "axis": 0}),
    Case("LRN", ["f32[2,5,3,3]"], {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 2.0}),
    # rotary position embedding
    *(
        Case(
            "RotaryEmbedding",
            ["f32[2,3,n=4,8]", np.array([[0, 3, 1, 2], [4, 4, 0, 1]]), "f32[6,4]", "f32[6,4]"],
            {"interleaved": interleaved},
            domain=MS,
        )
        for interleaved in (0, 1)
    ),
    Case(
        "RotaryEmbedding",
        ["f32[2,4,24]", np.array([2]), "f32[6,4]", "f32[6,4]"],
        domain=MS,
    ),
    Case(
        "RotaryEmbedding",
        ["f32[2,3,n=4,8]", "f32[6,2]", "f32[6,2]", np.array([[0, 3, 1, 2], [4, 4, 0, 1]])],
        {"rotary_embedding_dim": 4},
        opset=23,
        oracle="reference",
    ),
    Case(
        "RotaryEmbedding",
        ["f32[2,4,24]", "f32[2,4,4]", "f32[2,4,4]"],
        {"num_heads": 3},
        opset=23,
        oracle="reference",
    ),
    Case(
        "FusedMatMul",
        ["f32[2,4,3]", "f32[2,5,4]"],
        {"transA": 1, "transB": 1, "alpha": 0.5},
        domain=MS,
    ),
]
