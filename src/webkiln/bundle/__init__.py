"""The folder that a model becomes: plan, weights, kernels; written, read back, and run locally."""

from webkiln.bundle.bundle import Bundle
from webkiln.bundle.golden import GoldenSample, OutputCheck
from webkiln.bundle.plan import Plan, validate
from webkiln.bundle.runner import StepTime
from webkiln.bundle.writer import DispatchRecord, KernelRecord, ProgramRecord, Shader, assemble

__all__ = [
    "Bundle",
    "DispatchRecord",
    "GoldenSample",
    "KernelRecord",
    "OutputCheck",
    "Plan",
    "ProgramRecord",
    "Shader",
    "StepTime",
    "assemble",
    "validate",
]
