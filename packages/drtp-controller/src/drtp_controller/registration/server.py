"""Runs an ASGI application on a socket inside our own event loop, without taking over the process's signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

__all__ = ["HttpServer"]

GRACE_SECONDS = 1
"""How long open answers may take to end on a stop."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process that owns the loop."""
        yield


class HttpServer:
    """One listening HTTP server; the socket is bound before, so that a taken port is the caller's error."""

    def __init__(self, app: Any, sock: socket.socket) -> None:
        # an answer goes out as head and body; without this the body waits 40 ms for the peer's acknowledgement of the
        # head (accepted connections inherit it from the listener)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            # the peer address is what the kernel says, not what a header claims
            proxy_headers=False,
        )
        self._server = _Server(config)
        self._sock = sock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve from now on."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._sock]))
        while not self._server.started:
            if self._task.done():
                await self._task
                break
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        """Stop and close the socket. Idempotent."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
            self._task = None
        self._sock.close()
