"""Cases of operators that move elements: shapes, slices, pads, gathers, scatters."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.ops.harness import Case, Constant

FAR = 2**63 - 1


def ints(*values: int) -> Constant:
    return Constant(np.array(values, np.int64))


def tensor(*values: Any, dtype: str = "float32") -> Any:
    return numpy_helper.from_array(np.array(values, dtype))


def slices(x: str, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Case:
    return Case(
        "Slice", [x, *(None if v is None else ints(*v) for v in (starts, ends, axes, steps))]
    )


RESHAPES: list[tuple[str, tuple[int, ...], dict[str, int]]] = [
    ("f32[2,3,4]", (4, 6), {}),
    ("f32[2,3,4]", (-1,), {}),
    ("f32[2,3,4]", (0, -1), {}),
    ("f32[b=2,n=5,12]", (0, 0, 3, 4), {}),
    ("f32[b=2,n=5,12]", (0, -1, 3, 4), {}),
    ("f32[b=2,n=5,12]", (-1, 12), {}),
    ("f32[b=2,n=5,3,4]", (0, 0, -1), {}),
    ("f32[b=2,n=5,4]", (2, -1, 2, 2), {}),
    ("f32[b=2,n=6]", (-1, 2), {}),
    ("f32[1,6]", (2, 1, 3, 1), {}),
    ("f32[1,1]", (), {}),
    ("f32[0,3]", (3, 0), {"allowzero": 1}),
    ("i64[2,6]", (3, 4), {}),
]

CASES = [
    Case("Identity", ["f32[2,n=3]"]),
    Case("Dropout", ["f32[2,n=3]"]),
    Case("Dropout", ["f32[2,n=3]"], outputs=2),
    Case("Shape", ["f32[2,n=3,4]"]),
    Case("Shape", ["f32[2,n=3,4]"], {"start": 1}),
    Case("Shape", ["f32[2,n=3,4]"], {"start": -2, "end": -1}),
    Case("Size", ["f32[2,n=3,4]"]),
    Case("Constant", [], {"value": tensor(1.0, 2.0)}),
    Case("Constant", [], {"value_ints": [1, 2]}),
    Case("Constant", [], {"value_float": 1.5}),
    Case("ConstantOfShape", [ints(2, 3)]),
    Case("ConstantOfShape", [ints(2, 3)], {"value": tensor(7, dtype="int64")}),
    Case("EyeLike", ["f32[3,n=4]"], {"k": 1}),
    Case("EyeLike", ["i32[3,4]"], {"k": -1, "dtype": int(TensorProto.FLOAT)}),
    *(Case("Reshape", [x, ints(*to)], attributes) for x, to, attributes in RESHAPES),
    *(Case("Flatten", ["f32[2,n=3,4]"], {"axis": a}) for a in (0, 1, 2, 3, -1)),
    Case("Squeeze", ["f32[1,n=3,1]", ints(0, -1)]),
    Case("Squeeze", ["f32[1,3,1]"]),
    Case("Squeeze", ["f32[1,3,1]"], {"axes": [2]}, opset=11),
    Case("Unsqueeze", ["f32[n=3,2]", ints(0, -1)]),
    Case("Unsqueeze", ["f32[3,2]", ints(1)]),
    Case("Unsqueeze", ["f32[3,2]"], {"axes": [0, 2]}, opset=11),
    Case("Transpose", ["f32[2,n=3,4]"]),
    Case("Transpose", ["f32[2,n=3,4,5]"], {"perm": [0, 2, 1, 3]}),
    Case("Expand", ["f32[3,1]", ints(2, 1, 4)]),
    Case("Expand", ["f32[n=3,1]", ints(1, 4)]),
    Case("Tile", ["f32[2,n=3]", ints(2, 3)]),
    Case("Tile", ["f32[2,3]", ints(1, 2)]),
    Case("DepthToSpace", ["f32[2,8,2,w=3]"], {"blocksize": 2}),
    Case("DepthToSpace", ["f32[2,8,2,3]"], {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", ["f32[2,3,4,6]"], {"blocksize": 2}),
    # slices: clamping, negative positions and steps, symbolic extents
    slices("f32[5,6]", (1, 0), (3, FAR)),
    slices("f32[5,6]", (1,), (-1,), (1,)),
    slices("f32[5,6]", (-100,), (100,), (-1,)),
    slices("f32[5,6]", (4,), (1,), (1,), (-1,)),
    slices("f32[5,6]", (-1,), (-(2**63),), (0,), (-1,)),
    slices("f32[5,6]", (FAR,), (0,), (0,), (-2,)),
    slices("f32[5,6]", (100, 1), (-100, 5), (0, 1), (-2, 2)),
    slices("f32[5,6]", (3,), (1,), (0,)),
    slices("f32[n=5,6]", (1,), (FAR,), (0,)),
    slices("f32[n=5,6]", (0,), (-1,), (0,)),
    slices("f32[n=5,6]", (-1,), (FAR,), (0,)),
    slices("f32[n=5,6]", (0,), (FAR,), (0,), (2,)),
    slices("f32[n=5,6]", (-1,), (-FAR,), (0,), (-1,)),
    slices("f32[n=5,6]", (0, 2), (FAR, 4), (0, 1)),
    Case("Slice", ["f32[5,6]"], {"starts": [1], "ends": [2**31], "axes": [1]}, opset=9),
    Case("Split", ["f32[6,n=4]", ints(1, 2, 3)], outputs=3),
    Case("Split", ["f32[2,7]"], {"axis": -1, "num_outputs": 3}, outputs=3),
    Case("Split", ["f32[2,6]"], {"axis": 1, "num_outputs": 2}, outputs=2),
    Case("Split", ["f32[2,6]"], {"axis": 1, "split": [2, 4]}, outputs=2, opset=11),
    Case("Split", ["f32[2,6]"], {"axis": 1}, outputs=3, opset=11),
    Case("Concat", ["f32[2,n=3]", "f32[2,m=4]", "f32[2,1]"], {"axis": 1}),
    Case("Concat", ["f32[2,n=3]", "f32[3,n=3]"], {"axis": -2}),
    Case("Concat", ["i64[2]", "i64[0]", "i64[3]"], {"axis": 0}),
    Case("Concat", ["bool[2]", "bool[3]"], {"axis": 0}),
    # pads
    *(
        Case("Pad", ["f32[4,n=5]", ints(1, 2, 0, 3)], {"mode": mode})
        for mode in ("constant", "edge", "wrap")
    ),
    Case("Pad", ["f32[4,5]", ints(1, 2, 3, 4)], {"mode": "reflect"}),
    Case("Pad", ["f32[2,n=5]", ints(0, 2, 0, 1)], {"mode": "reflect"}),
    Case("Pad", ["f32[4,5]", ints(1, -2, 0, 3), Constant(np.float32(7))]),
    Case("Pad", ["f32[4,5]", ints(2, -1), Constant(np.float32(7)), ints(-1)]),
    Case("Pad", ["i64[4]", ints(1, 1), Constant(np.int64(9))]),
    Case("Pad", ["bool[4]", ints(1, 1), Constant(np.bool_(True))]),
    Case("Pad", ["f32[4,5]"], {"pads": [1, 0, 0, 1], "value": 2.0}, opset=9),
    *(Case("Trilu", ["f32[2,4,n=5]"], {"upper": u}) for u in (0, 1)),
    *(Case("Trilu", ["f32[4,5]", Constant(np.int64(k))], {"upper": 0}) for k in (-2, 1, 9)),
    Case("Trilu", ["i64[4,5]", np.array(1, np.int64)]),
    Case("Range", [Constant(np.int64(v)) for v in (3, 11, 2)]),
    Case("Range", [Constant(np.int64(v)) for v in (11, 3, -3)]),
    Case("Range", [Constant(np.float32(v)) for v in (0.5, 3, 0.4)]),
    Case("OneHot", [np.array([1, -1, 7], np.int64), Constant(np.int64(4)), "f32[2]"]),
    Case("OneHot", [np.array([[1, 0]], np.int64), Constant(np.int64(3)), "i64[2]"], {"axis": 0}),
    # gathers and scatters
    Case("Gather", ["f32[5,n=3]", np.array([[0, -1], [2, 4]], np.int64)]),
    Case("Gather", ["f32[2,5,3]", np.array([1, 0], np.int32)], {"axis": 1}),
    Case("Gather", ["f32[2,5]", ints(3)], {"axis": -1}),
    Case("Gather", ["f32[2,5]", Constant(np.int64(-2))], {"axis": 1}),
    Case("Gather", ["bool[5]", ints(3, 1)]),
    Case("GatherElements", ["f32[3,4]", np.array([[0, -1], [2, 1]], np.int64)], {"axis": 1}),
    Case("GatherElements", ["f32[3,4]", np.array([[0, -1, 2, 1]], np.int64)]),
    Case("GatherND", ["f32[2,3,4]", np.array([[0, 1], [1, -1]], np.int64)]),
    Case("GatherND", ["f32[2,3,4]", np.array([[1], [2]], np.int64)], {"batch_dims": 1}),
    *(
        Case(
            "ScatterElements",
            ["f32[3,4]", np.array([[0, 1], [0, -1]], np.int64), "f32[2,2]"],
            {"axis": 1, "reduction": reduction},
            opset=18,
        )
        for reduction in ("none", "add", "mul", "max", "min")
    ),
    Case(
        "ScatterElements",
        ["f32[2,3,4]", np.array([[[1, 0, 2, 1], [0, 2, 1, -1]]] * 2), "f32[2,2,4]"],
        {"axis": 1},
    ),
    Case("ScatterElements", ["i64[3,n=4]", np.array([[0, 1]], np.int64), "i64[1,2]"]),
    Case("Scatter", ["f32[3,4]", np.array([[0, 1]], np.int64), "f32[1,2]"], opset=10),
    *(
        Case(
            "ScatterND",
            ["f32[4,3]", np.array([[1], [3], [-3]], np.int64), "f32[3,3]"],
            {"reduction": reduction},
            opset=18,
        )
        for reduction in ("add", "mul", "max", "min")
    ),
    Case("ScatterND", ["f32[4,n=3]", np.array([[1], [3]], np.int64), "f32[2,n=3]"]),
    Case("ScatterND", ["f32[4,3]", np.array([[[1, 1], [3, 0]]], np.int64), "f32[1,2]"]),
    Case(
        "TensorScatter",
        ["f32[2,n=6,3]", "f32[2,2,3]", np.array([1, 4], np.int64)],
        opset=24,
        oracle="reference",
    ),
    Case(
        "TensorScatter",
        ["f32[2,6,3]", "f32[2,3,3]", np.array([1, 5], np.int64)],
        {"mode": "circular"},
        opset=24,
        oracle="reference",
    ),
    Case(
        "ReverseSequence",
        ["f32[4,3,2]", np.array([1, 4, 3], np.int64)],
        {"time_axis": 0, "batch_axis": 1},
    ),
    Case(
        "ReverseSequence",
        ["f32[2,n=4]", np.array([3, 2], np.int64)],
        {"time_axis": 1, "batch_axis": 0},
    ),
    # sorting
    Case("TopK", ["f32[3,n=7]", ints(3)], outputs=2),
    Case("TopK", ["f32[3,7]", ints(2)], {"axis": 0, "largest": 0}, outputs=2),
    Case("TopK", [np.array([1, 3, 3, 2, 3], np.float32), ints(4)], outputs=2),
    Case("TopK", ["i64[2,9]", ints(9)], outputs=2),
]
