"""Cases of reductions, positions of extremes, cumulative sums and softmax."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import Case, Constant

REDUCTIONS = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceSumSquare",
]


def axes(*values: int) -> Constant:
    return Constant(np.array(values, np.int64))


CASES = [
    *(Case(op, ["f32[2,3,n=4]", axes(-1)], low=0.1) for op in REDUCTIONS),
    *(Case(op, ["f32[2,3,4]", axes(0, 2)], {"keepdims": 0}, low=0.1) for op in REDUCTIONS),
    *(Case(op, ["f32[b=2,3,4]"], low=0.1) for op in REDUCTIONS),
    *(
        Case(op, ["f32[2,3,4]"], {"axes": [1], "keepdims": 0}, opset=11, low=0.1)
        for op in REDUCTIONS
    ),
    *(
        Case(op, ["f32[2,3]", axes()], {"noop_with_empty_axes": 1}, low=0.1)
        for op in ["ReduceSum", "ReduceMax"]
    ),
    Case("ReduceSum", ["f32[2,3]", axes()], {"keepdims": 0}),
    Case("ReduceSum", ["i64[2,n=3]", axes(1)]),
    Case("ReduceMax", ["i32[2,3]", axes(1)]),
    Case("ReduceMin", ["i64[2,3]", axes(0)], {"keepdims": 0}),
    Case("ReduceMean", ["i32[2,4]", axes(1)]),
    Case("ReduceMax", ["bool[2,3]", axes(1)], oracle="reference"),
    Case("ReduceMax", ["u8[2,3]", axes(1)]),
    Case("ReduceLogSumExp", ["f32[2,5]", axes(1)], low=80, high=120),
    *(
        Case(op, ["f32[2,3,n=4]"], attributes)
        for op in ["ArgMax", "ArgMin"]
        for attributes in [{}, {"axis": 1}, {"axis": -1, "keepdims": 0}]
    ),
    *(
        Case(op, [np.array([[1, 2, 2, 1]], np.float32)], {"axis": 1, "select_last_index": last})
        for op in ["ArgMax", "ArgMin"]
        for last in (0, 1)
    ),
    Case("ArgMax", ["i32[3,4]"], {"axis": 1}),
    *(
        Case("CumSum", ["f32[3,n=4]", axis], {"exclusive": e, "reverse": r})
        for axis in [Constant(np.int64(1)), Constant(np.array(-2, np.int32))]
        for e in (0, 1)
        for r in (0, 1)
    ),
    Case("CumSum", ["i64[5]", Constant(np.int64(0))]),
    *(
        Case(op, ["f32[2,3,n=4]"], {"axis": axis}, opset=opset)
        for op in ["Softmax", "LogSoftmax", "Hardmax"]
        for axis, opset in [(-1, 13), (1, 13), (0, 13), (1, 11), (2, 11)]
    ),
    Case("Softmax", ["f32[2,3,4]"]),
    Case("Softmax", ["f32[2,3,4]"], opset=11),
    Case("Softmax", ["f32[2,5]"], low=80, high=120),
    Case("Hardmax", [np.array([[1, 2, 2], [3, 3, 0]], np.float32)]),
]
