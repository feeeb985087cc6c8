"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Playwright, sync_playwright

# A shell's background job ignores Ctrl-C, and so would every process that a test starts to stop it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """The one Playwright of this process: a second in the same thread is refused."""
    with sync_playwright() as running:
        yield running
