"""Tasks: what a model is for, and so what goes before and after it.

A task is one module here and one of the same name in ``runtime/src/tasks``. The Python half decides
at build time what the browser half needs to know (``plan["task"]``), makes the golden sample, and
does the same pre- and post-processing for `webkiln run`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from webkiln.errors import InputError
from webkiln.frontends.source import Source
from webkiln.tasks import (
    feature_extraction,
    generic,
    image_classification,
    text_classification,
    text_generation,
)

__all__ = ["Task", "checked", "detect", "get", "graph", "names", "prepare", "programs"]


class Task(Protocol):
    """What a task's module offers.

    Optional are `prepare(source) -> Source`, which brings the model into the form that the task
    compiles, before anything else; `graph(source) -> onnx_ir.Model`, the model with what the task
    computes on the device as well, and `programs(source)`, the bundle's programs with the
    dimensions bounded in each, by name; without them it is the source's model, and one program
    `main`.
    """

    NAME: str

    def matches(self, source: Source) -> bool:
        """Whether the model looks like one of this task."""

    def plan_config(self, source: Source) -> dict[str, Any]:
        """What goes to ``plan["task"]``; JSON, with at least ``name``.

        Raises `InputError` if the model can't serve the task.
        """

    def sample(self, source: Source, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Realistic inputs by name, for the golden sample; symbolic dimensions as in `dims`."""

    def preprocess(
        self, value: str | Path, plan: Mapping[str, Any], base: Path
    ) -> dict[str, np.ndarray]:
        """A file or a text → inputs by name. `base` is the folder of plan.json.

        Raises `InputError` for what can't be read.
        """

    def postprocess(self, outputs: Mapping[str, np.ndarray], plan: Mapping[str, Any]) -> Any:
        """Outputs by name → what a person wants to see; JSON."""


# In the order of detection; the last takes any model.
_TASKS: dict[str, Task] = {
    task.NAME: task
    for task in (
        text_generation,
        image_classification,
        text_classification,
        feature_extraction,
        generic,
    )
}


def names() -> list[str]:
    """The tasks there are."""
    return list(_TASKS)


def get(name: str) -> Task:
    """The task of that name. Raises `InputError` if there is none."""
    try:
        return _TASKS[name]
    except KeyError:
        raise InputError(
            f"there is no task {name!r}", hint=f"choose one of {', '.join(_TASKS)}"
        ) from None


def detect(source: Source) -> str:
    """The task that the source names, else the first that the model looks like."""
    if source.task in _TASKS:
        return source.task
    return next(name for name, task in _TASKS.items() if task.matches(source))


def prepare(task: Task, source: Source) -> Source:
    """The source in the form that the task compiles."""
    own = getattr(task, "prepare", None)
    return source if own is None else own(source)


def graph(task: Task, source: Source) -> ir.Model:
    """What is to be compiled for the task: the source's model, and what the task adds."""
    add = getattr(task, "graph", None)
    return source.model if add is None else add(source)


def programs(task: Task, source: Source) -> Mapping[str, Mapping[str, int]]:
    """The bundle's programs by name, each with the bounds of dimensions that are its own."""
    own = getattr(task, "programs", None)
    return {"main": {}} if own is None else own(source)


def checked(task: Task, outputs: Collection[str]) -> Collection[str]:
    """The names of the outputs that golden samples compare; by default all."""
    own: Collection[str] | None = getattr(task, "CHECKED", None)
    return outputs if own is None else own
