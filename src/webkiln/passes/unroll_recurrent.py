"""LSTM, GRU and RNN over a fixed number of steps, written out as matrix products and activations.

Equations and the order of the gates are those of the ONNX operators' definitions: LSTM iofc, GRU
zrh, one gate for RNN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from webkiln.passes.graph import array, attribute, constant, dims, nodes_of, remove, replace

__all__ = ["MAX_STEPS", "unroll_recurrent"]

# Each step is about ten nodes; a sequence longer than this would make a bundle of kernels only.
MAX_STEPS = 256

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULT_ACTIVATIONS = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "RNN": ["Tanh"],
}
_ACTIVATIONS = ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus", "HardSigmoid", "LeakyRelu")


def unroll_recurrent(model: ir.Model) -> ir.Model:
    """Unrolls every LSTM, GRU and RNN whose number of steps is known and at most `MAX_STEPS`.

    Kept as they are: sequences shorter than that, weights computed at run time, rare activations.
    """
    for node in nodes_of(model, *_GATES):
        shape = dims(node.inputs[0])
        layout = attribute(node, "layout", 0)
        steps = shape[layout] if shape is not None else None
        if not isinstance(steps, int) or not 0 < steps <= MAX_STEPS or not _can_unroll(node, steps):
            continue
        _Unrolled(model, node, steps, layout).run()
    return model


def _can_unroll(node: ir.Node, steps: int) -> bool:
    weights = [array(value) for value in node.inputs[1:3]]
    bias, lengths = _input(node, 3), _input(node, 4)
    peepholes = _input(node, 7)
    if any(weight is None for weight in weights):
        return False
    known = array(lengths)
    if lengths is not None and (known is None or bool((known != steps).any())):
        return False
    if any(value is not None and array(value) is None for value in (bias, peepholes)):
        return False
    names = attribute(node, "activations", [])
    plain = not attribute(node, "activation_alpha") and not attribute(node, "activation_beta")
    return plain and all(name in _ACTIVATIONS for name in names)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


class _States(NamedTuple):
    """What one direction yields."""

    outputs: list[ir.Value]
    hidden: ir.Value
    cell: ir.Value


class _Unrolled:
    """One recurrent node, being replaced. H is the hidden size, B the batch."""

    def __init__(self, model: ir.Model, node: ir.Node, steps: int, layout: int) -> None:
        self.model, self.node, self.steps, self.layout = model, node, steps, layout
        self.kind = node.op_type
        self.name = node.name or str(node.outputs[0].name)
        self.hidden = _numbers(node.inputs[2]).shape[-1]
        direction = attribute(node, "direction", "forward")
        self.reverse = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[
            direction
        ]
        self.clip = attribute(node, "clip")
        self.made: list[ir.Node] = []
        weights = node.inputs[1]
        assert weights is not None
        self.like = weights.const_value

    def run(self) -> None:
        directions = [self._direction(index) for index in range(len(self.reverse))]
        outputs = self.node.outputs
        time = 0 if self.layout == 0 else 1
        results: list[ir.Value | None] = [None, None, None]
        if _is_used(outputs[0]):  # Y: [steps, directions, B, H], or [B, steps, directions, H]
            rows = []
            for step in range(self.steps):
                parts = [d.outputs[step] for d in directions]
                spread = [self._unsqueeze(part, [0] if self.layout == 0 else [1]) for part in parts]
                row = self._join(spread, 0 if self.layout == 0 else 1)
                rows.append(self._unsqueeze(row, [time]))
            results[0] = self._join(rows, time)
        # Y_h, Y_c: [directions, B, H], or [B, directions, H]
        lasts = ([d.hidden for d in directions], [d.cell for d in directions])
        axis = 0 if self.layout == 0 else 1
        for index, last in enumerate(lasts[: len(outputs) - 1], start=1):
            if _is_used(outputs[index]):
                results[index] = self._join([self._unsqueeze(end, [axis]) for end in last], axis)
        self.node.prepend(self.made)
        for old, new in zip(outputs, results, strict=False):
            if new is not None:
                new.type, new.shape = old.type, old.shape
                replace(old, new)
        remove(self.model, [self.node])

    def _direction(self, index: int) -> _States:
        """All outputs in the order of time, and the last hidden and cell state, each [B, H]."""
        w, r = (_numbers(self.node.inputs[i])[index].T for i in (1, 2))
        gates = _GATES[self.kind] * self.hidden
        given = _input(self.node, 3)
        bias = np.zeros(2 * gates) if given is None else _numbers(given)[index]
        name = f"{self.name}/{'reverse' if self.reverse[index] else 'forward'}"
        x_bias, h_bias = bias[:gates], bias[gates:]
        if self.kind != "GRU" or not attribute(self.node, "linear_before_reset", 0):
            x_bias, h_bias = x_bias + h_bias, np.zeros(gates)
        # All steps' share of the input in one product, before the steps.
        x = self._op("MatMul", self.node.inputs[0], self._constant(w, f"{name}/W"))
        x = self._op("Add", x, self._constant(x_bias, f"{name}/Wb"))
        h = self._initial(5, index)
        c = self._initial(6, index) if self.kind == "LSTM" else h
        step = self._stepper(index, r, h_bias, name)
        order = range(self.steps)[:: -1 if self.reverse[index] else 1]
        outputs: dict[int, ir.Value] = {}
        for t in order:
            at = self._op(
                "Gather", x, self._constant(np.int64(t), f"{name}/t{t}"), axis=self.layout
            )
            h, c = step(at, h, c)
            outputs[t] = h
        return _States([outputs[t] for t in range(self.steps)], h, c)

    def _initial(self, position: int, index: int) -> ir.Value:
        """The state before the first step, [B, H]."""
        given = _input(self.node, position)
        if given is not None:
            return self._op(
                "Gather",
                given,
                self._constant(np.int64(index), f"{self.name}/direction{index}"),
                axis=0 if self.layout == 0 else 1,
            )
        shape = dims(self.node.inputs[0])
        batch = shape[1 - self.layout] if shape is not None else None
        zeros = np.zeros((batch if isinstance(batch, int) else 1, self.hidden))
        return self._constant(zeros, f"{self.name}/zeros")

    def _stepper(
        self, index: int, r: npt.NDArray[Any], h_bias: npt.NDArray[Any], name: str
    ) -> Callable[[ir.Value, ir.Value, ir.Value], tuple[ir.Value, ir.Value]]:
        defaults = _DEFAULT_ACTIVATIONS[self.kind]
        names = attribute(self.node, "activations", defaults * len(self.reverse))
        acts = names[index * len(defaults) : (index + 1) * len(defaults)]
        make = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.kind]
        return make(index, r, h_bias, name, acts)

    def _lstm(
        self, index: int, r: npt.NDArray[Any], h_bias: npt.NDArray[Any], name: str, acts: list[str]
    ) -> Callable[[ir.Value, ir.Value, ir.Value], tuple[ir.Value, ir.Value]]:
        weight = self._constant(r, f"{name}/R")
        f, g, h_act = acts
        given = _input(self.node, 7)
        peepholes = None if given is None else np.split(_numbers(given)[index], 3)

        def step(x: ir.Value, h: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
            i, o, forget, cell = self._split(self._op("Add", x, self._op("MatMul", h, weight)), 4)
            if peepholes is not None:
                i = self._peep(i, c, peepholes[0], f"{name}/Pi")
                forget = self._peep(forget, c, peepholes[2], f"{name}/Pf")
            i = self._act(f, i)
            if attribute(self.node, "input_forget", 0):
                forget = self._op("Sub", self._constant(np.ones(1), f"{name}/one"), i)
            else:
                forget = self._act(f, forget)
            kept = self._op("Mul", forget, c)
            c = self._op("Add", kept, self._op("Mul", i, self._act(g, cell)))
            if peepholes is not None:
                o = self._peep(o, c, peepholes[1], f"{name}/Po")
            return self._op("Mul", self._act(f, o), self._op(h_act, c)), c

        return step

    def _gru(
        self, index: int, r: npt.NDArray[Any], h_bias: npt.NDArray[Any], name: str, acts: list[str]
    ) -> Callable[[ir.Value, ir.Value, ir.Value], tuple[ir.Value, ir.Value]]:
        size = self.hidden
        gates = self._constant(r[:, : 2 * size], f"{name}/Rzr")
        candidate = self._constant(r[:, 2 * size :], f"{name}/Rh")
        linear = attribute(self.node, "linear_before_reset", 0)
        gate_bias = self._constant(h_bias[: 2 * size], f"{name}/Rzrb")
        candidate_bias = self._constant(h_bias[2 * size :], f"{name}/Rhb")
        one = self._constant(np.ones(1), f"{name}/one")
        f, g = acts

        def step(x: ir.Value, h: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
            xz, xr, xh = self._split(x, 3)
            product = self._op("MatMul", h, gates)
            if linear:
                product = self._op("Add", product, gate_bias)
            hz, hr = self._split(product, 2)
            z = self._act(f, self._op("Add", xz, hz))
            reset = self._act(f, self._op("Add", xr, hr))
            if linear:
                inner = self._op("Add", self._op("MatMul", h, candidate), candidate_bias)
                inner = self._op("Mul", reset, inner)
            else:
                inner = self._op("MatMul", self._op("Mul", reset, h), candidate)
            new = self._act(g, self._op("Add", xh, inner))
            fresh = self._op("Mul", self._op("Sub", one, z), new)
            h = self._op("Add", fresh, self._op("Mul", z, h))
            return h, h

        return step

    def _rnn(
        self, index: int, r: npt.NDArray[Any], h_bias: npt.NDArray[Any], name: str, acts: list[str]
    ) -> Callable[[ir.Value, ir.Value, ir.Value], tuple[ir.Value, ir.Value]]:
        weight = self._constant(r, f"{name}/R")

        def step(x: ir.Value, h: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
            h = self._act(acts[0], self._op("Add", x, self._op("MatMul", h, weight)))
            return h, h

        return step

    def _peep(self, gate: ir.Value, c: ir.Value, weight: npt.NDArray[Any], name: str) -> ir.Value:
        return self._op("Add", gate, self._op("Mul", c, self._constant(weight, name)))

    def _act(self, op_type: str, gate: ir.Value) -> ir.Value:
        if self.clip is not None:
            limits = (
                self._constant(np.array(s * self.clip), f"{self.name}/clip{s}") for s in (-1, 1)
            )
            gate = self._op("Clip", gate, *limits)
        return self._op(op_type, gate)

    def _split(self, value: ir.Value, parts: int) -> list[ir.Value]:
        node = ir.node("Split", [value], {"axis": 1, "num_outputs": parts}, num_outputs=parts)
        return list(self._add(node).outputs)

    def _unsqueeze(self, value: ir.Value, axes: list[int]) -> ir.Value:
        return self._op("Unsqueeze", value, self._constant(np.array(axes), f"{self.name}/axes"))

    def _join(self, values: list[ir.Value], axis: int) -> ir.Value:
        return values[0] if len(values) == 1 else self._op("Concat", *values, axis=axis)

    def _op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        return self._add(ir.node(op_type, inputs, attributes or None)).outputs[0]

    def _add(self, node: ir.Node) -> ir.Node:
        node.name = f"{self.name}/{node.op_type}_{len(self.made)}"
        for index, output in enumerate(node.outputs):
            output.name = node.name if len(node.outputs) == 1 else f"{node.name}_{index}"
        self.made.append(node)
        return node

    def _constant(self, numbers: Any, name: str) -> ir.Value:
        known = self.model.graph.initializers.get(name)
        if known is not None:
            return known
        numbers = np.asarray(numbers)
        like = None if numbers.dtype.kind == "i" else self.like
        return constant(self.model, numbers, name, like=like)


def _numbers(value: ir.Value | None) -> npt.NDArray[Any]:
    numbers = array(value)
    assert numbers is not None
    return numbers


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()
