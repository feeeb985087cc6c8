"""One token of a language model through the WebGPU compiler, as far as its dispatches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests import wgpu_runner
from tests.graphs import physical
from webkiln import passes, tasks
from webkiln.frontends.source import Source
from webkiln.interpret.compute import run_program, value_of
from webkiln.interpret.kernel import run_kernel
from webkiln.ir.buffer import Buffer
from webkiln.ir.program import Kernel, Program, Step
from webkiln.lower.fuse import fuse
from webkiln.lower.graph import lower_graph
from webkiln.lower.layout import assign_layouts
from webkiln.memory.layout import join
from webkiln.schedule.program import schedule_program
from webkiln.targets.webgpu import MAX_STORAGE_BUFFERS, MAX_WORKGROUP_BYTES, workgroup_bytes

__all__ = ["Decode", "compare_dispatches", "decode", "interpreted"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Decode:
    """The program that decodes `rows` tokens, and its dispatches."""

    program: Program
    steps: Sequence[Step]

    @property
    def bytes(self) -> int:
        """What a token makes memory deliver, the caches' whole context included."""
        return sum(value_of(s.bytes, {}) for s in self.steps)


def decode(source: Source, rows: int = 1) -> Decode:
    """The program for `rows` tokens at once."""
    job = tasks.get("text-generation")
    bounds = {**source.config.get("max", {}), "sequence": rows}
    model = passes.run(tasks.graph(job, source), bounds)
    program, _ = lower_graph(model, bounds, source.config["generation"]["state"])
    program = assign_layouts(fuse(program))
    return Decode(program, schedule_program(program, "webgpu"))


def compare_dispatches(
    d: Decode,
    inputs: Mapping[str, Array],
    position: int,
    tolerance: float,
    dims: Mapping[str, int] | None = None,
    run: Callable[..., dict[Buffer, Array]] = wgpu_runner.run_kernel,
) -> None:
    """Outputs and states after the dispatches, against the program as written.

    `run` runs a kernel, on the adapter or as `interpreted`.
    """
    sizes = dict(dims or {})
    rng = np.random.default_rng(5)
    states: dict[Buffer, Array] = {}
    for b in d.program.states:
        shape = [value_of(e, {}) for e in b.shape]
        states[b] = (rng.random(shape) - 0.5).astype(np.float32)
        states[b][:, :, position:] = 0
    given = states | dict(d.program.constants) | {b: inputs[b.name] for b in d.program.inputs}
    flat = {b: physical(np.asarray(a).astype(b.dtype.name), b, sizes) for b, a in given.items()}
    for step in d.steps:
        kernel = step.kernel
        assert len(kernel.buffers) <= MAX_STORAGE_BUFFERS
        assert workgroup_bytes(kernel) <= MAX_WORKGROUP_BYTES
        for b in kernel.bound:
            if b.members:
                flat[b] = join(flat, b)
            elif b not in flat:
                flat[b] = np.zeros(max(value_of(b.size, sizes), 1), b.dtype.name)
        arguments = dict(zip(kernel.buffers, kernel.bound, strict=True))
        results = run(kernel, {b: flat[own] for b, own in arguments.items()}, sizes)
        flat |= {arguments[b]: values for b, values in results.items()}
    expected = run_program(d.program, inputs, sizes, states)
    wanted = dict(zip(d.program.outputs, expected, strict=True)) | states
    for b, values in wanted.items():
        np.testing.assert_allclose(
            flat[b],
            physical(values, b, sizes),
            rtol=tolerance,
            atol=tolerance,
            err_msg=b.name,
        )


def interpreted(
    kernel: Kernel, arrays: Mapping[Buffer, Array], dims: Mapping[str, int]
) -> dict[Buffer, Array]:
    """What the written buffers hold afterwards, as `wgpu_runner.run_kernel` says it."""
    copies = {b: a.copy() for b, a in arrays.items()}
    run_kernel(kernel, copies, dims)
    access = zip(kernel.buffers, kernel.access, strict=True)
    return {b: copies[b] for b, how in access if how != "read"}
