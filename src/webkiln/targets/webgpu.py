"""WebGPU: the limits that every adapter has, what WGSL lacks, and how a kernel is dispatched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Final

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import Const, Expr, const
from webkiln.ir.program import Kernel
from webkiln.ir.stmt import Store
from webkiln.schedule.kernel import map_expressions, statements
from webkiln.targets.math import EXPANDED, expand

__all__ = [
    "HALF",
    "MAX_BINDING_BYTES",
    "MAX_GROUPS",
    "MAX_INVOCATIONS",
    "MAX_STORAGE_BUFFERS",
    "MAX_WORKGROUP_BYTES",
    "legalise",
    "limits",
    "workgroup_bytes",
    "workgroup_size",
    "workgroups",
]

# Defaults of the WebGPU specification, section "Limits": every adapter has at least these.
MAX_BINDING_BYTES: Final = 128 << 20  # maxStorageBufferBindingSize
MAX_STORAGE_BUFFERS: Final = 8  # maxStorageBuffersPerShaderStage
MAX_WORKGROUP_BYTES: Final = 16384  # maxComputeWorkgroupStorageSize
MAX_INVOCATIONS: Final = 256  # maxComputeInvocationsPerWorkgroup
MAX_GROUPS: Final = 65535  # maxComputeWorkgroupsPerDimension

HALF: Final = "shader-f16"  # the feature of adapters that compute in float16

#: Built-ins that are accurate enough: exp within 3 + 2·|x| ulp, log 3 ulp or 2^-21, the rest nearly
#: exact. Not so sin and cos (2^-11, only in [-π, π]), atan (4096 ulp), tanh (may overflow), pow.
NATIVE: Final = frozenset(
    {"exp", "log", "sqrt", "rsqrt", "floor", "ceil", "round", "trunc", "sign", "half"}
)
_EXPANDED: Final = EXPANDED - NATIVE


def legalise(kernel: Kernel) -> Kernel:
    """`kernel` with all that WGSL lacks, or computes too roughly, written out."""
    return replace(kernel, body=map_expressions(kernel.body, lambda e: expand(e, _EXPANDED)))


def workgroup_size(kernel: Kernel) -> tuple[int, int, int]:
    """Invocations of a workgroup along x, y and z."""
    sizes = [_only(kernel, f"local.{axis}") for axis in "xyz"]
    if not all(isinstance(s, Const) for s in sizes):
        raise ValueError(f"kernel {kernel.name}: a workgroup's size must be fixed")
    x, y, z = (int(s.value) for s in sizes if isinstance(s, Const))
    return x, y, z


def workgroups(kernel: Kernel) -> tuple[Expr, Expr, Expr]:
    """Workgroups to dispatch along x, y and z, as expressions over the kernel's params."""
    x, y, z = (_only(kernel, f"workgroup.{axis}") for axis in "xyz")
    return x, y, z


def limits(kernels: Sequence[Kernel]) -> dict[str, int]:
    """What an adapter must offer for `kernels`, by WebGPU's names of the limits."""
    return {
        "maxComputeWorkgroupStorageSize": max(map(workgroup_bytes, kernels), default=0),
        "maxComputeInvocationsPerWorkgroup": max(
            (prod(workgroup_size(k)) for k in kernels), default=1
        ),
    }


def workgroup_bytes(kernel: Kernel) -> int:
    """Workgroup memory that the kernel declares."""
    buffers = {s.buffer for s in statements(kernel.body) if isinstance(s, Store)}
    shared = [b for b in buffers if b.role == "workgroup"]
    return sum(int(b.size.value) * b.dtype.bytes for b in shared if isinstance(b.size, Const))


def _only(kernel: Kernel, binding: str) -> Expr:
    found = [loop.extent for loop in kernel.loops if loop.binding == binding]
    if len(found) > 1:
        raise ValueError(f"kernel {kernel.name}: {len(found)} loops bound to {binding}")
    return found[0] if found else const(1, I32)
