"""What all tests share."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Playwright, sync_playwright

# A shell's background job ignores Ctrl-C, and so would every process that a test starts to stop it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Compilers make many objects, and few of them in cycles: Python looks for those every 700, which
# took a fifth of the time.
gc.set_threshold(10_000)


def pytest_collection_finish() -> None:
    """What is there now stays until the end: modules, and thousands of tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes of this run have in common; see `tests.shared.once`."""
    folder = tmp_path_factory.getbasetemp()
    # pytest-xdist: each worker's folder lies in that of the run
    return folder.parent if folder.name.startswith("popen-") else folder


@pytest.fixture(scope="session")
def gallery_folder(run_folder: Path) -> Path:
    """The gallery with its apps, built by whichever test process comes first."""
    # Here, since the process that hands out the tests reads this file before it starts the others.
    import webkiln
    from tests.shared import once
    from webkiln.demo import gallery
    from webkiln.demo.apps import APPS

    if not (Path(webkiln.__file__).parent / "runtime/dist/manifest.json").is_file():
        pytest.skip("the runtime is not built: run `make runtime`")
    missing = [need for app in APPS for need in app.missing()]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return once(run_folder / "gallery", gallery.build)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """The one Playwright of this process: a second in the same thread is refused."""
    with sync_playwright() as running:
        yield running
