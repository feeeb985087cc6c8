"""Runs a scheduled kernel in plain Python, one invocation at a time: the oracle for schedules.

Slow and strict. An index out of range, a barrier that some invocations of a workgroup miss, or
workgroup memory read before it is written shows at once: nothing is clamped, fresh memory is NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webkiln.interpret.scalar import FUNCTIONS
from webkiln.ir.buffer import Buffer
from webkiln.ir.expr import Const, Dim, Expr, Op, Read, Var
from webkiln.ir.program import Kernel, Loop
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Once, Stmt, Store
from webkiln.schedule.kernel import statements

__all__ = ["run_kernel"]

Array = NDArray[Any]
_FOLDS: dict[str, Callable[[Array], Any]] = {
    "fold_add": np.sum,
    "fold_mul": np.prod,
    "fold_max": np.max,
    "fold_min": np.min,
}


def run_kernel(
    kernel: Kernel, arrays: Mapping[Buffer, Array], params: Mapping[str, int] | None = None
) -> None:
    """Runs `kernel` over all its loops, in place.

    `arrays` holds each buffer's elements in physical order (flat, of the storage dtype); `params`
    the value of each of the kernel's params by name. Raises `IndexError` for an access out of range
    and `RuntimeError` for a barrier that not all invocations of a workgroup reach.
    """
    dims = dict(params or {})
    missing = [p.name for p in kernel.params if p.name not in dims]
    if missing:
        raise KeyError(f"no value for the kernel's params {', '.join(missing)}")
    shared = {s.buffer for s in statements(kernel.body) if isinstance(s, Store)}
    shared = {b for b in shared if b.role == "workgroup"}
    local = [loop for loop in kernel.loops if loop.binding.startswith("local")]
    outer = [loop for loop in kernel.loops if loop not in local]
    with np.errstate(all="ignore"):
        for place in _points(outer, dims):
            memory = dict(arrays)
            memory.update({b: _fresh(b, dims) for b in shared})
            group = [
                _Invocation(memory, dims, {**place, **at}).run(kernel.body)
                for at in _points(local, dims)
            ]
            _run_group(group)


def _points(loops: Sequence[Loop], dims: Mapping[str, int]) -> Iterator[dict[Expr, Any]]:
    """Every combination of the loops' variables."""
    sizes = [int(_Invocation({}, dims, {}).value(loop.extent)) for loop in loops]
    for point in itertools.product(*map(range, sizes)):
        yield {loop.var: np.int32(i) for loop, i in zip(loops, point, strict=True)}


def _fresh(buffer: Buffer, dims: Mapping[str, int]) -> Array:
    size = int(_Invocation({}, dims, {}).value(buffer.size))
    return np.full(size, np.nan if buffer.dtype.is_float else -(2**30)).astype(buffer.dtype.name)


def _run_group(group: list[Iterator[None]]) -> None:
    """The invocations in turn, each up to its next barrier, until all have ended."""
    while True:
        waiting = [next(invocation, True) is None for invocation in group]
        if not any(waiting):
            return
        if not all(waiting):
            raise RuntimeError("a barrier is not reached by all invocations of its workgroup")


class _Invocation:
    """One invocation's variables, and what it does to memory."""

    def __init__(
        self, memory: Mapping[Buffer, Array], dims: Mapping[str, int], variables: dict[Expr, Any]
    ) -> None:
        self.memory, self.dims, self.variables = memory, dims, variables
        self.memo: dict[Expr, Any] = {}

    def run(self, body: Sequence[Stmt]) -> Iterator[None]:
        """Executes `body`, yielding at every barrier."""
        for s in body:
            self.memo = {}
            match s:
                case Declare(var, value) | Assign(var, value):
                    self.variables[var] = self.value(value)
                case Store():
                    self._store(s)
                case For(var, start, stop, inner, step):
                    for i in range(int(self.value(start)), int(self.value(stop)), step):
                        self.variables[var] = np.int32(i)
                        yield from self.run(inner)
                case Once(inner):
                    yield from self.run(inner)
                case If(condition, then, orelse):
                    yield from self.run(then if self.value(condition) else orelse)
                case Barrier():
                    yield None

    def _store(self, s: Store) -> None:
        lanes = s.value.dtype.lanes
        count = lanes if s.count is None else min(lanes, int(self.value(s.count)))
        if count <= 0:
            return
        where = self._range(s.buffer, int(self.value(s.offset)), count)
        value = self.value(s.value)
        self.memory[s.buffer][where] = value[:count] if lanes > 1 else value

    def _range(self, buffer: Buffer, offset: int, lanes: int) -> slice:
        size = len(self.memory[buffer])
        if offset < 0 or offset + lanes > size:
            raise IndexError(
                f"{buffer.name}: elements {offset} to {offset + lanes - 1} of {size} in all"
            )
        return slice(offset, offset + lanes)

    def value(self, e: Expr) -> Any:
        """A NumPy scalar, or an array of `e.dtype.lanes` elements."""
        if isinstance(e, Var):
            return np.int32(self.dims[e.name]) if isinstance(e, Dim) else self.variables[e]
        if e not in self.memo:
            self.memo[e] = self._value(e)
        return self.memo[e]

    def _value(self, e: Expr) -> Any:
        dtype, lanes = np.dtype(e.dtype.name), e.dtype.lanes
        if isinstance(e, Const):
            return np.full(lanes, e.value, dtype) if lanes > 1 else dtype.type(e.value)
        if isinstance(e, Read):
            offset = int(self.value(e.args[0]))
            found = self.memory[e.buffer][self._range(e.buffer, offset, lanes)]
            return found.copy() if lanes > 1 else found[0]
        assert isinstance(e, Op), e
        if e.name == "select" and e.args[0].dtype.lanes == 1:
            return self.value(e.args[1] if self.value(e.args[0]) else e.args[2])
        if e.name in ("and", "or") and lanes == 1:
            first = self.value(e.args[0])
            return self.value(e.args[1]) if bool(first) == (e.name == "and") else first
        args = [self.value(a) for a in e.args]
        return self._operation(e, args, dtype, lanes)

    def _operation(self, e: Op, args: list[Any], dtype: np.dtype[Any], lanes: int) -> Any:
        if e.name == "splat":
            return np.resize(np.asarray(args[0], dtype), lanes)
        if e.name == "vector":
            return np.array(args, dtype)
        if e.name == "lane":
            return args[0][int(args[1])]
        if e.name in _FOLDS:
            return dtype.type(_FOLDS[e.name](args[0]))
        if e.name == "bitcast":
            bits = np.atleast_1d(args[0]).view(dtype)
            return bits if lanes > 1 else bits[0]
        if e.name == "cast":
            return np.asarray(args[0]).astype(dtype)[()]
        return np.asarray(FUNCTIONS[e.name](*args)).astype(dtype)[()]
