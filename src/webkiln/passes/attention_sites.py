"""Recognises attention over past keys and values, in the forms that exporters write.

A form is guessed from the operators around a past input; what the guess means is then compared, by
numbers, with what the graph computes (`static_cache`), so that a guess need not look at everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from webkiln.errors import UnsupportedModelError
from webkiln.passes.graph import array, attribute, dims, is_op, scalar

__all__ = ["Layer", "Site", "find_site", "unsupported"]


@dataclass(frozen=True)
class Layer:
    """The ports of one layer's cache: past float32 [1, kv_heads, past, size], present behind it."""

    index: int
    past_key: ir.Value
    past_value: ir.Value
    present_key: ir.Value
    present_value: ir.Value


@dataclass
class Site:
    """One attention: softmax(cap(scale · q·k) + masks) · v over past and new keys.

    `query`, `key` and `value` are [1, heads, sequence, size] or [1, sequence, heads · size], as is
    `output`. Keys are turned by `rotary` (cosines, sines, of which each row is one position) first.
    """

    layer: Layer
    node: ir.Node
    query: ir.Value
    key: ir.Value
    value: ir.Value
    output: ir.Value
    scale: float | None = None
    softcap: float = 0.0
    heads: int | None = None
    """Query heads; None where the query has an axis of them."""
    packed: bool = False
    """`query` holds queries, keys and values side by side."""
    rotary: tuple[ir.Value, ir.Value] | None = None
    interleaved: bool = False
    masks: list[tuple[ir.Value, str]] = field(default_factory=list)
    """Values that forbid keys: ``add`` large negative numbers, ``keep`` where true, ``drop``."""
    controls: list[ir.Value] = field(default_factory=list)
    """Other values that say how many keys there are."""
    window: int | None = None
    """How many keys up to itself a query sees; None: all."""
    biases: ir.Value | None = None
    """Of query, key and value, side by side."""
    operand: ir.Value | None = None
    """The keys as they are multiplied with, [1, query heads, size, tokens]."""


def unsupported(node: ir.Node, what: str) -> UnsupportedModelError:
    """The error for an attention that is of no known form."""
    return UnsupportedModelError(
        f"the attention at {node.name or node.outputs[0].name!r} ({node.op_type}) {what}",
        hint="export the model again, or build from its GGUF file or its weights",
    )


def find_site(layer: Layer) -> Site:
    """The attention over the layer's past. Raises `UnsupportedModelError` if none is known."""
    for use in layer.past_key.uses():
        node = use.node
        form = _FUSED.get((node.domain, node.op_type))
        if form is not None:
            return form(layer, node)
    producer = layer.present_key.producer()
    if producer is not None and is_op(producer, "Concat"):
        return _joined(layer, producer)
    readers = sorted({use.node.op_type for use in layer.past_key.uses()}) or ["nothing"]
    raise UnsupportedModelError(
        f"{layer.past_key.name!r} is read by {', '.join(readers)}; no attention over it is known",
        hint="export the model again, or build from its GGUF file or its weights",
    )


# --- fused operators ------------------------------------------------------------------------------


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _required(node: ir.Node, index: int) -> ir.Value:
    value = _input(node, index)
    if value is None:
        raise unsupported(node, f"lacks its input {index}")
    return value


def _refuse(node: ir.Node, **inputs: int) -> None:
    """An error if one of the inputs, named by what they are, is given."""
    for what, index in inputs.items():
        if _input(node, index) is not None:
            raise unsupported(node, f"has {what.replace('_', ' ')}, which is not supported")


def _scale(node: ir.Node) -> float | None:
    return attribute(node, "scale", 0.0) or None


def _group_query(layer: Layer, node: ir.Node) -> Site:
    _refuse(node, head_sinks=11, scales_of_quantised_keys=12, scales_of_quantised_values=13)
    if attribute(node, "smooth_softmax", 0) == 1:
        raise unsupported(node, "has a smooth softmax, which is not supported")
    packed = _input(node, 1) is None
    query = _required(node, 0)
    site = Site(
        layer,
        node,
        query,
        query if packed else _required(node, 1),
        query if packed else _required(node, 2),
        node.outputs[0],
        scale=_scale(node),
        softcap=attribute(node, "softcap", 0.0),
        heads=attribute(node, "num_heads"),
        packed=packed,
        interleaved=bool(attribute(node, "rotary_interleaved", 0)),
        controls=[v for i in (5, 6, 9) if (v := _input(node, i)) is not None],
    )
    if attribute(node, "do_rotary", 0):
        site.rotary = _required(node, 7), _required(node, 8)
    window = attribute(node, "local_window_size", -1)
    site.window = window if window > 0 else None
    if (bias := _input(node, 10)) is not None:
        site.masks.append((bias, "add"))
    _settle_size(site, attribute(node, "kv_num_heads"))
    return site


def _settle_size(site: Site, kv_heads: int) -> None:
    """Heads and their size, where the past's own shape leaves them open."""
    width = _width(site.key)
    count = kv_heads if not site.packed else (site.heads or 0) + 2 * kv_heads
    for past in (site.layer.past_key, site.layer.past_value):
        shape = dims(past)
        if shape is None or len(shape) != 4 or width is None or width % count:
            continue
        sizes = zip(shape, (1, kv_heads, None, width // count), strict=True)
        past.shape = ir.Shape([own if isinstance(own, int) else size or own for own, size in sizes])


def _width(value: ir.Value) -> int | None:
    """The last extent, by the value's own shape or by the weights that it is a product with."""
    own = (dims(value) or [None])[-1]
    node = value.producer()
    if isinstance(own, int) or node is None:
        return own if isinstance(own, int) else None
    if node.op_type == "MatMulNBits":
        found: int | None = attribute(node, "N")
        return found
    if is_op(node, "MatMul") and node.inputs[1] is not None:
        last = (dims(node.inputs[1]) or [None])[-1]
        return last if isinstance(last, int) else None
    return _width(node.inputs[0]) if is_op(node, "Add") and node.inputs[0] is not None else None


def _multi_head(layer: Layer, node: ir.Node) -> Site:
    _refuse(node, a_past_sequence_length=8, cache_indirection=9)
    site = Site(
        layer,
        node,
        _required(node, 0),
        _required(node, 1),
        _required(node, 2),
        node.outputs[0],
        scale=_scale(node),
        heads=attribute(node, "num_heads"),
        biases=_input(node, 3),
        controls=[v for v in (_input(node, 4),) if v is not None],
    )
    if (bias := _input(node, 5)) is not None:
        site.masks.append((bias, "add"))
    return site


def _attention(layer: Layer, node: ir.Node) -> Site:
    _refuse(node, lengths_of_keys=6)
    site = Site(
        layer,
        node,
        _required(node, 0),
        _required(node, 1),
        _required(node, 2),
        node.outputs[0],
        scale=_scale(node),
        softcap=attribute(node, "softcap", 0.0),
        heads=attribute(node, "q_num_heads"),
    )
    _add_mask(site, _input(node, 3))
    return site


def _add_mask(site: Site, mask: ir.Value | None) -> None:
    if mask is not None:
        site.masks.append((mask, "keep" if mask.dtype == ir.DataType.BOOL else "add"))


_FUSED: dict[tuple[str, str], Callable[[Layer, ir.Node], Site]] = {
    ("com.microsoft", "GroupQueryAttention"): _group_query,
    ("com.microsoft", "MultiHeadAttention"): _multi_head,
    ("", "Attention"): _attention,
}


# --- past and new joined by Concat, attention after it --------------------------------------------

# Operators through which keys and values pass on their way to the products.
_MOVES = ("Unsqueeze", "Expand", "Reshape", "Transpose", "Cast", "Identity", "Tile", "Squeeze")
_SCALES = ("Mul", "Div")


def _joined(layer: Layer, concat: ir.Node) -> Site:
    key = _new_part(concat, layer.past_key)
    values = layer.present_value.producer()
    if values is None or not is_op(values, "Concat"):
        raise unsupported(concat, "joins past keys, but past values are not joined alike")
    value = _new_part(values, layer.past_value)
    for node, index, _ in _readers(layer.present_value):
        if is_op(node, "Attention") and index == 2:
            return _attention_behind(layer, node, key, value)
        if is_op(node, "MatMul") and index == 1:
            return _products(layer, node, key, value)
    raise unsupported(concat, "feeds no product of probabilities and values")


def _new_part(concat: ir.Node, past: ir.Value) -> ir.Value:
    inputs = list(concat.inputs)
    if len(inputs) != 2 or inputs[0] is not past or inputs[1] is None:
        raise unsupported(concat, "does not put new keys and values behind the past")
    if attribute(concat, "axis") not in (2, -2):
        raise unsupported(concat, "joins keys along another axis than the third")
    return inputs[1]


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int, ir.Value]]:
    """The nodes that read the value, or what moves and scales by a number make of it."""
    todo = [value]
    while todo:
        current = todo.pop()
        for use in current.uses():
            moves = use.idx == 0 and is_op(use.node, *_MOVES)
            scales = is_op(use.node, *_SCALES) and _factor(use.node, use.idx) is not None
            if moves or scales:
                todo.append(use.node.outputs[0])
            else:
                yield use.node, use.idx, current


def _factor(node: ir.Node, index: int = 0) -> float | None:
    """What a Mul or Div by one number multiplies its operand `index` with."""
    number = scalar(node.inputs[1 - index])
    if number is None or array(node.inputs[1 - index]) is None:
        return None
    if is_op(node, "Mul"):
        return number
    return 1 / number if index == 0 and number else None


def _scale_from(value: ir.Value, start: ir.Value) -> float | None:
    """The product of the factors on the way from `start` to `value`; None if there is no way."""
    scale = 1.0
    while value is not start:
        node = value.producer()
        if node is None:
            return None
        index = 0
        if is_op(node, *_SCALES):
            index = next((i for i in (0, 1) if _factor(node, i) is not None), -1)
            if index < 0:
                return None
            scale *= _factor(node, index) or 0.0
        elif not is_op(node, *_MOVES):
            return None
        above = node.inputs[index]
        if above is None:
            return None
        value = above
    return scale


def _attention_behind(layer: Layer, node: ir.Node, key: ir.Value, value: ir.Value) -> Site:
    scale = _scale_from(_required(node, 1), layer.present_key)
    if scale is None:
        raise unsupported(node, "does not read the keys of the same layer")
    own = _scale(node)
    if own is None and scale != 1:
        raise unsupported(node, "scales its keys in a way that is not known")
    site = Site(
        layer,
        node,
        _required(node, 0),
        key,
        value,
        node.outputs[0],
        scale=None if own is None else own * scale,
        softcap=attribute(node, "softcap", 0.0),
        heads=attribute(node, "q_num_heads"),
    )
    _add_mask(site, _input(node, 3))
    return site


def _products(layer: Layer, mix: ir.Node, key: ir.Value, value: ir.Value) -> Site:
    """MatMul(Softmax(… MatMul(q, kᵀ) …), v)."""
    softmax = _softmax_above(_required(mix, 0))
    if softmax is None:
        raise unsupported(mix, "mixes values by something else than a softmax")
    site = Site(layer, mix, key, key, value, mix.outputs[0], scale=1.0)
    product = _scores(_required(softmax, 0), site)
    if product is None:
        raise unsupported(softmax, "is not over scaled and masked products of queries and keys")
    scale = _scale_from(_required(product, 1), layer.present_key)
    if scale is None:
        raise unsupported(product, "does not multiply queries with the keys of the same layer")
    site.query, site.operand = _required(product, 0), _required(product, 1)
    assert site.scale is not None
    site.scale *= scale
    return site


def _softmax_above(value: ir.Value) -> ir.Node | None:
    """The softmax, before guards against rows without keys: Where(IsNaN(p), 0, p)."""
    while (node := value.producer()) is not None:
        if is_op(node, "Softmax"):
            return node
        index = 2 if is_op(node, "Where") else 0
        above = node.inputs[index] if is_op(node, "Where", "Cast", "Identity", "Dropout") else None
        if above is None:
            return None
        value = above
    return None


def _scores(value: ir.Value, site: Site) -> ir.Node | None:
    """The product of queries and keys above `value`; scale, cap and masks on the way to `site`."""
    node = value.producer()
    if node is None:
        return None
    if is_op(node, "MatMul"):
        return node
    if is_op(node, "Cast", "Identity"):
        return _scores(_required(node, 0), site)
    if is_op(node, *_SCALES):
        return _scaled(node, site)
    if is_op(node, "Add"):
        return _masked(node, [(0, 1, "add"), (1, 0, "add")], site)
    if is_op(node, "Where"):
        return _masked(node, [(1, 0, "keep"), (2, 0, "drop")], site)
    return None


def _scaled(node: ir.Node, site: Site) -> ir.Node | None:
    index = next((i for i in (0, 1) if _factor(node, i) is not None), None)
    if index is None:
        return None
    factor, inner = _factor(node, index) or 0.0, _required(node, index)
    above = inner.producer()
    assert site.scale is not None
    if above is not None and is_op(above, "Tanh") and not site.softcap:
        # cap · tanh(scores / cap); the division is part of the scale that is found further up
        site.softcap, site.scale = factor, site.scale * factor
        return _scores(_required(above, 0), site)
    site.scale *= factor
    return _scores(inner, site)


def _masked(node: ir.Node, operands: list[tuple[int, int, str]], site: Site) -> ir.Node | None:
    """Tries which operand leads to the scores; the other one is the mask."""
    before = site.scale, site.softcap, list(site.masks)
    for scores, mask, mode in operands:
        found = _scores(_required(node, scores), site)
        ours = found is not None and _scale_from(_required(found, 1), site.layer.present_key)
        if ours and (mode == "add" or _is_lowest(_required(node, 3 - scores))):
            site.masks.append((_required(node, mask), mode))
            return found
        site.scale, site.softcap, site.masks = before[0], before[1], list(before[2])
    return None


def _is_lowest(value: ir.Value) -> bool:
    """Whether it may stand for -∞."""
    number = scalar(value)
    return number is None or number <= -1e4
