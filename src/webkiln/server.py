"""A static server for bundles, with the headers that WebAssembly threads need.

Cross-origin isolation (COOP and COEP) gives a page SharedArrayBuffer, and with it threads. Text and
wasm are gzipped, ranges are answered so that a broken download resumes, and everything revalidates
by ETag.
"""

from __future__ import annotations

import errno
import gzip
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webkiln.errors import InputError, PortInUseError

__all__ = ["Server", "application", "listen", "serve"]

DEFAULT_HOST = "localhost"
DEFAULT_PORT = 3000

MEDIA_TYPES = {
    ".bin": "application/octet-stream",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",  # Python's table has MPEG transport streams here
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".webmanifest": "application/manifest+json",
    ".wgsl": "text/wgsl; charset=utf-8",
}
_COMPRESSED = frozenset(MEDIA_TYPES) - {".bin", ".wav"}

_ALWAYS = {
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # keep, but ask each time: a rebuilt bundle shows at once
}
_ISOLATION = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
}


class _Pieces(FileResponse):
    """A file in pieces of a MiB: each costs a thread's turn, and weights are large.

    Starlette's 64 KiB bring 19 MB over the loopback in 75 ms, these in 20. A file that is one piece
    needs no thread, which saves 0.8 of the 1.8 ms of processor time that its request takes.
    """

    chunk_size = 1 << 20

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = scope["method"] == "GET" and "range" not in Headers(scope=scope)
        if not plain or self.stat_result is None or self.stat_result.st_size > self.chunk_size:
            return await super().__call__(scope, receive, send)
        try:
            content = Path(self.path).read_bytes()
        except OSError:
            return await super().__call__(scope, receive, send)
        self.headers["content-length"] = str(len(content))
        await Response(content, self.status_code, self.headers)(scope, receive, send)


class _Files(StaticFiles):
    """Static files with our media types, compressed where that helps."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder, html=True)
        self._gzipped: dict[str, tuple[str, bytes]] = {}  # path → ETag, compressed content

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        path = Path(full_path)
        suffix = path.suffix.lower()
        request = Headers(scope=scope)
        response: Response = _Pieces(
            path, status_code, media_type=MEDIA_TYPES.get(suffix), stat_result=stat_result
        )
        if suffix in _COMPRESSED:
            response.headers["vary"] = "accept-encoding"
            if "gzip" in request.get("accept-encoding", "") and "range" not in request:
                response = self._compressed(path, response, scope)
        if self.is_not_modified(response.headers, request):
            return NotModifiedResponse(response.headers)
        return response

    def _compressed(self, path: Path, plain: Response, scope: Scope) -> Response:
        etag = plain.headers["etag"]
        cached = self._gzipped.get(str(path))
        if cached is None or cached[0] != etag:
            cached = (etag, gzip.compress(path.read_bytes(), compresslevel=6, mtime=0))
            self._gzipped[str(path)] = cached
        kept = ("content-type", "last-modified", "vary")
        headers = {name: plain.headers[name] for name in kept}
        headers |= {"content-encoding": "gzip", "etag": f'{etag[:-1]}-gzip"'}
        response = Response(cached[1], plain.status_code, headers)
        if scope["method"] == "HEAD":
            response.body = b""  # the headers, content-length included, stay those of GET
        return response


class _AddHeaders:
    """ASGI middleware: the same headers on every response, errors included."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self.app = app
        self.headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _plain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = f"{error.status_code} {error.detail}: {request.url.path}\n"
    return PlainTextResponse(reason, error.status_code, error.headers)


def application(folder: str | os.PathLike[str], *, isolation: bool = True) -> ASGIApp:
    """The ASGI application that serves `folder`, for use under any ASGI server."""
    routes = [Mount("/", app=_Files(Path(folder)))]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _plain_error})
    return _AddHeaders(app, _ALWAYS | (_ISOLATION if isolation else {}))


class Server:
    """Serve a folder from a thread, as a context manager.

        with Server("dist", port=0) as server:
            urllib.request.urlopen(server.url)

    `port` 0 takes any free one; `listener` is a socket that `listen` made before. Raises
    `PortInUseError` for a taken port, `InputError` for a folder or an address that cannot be
    served.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        isolation: bool = True,
        listener: socket.socket | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        if not self.folder.is_dir():
            reason = "is not a folder" if self.folder.exists() else "does not exist"
            raise InputError(
                f"cannot serve {folder}: it {reason}", hint="webkiln build MODEL -o DIR makes one"
            )
        self._socket = listener or listen(host, port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            application(self.folder, isolation=isolation),
            log_level="error",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)  # outside the main thread it leaves signals alone
        self._thread = threading.Thread(target=self._run, name="webkiln-server", daemon=True)

    @property
    def url(self) -> str:
        """Address of the folder's index page."""
        anywhere = self.host in {"0.0.0.0", "::", ""}  # noqa: S104
        host = "localhost" if anywhere else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def start(self) -> Self:
        """Begin to answer; returns at once, since the socket already listens."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Finish the requests under way and free the port."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._socket.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def serve(
    folder: str | os.PathLike[str],
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    isolation: bool = True,
    listener: socket.socket | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve `folder` until Ctrl-C or SIGTERM. `ready` gets the address once requests are answered.

    Raises what `Server` raises, and `InputError` when the folder has no page to show.
    """
    if Path(folder).is_dir() and not Path(folder, "index.html").is_file():
        raise InputError(
            f"{folder} has no index.html, so there is no page to serve",
            hint="webkiln build MODEL -o DIR makes a folder with one",
        )
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    with Server(folder, host=host, port=port, isolation=isolation, listener=listener) as server:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if ready is not None:
                ready(server.url)
            stopped.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on host:port, or an error that says why there is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error}", hint="--host localhost"
        ) from error
    if host == "localhost":  # an IPv6 answer first would shut out clients that only try IPv4
        family, address = socket.AF_INET, ("127.0.0.1", port)
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere this would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise _listen_error(host, port, error) from error
    return listener


def _listen_error(host: str, port: int, error: OSError) -> InputError | PortInUseError:
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"port {port} on {host} is in use by another program",
            hint=f"--port {port + 1 if port < 65535 else 3000}, or --port 0 for any free one",
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return InputError(
            f"not allowed to listen on port {port}", hint="a port above 1023: --port 3000"
        )
    return InputError(f"cannot listen on {host}:{port}: {error.strerror}", hint="--host localhost")
