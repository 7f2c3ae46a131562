"""A port on loopback that resets whoever comes: where Envoy sends visitors of a TCP service that has no tunnel.

Rules:
- Envoy itself can only end such a visitor's connection in good order, which a client takes for a server that had
  nothing to say. A reset by the backend it passes on as a reset.
- The PROXY header is read first: a reset that meets bytes under way might be seen as a failed write and not passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

__all__ = ["Refuser"]

PATIENCE: Final = 1.0
"""Seconds to wait for the header; health checks send none and close."""


class Refuser:
    """Listens on loopback and resets every connection."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> int:
        """Listen on any free port and return it."""
        self._server = await asyncio.start_server(_refuse, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    def stop(self) -> None:
        """Stop listening. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await reader.read(1024)
        sock: socket.socket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        writer.transport.abort()
