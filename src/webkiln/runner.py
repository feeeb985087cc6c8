"""`webkiln run`: a bundle on one input, through its task's own pre- and post-processing.

A language model's answer comes piece by piece: `generate`.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from webkiln.errors import InputError
from webkiln.inspect.bundle import read_plan

if TYPE_CHECKING:
    from webkiln.generation import Answer

__all__ = [
    "RunResult", "generate", "generates_text", "read_prompt", "run", "save_outputs", "show"
]  # fmt: skip

Arrays = Mapping[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True)
class RunResult:
    """What a bundle yields: the task's answer, as JSON values, and the raw outputs by name."""

    answer: Any
    outputs: Arrays


def run(folder: str | os.PathLike[str], inputs: Sequence[str]) -> RunResult:
    """Run the bundle in `folder` on one file or text for its task, or on NAME=FILE.npy pairs.

    Raises `InputError` for inputs that do not fit the model, `InvalidModelError` for a broken
    bundle.
    """
    plan = read_plan(Path(folder))
    from webkiln import tasks
    from webkiln.bundle import Bundle

    named = dict(pair for pair in map(_pair, inputs) if pair is not None)
    if len(named) == len(inputs) and not Path(inputs[0]).exists():
        task = tasks.get("generic")
        feeds: Arrays = {name: _array(name, path) for name, path in named.items()}
    elif len(inputs) == 1:
        task = tasks.get(plan["task"]["name"])
        feeds = task.preprocess(inputs[0], plan, Path(folder, "model"))
    else:
        raise InputError(
            "several inputs need a name each", hint="--input NAME=FILE.npy for each input"
        )
    outputs = Bundle.load(folder).run(feeds)
    return RunResult(task.postprocess(outputs, plan), outputs)


def generates_text(folder: str | os.PathLike[str], inputs: Sequence[str]) -> bool:
    """Whether the bundle is a language model, and `inputs` is one text or file for it."""
    task: str = read_plan(Path(folder))["task"]["name"]
    return task == "text-generation" and len(inputs) == 1 and _pair(inputs[0]) is None


def read_prompt(value: str) -> str:
    """The content of a text file if `value` is the path of one, else `value` itself."""
    from webkiln.tasks.text import read_text

    return read_text(value)


def generate(
    folder: str | os.PathLike[str],
    prompt: str,
    system: str | None,
    raw: bool,
    options: Mapping[str, Any],
) -> Answer:
    """A language model's answer to `prompt`, or its continuation if `raw`.

    A model without a chat template continues. Raises `InputError` for a bundle that generates no
    text, and as `Bundle.generate`.
    """
    from webkiln.bundle import Bundle

    bundle = Bundle.load(folder)
    chats = bundle.language_model.template is not None
    if system is not None and (raw or not chats):
        why = "--raw has none" if raw else "this model has none"
        raise InputError(f"a system prompt needs a chat template; {why}", hint="leave out --system")
    if raw or not chats:
        return bundle.generate(prompt, stream=True, **options)
    return bundle.chat(system).send(prompt, stream=True, **options)


def save_outputs(path: Path, outputs: Arrays) -> None:
    """Save raw outputs to a .npz; raises `InputError` when the name ends otherwise."""
    if path.suffix != ".npz":
        raise InputError(f"outputs are saved as .npz, not as {path.name}", hint="-o outputs.npz")
    arrays: dict[str, Any] = dict(outputs)
    np.savez(path, **arrays)


def show(answer: Any) -> str:
    """A task's answer for people: ranked classes as lines with bars, anything else as JSON."""
    if isinstance(answer, list) and answer and all(_is_score(item) for item in answer):
        width = max(len(item["label"]) for item in answer)
        return "\n".join(
            f"{item['label']:<{width}}  {item['score']:6.1%}  {'█' * round(item['score'] * 30)}"
            for item in answer
        )
    if isinstance(answer, list) and len(answer) > 8 and isinstance(answer[0], float):
        shown = ", ".join(f"{number:.5f}" for number in answer[:8])
        return f"{len(answer)} numbers: {shown}, …  (--json prints all)"
    return json.dumps(answer, indent=2)


def _is_score(item: Any) -> bool:
    return isinstance(item, dict) and {"label", "score"} <= item.keys()


def _pair(text: str) -> tuple[str, Path] | None:
    name, equals, path = text.partition("=")
    return (name, Path(path)) if equals and path.endswith(".npy") else None


def _array(name: str, path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(
            f"input {name}: no such file: {path}", hint="numpy.save(file, array) makes one"
        ) from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"input {name}: {path} holds no array that NumPy reads",
            hint="numpy.save(file, array) makes one",
        ) from error
    assert isinstance(array, np.ndarray)
    return array
