"""The gallery: one page that leads to several apps, each in a folder beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from webkiln.tasks.page import fill, headers_file, minify_css, policy, template

__all__ = ["Card", "render"]


@dataclass(frozen=True)
class Card:
    """One app: its folder's name, the words on its card, and its finished plan.

    `model` names the network; `note` says what a visitor should know of its training, for example
    that its weights are random.
    """

    folder: str
    title: str
    summary: str
    model: str
    plan: Mapping[str, Any]
    note: str | None = None


def render(cards: Sequence[Card]) -> dict[str, bytes]:
    """The files of the gallery's own folder: the page, its icon, and what hosts must be told."""
    script, toggle = template("start.js"), _file("toggle.js")
    style = minify_css(template("app.css"))
    page = fill(
        _file("index.html"),
        {
            "policy": html.escape(policy([script, toggle], [style]), quote=False),
            "style": style,
            "script": script,
            "toggle": toggle,
            "cards": "\n".join(_card(card) for card in cards),
        },
    )
    apps = {f"/{card.folder}/": card.plan for card in cards}
    return {
        "index.html": page.encode(),
        "icon.svg": template("icon.svg").encode(),
        "_headers": headers_file(apps).encode(),  # hosts read it at the root only
    }


def _card(card: Card) -> str:
    about = card.plan["task"].get("about") or {}
    model, origin = card.model, about.get("origin") or ""
    facts = {
        "Model": origin if model in origin else model,
        "From": None if model in origin or origin in model else origin,
        "Licence": about.get("license"),
        "Download": _size(card.plan["weights"]["bytes"]),
        "Note": card.note or about.get("note"),
    }
    rows = "".join(
        f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items() if text
    )
    task = card.plan["task"]["name"]
    return fill(
        _file("card.html"),
        {
            "folder": html.escape(card.folder),
            "title": html.escape(card.title),
            "summary": html.escape(card.summary),
            "task": "any model" if task == "generic" else html.escape(task.replace("-", " ")),
            "cover": _cover(card, task),
            "facts": rows,
        },
    ).rstrip()


def _cover(card: Card, task: str) -> str:
    """The first sample photograph, else a drawing for the task."""
    for sample in card.plan["task"].get("samples") or []:
        if isinstance(sample, dict):
            source = html.escape(f"{card.folder}/model/{sample['file']}")
            return f'<img src="{source}" alt="" loading="lazy">'
    drawings = resources.files(__package__).joinpath("covers")
    drawing = drawings.joinpath(f"{task}.svg")
    return (drawing if drawing.is_file() else drawings.joinpath("generic.svg")).read_text("utf-8")


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{max(count, 1e4) / 1e6:.2g} MB"


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
