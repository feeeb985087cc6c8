"""Golden samples: inputs and outputs of the reference, made at build time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webkiln.bundle.edge import bind
from webkiln.bundle.plan import GoldenPlan, GoldenTensorPlan, Plan
from webkiln.errors import ShardError
from webkiln.memory.size import align

__all__ = ["GOLDEN_FILE", "GoldenSample", "OutputCheck", "compare", "read_golden", "write_golden"]

GOLDEN_FILE = "golden.bin"
_ALIGNMENT = 64  # typed arrays in the browser view the file in place

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class GoldenSample:
    """Inputs and the reference's outputs by name, in the model's dtypes, and how close is right."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    rtol: float = 1e-3
    atol: float = 1e-4


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """How far one output of golden sample number `sample` is from the reference.

    `max_rel_error` is |actual - expected| / |expected| over the elements where |expected| > atol;
    `ok` says that every element is within atol + rtol·|expected|.
    """

    sample: int
    output: str
    max_abs_error: float
    max_rel_error: float
    ok: bool


def write_golden(plan: Plan, samples: Sequence[GoldenSample]) -> tuple[list[GoldenPlan], bytes]:
    """The samples as plan entries and the file that they point into.

    Raises `InputError` for a sample that does not fit the model.
    """
    file = bytearray()

    def place(array: Array) -> GoldenTensorPlan:
        file.extend(bytes(align(len(file), _ALIGNMENT) - len(file)))
        offset = len(file)
        file.extend(np.ascontiguousarray(array).tobytes())
        return {
            "offset": offset,
            "bytes": array.nbytes,
            "shape": list(array.shape),
            "dtype": array.dtype.name,
        }

    entries: list[GoldenPlan] = []
    for sample in samples:
        _, dims = bind(plan, plan["programs"][0], sample.inputs)
        entries.append(
            {
                "dims": dims,
                "inputs": {name: place(np.asarray(a)) for name, a in sample.inputs.items()},
                "outputs": {name: place(np.asarray(a)) for name, a in sample.outputs.items()},
                "file": GOLDEN_FILE,
                "rtol": sample.rtol,
                "atol": sample.atol,
            }
        )
    return entries, bytes(file)


def read_golden(entry: GoldenPlan, data: bytes | memoryview) -> GoldenSample:
    """One sample out of its file. Raises `ShardError` when the file is too short."""

    def tensor(t: GoldenTensorPlan) -> Array:
        if t["offset"] + t["bytes"] > len(data):
            raise ShardError(
                f"{entry['file']} is truncated: {len(data)} bytes",
                hint="copy the whole folder again, or build it again",
            )
        count = t["bytes"] // np.dtype(t["dtype"]).itemsize
        flat = np.frombuffer(data, t["dtype"], count, t["offset"])
        return flat.reshape(t["shape"])

    return GoldenSample(
        {name: tensor(t) for name, t in entry["inputs"].items()},
        {name: tensor(t) for name, t in entry["outputs"].items()},
        entry["rtol"],
        entry["atol"],
    )


def compare(
    sample: int, output: str, actual: Array, expected: Array, rtol: float, atol: float
) -> OutputCheck:
    """`actual` against `expected`: NaN equals NaN, infinities must agree, shapes must be equal."""
    if actual.shape != expected.shape:
        return OutputCheck(sample, output, float("inf"), float("inf"), ok=False)
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    same = (a == e) | (np.isnan(a) & np.isnan(e))
    with np.errstate(all="ignore"):
        error = np.where(same, 0.0, np.abs(a - e))
        error = np.where(np.isnan(error), np.inf, error)
        size = np.abs(e)
        counted = np.isfinite(size) & (size > atol)
        relative = np.where(counted, error / size, 0.0)
        # an infinite reference has no tolerance: only the same infinity is right
        ok = same | (np.isfinite(size) & (error <= atol + rtol * size))
    return OutputCheck(
        sample,
        output,
        float(error.max(initial=0.0)),
        float(relative.max(initial=0.0)),
        bool(ok.all()),
    )
