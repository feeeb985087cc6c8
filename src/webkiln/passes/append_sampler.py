"""A language model's graph with a sampler at its end: from logits to the next token's id.

docs/generation.md says what the ports mean. All of it is ONNX operators, written so that few of
them look at the whole vocabulary: one pass that applies penalties and mask, one TopK, and sums by
group, needed only where top-k does not leave a handful of candidates.

Drawing is the Gumbel-max trick (arXiv 1411.0030): the largest of log-weight + noise falls on an
element with the probability of its weight. To draw from the whole vocabulary it is applied to the
groups first, then to the elements of one group; both are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from webkiln.errors import InvalidModelError
from webkiln.passes.notation import Symbol, Writer

__all__ = ["CANDIDATES", "INPUTS", "OUTPUTS", "PENALTIES", "append_sampler"]

CANDIDATES = 64  # tokens that top-k and top-p choose from
PENALTIES = 256  # tokens whose logits a host may change
INPUTS = ("sampling", "seed", "penalty_ids", "penalties", "token_mask")
OUTPUTS = ("token", "top_ids", "logprobs")

_MOST_GROUPS = 2560  # a float of each is in the 16 KiB of memory that a WebGPU workgroup has
_NEVER = -3e38  # the logit of a token that may not be drawn: finite, as WGSL knows no infinity
_LEAST = 1e-37  # about the least normal float32: its logarithm is finite
_FAR = 80.0  # e to this is finite
_MIN_OPSET = 18  # ScatterElements that adds, reductions with their axes as an input

_FLOAT, _INT64, _UINT32 = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.UINT32


@dataclass(frozen=True)
class _Settings:
    """The elements of `sampling`, scalars."""

    temperature: Symbol
    top_p: Symbol
    min_p: Symbol
    repetition_penalty: Symbol
    presence_penalty: Symbol
    frequency_penalty: Symbol
    top_k: Symbol
    logprobs: Symbol


def append_sampler(model: ir.Model, *, vocabulary: int, logits: str = "logits") -> ir.Model:
    """`model`, a copy, whose output `logits` also feeds a sampler.

    `logits` is float32 [1, sequence, vocabulary]; the last position counts. New ports are `INPUTS`
    and `OUTPUTS`. Raises `InvalidModelError` when there is no such output, a port's name is taken,
    or the opset is older than 18.
    """
    model = model.clone()
    source = _checked(model, logits)
    w = Writer(model, "sampler")
    sampling = w.input("sampling", _FLOAT, (8,))
    settings = _Settings(*(sampling[np.array(i)] for i in range(8)))
    seed = w.input("seed", _UINT32, (2,))
    ids = w.input("penalty_ids", _INT64, (PENALTIES,))
    penalties = w.input("penalties", _FLOAT, (2, PENALTIES))
    mask = w.input("token_mask", _UINT32, (-(-vocabulary // 32),))

    row = Symbol(w, source).op("Gather", np.array(-1), axis=1).reshape(vocabulary)
    members = CANDIDATES * -(-vocabulary // (CANDIDATES * _MOST_GROUPS))
    groups = -(-vocabulary // members)
    allowed = _allowed(row, mask, vocabulary)
    allowed = _penalised(allowed, row, ids, penalties, settings)
    allowed = _longer(allowed, groups * members - vocabulary, _NEVER)
    top_ids = allowed.places_of_largest(CANDIDATES)
    token = _draw(allowed, (members, groups), top_ids, settings, seed)
    if vocabulary < CANDIDATES:
        top_ids = top_ids.op("Min", vocabulary - 1)
    w.output(token, "token", (1,))
    w.output(top_ids, "top_ids", (CANDIDATES,))
    w.output(_log_probabilities(row, token, top_ids, settings), "logprobs", (1 + CANDIDATES,))
    return model


def _checked(model: ir.Model, logits: str) -> ir.Value:
    """The output to sample from, and that there is room for the ports."""
    outputs = {v.name: v for v in model.graph.outputs}
    if logits not in outputs:
        raise InvalidModelError(
            f"the model has no output {logits!r} to sample from",
            hint=f"its outputs are {', '.join(sorted(map(str, outputs)))}",
        )
    names = {str(v.name) for v in (*model.graph.inputs, *model.graph.outputs)}
    taken = sorted(names & {*INPUTS, *OUTPUTS})
    if taken:
        raise InvalidModelError(f"the model has a port {taken[0]!r} already, which a sampler adds")
    opset = model.opset_imports.get("", 0)
    if opset < _MIN_OPSET:
        raise InvalidModelError(f"a sampler needs opset {_MIN_OPSET} or newer, not {opset}")
    return outputs[logits]


# --- logits ---------------------------------------------------------------------------------------


def _allowed(row: Symbol, mask: Symbol, vocabulary: int) -> Symbol:
    """The logits that `mask` allows; the others are `_NEVER`."""
    words = -(-vocabulary // 32)
    bit = (np.uint32(1) << np.arange(32, dtype=np.uint32)).reshape(1, 32)
    bits = mask.reshape(words, 1).op("BitwiseAnd", bit).reshape(words * 32)
    if words * 32 > vocabulary:
        bits = bits[np.arange(vocabulary)]
    return bits.is_(0).where(_NEVER, row)


def _penalised(
    allowed: Symbol, row: Symbol, ids: Symbol, penalties: Symbol, s: _Settings
) -> Symbol:
    """`allowed` with the logits of `ids` changed; `_NEVER` stays so, whatever is added to it."""
    place = ids.op("Max", 0)
    count, bias = penalties[np.array(0)], penalties[np.array(1)]
    logit = row[place]
    weaker = (logit > 0.0).where(logit / s.repetition_penalty, logit * s.repetition_penalty)
    occurred = count.op("Max", 0.0)  # in the answer
    after = count.is_(0.0).where(logit, weaker) + bias
    after = after - s.presence_penalty * occurred.op("Min", 1.0) - s.frequency_penalty * occurred
    change = (ids >= 0).where(after - logit, 0.0)
    return allowed.op("ScatterElements", place, change, reduction="add")


def _longer(x: Symbol, more: int, value: float) -> Symbol:
    """The vector with `value` so many times after it."""
    assert x.value.dtype is not None
    padding = np.array(value, x.value.dtype.numpy())
    return x.op("Pad", np.array([0, more]), padding) if more else x


# --- drawing --------------------------------------------------------------------------------------


def _draw(
    allowed: Symbol, shape: tuple[int, int], top_ids: Symbol, s: _Settings, seed: Symbol
) -> Symbol:
    """The next token's id [1]; `top_ids` [CANDIDATES] are the largest of `allowed`.

    `shape` cuts `allowed` into (members of a group, groups), neighbours in different groups.

    A candidate is in the nucleus while those before it are less likely than `top_p` together.
    Where something limits the choice to candidates, one of them is drawn; else a member of a drawn
    group.
    """
    w, (size, groups) = allowed.writer, shape
    first, second = _key(seed, 0), _key(seed, 1)
    best = allowed[top_ids[np.array(0)]]
    greedy, by_rank = s.temperature.is_(0.0), s.top_k > 0.0

    def scaled(logit: Symbol) -> Symbol:
        return (logit - best) / s.temperature

    def kept(weight: Symbol) -> Symbol:
        return (weight >= s.min_p).where(weight, 0.0)

    rank = w.constant(np.arange(CANDIDATES, dtype=np.float32))
    likely = scaled(allowed[top_ids]).op("Exp")
    weights = ((rank < s.top_k) | (s.top_k <= 0.0)).where(kept(likely), 0.0)
    weights = _longer(weights, size - CANDIDATES, 0.0)
    in_group = kept(scaled(allowed.reshape(*shape)).op("Exp")).reduce("Sum")
    in_group = (greedy | by_rank).where(0.0, in_group)  # whether anyone asks

    held = weights.reduce("Sum")
    nucleus = by_rank.where(held, in_group.reduce("Sum")) * s.top_p
    few = by_rank | (s.top_p < 1.0) | (likely[np.array(CANDIDATES - 1)] < s.min_p)
    before = weights.op("CumSum", np.array(0), exclusive=1)
    in_nucleus = (weights > 0.0) & ((before < nucleus) | (before <= 0.0) | (s.top_p >= 1.0))

    numbers = w.constant(np.arange(groups, dtype=np.uint32))
    group = (in_group.op("Max", _LEAST).op("Log") + _noise(first, numbers)).place_of_largest()
    members = w.constant(np.arange(size) * groups) + group
    ids = few.where(_longer(top_ids, size - CANDIDATES, 0), members)
    exponent = scaled(allowed[ids])
    open_to = (few & in_nucleus) | (~few & (exponent.op("Exp") >= s.min_p))
    score = exponent + _noise(second, ids.cast(_UINT32)) + open_to.where(0.0, _NEVER)
    drawn = ids[score.place_of_largest()]
    return greedy.where(top_ids[np.array([0])], drawn)


def _mixed(x: Symbol) -> Symbol:
    """A bijection of uint32 that looks random (`lowbias32`, github.com/skeeto/hash-prospector)."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


def _key(seed: Symbol, stream: int) -> Symbol:
    """A number for each seed, step and stream of noise."""
    return _mixed(_mixed(seed[np.array(0)] + (stream + 0x9E3779B9)) + seed[np.array(1)])


def _noise(key: Symbol, index: Symbol) -> Symbol:
    """Gumbel noise of each index: -log(e) of e exponential, e = -log(1 - u) of u uniform.

    Large noise comes from small e, where a logarithm near 1 would be inexact: a series there.
    """
    bits = _mixed(_mixed(index ^ key) + key) >> 9
    u = (bits.cast(_FLOAT) + 0.5) * 2.0**-23  # in (0, 1), exactly
    series = u + u * u * (u / 3.0 + 0.5)
    return -(u < 0.02).where(series, -(-u + 1.0).op("Log")).op("Log")


# --- log-probabilities ----------------------------------------------------------------------------


def _log_probabilities(row: Symbol, token: Symbol, top_ids: Symbol, s: _Settings) -> Symbol:
    """Of the token and of `top_ids` by the model's own logits [1 + CANDIDATES]; else zeros."""
    ids = token.op("Concat", top_ids, axis=0)
    wanted = s.logprobs > 0.0
    total = wanted.where(row.reduce("LogSumExp"), 0.0)
    return wanted.where(row[ids] - total, 0.0)
