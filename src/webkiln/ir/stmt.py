"""Statements of a scheduled kernel: loops, registers, stores, barriers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import DType
from webkiln.ir.expr import Expr, Var

__all__ = [
    "Assign",
    "Barrier",
    "Declare",
    "For",
    "If",
    "Once",
    "Stmt",
    "Store",
    "register",
]


def register(name: str, dtype: DType) -> Var:
    """A mutable local of a kernel, set by Declare and Assign."""
    return Var(name, None, dtype)


@dataclass(frozen=True, slots=True)
class Declare:
    """A new register with its first value."""

    var: Var
    value: Expr


@dataclass(frozen=True, slots=True)
class Assign:
    """A new value for a declared register."""

    var: Var
    value: Expr


@dataclass(frozen=True, slots=True)
class Store:
    """The lanes of `value` (the first `count` if given) to `buffer` from element `offset` on."""

    buffer: Buffer
    offset: Expr
    value: Expr
    count: Expr | None = None


@dataclass(frozen=True, slots=True)
class For:
    """`body` for `var` = start, start + step, … below `stop`."""

    var: Var
    start: Expr
    stop: Expr
    body: tuple[Stmt, ...]
    step: int = 1


@dataclass(frozen=True, slots=True)
class If:
    """`body` where `condition` holds, else `orelse`."""

    condition: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


@dataclass(frozen=True, slots=True)
class Barrier:
    """All invocations of a workgroup meet, and see each other's writes to workgroup memory."""

    scope: Literal["workgroup"] = "workgroup"


@dataclass(frozen=True, slots=True)
class Once:
    """`body`, which writes memory of the task and depends on no parallel loop.

    It stands at the head of a kernel's body. What it leaves is the same for every task, so a thread
    that runs several needs it once.
    """

    body: tuple[Stmt, ...]


Stmt: TypeAlias = Declare | Assign | Store | For | If | Once | Barrier
