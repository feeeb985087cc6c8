"""Cases of interpolation and quantisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.harness import Case, Constant


def floats(*values: float) -> Constant:
    return Constant(np.array(values, np.float32))


def ints(*values: int) -> Constant:
    return Constant(np.array(values, np.int64))


def resize(x: str, scales: Any = None, sizes: Any = None, roi: Any = None, **kwargs: Any) -> Case:
    opset = kwargs.pop("opset", 19)
    oracle = kwargs.pop("oracle", "onnxruntime")
    inputs = [x, roi and floats(*roi), scales and floats(*scales), sizes and ints(*sizes)]
    while inputs[-1] is None:
        inputs.pop()
    return Case("Resize", inputs, kwargs, opset=opset, oracle=oracle, rtol=1e-4)


MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
X = "f32[1,2,4,5]"
FACE = (0.0, 0.0, 0.1, 0.2, 1.0, 1.0, 0.8, 0.9)

CASES = [
    *(
        resize(X, scales, mode=kind, coordinate_transformation_mode=mode)
        for kind in ("nearest", "linear", "cubic")
        for mode in MODES
        for scales in [(1, 1, 2, 2), (1, 1, 0.6, 0.7), (1, 1, 1.7, 1)]
    ),
    *(
        resize(X, sizes=sizes, mode=kind, coordinate_transformation_mode=mode)
        for kind in ("nearest", "linear", "cubic")
        for mode in MODES
        for sizes in [(1, 2, 7, 3), (1, 2, 1, 1)]
    ),
    *(
        resize(X, (1, 1, 1.6, 2.5), mode="nearest", nearest_mode=rounding)
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ),
    *(
        resize(
            X,
            sizes=(1, 2, 6, 6),
            roi=roi,
            mode=kind,
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=9.0,
        )
        for kind in ("nearest", "linear", "cubic")
        for roi in [FACE, (0, 0, -0.2, 0.2, 1, 1, 1.2, 0.9)]
    ),
    resize(X, (1, 1, 0.7, 2), mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
    *(
        Case(
            "Resize",
            [X, floats(), floats(1, 1, 1.7, 0.6)],
            {"mode": kind, "coordinate_transformation_mode": "tf_half_pixel_for_nn"},
            opset=11,
        )
        for kind in ("nearest", "linear")
    ),
    resize(X, (1, 1, 1.5, 2), mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    resize(X, (2, 1.5), axes=[2, 3], mode="linear"),
    resize(X, sizes=(8, 8), axes=[2, 3], keep_aspect_ratio_policy="not_larger"),
    resize(X, sizes=(8, 8), axes=[2, 3], keep_aspect_ratio_policy="not_smaller"),
    resize("f32[1,2,h=4,w=5]", (1, 1, 2, 2), mode="linear"),
    resize("f32[1,2,h=4,w=6]", (1, 1, 0.5, 1.5), mode="nearest"),
    resize("f32[1,2,h=4,w=5]", sizes=(1, 2, 8, 9), mode="linear"),
    resize("f32[2,5]", sizes=(3, 8), mode="linear"),
    resize("f32[1,2,5]", (1, 1, 2), mode="linear"),
    resize("u8[1,1,4,4]", (1, 1, 2, 2), mode="nearest"),
    Case("Resize", [X, floats(1, 1, 2, 2)], {"mode": "linear"}, opset=10),
    Case("Resize", [X, floats(1, 1, 1.5, 2)], {"mode": "nearest"}, opset=10),
    Case("Upsample", [X, floats(1, 1, 2, 3)], {"mode": "nearest"}, opset=9),
    Case("Upsample", [X, floats(1, 1, 2, 2)], {"mode": "linear"}, opset=9),
    Case("Upsample", [X], {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]}, opset=7),
    *(
        Case(
            "GridSample",
            ["f32[2,2,4,5]", "f32[2,3,4,2]"],
            {"mode": mode, "padding_mode": padding, "align_corners": corners},
            opset=20,
            low=-1.6,
            high=1.6,
            rtol=1e-4,
        )
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ),
    Case("GridSample", ["f32[1,2,3,4,5]", "f32[1,2,3,2,3]"], {"mode": "linear"}, opset=20, low=-1),
    # quantisation
    Case("DequantizeLinear", ["u8[3,4]", np.array(0.1, np.float32), np.array(9, np.uint8)]),
    Case("DequantizeLinear", ["i8[2,3]", "f32[3]", "i8[3]"]),
    Case("DequantizeLinear", ["i8[4,3]", "f32[2,3]"], {"axis": 0, "block_size": 2}),
    Case("DequantizeLinear", ["i32[2,3]", np.array(0.1, np.float32)]),
    Case("QuantizeLinear", ["f32[3,4]", np.array(0.01, np.float32), np.array(9, np.uint8)]),
    Case("QuantizeLinear", ["f32[2,3]", "f32[3]", "i8[3]"], low=0.1),
    Case("QuantizeLinear", ["f32[2,3]", np.array(0.01, np.float32)], {"axis": 0}),
    Case("DynamicQuantizeLinear", ["f32[3,n=4]"], outputs=3),
    Case(
        "QLinearMatMul",
        [
            "u8[2,3]",
            Constant(np.float32(0.02)),
            Constant(np.uint8(3)),
            "u8[3,4]",
            Constant(np.float32(0.03)),
            Constant(np.uint8(5)),
            Constant(np.float32(0.05)),
            Constant(np.uint8(7)),
        ],
    ),
]
