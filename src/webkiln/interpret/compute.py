"""Runs computations as written, each over its whole index space at once with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webkiln.interpret.scalar import FUNCTIONS
from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Const, Dim, Expr, Load, Op, Reduce, Var
from webkiln.ir.program import Compute, Program

__all__ = ["evaluate", "run_program", "value_of"]

Array = NDArray[Any]
_POISON = 77_777_777
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
}


def value_of(e: Expr, dims: Mapping[str, int]) -> int:
    """An integer expression over dims."""
    return int(_Evaluator({}, dims, {}, 0).value(e))


def evaluate(compute: Compute, arrays: Mapping[Buffer, Array], dims: Mapping[str, int]) -> Array:
    """`compute.out`'s logical values from the arrays of the buffers that it loads."""
    shape = tuple(value_of(e, dims) for e in compute.extents)
    grid: dict[Var, Array] = {}
    for axis, (var, size) in enumerate(zip(compute.axes, shape, strict=True)):
        view = [1] * len(shape)
        view[axis] = size
        grid[var] = np.arange(size, dtype=np.int64).reshape(view)
    evaluator = _Evaluator(arrays, dims, grid, len(shape))
    with np.errstate(all="ignore"):
        result = evaluator.value(compute.value)
    values = np.broadcast_to(result, shape).astype(compute.out.dtype.name)
    if compute.at is None:
        return values
    updated = arrays[compute.out].copy()
    updated[tuple(np.broadcast_to(evaluator.value(i), shape) for i in compute.at)] = values
    return updated


def run_program(
    program: Program,
    inputs: Mapping[str, Array],
    dims: Mapping[str, int] | None = None,
    states: dict[Buffer, Array] | None = None,
) -> list[Array]:
    """The program's outputs (storage dtypes) for `inputs` by name, whose shapes give the dims.

    `states` is what lives between runs; it is updated. Without it the run starts from zeros.
    """
    bound = dict(dims or {})
    arrays: dict[Buffer, Array] = {}
    for buffer in program.inputs:
        array = np.asarray(inputs[buffer.name])
        for extent, size in zip(buffer.shape, array.shape, strict=True):
            if isinstance(extent, Dim):
                bound.setdefault(extent.name, size)
        arrays[buffer] = array.astype(buffer.dtype.name)
    for buffer, data in program.constants.items():
        arrays[buffer] = data.astype(buffer.dtype.name)
    kept = {} if states is None else states
    for buffer in program.states:
        shape = [value_of(e, bound) for e in buffer.shape]
        arrays[buffer] = kept.get(buffer, np.zeros(shape, buffer.dtype.name))
    for compute in program.computes:
        arrays[compute.out] = evaluate(compute, arrays, bound)
    kept.update((b, arrays[b]) for b in program.states)
    return [arrays[b] for b in program.outputs]


class _Evaluator:
    """Evaluates expressions over a grid; a Reduce adds trailing axes to it, then folds them."""

    def __init__(
        self,
        arrays: Mapping[Buffer, Array],
        dims: Mapping[str, int],
        grid: Mapping[Var, Array],
        rank: int,
    ) -> None:
        self.arrays, self.dims, self.grid, self.rank = arrays, dims, grid, rank
        self.memo: dict[Expr, Any] = {}

    def value(self, e: Expr) -> Any:
        if e not in self.memo:
            self.memo[e] = self._value(e)
        return self.memo[e]

    def _value(self, e: Expr) -> Any:
        if isinstance(e, Const):
            return np.dtype(e.dtype.name).type(e.value)
        if isinstance(e, Dim):
            return np.int64(self.dims[e.name])
        if isinstance(e, Var):
            return self.grid[e]
        if isinstance(e, Load):
            return self._load(e)
        if isinstance(e, Reduce):
            return self._reduce(e)
        assert isinstance(e, Op)
        args = [self.value(a) for a in e.args]
        if e.name == "cast":
            return np.asarray(args[0]).astype(e.dtype.name)
        if e.name == "bitcast":
            return np.asarray(args[0]).view(e.dtype.name)
        result = FUNCTIONS[e.name](*args)
        return result if e.dtype.is_int else np.asarray(result).astype(e.dtype.name)

    def _load(self, e: Load) -> Any:
        """Elements at indices; out of range, which only the side of a select that is not taken may
        be, they are poison: a NaN, or an integer that no test expects.
        """
        array = self.arrays[e.buffer]
        if not e.args:
            return array[()]
        index = [np.asarray(self.value(i)).astype(np.int64) for i in e.args]
        poison = array.dtype.type(np.nan if array.dtype.kind == "f" else _POISON)
        if array.size == 0:
            return np.full(np.broadcast_shapes(*(i.shape for i in index)), poison)
        sizes = array.shape
        clipped = [np.clip(i, 0, n - 1) for i, n in zip(index, sizes, strict=True)]
        outside = [i != c for i, c in zip(index, clipped, strict=True)]
        element = array[tuple(clipped)]
        if not any(o.any() for o in outside):
            return element
        return np.where(np.logical_or.reduce(np.broadcast_arrays(*outside)), poison, element)

    def _reduce(self, e: Reduce) -> Any:
        sizes = [int(self.value(a.extent)) for a in e.axes if a.extent is not None]
        extra = len(sizes)
        grid = {v: np.expand_dims(a, tuple(range(-extra, 0))) for v, a in self.grid.items()}
        for k, (var, size) in enumerate(zip(e.axes, sizes, strict=True)):
            view = [1] * (self.rank + extra)
            view[self.rank + k] = size
            grid[var] = np.arange(size, dtype=np.int64).reshape(view)
        inner = _Evaluator(self.arrays, self.dims, grid, self.rank + extra)
        body = np.asarray(inner.value(e.body))
        shape = np.broadcast_shapes(body.shape, (1,) * self.rank + tuple(sizes))
        body = np.broadcast_to(body, shape)
        axes = tuple(range(self.rank, self.rank + extra))
        initial = {"sum": 0, "prod": 1, "max": -np.inf, "min": np.inf}[e.kind]
        if body.dtype.kind != "f" and e.kind in ("max", "min"):
            info = np.iinfo(body.dtype)
            initial = info.min if e.kind == "max" else info.max
        return _REDUCTIONS[e.kind](body, axis=axes, initial=initial).astype(body.dtype)
