"""Matrices of 4- and 8-bit integers in blocks, and the operators that read them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from webkiln.frontends.builder import GraphBuilder

__all__ = ["QuantisedMatrix", "gather_rows", "matmul"]

_DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class QuantisedMatrix:
    """A weight [N, K] as com.microsoft.MatMulNBits stores it: ``w = (q - zero point) · scale``.

    Integers, scales and zero points follow the operator's definition: uint8 [N, K/block,
    block·bits/8] with the earlier weight in a byte's lower half, float32 [N, K/block] twice.
    Without zero points the container's middle (8 or 128) stands for 0.
    """

    n: int
    k: int
    bits: int
    block: int
    integers: ir.TensorProtocol
    scales: ir.TensorProtocol
    zero_points: ir.TensorProtocol | None

    def values(self, g: GraphBuilder, name: str) -> list[ir.Value | None]:
        """The initializers in `g`, stored once however many nodes read them; None: not there."""
        points = self.zero_points
        return [
            g.initializer(self.integers, name),
            g.initializer(self.scales, name + ".scales"),
            None if points is None else g.initializer(points, name + ".zero_points"),
        ]


# accuracy_level: what such files are meant for. `passes.limit_activations` lowers it.
_INT8 = 4


def matmul(
    g: GraphBuilder,
    x: ir.Value,
    matrix: QuantisedMatrix,
    weight: str,
    name: str,
) -> ir.Value:
    """``x @ W.T``: x float32 [..., K] → [..., N]. It may round x as far as the build allows."""
    return g.op(
        "MatMulNBits",
        x,
        *_used(matrix.values(g, weight)),
        name=name,
        domain=_DOMAIN,
        K=matrix.k,
        N=matrix.n,
        bits=matrix.bits,
        block_size=matrix.block,
        accuracy_level=_INT8,
    )


def gather_rows(
    g: GraphBuilder, matrix: QuantisedMatrix, weight: str, indices: ir.Value, name: str
) -> ir.Value:
    """Rows of W as float32: indices int64 [...] → [..., K]."""
    integers, scales, points = matrix.values(g, weight)
    return g.op(
        "GatherBlockQuantized",
        integers,
        indices,
        scales,
        *_used([points]),
        name=name,
        domain=_DOMAIN,
        bits=matrix.bits,
        block_size=matrix.block,
        gather_axis=0,
        quantize_axis=1,
    )


def _used(values: list[ir.Value | None]) -> list[ir.Value]:
    return [v for v in values if v is not None]
