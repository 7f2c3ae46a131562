"""The admin endpoint: ``/healthz``, ``/ready``, ``/metrics`` and ``/sessions``, on loopback or a pod port.

Rules:
- Read only, one request a connection, small and slow clients are cut.

What must not live here: what the answers contain.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus

import h11

from drtp_api.errors import DrtpError

__all__ = ["Admin", "Answer"]

Answer = tuple[HTTPStatus, str, bytes]
"""Status, content type, body."""

_PATIENCE = 5.0
_CLIENTS = 64


class Admin:
    """A small HTTP server.

    Args:
        pages: What to answer, by path.
    """

    def __init__(self, pages: Mapping[str, Callable[[], Answer]]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._clients = 0

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen and return the address.

        Raises:
            DrtpError: DRTP-3001; the address cannot be had.
        """
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=16_384)
        except OSError as error:
            raise DrtpError("DRTP-3001", f"cannot listen for administrators on {host}:{port}: {error}") from error
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def close(self) -> None:
        """Stop. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= _CLIENTS:
                with contextlib.suppress(TimeoutError, OSError):
                    async with asyncio.timeout(_PATIENCE):
                        await self._answer(reader, writer)
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=8192)
        method, path = b"GET", ""
        try:
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await reader.read(8192))
        except h11.RemoteProtocolError:
            status, kind, body = HTTPStatus.BAD_REQUEST, "text/plain", b"bad request\n"
        else:
            if not isinstance(event, h11.Request):
                return
            method, path = event.method, event.target.decode("ascii", "replace").partition("?")[0]
            status, kind, body = self._page(method, path)
        head = [("content-type", kind), ("content-length", str(len(body))), ("connection", "close")]
        response = http.send(h11.Response(status_code=status.value, headers=head)) or b""
        if method != b"HEAD":
            response += http.send(h11.Data(data=body)) or b""
        writer.write(response)
        await writer.drain()

    def _page(self, method: bytes, path: str) -> Answer:
        if method not in {b"GET", b"HEAD"}:
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET\n"
        page = self._pages.get(path)
        if page is None:
            known = "\n".join(sorted(self._pages))
            return HTTPStatus.NOT_FOUND, "text/plain", f"there is:\n{known}\n".encode()
        return page()
