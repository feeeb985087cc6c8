"""The report as one self-contained page: markup, style, script and data inline, nothing fetched."""

from __future__ import annotations

import html
import json
from importlib import resources
from typing import Any

from webkiln.inspect.bundle import BundleReport, ProgramReport
from webkiln.inspect.model import ModelReport
from webkiln.inspect.rail import Rail, lay_out

__all__ = ["bundle_page", "model_page"]


def bundle_page(report: BundleReport) -> str:
    """The page for a bundle: its graph with what was fused, each step's cost, memory over time."""
    data = report.to_json() | {"view": "bundle"}
    for program, written in zip(report.programs, data["programs"], strict=True):
        written["rail"] = _rail_json(_program_rail(program))
    return _page(report.name, data)


def model_page(report: ModelReport) -> str:
    """The page for a model that is not compiled yet: its graph and its operators."""
    rail = lay_out([(node.reads, node.writes) for node in report.nodes])
    return _page(report.name, report.to_json() | {"view": "model", "rail": _rail_json(rail)})


def _program_rail(program: ProgramReport) -> Rail:
    return lay_out([(step.reads, step.writes) for step in program.steps])


def _rail_json(rail: Rail) -> dict[str, Any]:
    edges = [[edge.source, edge.target, edge.lane] for edge in rail.edges]
    return {"columns": rail.columns, "edges": edges, "lanes": rail.lanes}


def _page(name: str, data: dict[str, Any]) -> str:
    parts = {
        "TITLE": html.escape(f"{name} · webkiln inspect"),
        "STYLE": _asset("page.css"),
        "SCRIPT": _asset("page.js"),
        # "<" could end the script element early; inside JSON it only occurs in strings
        "DATA": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = _asset("page.html")
    for key, text in parts.items():
        page = page.replace(f"{{{{{key}}}}}", text, 1)
    return page


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
