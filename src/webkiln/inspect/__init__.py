"""What a bundle or a model consists of: operators, kernels, their cost, and memory over time."""

from __future__ import annotations

from webkiln.inspect.bundle import BundleReport, bundle_report
from webkiln.inspect.html import bundle_page, model_page
from webkiln.inspect.model import ModelReport, model_report

__all__ = [
    "BundleReport",
    "ModelReport",
    "bundle_page",
    "bundle_report",
    "model_page",
    "model_report",
]
