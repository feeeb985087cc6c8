"""What the command line shows: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
import traceback
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from webkiln.errors import WebkilnError
from webkiln.log import debug_level

__all__ = ["Bars", "count", "fail", "note", "print_json", "print_table", "say", "size", "write"]

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL = ("", "K", "M", "G", "T", "P")


def _out() -> Console:
    return Console(soft_wrap=True, highlight=False)


def _err() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False)


def say(message: str) -> None:
    """Print a result for people."""
    _out().print(escape(message))


def write(text: str) -> None:
    """Print a part of a result at once, as it is."""
    print(text, end="", flush=True)  # noqa: T201


def note(message: str) -> None:
    """Print what is no result (what is being done, where it went) to standard error."""
    _err().print(escape(message))


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, default=_plain))  # noqa: T201


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table; a column whose name ends in ">" is aligned to the right."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        right = column.endswith(">")
        table.add_column(column.removesuffix(">"), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width to keep to
    console.print(table)


def fail(error: BaseException) -> int:
    """Print an error as one message, with what to try; return the exit code.

    With WEBKILN_DEBUG at 1 or more the traceback comes first.
    """
    console = _err()
    expected = isinstance(error, WebkilnError | OSError)
    if debug_level() >= 1 or not expected:
        traceback.print_exception(error)
    if isinstance(error, WebkilnError):
        message, hint, code = error.message, error.hint, error.exit_code
    elif isinstance(error, OSError):
        message, hint, code = _os_message(error), None, 1
    else:
        message = f"a fault in webkiln: {type(error).__name__}: {error}"
        hint, code = "report it, with the lines above and the model", 1
    console.print(f"[bold red]error:[/] {escape(message)}")
    if hint:
        console.print(f"[bold]try:[/] {escape(hint)}")
    return code


def count(value: float) -> str:
    """12345678 → "12.3 M"."""
    return _scaled(value, _DECIMAL, 1000)


def size(value: float) -> str:
    """Bytes for people: 1536 → "1.50 KiB"."""
    return _scaled(value, _BINARY, 1024)


def _scaled(value: float, units: tuple[str, ...], step: int) -> str:
    unit = 0
    while abs(value) >= step and unit < len(units) - 1:
        value /= step
        unit += 1
    digits = 0 if unit == 0 or value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {units[unit]}".strip()


def _os_message(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}"


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as JSON knows them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


class Bars:
    """A bar a stage, on a terminal; a `webkiln.log.Progress` as a context manager.

    Where standard error is no terminal (a log, a pipe) each stage is one line as it begins.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        console = _err()
        self._enabled = enabled
        self._live = enabled and console.is_terminal
        self._stages: dict[str, TaskID] = {}
        self._named: set[str] = set()
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=console,
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Show `done` of `total` of `stage`."""
        if not self._live:
            if self._enabled and stage not in self._named:
                self._named.add(stage)
                print(f"{stage} …", file=sys.stderr, flush=True)  # noqa: T201
            return
        if stage not in self._stages:
            self._stages[stage] = self._progress.add_task(escape(stage), total=total, detail="")
        short = detail if len(detail) <= 48 else f"{detail[:47]}…"
        self._progress.update(
            self._stages[stage], completed=done, total=total, detail=escape(short)
        )
