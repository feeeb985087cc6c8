"""Rewrites language models with past and present keys to caches of fixed length, written in place.

Exporters write attention over the past in many forms: a Concat and a handful of products, ONNX's
Attention with past inputs, com.microsoft's GroupQueryAttention and MultiHeadAttention; and the mask
and the positions in more forms still. The compiler knows one (docs/language-models.md):
TensorScatter into a cache at `position`, Attention over the whole cache, a mask from positions.
Each attention found is compared with what takes its place, on made-up numbers, before it is
replaced; masks and positions are recognised by what they evaluate to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from webkiln.errors import InputError, UnsupportedModelError
from webkiln.passes.attention_sites import Layer, find_site
from webkiln.passes.bind_constants import bind_constants, name_dimensions
from webkiln.passes.cache_graph import CacheGraph, check_tables
from webkiln.passes.cache_probes import Probe, check_site, find_window, replace_positions
from webkiln.passes.fold_constants import fold_constants
from webkiln.passes.fold_shapes import fold_shapes
from webkiln.passes.graph import dims, require_opset
from webkiln.passes.infer_shapes import infer_shapes
from webkiln.passes.inline_functions import inline_functions
from webkiln.passes.normalize_opset import normalize_opset
from webkiln.passes.pack_nibbles import pack_nibbles
from webkiln.passes.widen_floats import widen_floats

__all__ = ["static_cache"]

_OPSET = 24  # the first with TensorScatter
_IR_VERSION = 12  # the one that belongs to it
_ROUNDS = 4  # of shapes that make more of others known

# Switches of exporters' graphs, and how a decoder with a past sets them: use the past; keep the
# logits of all tokens.
_SWITCHES = {"use_cache_branch": [True], "num_logits_to_keep": 0, "logits_to_keep": 0}


def static_cache(
    model: ir.Model, generation: Mapping[str, Any], context: int
) -> tuple[ir.Model, dict[str, Any]]:
    """`model` over caches of `context` tokens, and `generation` that describes its new ports.

    `generation` is `Source.config["generation"]` with ``ids``, ``logits``, and ``past``: inputs
    float [1, kv_heads, past, size] to the outputs that continue them. In the result ``state``
    (``key_cache.i`` float32 [1, kv_heads, context, size] to ``key_cache_out.i``) and ``position``
    take their place; the graph is in float32, batch 1, tokens int64 [1, sequence]. `model` itself
    is left as it is.

    Raises `UnsupportedModelError` for an attention, a mask or a use of the past that isn't
    understood, `InputError` for a `context` that the model's own tables don't reach.
    """
    if context < 2:
        raise InputError(f"a context of {context} tokens is not possible", hint="2 or more")
    ids, logits = generation["ids"], generation["logits"]
    model = _prepared(model, ids)
    layers = _layers(model, generation["past"])
    sites = [find_site(layer) for layer in layers]
    for site in sites:
        check_tables(site, context)
    probes = [Probe(model, past, new) for past, new in ((5, 3), (2, 4), (context - 1, 1))]
    find_window(model, sites, probes, context)
    for site in sites:
        check_site(model, site, probes)
    graph = CacheGraph(model, _value(model, ids), context)
    for site in sites:
        graph.rewrite(site)
    _keep_outputs(model, logits)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)
    replace_positions(model, graph, probes[:2])
    common.RemoveUnusedNodesPass()(model)
    _drop_inputs(model, {ids, "position"} | {str(v.name) for v in graph.caches})
    common.TopologicalSortPass()(model)
    common.NameFixPass()(model)
    kept = {key: value for key, value in generation.items() if key != "past"}
    return infer_shapes(model), {
        **kept,
        "context": context,
        "position": "position",
        "state": {str(v.name): _out(str(v.name)) for v in graph.caches},
        "chunk": min(int(generation.get("chunk", context)), context),
    }


def _out(cache: str) -> str:
    return cache.replace("_cache.", "_cache_out.")


def _prepared(model: ir.Model, ids: str) -> ir.Model:
    """Batch 1, no functions, no open switches, constants as initializers, float32, opset 24."""
    model = model.clone()
    common.RemoveInitializersFromInputsPass()(model)
    model = name_dimensions(model)
    shape = dims(_value(model, ids))
    if shape is None or len(shape) != 2:
        raise UnsupportedModelError(f"the input {ids!r} is not [batch, sequence]")
    names = {value.name for value in model.graph.inputs}
    constants: dict[str, Any] = {k: v for k, v in _SWITCHES.items() if k in names}
    if isinstance(shape[0], str):
        constants[shape[0]] = 1
    model = bind_constants(model, constants, {})
    model = fold_constants(inline_functions(model))
    model = pack_nibbles(widen_floats(normalize_opset(model)))
    require_opset(model, _OPSET, _IR_VERSION)
    common.IdentityEliminationPass()(model)
    common.NameFixPass()(model)
    common.TopologicalSortPass()(model)
    model = infer_shapes(model)
    for _ in range(_ROUNDS):
        if not fold_shapes(model):
            break
        model = infer_shapes(fold_constants(model))
    return model


def _value(model: ir.Model, name: str) -> ir.Value:
    return next(v for v in (*model.graph.inputs, *model.graph.outputs) if v.name == name)


def _layers(model: ir.Model, past: Mapping[str, str]) -> list[Layer]:
    ports: dict[int, dict[str, ir.Value]] = {}
    for given, continued in past.items():
        index, kind = _port(given)
        layer = ports.setdefault(index, {})
        layer[f"past_{kind}"] = _value(model, given)
        layer[f"present_{kind}"] = _value(model, continued)
    layers = []
    for number, (index, values) in enumerate(sorted(ports.items())):
        if len(values) != 4:
            raise UnsupportedModelError(f"layer {index} lacks keys or values among its past inputs")
        layers.append(Layer(number, **values))
    return layers


def _port(name: str) -> tuple[int, str]:
    number = re.search(r"\d+", name)
    assert number is not None, name
    return int(number.group()), "key" if "key" in name.split("key_values")[-1] else "value"


def _keep_outputs(model: ir.Model, logits: str) -> None:
    """Logits and caches; present keys and whatever else the model showed are no outputs."""
    kept = [v for v in model.graph.outputs if v.name == logits or "_cache_out." in str(v.name)]
    model.graph.outputs.clear()
    model.graph.outputs.extend(kept)


def _drop_inputs(model: ir.Model, kept: set[str]) -> None:
    for value in list(model.graph.inputs):
        if value.name in kept:
            continue
        if value.uses():
            node = next(iter(value.uses())).node
            raise UnsupportedModelError(
                f"the input {value.name!r} is used by {node.name or node.op_type!r} "
                f"({node.op_type}) in a way that is not understood",
                hint="export the model again, or build from its GGUF file or its weights",
            )
        model.graph.inputs.remove(value)
