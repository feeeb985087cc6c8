"""The gallery of `webkiln demo`: ready apps from trained models that package registries carry."""

from __future__ import annotations

from webkiln.demo.apps import APPS, App
from webkiln.demo.gallery import build

__all__ = ["APPS", "App", "build"]
