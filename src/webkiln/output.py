"""Write a folder all at once or not at all, and never over something that webkiln did not write."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from webkiln.errors import OutputFolderError

__all__ = ["atomic_folder", "ensure_replaceable", "is_bundle", "terminate_as_interrupt"]

PLAN = Path("model", "plan.json")


def is_bundle(folder: Path) -> bool:
    """Whether `folder` holds a bundle that webkiln wrote: its plan says so."""
    try:
        plan = json.loads((folder / PLAN).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(plan, dict) and plan.get("format") == "webkiln.plan"


def ensure_replaceable(path: str | os.PathLike[str]) -> Path:
    """The absolute path, if a bundle may be written there: it is free, empty, or an older bundle.

    Raises `OutputFolderError` for a file, a folder that holds anything else, a folder that cannot
    be written, and for the folders that no one means to replace (the working directory, the home,
    the root).
    """
    folder = Path(path).absolute()
    resolved = folder.resolve()
    if resolved in {Path.cwd().resolve(), Path.home().resolve(), Path(resolved.anchor)}:
        raise OutputFolderError(
            f"will not write a bundle over {folder}", hint="name a folder inside it: -o dist"
        )
    if folder.is_symlink() and not folder.exists():
        raise OutputFolderError(
            f"{folder} is a broken link", hint="remove it, or name another folder"
        )
    if folder.exists() and not folder.is_dir():
        raise OutputFolderError(f"{folder} is a file, not a folder", hint="name a folder: -o dist")
    if folder.is_dir() and not is_bundle(folder) and any(folder.iterdir()):
        raise OutputFolderError(
            f"{folder} is not empty and holds no webkiln bundle, so it is left alone",
            hint="name another folder with -o, or empty this one first",
        )
    parent = _existing_parent(folder)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputFolderError(
            f"cannot write in {parent}", hint="name a folder that you may write to: -o DIR"
        )
    return folder


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary sibling folder to fill; on success it becomes `path`, else it is gone.

    An older bundle at `path` stays in place until the new one is complete. Ctrl-C and SIGTERM count
    as failure. Raises `OutputFolderError` where `ensure_replaceable` does.
    """
    folder = ensure_replaceable(path).resolve()
    missing = _missing_parents(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    done = False
    try:
        with terminate_as_interrupt():
            temporary.chmod(
                0o777 & ~_umask()
            )  # mkdtemp's 0700 would hide a site from its web server
            yield temporary
            _swap(temporary, folder)
            done = True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not done:
            for parent in missing:  # deepest first; rmdir spares what others filled meanwhile
                _remove_if_empty(parent)


def _swap(new: Path, folder: Path) -> None:
    """Put `new` at `folder`; what was there is removed after, and put back if the rename fails."""
    ensure_replaceable(folder)  # something else may have been written there while we built
    if not folder.exists():
        new.rename(folder)
        return
    old = new.with_suffix(".old")
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does. Signals belong to the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _existing_parent(folder: Path) -> Path:
    return next(parent for parent in folder.parents if parent.exists())


def _missing_parents(folder: Path) -> list[Path]:
    return [parent for parent in folder.parents if not parent.exists()]


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    current = os.umask(0o022)
    os.umask(current)
    return current
