"""A plan small enough to compute every figure of its report by hand."""

from __future__ import annotations

from typing import Any


def plan() -> dict[str, Any]:
    """Three steps over one symbolic dim: x → a → b, then a and b → y."""

    def buffer(name: str, role: str, address: int, size: int = 1024) -> dict[str, Any]:
        place = {"slot": 0, "offset": 0}
        return {"name": name, "dtype": "float32", "bytes": size, "role": role, "wasm": address,
                "webgpu": place}  # fmt: skip

    def step(label: str, kernel: int, buffers: list[int], flops: Any) -> dict[str, Any]:
        return {"label": label, "kernel": kernel, "buffers": buffers, "params": ["n"],
                "workgroups": [1, 1, 1], "flops": flops, "bytes": ["*", "n", 8]}  # fmt: skip

    def call(label: str, kind: str, buffers: list[int], flops: Any) -> dict[str, Any]:
        return {"label": label, "kind": kind, "reads": buffers[:-1], "writes": buffers[-1:],
                "flops": flops, "bytes": ["*", "n", 8]}  # fmt: skip

    def asset(name: str) -> dict[str, Any]:
        return {"file": name, "sha256": "0" * 64, "bytes": 4}

    return {
        "format": "webkiln.plan", "version": 1, "generator": "webkiln test", "name": "toy",
        "dims": [{"name": "n", "min": 1, "max": 64}],
        "programs": [{
            "name": "main",
            "inputs": [{"name": "x", "dtype": "float32", "shape": [1, "n"], "buffer": 0}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": [["*", "n", 2]], "buffer": 4}],
            "steps": {
                "wasm": [
                    call("MatMul_0 + Relu_1", "contraction", [0, 5, 1], ["*", "n", 100]),
                    call("Softmax_2", "reduction", [1, 2], ["*", "n", 10]),
                    call("Add_3", "elementwise", [1, 2, 4], "n"),
                ],
                "webgpu": [
                    step("MatMul_0 + Relu_1", 0, [0, 5, 1], ["*", "n", 100]),
                    step("Softmax_2", 1, [1, 2], ["*", "n", 10]),
                    step("Add_3", 2, [1, 2, 4], "n"),
                ],
            },
        }],
        "kernels": [
            {"name": "k0", "access": ["read", "read", "write"], "params": 1, "kind": "contraction"},
            {"name": "k1", "access": ["read", "write"], "params": 1, "kind": "reduction"},
            {"name": "k2", "access": ["read", "read", "write"], "params": 1, "kind": "elementwise"},
        ],
        "buffers": [
            buffer("x", "input", 65536), buffer("a", "temporary", 66560),
            buffer("b", "temporary", 67584), buffer("unused", "temporary", 68608),
            buffer("y", "output", 65536), buffer("w", "constant", 131072, 4096),
        ],
        "weights": {"bytes": 0, "pieceBytes": 4, "shards": []},
        "wasm": {"variants": [asset("simd.wasm") | {"features": ["simd"]}], "maxThreads": 8,
                 "memory": {"bytes": 196608, "dims": 64, "weights": 131072,
                            "stacks": {"offset": 65536, "bytes": 65536}}},
        "webgpu": {"variants": [asset("kernels.wgsl") | {"features": [], "limits": {}}],
                   "slots": [{"bytes": 8192}], "limits": {"maxBufferSize": 8192}},
        "golden": [], "task": {"name": "generic"},
    }  # fmt: skip
