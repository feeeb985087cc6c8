"""What costs minutes is made once for all test processes, and only as far as tests look."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from webkiln import compile as compiler

__all__ = ["once", "variants_that_run"]


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, which `make` fills in whichever test process comes first; the others wait for it.

    It appears when it is whole: after a `make` that failed, the next process tries again.
    """
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_suffix(".part")
            make(unfinished)
            unfinished.rename(folder)
    return folder


@contextmanager
def variants_that_run() -> Iterator[None]:
    """Bundles built inside have only the WebAssembly that may run here: relaxed, one thread.

    For large models that only Python runs. The gallery's are compiled in every variant.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("VARIANTS", "PLANES_VARIANTS"):
            all_variants = getattr(compiler, name)
            own = tuple(v for v in all_variants if v.relaxed and not v.threads)
            patch.setattr(compiler, name, own)
        yield
