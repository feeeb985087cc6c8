"""The model's edge: named arrays checked against the plan, and converted to storage and back.

Inputs and outputs carry the model's dtypes (int64, bool, float64, …), buffers what every target can
store; docs/plan.md has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from webkiln.bundle.expression import evaluate, show
from webkiln.bundle.plan import Plan, PortPlan, ProgramPlan
from webkiln.errors import InputError

__all__ = ["bind", "from_storage", "shape_at", "to_storage"]

Array = NDArray[Any]


def bind(
    plan: Plan,
    program: ProgramPlan,
    inputs: Mapping[str, ArrayLike],
    dims: Mapping[str, int] | None = None,
) -> tuple[dict[str, Array], dict[str, int]]:
    """The inputs as arrays of the dtypes and shapes that `program` takes, and every dim's value.

    Arrays must have the dtype; lists and numbers take it. Dims are read off the shapes, `dims`
    gives those that no input shows (the others are at their minimum). Raises `InputError` that
    names the input, what is expected and what was given.
    """
    ports = {port["name"]: port for port in program["inputs"]}
    taken = ", ".join(repr(n) for n in ports) or "none"
    for name in inputs:
        if name not in ports:
            raise InputError(f"the model has no input {name!r}", hint=f"its inputs: {taken}")
    bounds = {d["name"]: d for d in plan["dims"]}
    for name in dims or {}:
        if name not in bounds:
            known = ", ".join(bounds) or "none"
            raise InputError(f"the model has no dimension {name!r}", hint=f"it has: {known}")
    arrays: dict[str, Array] = {}
    bound = dict(dims or {})
    for name, port in ports.items():
        if name not in inputs:
            raise InputError(
                f"the input {name!r} is missing", hint=f"it takes {_describe(port)}; all: {taken}"
            )
        arrays[name] = _array(inputs[name], port)
        _infer(arrays[name], port, bound)
    for name, dim in bounds.items():
        value, low, high = bound.setdefault(name, dim["min"]), dim["min"], dim["max"]
        if not low <= value <= high:
            longer = f"shorten the input, or build again with --max {name}={value}"
            raise InputError(
                f"the dimension {name!r} is {value}; this bundle takes {low} to {high}",
                hint=longer if value > high else "give a larger input",
            )
    for name, port in ports.items():
        if arrays[name].shape != shape_at(port, bound):
            _wrong_shape(arrays[name], port, f"which is {list(shape_at(port, bound))} here")
    return arrays, bound


def shape_at(port: PortPlan, dims: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an input or output for these dims."""
    return tuple(evaluate(e, dims) for e in port["shape"])


def _describe(port: PortPlan) -> str:
    return f"{port['dtype']} [{', '.join(show(e) for e in port['shape'])}]"


def _array(value: ArrayLike, port: PortPlan) -> Array:
    expected = np.dtype(port["dtype"])
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype != expected:
            raise InputError(
                f"the input {port['name']!r} is {array.dtype}, expected {_describe(port)}",
                hint=f"array.astype({str(expected)!r})",
            )
        return array
    try:
        array = np.asarray(value)
        if not np.can_cast(array.dtype, expected, "same_kind") and array.size:
            raise TypeError(f"{array.dtype} values")
        return array.astype(expected)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"the input {port['name']!r} can't be made {_describe(port)}: {error}",
            hint="give a NumPy array",
        ) from None


def _infer(array: Array, port: PortPlan, dims: dict[str, int]) -> None:
    if array.ndim != len(port["shape"]):
        _wrong_shape(array, port)
    for extent, size in zip(port["shape"], array.shape, strict=True):
        if isinstance(extent, str) and dims.setdefault(extent, size) != size:
            _wrong_shape(array, port, f"and elsewhere {extent!r} is {dims[extent]}")


def _wrong_shape(array: Array, port: PortPlan, why: str = "") -> NoReturn:
    raise InputError(
        f"the input {port['name']!r} has shape {list(array.shape)}, expected "
        f"{_describe(port)}{', ' * bool(why)}{why}"
    )


def to_storage(array: Array, storage: str, name: str) -> Array:
    """The elements as the buffer stores them, contiguous.

    Raises `InputError` for an integer that does not fit: int64 is stored as int32.
    """
    target = np.dtype(storage)
    if array.dtype.kind in "iu" and target.kind in "iu" and array.size:
        info = np.iinfo(target)
        low, high = int(array.min()), int(array.max())
        if low < info.min or high > info.max:
            raise InputError(
                f"the input {name!r} holds {low if low < info.min else high}, which does not fit: "
                f"the model computes in {storage}"
            )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, as in the model's own arithmetic
        return np.ascontiguousarray(array, target)


def from_storage(stored: Array, dtype: str) -> Array:
    """A new array of the model's `dtype` from stored elements."""
    if dtype == "bool":
        return np.asarray(stored != 0)
    with np.errstate(over="ignore"):
        return stored.astype(dtype)
