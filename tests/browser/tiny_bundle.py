"""A bundle made by hand, so that the runtime is tested apart from the compiler.

    y = x * w[0] + w[-1]      float32 [n], where w[0] = 2 and w[-1] = 1
    z = ids * 3               int64 [n], stored as int32

`w` spans three shards, so every one of them has to arrive. `n` is symbolic. In WebAssembly, thread
t traps when ids[0] is -1 - t.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import webkiln
from webkiln.bundle.weights import piece_hashes

MAX_N = 4096
WEIGHTS = 3 * 16384
STACKS = {"offset": 65536, "bytes": 16384}
PIECE_BYTES = 24000  # three a shard, the last one shorter
WEIGHTS_AT = 196608
X, T, Y, IDS, Z = (393216 + i * 4 * MAX_N for i in range(5))
MEMORY = 524288
MAX_THREADS = 4

KERNELS_C = f"""
#include "wasm_runtime.h"

static const float *const w = (const float *){WEIGHTS_AT};

int webkiln_steps(int program) {{ (void)program; return 3; }}

unsigned webkiln_weights(int program, int step, int index, unsigned *bytes) {{
    (void)program;
    if (step != 1 || index) return 0;
    *bytes = {4 * WEIGHTS};
    return {WEIGHTS_AT};
}}

int webkiln_step(int program, int step, int thread, int threads) {{
    (void)program;
    int n = webkiln_dim(0);
    const float *x = (const float *){X};
    float *t = (float *){T}, *y = (float *){Y};
    const int *ids = (const int *){IDS};
    int *z = (int *){Z};
    if (ids[0] == -1 - thread) z[0] = *(volatile int *)0xfffffff0;
    for (volatile int i = 0; i < SLOWNESS; i++) {{}}
    switch (step) {{
    case 0:  // the threads' shares are interleaved
        for (int i = thread; i < n; i += threads) t[i] = x[i] * w[0];
        return 1;
    case 1:  // read in reverse: right only if the barrier before holds
        for (int i = n - 1 - thread; i >= 0; i -= threads) y[i] = t[i] + w[{WEIGHTS - 1}];
        return 1;
    default:
        for (int piece; (piece = webkiln_claim(8, thread, threads)) >= 0;)
            for (int i = piece; i < n; i += 8 * threads) z[i] = ids[i] * 3;
        return 1;
    }}
}}
"""

KERNELS_WGSL = """
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<uniform> p: array<vec4<i32>, 1>;

@compute @workgroup_size(64)
fn scale(@builtin(global_invocation_id) id: vec3<u32>) {
  if (i32(id.x) < p[0].x) { c[id.x] = a[id.x] * b[0]; }
}

@compute @workgroup_size(64)
fn shift(@builtin(global_invocation_id) id: vec3<u32>) {
  if (i32(id.x) < p[0].x) { c[id.x] = a[id.x] + b[arrayLength(&b) - 1]; }
}

@group(0) @binding(0) var<storage, read> i: array<i32>;
@group(0) @binding(1) var<storage, read_write> o: array<i32>;
@group(0) @binding(2) var<uniform> q: array<vec4<i32>, 1>;

@compute @workgroup_size(64)
fn triple(@builtin(global_invocation_id) id: vec3<u32>) {
  if (i32(id.x) < q[0].x) { o[id.x] = i[id.x] * 3; }
}
"""


def write_tiny_bundle(folder: Path, *, slowness: int = 0) -> dict[str, Any]:
    """Writes model/ into `folder`, and returns its plan.

    In WebAssembly every step idles for `slowness` rounds of a loop, a nanosecond or more each.
    """
    model = folder / "model"
    model.mkdir(parents=True)
    plan = _plan()
    plan["weights"] = {
        "bytes": 4 * WEIGHTS,
        "pieceBytes": PIECE_BYTES,
        "shards": _write_shards(model),
    }
    plan["wasm"]["variants"] = [
        _compile(model, features, slowness)
        for features in (
            ["simd", "relaxed-simd", "threads"],
            ["simd", "relaxed-simd"],
            ["simd", "threads"],
            ["simd"],
        )
    ]
    shaders = {"kernels.f16.wgsl": f"enable f16;\n{KERNELS_WGSL}", "kernels.wgsl": KERNELS_WGSL}
    plan["webgpu"]["variants"] = [
        {**_write(model, name, text.encode()), "features": features, "limits": {}}
        for (name, text), features in zip(shaders.items(), (["shader-f16"], []), strict=True)
    ]
    plan["golden"] = [_write_golden(model)]
    (model / "plan.json").write_text(json.dumps(plan))
    return plan


def _write(model: Path, name: str, data: bytes) -> dict[str, Any]:
    (model / name).write_bytes(data)
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _write_shards(model: Path) -> list[dict[str, Any]]:
    w = np.arange(WEIGHTS, dtype=np.float32)
    w[0], w[-1] = 2, 1
    shards = []
    for offset in range(0, w.nbytes, 65536):
        data = w.tobytes()[offset : offset + 65536]
        name = f"{hashlib.sha256(data).hexdigest()}.bin"
        pieces = piece_hashes(data, PIECE_BYTES)
        shards.append({**_write(model, name, data), "offset": offset, "pieces": pieces})
    return shards


def _write_golden(model: Path) -> dict[str, Any]:
    n = 100
    x = np.linspace(-1, 1, n, dtype=np.float32)
    ids = np.arange(n, dtype=np.int64)
    tensors: dict[str, np.ndarray[Any, Any]] = {"x": x, "ids": ids, "y": x * 2 + 1, "z": ids * 3}
    entries, data = {}, b""
    for name, array in tensors.items():
        data += bytes(-len(data) % 64)
        entries[name] = {
            "offset": len(data),
            "bytes": array.nbytes,
            "shape": [n],
            "dtype": str(array.dtype),
        }
        data += array.tobytes()
    (model / "golden.bin").write_bytes(data)
    return {
        "dims": {"n": n},
        "inputs": {name: entries[name] for name in ("x", "ids")},
        "outputs": {name: entries[name] for name in ("y", "z")},
        "file": "golden.bin",
        "rtol": 1e-5,
        "atol": 1e-6,
    }


def _compile(model: Path, features: list[str], slowness: int) -> dict[str, Any]:
    """Compiles one variant with the flags that wasm_runtime.h documents."""
    source = model.parent / "kernels.c"
    source.write_text(KERNELS_C)
    name = "-".join(features) + ".wasm"
    cpu = ["generic", "simd128", "bulk_memory"]
    flags = [f"-DSLOWNESS={slowness}"]
    if "relaxed-simd" in features:
        cpu.append("relaxed_simd")
    if "threads" in features:
        cpu.append("atomics")
        flags += ["-DWEBKILN_THREADS", "-Wl,--shared-memory"]
    linker = [
        "--no-entry",
        "--import-memory",
        f"--initial-memory={MEMORY}",
        f"--max-memory={MEMORY}",
        "--global-base=1024",
        "-z,stack-size=1024",
        "--export=__stack_pointer",
        "--strip-all",
    ]
    include = Path(webkiln.__file__).parent / "targets"
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding", "-O3"]
        + ["-nostdlib", "-Wall", "-Wextra", "-Werror", f"-mcpu={'+'.join(cpu)}", f"-I{include}"]
        + flags
        + [f"-Wl,{option}" for option in linker]
        + [str(source), "-o", str(model / name)],
        check=True,
        timeout=120,
    )
    return {**_write(model, name, (model / name).read_bytes()), "features": features}


def _plan() -> dict[str, Any]:
    groups: list[Any] = [["ceildiv", "n", 64], 1, 1]

    def step(label: str, kernel: int, buffers: list[int]) -> dict[str, Any]:
        cost = {"flops": "n", "bytes": ["*", "n", 8]}
        return {
            "label": label,
            "kernel": kernel,
            "buffers": buffers,
            "params": ["n"],
            "workgroups": groups,
            **cost,
        }

    def buffer(name: str, dtype: str, role: str, at: int, slot: int, offset: int) -> dict[str, Any]:
        size = 4 * (WEIGHTS if role == "constant" else MAX_N)
        place = {"slot": slot, "offset": offset}
        return {
            "name": name,
            "dtype": dtype,
            "bytes": size,
            "role": role,
            "wasm": at,
            "webgpu": place,
        }

    def call(label: str, buffers: list[int]) -> dict[str, Any]:
        cost = {key: step(label, 0, buffers)[key] for key in ("label", "flops", "bytes")}
        return cost | {"kind": "elementwise", "reads": buffers[:-1], "writes": buffers[-1:]}

    def port(name: str, dtype: str, index: int) -> dict[str, Any]:
        return {"name": name, "dtype": dtype, "shape": ["n"], "buffer": index}

    size = 4 * MAX_N
    return {
        "format": "webkiln.plan",
        "version": 1,
        "generator": "webkiln tests",
        "name": "tiny",
        "dims": [{"name": "n", "min": 1, "max": MAX_N}],
        "programs": [
            {
                "name": "main",
                "inputs": [port("x", "float32", 0), port("ids", "int64", 1)],
                "outputs": [port("y", "float32", 4), port("z", "int64", 5)],
                "steps": {
                    "wasm": [
                        call("Mul_0", [0, 2, 3]),
                        call("Add_1", [3, 2, 4]),
                        call("Mul_2", [1, 5]),
                    ],
                    "webgpu": [
                        step("Mul_0", 0, [0, 2, 3]),
                        step("Add_1", 1, [3, 2, 4]),
                        step("Mul_2", 2, [1, 5]),
                    ],
                },
            }
        ],
        "kernels": [
            {
                "name": "scale",
                "access": ["read", "read", "write"],
                "params": 1,
                "kind": "elementwise",
            },
            {
                "name": "shift",
                "access": ["read", "read", "write"],
                "params": 1,
                "kind": "elementwise",
            },
            {"name": "triple", "access": ["read", "write"], "params": 1, "kind": "elementwise"},
        ],
        "buffers": [
            buffer("x", "float32", "input", X, 1, 0),
            buffer("ids", "int32", "input", IDS, 1, size),
            buffer("w", "float32", "constant", WEIGHTS_AT, 0, 0),
            buffer("t", "float32", "temporary", T, 2, 0),
            buffer("y", "float32", "output", Y, 3, 256),
            buffer("z", "int32", "output", Z, 3, 256 + size),
        ],
        "wasm": {
            "memory": {"bytes": MEMORY, "dims": 64, "weights": WEIGHTS_AT, "stacks": STACKS},
            "maxThreads": MAX_THREADS,
        },
        "webgpu": {
            "slots": [
                {"bytes": 4 * WEIGHTS, "weights": 0},
                {"bytes": 2 * size},
                {"bytes": size},
                {"bytes": 256 + 2 * size},
            ],
            "limits": {"maxStorageBuffersPerShaderStage": 3, "maxBufferSize": 4 * WEIGHTS},
        },
        "task": {"name": "generic"},
    }
