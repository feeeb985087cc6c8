"""webkiln's own static server (isolated, gzip), counting the bytes of every body that it sends."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Self

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from webkiln.server import application, listen


class CountingServer:
    """Serves `folder` on a free port of localhost, as a context manager.

    `sent` has the body bytes by path since the last `reset`, as they travelled (compressed).
    """

    def __init__(self, folder: Path) -> None:
        self.sent: Counter[str] = Counter()
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

    def reset(self) -> None:
        self.sent.clear()

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

        await self._app(scope, receive, counting)
