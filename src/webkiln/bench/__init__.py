"""A bundle's speed in a real browser, and each kernel's distance from the floor."""

from __future__ import annotations

from webkiln.bench.measure import Options, run
from webkiln.bench.report import Report, show

__all__ = ["Options", "Report", "run", "show"]
