"""webkiln's own static server (isolated, gzip), counting the bytes of every body that it sends.

Pages that nobody inspects tell it what they found: `POST /report`.
"""

from __future__ import annotations

import json
import queue
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Self

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from webkiln.server import application, listen


class CountingServer:
    """Serves `folder` on a free port of localhost, as a context manager.

    `sent` has the body bytes by path since the last `reset`, as they travelled (compressed).
    """

    def __init__(self, folder: Path) -> None:
        self.sent: Counter[str] = Counter()
        self._reports: queue.Queue[Any] = queue.Queue()
        self._app = application(folder)
        self._socket = listen("localhost", 0)
        config = uvicorn.Config(
            self._count, interface="asgi3", log_level="error", access_log=False, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://localhost:{self._socket.getsockname()[1]}/"

    @property
    def other_site(self) -> str:
        """The same under another name: a page of the one shares nothing with those of the other."""
        return self.url.replace("localhost", "127.0.0.1")

    def reset(self) -> None:
        self.sent.clear()
        self._reports = queue.Queue()

    def report(self, timeout: float) -> Any:
        """What a page reported, as soon as it does. Raises `TimeoutError` after so many seconds."""
        try:
            return self._reports.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"no page reported within {timeout:.0f} s") from None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.body":
                self.sent[scope["path"]] += len(message.get("body", b""))
            await send(message)

        if scope["path"] == "/report":
            self._reports.put(json.loads(await Request(scope, receive).body()))
            await Response(status_code=204)(scope, receive, send)
        else:
            await self._app(scope, receive, counting)
