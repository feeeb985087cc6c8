"""Cases of matrices quantised in blocks.

Scales have few bits, so that they and their products with zero points are exact in float16: what
is left is the rounding of sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.harness import Case, Constant

__all__ = ["CASES", "matrix"]


def matrix(
    k: int, n: int, bits: int = 4, block: int = 32, zeros: str = "", seed: int = 0
) -> tuple[Any, Any, Any]:
    """B, scales and zero points (`zeros`: none, `packed` or `float`) as constants."""
    rng = np.random.default_rng([k, n, bits, block, seed])
    groups = -(-k // block)
    data = rng.integers(0, 256, (n, groups, block * bits // 8), np.uint8)
    scales = (rng.integers(-7, 8, (n, groups)) / 1024).astype(np.float32)
    given: Any = None
    if zeros == "packed":
        given = Constant(rng.integers(0, 256, (n, -(-groups * bits // 8)), np.uint8))
    elif zeros == "float":
        given = Constant(rng.integers(-8, 2**bits, (n, groups)).astype(np.float32))
    return Constant(data), Constant(scales), given


def product(
    rows: str, k: int, n: int, bits: int = 4, block: int = 32, zeros: str = "", **more: Any
) -> Case:
    """MatMulNBits of f32[`rows`, k] with a matrix [k, n]; `bias` and attributes in `more`."""
    bias = more.pop("bias", None)
    b, scales, given = matrix(k, n, bits, block, zeros)
    inputs = [f"f32[{rows},{k}]", b, scales, given, None, bias]
    while inputs[-1] is None:
        inputs.pop()
    tag = f"{rows}-{k}-{n}-{bits}-{block}-{zeros}"
    attributes = {"K": k, "N": n, "bits": bits, "block_size": block, **more}
    return Case("MatMulNBits", inputs, attributes, domain="com.microsoft", tag=tag, rtol=1e-4)


def rows_of(k: int, n: int, bits: int, block: int, indices: Any, zeros: str = "") -> Case:
    """GatherBlockQuantized of a table [n, k]."""
    data, scales, given = matrix(k, n, bits, block, zeros)
    flat = Constant(data.value.reshape(n, -1)[:, : k * bits // 8])
    inputs = [flat, indices, scales] + ([given] if given is not None else [])
    tag = f"{k}-{n}-{bits}-{block}-{zeros}"
    attributes = {"bits": bits, "block_size": block, "quantize_axis": 1}
    return Case("GatherBlockQuantized", inputs, attributes, domain="com.microsoft", tag=tag)


CASES = [
    *(product("1", 64, 16, bits, zeros=z) for bits in (4, 8) for z in ("", "packed")),
    product("1", 64, 16, zeros="float"),  # ONNX Runtime has no such zero points of 8-bit weights
    *(product("3", 256, 24, bits, block) for bits in (4, 8) for block in (16, 32, 64, 128)),
    *(product("1,s=5", 96, 16, bits, zeros="packed") for bits in (4, 8)),
    *(product("2,s=7", 64, n, 4, 32, "float") for n in (1, 7, 12, 33)),
    product("1", 32, 8),  # one block
    product("1", 40, 8),  # the last block is cut
    product("s=3", 72, 16, 8, 64, "packed"),
    product("s=3", 64, 16, bias=Constant(np.linspace(-1, 1, 16, dtype=np.float32))),
    product("1,s=13", 64, 40, 4, accuracy_level=1),
    *(rows_of(64, 16, bits, 32, np.array([[3, 0], [15, -1]])) for bits in (4, 8)),
    *(rows_of(64, 20, bits, 16, np.array([7, 19]), "packed") for bits in (4, 8)),
    rows_of(128, 9, 8, 128, np.array(4)),
]
