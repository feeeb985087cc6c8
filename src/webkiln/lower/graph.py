"""An `onnx_ir.Model` as a `Program` of unfused computations: one operator definition a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from webkiln.errors import UnboundedDimensionError, UnsupportedModelError
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import STORAGE
from webkiln.ir.expr import Const, Dim, Expr, ExprLike, Load, Var
from webkiln.ir.program import Compute, Program
from webkiln.ops.core import OPERATORS, Context, Tensor
from webkiln.passes.unroll_recurrent import MAX_STEPS

__all__ = ["lower_graph"]

_UNROLLED = (
    f"unrolled only with constant weights and a fixed number of steps, at most {MAX_STEPS}, "
    "that all sequences have"
)
#: operators that a pass writes out where it can
_MISSING = dict.fromkeys(("LSTM", "GRU", "RNN"), _UNROLLED)


def lower_graph(
    model: ir.Model,
    bounds: Mapping[str, int],
    states: Mapping[str, str] | None = None,
    shared: dict[str, Buffer] | None = None,
) -> tuple[Program, Context]:
    """Every node of `model` through its definition.

    `bounds` gives the maximum of each symbolic dimension. `states` names inputs that are to live
    on the device, each with the output that is its value for the next run; neither is then an
    input or output of the program. `shared` collects their buffers by name, for other programs
    over the same states. Raises `UnboundedDimensionError` for a dimension without bound,
    and one `UnsupportedModelError` that lists every node with no definition or outside its
    definition's reach.
    """
    graph = model.graph
    dims = _dims(graph, bounds)
    ctx = Context()
    values: dict[str, Tensor] = {}
    inputs = []
    kept = {}
    for value in graph.inputs:
        if value.name in graph.initializers:
            continue
        tensor = _input(value, dims)
        following = (states or {}).get(value.name or "")
        if following is not None:
            tensor = _state(tensor, {} if shared is None else shared)
            kept[tensor.buffer] = following
            if len(value.uses()) == 1:
                ctx.updatable.add(tensor.buffer)
        else:
            inputs.append(tensor.buffer)
        ctx.tensors[tensor.buffer] = tensor
        values[value.name or ""] = tensor
    for name, value in graph.initializers.items():
        assert value.const_value is not None
        values[name] = ctx.constant(_numpy(value.const_value), name)
    problems: list[str] = []
    opset = model.opset_imports.get("", 0)
    for node in graph:
        _lower_node(node, ctx, values, opset, problems)
    if problems:
        shown = "\n  ".join(dict.fromkeys(problems))
        raise UnsupportedModelError(
            f"{len(problems)} node(s) of the model can't be compiled:\n  {shown}",
            hint="`webkiln inspect` lists the operators; docs/operators.md what is supported",
        )
    program = Program(
        graph.name or "main",
        tuple(dims.values()),
        tuple(inputs),
        (),
        ctx.constants,
        ctx.computes,
        frozenset(ctx.channels_last),
    )
    program = _with_states(program, {b: values[name] for b, name in kept.items()})
    next_states = set(kept.values())
    named = [(v.name or "", values[v.name or ""]) for v in graph.outputs]
    return _with_outputs(program, [(n, t) for n, t in named if n not in next_states]), ctx


def _state(tensor: Tensor, shared: dict[str, Buffer]) -> Tensor:
    """A model's input as memory that lives between runs, whose size is known."""
    if not all(isinstance(e, Const) for e in tensor.shape):
        raise UnsupportedModelError(
            f"the state {tensor.buffer.name!r} has shape {list(tensor.shape)}, which varies",
            hint="bind its dimensions to numbers",
        )
    own = replace(tensor.buffer, role="state")
    return Tensor(shared.setdefault(own.name, own), tensor.dtype)


def _with_states(program: Program, following: Mapping[Buffer, Tensor]) -> Program:
    """What each state is after a run is copied to it last, unless it was updated in place."""
    copies = []
    for state, tensor in following.items():
        if tensor.buffer is not state:
            axes = tuple(Var(f"{state.name}_{i}", e) for i, e in enumerate(state.shape))
            label = f"state {state.name}"
            copies.append(Compute(state, axes, Load(tensor.buffer, axes), label))
    return replace(program, computes=[*program.computes, *copies], states=tuple(following))


def _with_outputs(program: Program, named: list[tuple[str, Tensor]]) -> Program:
    """What is computed becomes an output where it is one; inputs, constants, repeats are copied."""
    computed = {c.out for c in program.computes}
    renamed: dict[Buffer, Buffer] = {}
    copies: list[Compute] = []
    outputs: list[Buffer] = []
    for name, tensor in named:
        source = tensor.buffer
        out = replace(source, name=name, role="output", model_dtype=tensor.dtype)
        outputs.append(out)
        if source in computed and source not in renamed:
            renamed[source] = out
            continue
        axes = tuple(Var(f"{name}_{i}", e) for i, e in enumerate(out.shape))
        copies.append(Compute(out, axes, Load(renamed.get(source, source), axes), f"output {name}"))
    computes = [c.on(renamed) for c in program.computes]
    wanted = frozenset(renamed.get(b, b) for b in program.channels_last)
    return replace(
        program, outputs=tuple(outputs), computes=[*computes, *copies], channels_last=wanted
    )


def _lower_node(
    node: ir.Node, ctx: Context, values: dict[str, Tensor], opset: int, problems: list[str]
) -> None:
    label = node.name or f"{node.op_type} → {node.outputs[0].name}"
    domain = "" if node.domain == "ai.onnx" else node.domain
    arguments = [values.get(v.name or "") if v is not None else None for v in node.inputs]
    if any(v is not None and t is None for v, t in zip(node.inputs, arguments, strict=True)):
        return  # fed by a node already reported
    definition = OPERATORS.get((domain, node.op_type))
    if definition is None:
        why = _MISSING.get(node.op_type, "no such operator here")
        problems.append(f"{node.op_type} ({label}): {why}")
        return
    ctx.attributes = {name: _attribute(a) for name, a in node.attributes.items()}
    ctx.node, ctx.opset, ctx.outputs = f"{node.op_type} {label}", opset, len(node.outputs)
    try:
        result = definition(ctx, *arguments)
    except UnsupportedModelError as error:
        problems.append(f"{node.op_type} ({label}): {error}")
        return
    results = [result] if isinstance(result, Tensor) else list(result)
    for output, tensor in zip(node.outputs, results, strict=False):
        values[output.name or ""] = tensor


def _attribute(attribute: ir.Attr) -> Any:
    if attribute.type == ir.AttributeType.TENSOR:
        return _numpy(attribute.value)
    return attribute.value


def _numpy(tensor: ir.TensorProtocol) -> np.ndarray[Any, np.dtype[Any]]:
    array: np.ndarray[Any, np.dtype[Any]] = tensor.numpy()
    return array.astype(np.float32) if str(array.dtype) == "bfloat16" else array


def _dims(graph: ir.Graph, bounds: Mapping[str, int]) -> dict[str, Dim]:
    names: dict[str, None] = {}
    for value in graph.inputs:
        for extent in value.shape or ():
            if isinstance(extent, ir.SymbolicDim):
                names[str(extent.value)] = None
    missing = [n for n in names if n not in bounds]
    if missing:
        raise UnboundedDimensionError(
            f"the model's symbolic dimension{'s' * (len(missing) > 1)} {', '.join(missing)} "
            f"need{'s' * (len(missing) == 1)} an upper bound",
            hint=" ".join(f"--max {n}=N" for n in missing),
        )
    return {n: Dim(n, bounds[n]) for n in names}


def _input(value: ir.Value, dims: Mapping[str, Dim]) -> Tensor:
    if not isinstance(value.type, ir.TensorType | None):
        raise UnsupportedModelError(f"input {value.name!r} is no tensor but {value.type!r}")
    if value.dtype is None or value.shape is None:
        raise UnsupportedModelError(f"input {value.name!r} has no type or shape")
    dtype = str(value.dtype.numpy()) if value.dtype != ir.DataType.BFLOAT16 else "bfloat16"
    if dtype not in STORAGE:
        raise UnsupportedModelError(
            f"input {value.name!r} has type {dtype}, which no target stores"
        )
    shape: list[ExprLike] = [e if isinstance(e, int) else dims[str(e.value)] for e in value.shape]
    extents: tuple[Expr, ...] = tuple(shape)  # type: ignore[arg-type]
    return Tensor(
        Buffer(value.name or "", STORAGE[dtype], extents, "input", model_dtype=dtype), dtype
    )
