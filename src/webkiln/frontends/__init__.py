"""Frontends: every kind of model that webkiln takes, to one `onnx_ir.Model`."""

from __future__ import annotations

from webkiln.frontends.load import load
from webkiln.frontends.source import Source

__all__ = ["Source", "load"]
