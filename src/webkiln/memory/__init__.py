"""Where every buffer lies: liveness once, then an arena (wasm) and GPU buffers (webgpu) from it."""

from webkiln.memory.liveness import Lifetime, StepIO, lifetimes
from webkiln.memory.plan import MemoryPlan, plan
from webkiln.memory.weights import WeightSpace

__all__ = ["Lifetime", "MemoryPlan", "StepIO", "WeightSpace", "lifetimes", "plan"]
