"""Turns large matrices of weights into small integers in blocks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln.errors import InputError
from webkiln.passes.blocks import Blocks, to_blocks
from webkiln.passes.graph import (
    array,
    attribute,
    constant,
    dims,
    is_op,
    nodes_of,
    only_consumer,
    remove,
    replace,
)

__all__ = ["BLOCK", "quantize_weights"]

BLOCK = 32  # weights that share a scale, as in GGUF's simple types
SMALLEST = 1 << 14  # weights of a matrix that is worth it; smaller ones are left exact

_DOMAIN = "com.microsoft"
_TABLE_BITS = 8


@dataclass(frozen=True)
class _Stored:
    """A matrix [n, k] of `bits` in blocks of `block`, as initializers of the model."""

    bits: int
    block: int
    n: int
    k: int
    integers: ir.Value
    scales: ir.Value
    zero_points: ir.Value | None

    @property
    def parameters(self) -> list[ir.Value]:
        """What both operators take last."""
        return [self.scales, *([] if self.zero_points is None else [self.zero_points])]


def quantize_weights(
    model: ir.Model,
    bits: int,
    *,
    block: int = BLOCK,
    accuracy_level: int = 4,
    smallest: int = SMALLEST,
) -> ir.Model:
    """MatMul and Gemm by constant matrices → MatMulNBits, Gather of rows → GatherBlockQuantized.

    `bits` is 8 (symmetric) or 4 (with a zero point a block, fitted to the least squared error).
    Tables that rows are looked up in have 8 in any case: an error there goes through the whole
    model, and a lookup reads few of them.
    Matrices of fewer than `smallest` weights, or whose depth is no multiple of 16, stay as they
    are; blocks are of `block` weights where the depth is a multiple of that, else of 16. One
    matrix used twice, as an embedding and as the output's weights, is stored once.
    `accuracy_level` is the operator's: 4 lets kernels round activations to int8, 1 keeps float32.

    Runs after the passes that compute with weights. Raises `InputError` for other `bits`.
    """
    if bits not in (4, 8):
        raise InputError(f"weights can't be quantised to {bits} bits", hint="4 or 8")
    store = _Store(model, bits, block, smallest)
    for node in nodes_of(model, "Gather"):  # first: a head that shares the table is as exact
        _lookup(node, store)
    for node in nodes_of(model, "MatMul", "Gemm"):
        _product(model, node, store, accuracy_level)
    store.drop_unused()
    return model


class _Store:
    """The quantised matrices of a model, each once."""

    def __init__(self, model: ir.Model, bits: int, block: int, smallest: int) -> None:
        self.model, self.bits, self.block, self.smallest = model, bits, block, smallest
        self.known: dict[bytes, _Stored | None] = {}
        self.of_value: dict[tuple[int, bool], _Stored | None] = {}
        self.replaced: list[ir.Value] = []

    def rows(self, value: ir.Value | None, bits: int, *, transposed: bool) -> _Stored | None:
        """The constant matrix, or its transpose, in blocks along its rows; None if it stays.

        One that is stored already is taken as it is, whatever its bits.
        """
        shape = dims(value)
        if value is None or shape is None or len(shape) != 2 or value.is_graph_input():
            return None
        n, k = (int(str(d)) for d in (reversed(shape) if transposed else shape))
        if value.const_value is None or n * k < self.smallest or k % 16:
            return None
        if value.dtype != ir.DataType.FLOAT:
            return None
        key = id(value), transposed
        if key not in self.of_value:
            self.of_value[key] = self._quantized(value, bits, transposed)
        return self.of_value[key]

    def _quantized(self, value: ir.Value, bits: int, transposed: bool) -> _Stored | None:
        numbers = array(value)
        assert numbers is not None
        matrix = np.ascontiguousarray(numbers.T if transposed else numbers)
        digest = hashlib.sha256(repr(matrix.shape).encode() + matrix.tobytes()).digest()
        if digest not in self.known:
            block = self.block if matrix.shape[1] % self.block == 0 else 16
            blocks = to_blocks(matrix, bits, block)
            self.known[digest] = self._stored(value, blocks) if blocks else None
        if self.known[digest] is not None:
            self.replaced.append(value)
        return self.known[digest]

    def _stored(self, value: ir.Value, blocks: Blocks) -> _Stored:
        def keep(numbers: npt.NDArray[np.generic], what: str) -> ir.Value:
            kept = constant(self.model, numbers, f"{value.name}.{what}")
            kept.shape, kept.dtype = ir.Shape(numbers.shape), ir.DataType.from_numpy(numbers.dtype)
            return kept

        points = blocks.zero_points
        return _Stored(
            blocks.bits,
            blocks.block,
            len(blocks.scales),
            blocks.scales.shape[1] * blocks.block,
            keep(blocks.integers, f"q{blocks.bits}"),
            keep(blocks.scales, "scales"),
            None if points is None else keep(points, "zero_points"),
        )

    def drop_unused(self) -> None:
        """Takes the float32 matrices that nothing reads any more out of the model."""
        for value in self.replaced:
            if not value.uses() and not value.is_graph_output():
                self.model.graph.initializers.pop(str(value.name), None)


def _product(model: ir.Model, node: ir.Node, store: _Store, accuracy_level: int) -> None:
    """A MatMul or Gemm of activations with a constant matrix at the right."""
    x, weight = node.inputs[0], node.inputs[1]
    transposed = True
    if is_op(node, "Gemm"):
        alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
        if attribute(node, "transA", 0) or alpha != 1.0 or beta != 1.0:
            return
        transposed = not attribute(node, "transB", 0)
    if x is None or x.const_value is not None:
        return
    stored = store.rows(weight, store.bits, transposed=transposed)
    if stored is None:
        return
    attributes = {
        "K": stored.k,
        "N": stored.n,
        "bits": stored.bits,
        "block_size": stored.block,
        "accuracy_level": accuracy_level,
    }
    inputs = [x, stored.integers, *stored.parameters]
    made = ir.node("MatMulNBits", inputs, attributes, domain=_DOMAIN, name=node.name, version=1)
    node.prepend(made)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        add = ir.node("Add", [made.outputs[0], bias], name=f"{node.name}/bias")
        _describe(made.outputs[0], f"{node.name}/product", node.outputs[0])
        made.append(add)
        made = add
    _replace(model, node, made)


def _lookup(node: ir.Node, store: _Store) -> None:
    """A Gather of whole rows of a constant matrix, or of columns: of rows of its transpose."""
    axis, table, indices = attribute(node, "axis", 0), node.inputs[0], node.inputs[1]
    rank = None if indices is None or indices.shape is None else len(indices.shape)
    if axis not in (0, 1, -1, -2) or rank is None:
        return
    by_columns = axis % 2 == 1
    stored = store.rows(table, _TABLE_BITS, transposed=by_columns)
    if stored is None:
        return
    attributes = {
        "bits": stored.bits,
        "block_size": stored.block,
        "gather_axis": 0,
        "quantize_axis": 1,
    }
    made = ir.node(
        "GatherBlockQuantized",
        [stored.integers, indices, *stored.parameters],
        attributes,
        domain=_DOMAIN,
        name=node.name,
        version=1,
    )
    if by_columns:
        _by_columns(store.model, node, made, rank)
    else:
        node.prepend(made)
        _replace(store.model, node, made)


def _by_columns(model: ir.Model, node: ir.Node, made: ir.Node, rank: int) -> None:
    """Lets `made`, which has the gathered columns as rows [..., K], stand for `node` [K, ...].

    The Transpose that undoes just that, and mostly follows, goes.
    """
    old = node.outputs[0]
    back = only_consumer(old)
    undone = [*range(1, rank + 1), 0]
    if back is not None and is_op(back, "Transpose") and attribute(back, "perm") == undone:
        node.prepend(made)
        _replace(model, back, made)
        remove(model, [node])
        return
    turn = ir.node("Transpose", [made.outputs[0]], {"perm": [rank, *range(rank)]})
    turn.name = f"{node.name}/columns"
    made.outputs[0].name, made.outputs[0].type = f"{node.name}/rows", old.type
    shape = dims(old)
    if shape is not None:
        made.outputs[0].shape = ir.Shape([*shape[1:], shape[0]])
    node.prepend([made, turn])
    _replace(model, node, turn)


def _describe(value: ir.Value, name: str, like: ir.Value) -> None:
    value.name, value.type, value.shape = name, like.type, like.shape


def _replace(model: ir.Model, node: ir.Node, made: ir.Node) -> None:
    model.opset_imports.setdefault(_DOMAIN, 1)
    old = node.outputs[0]
    _describe(made.outputs[0], f"{old.name}/quantised", old)
    if replace(old, made.outputs[0]):
        remove(model, [node])
