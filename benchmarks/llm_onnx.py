"""The benchmark's language model in the form that ONNX Runtime is fast with.

It is webkiln's own graph of the GGUF file with what exporters for ONNX Runtime write in its places:

- a cache that grows with the text, read by com.microsoft.GroupQueryAttention;
- one float32 table for embeddings and head, and logits of the last token only;
- matrices of one of `ORT_TYPES`.

Inputs: ``input_ids`` int64 [1, sequence]; ``total_sequence_length`` int32 [], the tokens so far and
these; ``seqlens_k`` int32 [1], one less; a layer ``past.i.key``, ``past.i.value`` float32
[1, kv_heads, past, head_size]. Outputs: ``logits`` float32 [1, 1, vocabulary]; a layer
``present.i.key``, ``present.i.value``, the next run's past.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from benchmarks.llm_models import model_file
from webkiln.frontends.gguf import load_gguf
from webkiln.passes.blocks import Blocks, from_blocks
from webkiln.passes.graph import array, attribute, constant, replace

__all__ = ["ORT_TYPES", "onnx_model"]

# 4-bit: MatMulNBits with the very numbers of the file. Its zero points are floats, as Q4_1's are:
# integer ones would round the weights anew, and onnxruntime-web 1.30 is slower with them.
# int8: DynamicQuantizeMatMul with a scale a column; activations become 8-bit integers as well.
ORT_TYPES = ("4-bit", "int8")

_DOMAIN = "com.microsoft"
_CONTEXT = 1024


def onnx_model(kind: str) -> ir.Model:
    """The model with its matrices of one of `ORT_TYPES`."""
    source = load_gguf(model_file(), context=_CONTEXT)
    model = source.model
    nodes = {node.name: node for node in model.graph}
    _tie_table(model, nodes["embeddings/words"], nodes["head/MatMulNBits"])
    _grow_caches(model, nodes)
    if kind == "int8":
        for node in list(model.graph):
            if node.op_type == "MatMulNBits":
                _to_int8(model, node)
    RemoveUnusedNodesPass()(model)
    return model


def _tie_table(model: ir.Model, words: ir.Node, head: ir.Node) -> None:
    """Embeddings and head read one float32 table, and the head only the last token."""
    table = constant(model, _weights(head), "embeddings")
    _swap(words, ir.node("Gather", [table, words.inputs[1]], {"axis": 0}))
    last = ir.node("Gather", [head.inputs[0], constant(model, [-1], "last")], {"axis": 1})
    columns = ir.node("Transpose", [table], {"perm": [1, 0]})
    head.graph.insert_before(head, [last, columns])
    _swap(head, ir.node("MatMul", [last.outputs[0], columns.outputs[0]]))
    logits = model.graph.outputs[0]
    logits.shape = ir.Shape([1, 1, logits.shape[2]])


def _grow_caches(model: ir.Model, nodes: dict[str, ir.Node]) -> None:
    """GroupQueryAttention instead of TensorScatter, RotaryEmbedding, mask and Attention."""
    graph = model.graph
    lengths = [
        ir.val("seqlens_k", dtype=ir.DataType.INT32, shape=[1]),
        ir.val("total_sequence_length", dtype=ir.DataType.INT32, shape=[]),
    ]
    ids, _, *caches = graph.inputs
    past, present = [], []
    for i in range(len(caches) // 2):
        kv_heads, size = caches[2 * i].shape[1], caches[2 * i].shape[3]
        turned, attention = nodes[f"layer{i}/query/RotaryEmbedding"], nodes[f"layer{i}/Attention"]
        cache = [_cache(f"past.{i}.{part}", kv_heads, "past", size) for part in ("key", "value")]
        made = [_cache(f"present.{i}.{part}", kv_heads, "total", size) for part in ("key", "value")]
        query, key, value = (
            nodes[f"layer{i}/{part}/MatMulNBits"].outputs[0] for part in ("query", "key", "value")
        )
        node = ir.node(
            "GroupQueryAttention",
            [query, key, value, *cache, *lengths, *turned.inputs[1:3]],
            {
                "num_heads": query.shape[2] // size,
                "kv_num_heads": kv_heads,
                "scale": attribute(attention, "scale"),
                "do_rotary": 1,
                "rotary_interleaved": attribute(turned, "interleaved"),
            },
            domain=_DOMAIN,
            outputs=[ir.val(f"layer{i}/GroupQueryAttention"), *made],
        )
        _swap(nodes[f"layer{i}/attention/Reshape"], node)
        past += cache
        present += made
    graph.inputs[:] = [ids, *lengths, *past]
    graph.outputs[1:] = present


def _cache(name: str, heads: int, length: str, size: int) -> ir.Value:
    return ir.val(name, dtype=ir.DataType.FLOAT, shape=[1, heads, length, size])


def _to_int8(model: ir.Model, node: ir.Node) -> None:
    columns = _weights(node).T
    scales = np.abs(columns).max(axis=0) / np.float32(127)
    integers = np.rint(columns / scales).astype(np.int8)
    name = str(node.name)
    inputs = [
        node.inputs[0],
        constant(model, integers, name + "/columns"),
        constant(model, scales, name + "/scales"),
    ]
    _swap(node, ir.node("DynamicQuantizeMatMul", inputs, domain=_DOMAIN))


def _weights(node: ir.Node) -> NDArray[np.float32]:
    """What a MatMulNBits multiplies with, float32 [N, K]."""
    integers, scales, *points = (array(value) for value in node.inputs[1:])
    bits, block = attribute(node, "bits"), attribute(node, "block_size")
    return from_blocks(Blocks(bits, block, integers, scales, points[0] if points else None))


def _swap(old: ir.Node, new: ir.Node) -> None:
    """`new` where `old` was; its first output takes over."""
    old.graph.insert_before(old, new)
    new.name = old.name
    replace(old.outputs[0], new.outputs[0])
    old.graph.remove(old, safe=True)
