"""A static server on localhost that can be told to misbehave."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, Page

TYPES = {
    ".js": "text/javascript",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".html": "text/html",
}
PAGE = b"<!doctype html><meta charset=utf-8><title>test</title><link rel=icon href=data:,>"
# No eval, no inline script, nothing from elsewhere: what the runtime must work under.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self';"
    " worker-src 'self'; img-src data:"
)


@contextmanager
def fresh_page(browser: Browser, url: str, timeout_ms: int = 30_000) -> Iterator[Page]:
    """A page at `url` in a profile of its own."""
    context = browser.new_context()
    try:
        page = context.new_page()
        page.set_default_timeout(timeout_ms)
        page.goto(url)
        yield page
    finally:
        context.close()


class Site:
    """Serves `folder` below /some/path/; `isolated` adds the COOP and COEP headers.

    `faults` maps the end of a path to what is done instead of serving it; `seen` has every request
    as (path, Range header), `sent` the bytes of bodies by path. Entity tags are hashes.
    """

    def __init__(self, folder: Path, *, isolated: bool, policy: str = POLICY) -> None:
        self.folder = folder
        self.policy = policy
        self.isolated = isolated
        self.faults: dict[str, Callable[[Handler, bytes], None]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.sent: Counter[str] = Counter()
        handler = type("BoundHandler", (Handler,), {"site": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """The folder's address."""
        return f"http://localhost:{self._server.server_port}/some/path/"

    def requests(self, suffix: str) -> list[str | None]:
        """The Range headers of the requests for paths that end so."""
        return [ranged for path, ranged in self.seen if path.endswith(suffix)]

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """GET with ranges."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        """Serves a file, a part of it, or a fault."""
        path = self.path.split("?")[0]
        ranged = self.headers.get("Range")
        self.site.seen.append((path, ranged))
        data = self._read(path)
        fault = next((act for end, act in self.site.faults.items() if path.endswith(end)), None)
        if data is None:
            self.send(404, b"not found")
        elif fault:
            fault(self, data)
        else:
            self.send_file(data)

    def _read(self, path: str) -> bytes | None:
        name = path.removeprefix("/some/path/")
        if name == "":
            return PAGE
        file = self.site.folder / name
        return file.read_bytes() if path != name and file.is_file() else None

    def send_file(self, data: bytes) -> None:
        """The whole file, or the part that the request's Range asks for, bound by its If-Range."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        tag = etag(data)
        if not match or self.headers.get("If-Range", tag) != tag:
            return self.send(200, data, {"ETag": tag})
        start = int(match[1])
        span = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.send(206, data[start:], {"Content-Range": span, "ETag": tag})

    def send(self, status: int, data: bytes, extra: dict[str, str] | None = None) -> None:
        """A response with the headers that every one has."""
        self.head(status, len(data), extra)
        self.body(data)

    def body(self, data: bytes) -> None:
        """Some bytes of the body, at once."""
        self.site.sent[self.path.split("?")[0].rsplit("/")[-1]] += len(data)
        self.wfile.write(data)
        self.wfile.flush()

    def head(self, status: int, length: int, extra: dict[str, str] | None = None) -> None:
        """The response's head alone."""
        self.send_response(status)
        suffix = Path(self.path.split("?")[0]).suffix
        headers = {
            "Content-Type": TYPES.get(suffix or ".html", "application/octet-stream"),
            "Content-Length": str(length),
            "Content-Security-Policy": self.site.policy,
            "Cache-Control": "no-cache",
        }
        if self.site.isolated:
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
            headers["Cross-Origin-Embedder-Policy"] = "require-corp"
        for name, value in {**headers, **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


def etag(data: bytes) -> str:
    """A strong entity tag."""
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


def missing(handler: Handler, data: bytes) -> None:
    """404."""
    handler.send(404, b"not found")


def corrupt(handler: Handler, data: bytes) -> None:
    """One bit wrong, every time."""
    handler.send_file(bytes([data[0] ^ 1]) + data[1:])


def truncated(handler: Handler, data: bytes) -> None:
    """A file that was uploaded in part."""
    handler.send_file(data[: len(data) // 2])


def busy(handler: Handler, data: bytes) -> None:
    """503."""
    handler.send(503, b"busy")


def once(
    fault: Callable[[Handler, bytes], None],
) -> Callable[[Handler, bytes], None]:
    """The fault the first time, the file afterwards."""
    left = [fault]
    return lambda handler, data: (left.pop() if left else Handler.send_file)(handler, data)


def broken_off(handler: Handler, data: bytes) -> None:
    """Half of the bytes promised, then the connection ends."""
    handler.head(200, len(data), {"ETag": etag(data)})
    handler.body(data[: len(data) // 2])
    time.sleep(0.2)  # lets the browser hand those bytes to the page before it sees the end
    handler.close_connection = True


def slow(handler: Handler, data: bytes) -> None:
    """Never comes to an end worth waiting for."""
    handler.head(200, len(data), {"ETag": etag(data)})
    handler.body(data[:100])
    time.sleep(20)
