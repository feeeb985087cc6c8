"""webkiln: fire a model once, into a static folder that runs in every browser."""

from __future__ import annotations

from webkiln.errors import WebkilnError

__all__ = ["WebkilnError", "__version__"]

__version__ = "0.1.0"
