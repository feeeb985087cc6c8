"""Cases of element-wise operators: arithmetic, activations, logic, conversion."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.ops.harness import Case, Constant

nan, inf = np.nan, np.inf
EDGES = np.array([nan, inf, -inf, 0.0, -0.0, 1.5, -2.5, 2.5, 0.5], np.float32)
MS = "com.microsoft"

CASES = [
    *(
        Case(op, ["f32[2,n=5]"], low=low, high=high)
        for op, low, high in [
            ("Abs", -2, 2),
            ("Acos", -0.9, 0.9),
            ("Acosh", 1.1, 4),
            ("Asin", -0.9, 0.9),
            ("Asinh", -2, 2),
            ("Atan", -2, 2),
            ("Atanh", -0.9, 0.9),
            ("Ceil", -2, 2),
            ("Cos", -3, 3),
            ("Cosh", -2, 2),
            ("Erf", -2, 2),
            ("Exp", -2, 2),
            ("Floor", -2, 2),
            ("Log", 0.1, 4),
            ("Neg", -2, 2),
            ("Reciprocal", 0.5, 2),
            ("Round", -3, 3),
            ("Sign", -2, 2),
            ("Sin", -3, 3),
            ("Sinh", -2, 2),
            ("Sqrt", 0, 4),
            ("Tan", -1, 1),
            ("Tanh", -2, 2),
        ]
    ),
    *(Case(op, ["f32[2,3,n=4]"]) for op in ["Relu", "Sigmoid", "Softplus", "Softsign", "Gelu"]),
    *(Case(op, ["f32[2,3]"]) for op in ["Mish", "HardSwish", "Elu", "Selu", "Celu", "LeakyRelu"]),
    *(Case(op, ["f32[2,3]"]) for op in ["HardSigmoid", "ThresholdedRelu", "Shrink"]),
    Case("Sigmoid", ["f32[9]"], low=-200, high=200),
    Case("Softplus", ["f32[9]"], low=-200, high=200),
    Case("Tanh", ["f32[9]"], low=-200, high=200),
    Case("Gelu", ["f32[2,7]"], {"approximate": "tanh"}),
    Case("Gelu", ["f32[2,7]"], domain=MS),
    Case("QuickGelu", ["f32[2,7]"], domain=MS),
    Case("FastGelu", ["f32[2,n=7]"], domain=MS),
    Case("FastGelu", ["f32[2,7]", "f32[7]"], domain=MS),
    Case("BiasGelu", ["f32[2,7]", "f32[7]"], domain=MS),
    Case("Elu", ["f32[7]"], {"alpha": 0.3}),
    Case("Selu", ["f32[7]"], {"alpha": 1.1, "gamma": 2.0}),
    Case("Celu", ["f32[7]"], {"alpha": 0.4}),
    Case("LeakyRelu", ["f32[7]"], {"alpha": 0.2}),
    Case("HardSigmoid", ["f32[7]"], {"alpha": 0.5, "beta": 0.6}),
    Case("ThresholdedRelu", ["f32[17]"], {"alpha": 0.5}),
    Case("Shrink", ["f32[17]"], {"lambd": 1.0, "bias": 0.5}),
    Case("PRelu", ["f32[2,3,4]", "f32[3,1]"]),
    Case("Swish", ["f32[7]"], {"alpha": 1.5}, opset=24, oracle="reference"),
    Case("Round", [EDGES]),
    Case("Relu", [EDGES[1:]]),
    Case("IsNaN", [EDGES]),
    Case("IsInf", [EDGES]),
    Case("IsInf", [EDGES], {"detect_negative": 0}),
    Case("IsInf", [EDGES], {"detect_positive": 0}),
    Case("Abs", ["i32[9]"]),
    Case("Abs", ["i8[9]"]),
    Case("Neg", ["i64[9]"]),
    Case("Sign", ["i32[9]"]),
    Case("Sign", ["i64[9]"]),
    Case("Abs", ["f64[9]"]),
    Case("Exp", ["f16[9]"], opset=21, oracle="reference"),
    # two arguments: broadcasting in both directions, symbolic extents, integers
    *(
        Case(op, inputs)
        for op in ["Add", "Sub", "Mul", "Div"]
        for inputs in [
            ["f32[2,3,4]", "f32[4]"],
            ["f32[b=2,1,4]", "f32[3,1]"],
            ["f32[]", "f32[n=3,2]"],
            ["f32[b=2,n=3]", "f32[b=2,n=3]"],
            ["i32[2,3]", np.array([3, -7, 2], np.int32)],
            ["i64[2,3]", np.array([[3], [-7]], np.int64)],
        ]
    ),
    Case("Add", [np.array([250, 3], np.uint8), np.array([9, 4], np.uint8)], tag="wraps"),
    Case("Mul", [np.array([100, -3], np.int8), np.array([9, 4], np.int8)], tag="wraps"),
    Case("Add", ["f64[2,3]", "f64[3]"]),
    Case("Mod", ["f32[6]", "f32[6]"], {"fmod": 1}),
    Case("Mod", ["i32[6]", np.array([3, -3, 5, -5, 7, 2], np.int32)]),
    Case("Mod", ["i32[6]", np.array([3, -3, 5, -5, 7, 2], np.int32)], {"fmod": 1}),
    Case("Mod", ["i32[8]", np.array([3, -3, 5, -5, 7, 2, -7, -2], np.int32)]),
    Case("Mod", ["i64[2,8]", Constant(np.int64(4))]),
    Case("Mod", ["u32[8]", Constant(np.uint32(5))]),
    Case("Mod", ["u32[8]", Constant(np.uint32(4))]),
    Case("Div", ["u32[8]", Constant(np.uint32(4))]),
    Case("Mod", ["u8[6]", np.array([3, 9, 5, 5, 7, 2], np.uint8)]),
    Case("Pow", ["f32[2,3]", "f32[3]"], low=0.1),
    *(
        Case("Pow", ["f32[7]", Constant(np.float32(e))], low=0.1)
        for e in (2, 3, 1, 0.5, -0.5, -1, 4)
    ),
    Case("Pow", ["f32[7]", Constant(np.int64(2))]),
    Case("Pow", [np.array([1, 2, 3, -4], np.int32), np.array([3, 10, 0, 3], np.int32)]),
    Case("Pow", [np.array([1, 2, 3], np.int64), np.array([3, 10, 0], np.float32)]),
    Case(
        "BitShift",
        [np.array([1, 200, 3], np.uint8), np.array([1, 2, 3], np.uint8)],
        {"direction": "LEFT"},
    ),
    Case(
        "BitShift",
        [np.array([1, 200, 3], np.uint32), np.array([1, 2, 3], np.uint32)],
        {"direction": "RIGHT"},
    ),
    *(Case(op, ["f32[2,3]", "f32[3]", "f32[1,1]"]) for op in ["Max", "Min", "Sum", "Mean"]),
    *(Case(op, ["f32[2,n=3]"]) for op in ["Max", "Min", "Sum", "Mean"]),
    Case("Max", ["i64[2,3]", "i64[3]"]),
    Case("Min", ["i32[2,3]", "i32[3]"]),
    Case("Clip", ["f32[n=9]", np.float32(-0.5), Constant(np.float32(0.5))]),
    Case("Clip", ["f32[9]", None, Constant(np.float32(0.5))]),
    Case("Clip", ["f32[9]"]),
    Case("Clip", ["i64[9]", Constant(np.int64(-5)), Constant(np.int64(7))]),
    Case("Clip", ["f32[9]"], {"min": -1.0, "max": 0.25}, opset=6),
    # logic and types
    *(
        Case(op, inputs)
        for op in ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"]
        for inputs in [
            [np.array([1, 2, nan, 4], np.float32), np.array([1, 3, nan, 2], np.float32)],
            [np.array([1, 2, 3], np.int64), np.array([[1], [3]], np.int64)],
        ]
    ),
    Case("Equal", ["bool[9]", "bool[9]"]),
    *(Case(op, ["bool[n=5,3]", "bool[3]"]) for op in ["And", "Or", "Xor"]),
    Case("Not", ["bool[n=5,3]"]),
    Case("BitwiseAnd", ["i32[9]", "i32[9]"], oracle="reference"),
    Case("BitwiseOr", ["u8[9]", "u8[9]"], oracle="reference"),
    Case("BitwiseXor", ["i8[9]", "i8[9]"], oracle="reference"),
    Case("BitwiseNot", ["i32[9]"], oracle="reference"),
    Case("BitwiseNot", ["u8[9]"], oracle="reference"),
    Case("Where", ["bool[2,3]", "f32[3]", "f32[2,1]"]),
    Case("Where", ["bool[n=3]", "i64[]", "i64[2,n=3]"]),
    Case("Where", ["bool[3]", "u8[3]", "u8[3]"]),
    *(
        Case("Cast", [f"{source}[3,n=4]"], {"to": int(to)}, low=0)
        for source in ["f32", "i64", "i32", "u8", "bool", "f64"]
        for to in [
            TensorProto.FLOAT,
            TensorProto.DOUBLE,
            TensorProto.INT64,
            TensorProto.INT32,
            TensorProto.BOOL,
            TensorProto.FLOAT16,
            TensorProto.UINT32,
        ]
        if not (source in ("i64", "i32") and to == TensorProto.UINT32)
    ),
    Case("Cast", ["f32[9]"], {"to": int(TensorProto.INT32)}, tag="truncates"),
    Case("Cast", [np.array([300, -5, 127, 128], np.int32)], {"to": int(TensorProto.UINT8)}),
    Case("Cast", [np.array([300, -5, 127, 128], np.int64)], {"to": int(TensorProto.INT8)}),
    Case("Cast", [np.array([200, 5], np.uint8)], {"to": int(TensorProto.INT8)}),
    Case("CastLike", ["f32[3]", "i64[1]"]),
]
