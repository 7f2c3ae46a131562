"""The truth behind ``tunnel_ready``: a visit through the public address that must arrive at the local service.

Rules:
- A visit counts only if its stream arrives here and the local service is reached: an answer that the gateway makes up
  by itself never counts. The stream is told from others by the visitor's address, where the network keeps it.
- HTTP must be answered by the local service; TCP must be connected to it. Nothing else is said to a TCP service.
- The visit never uses a proxy, follows no redirect, and reads no more than the head of the answer.

What must not live here: waiting for the control plane, and what people are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import re
import socket
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from drtp_agent.streams import SeenStream, StreamWatch, StreamWatches
from drtp_api.registration import ConnectionView
from drtp_api.resources import Address, Protocol

__all__ = ["Reach", "Visit", "http_host", "visit"]

CONNECT_TIMEOUT: Final = 5.0
"""Seconds to connect to the public address."""
ANSWER_TIMEOUT: Final = 5.0
"""Seconds for the stream to arrive, and for the local service to answer."""
TRANSLATED_GRACE: Final = 0.5
"""Seconds that a stream with a foreign address waits for one with ours, before it is taken for ours."""
HEAD_SIZE: Final = 16 * 1024
_STATUS: Final = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9][ \r\n]")


class Reach(enum.IntEnum):
    """How far a visit came; the names are those of ``tunnel_ready.verified``."""

    NOWHERE = 0
    GATEWAY = 1
    EDGE = 2
    TUNNEL = 3
    SERVICE = 4

    @property
    def word(self) -> str:
        """The name for people and programs."""
        return self.name.lower()


@attrs.frozen(kw_only=True)
class Visit:
    """One visit: how far it came, whether its stream was told by its address, and what stood in the way."""

    reach: Reach
    exact: bool = False
    fault: str = ""
    unroutable: bool = False


def http_host(view: ConnectionView, address: Address) -> str:
    """Return the Host header for the service: its public name, and the port where the URL has one."""
    if view.url is not None and (parts := urlsplit(view.url)).hostname:
        return parts.netloc
    return view.hostnames[0] if view.hostnames else address.host


async def visit(watches: StreamWatches, service: str, view: ConnectionView, address: Address) -> Visit:
    """Visit the service through one of its public addresses.

    Args:
        watches: Where the agent's streams are seen.
        service: Its key on the wire.
        view: For the name that an HTTP gateway expects.
        address: Dialled as given.
    """
    with watches.watch(service) as watch:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=_tls(view, address),
                                                               server_hostname=_sni(view, address))  # fmt: skip
        except ssl.SSLError as error:
            return Visit(reach=Reach.GATEWAY, fault=f"TLS: {error.reason or error}")
        except ConnectionResetError:
            # Somebody took the connection and cut it in the same moment.
            return Visit(reach=Reach.GATEWAY, fault="the gateway turned the visit away")
        except (OSError, TimeoutError) as error:
            return Visit(reach=Reach.NOWHERE, fault=str(error) or "no answer", unroutable=_is_unroutable(error))
        try:
            local = writer.get_extra_info("sockname")
            source = (str(local[0]).removeprefix("::ffff:"), int(local[1]))
            if address.protocol is Protocol.HTTP:
                return await _http(watch, reader, writer, source, http_host(view, address))
            return await _tcp(watch, reader, source)
        finally:
            writer.transport.abort()


def _is_unroutable(error: OSError) -> bool:
    """Return whether this network has no way to the address, as opposed to nobody listening there yet."""
    return isinstance(error, TimeoutError | socket.gaierror) or error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH}


def _tls(view: ConnectionView, address: Address) -> ssl.SSLContext | None:
    if address.protocol is Protocol.HTTP and view.url is not None and view.url.startswith("https:"):
        return ssl.create_default_context()
    return None


def _sni(view: ConnectionView, address: Address) -> str | None:
    if _tls(view, address) is None:
        return None
    return urlsplit(view.url or "").hostname


async def _tcp(watch: StreamWatch, reader: asyncio.StreamReader, source: tuple[str, int]) -> Visit:
    """Wait until the stream is here and connected; a gateway that hangs up first has refused the visitor."""
    ended = asyncio.ensure_future(reader.read(1))
    try:
        seen, exact = await _arrival(watch, source, ended)
        if seen is None:
            return Visit(reach=Reach.GATEWAY, fault="the gateway did not pass the visit on")
        if await _settled(watch, seen):
            return Visit(reach=Reach.SERVICE, exact=exact)
        return Visit(reach=Reach.TUNNEL, exact=exact, fault=seen.failed or "the local service did not answer")
    finally:
        ended.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await ended


async def _http(
    watch: StreamWatch, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: tuple[str, int], host: str
) -> Visit:
    request = (
        f"GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: drtp-agent (check)\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    answer = asyncio.ensure_future(_head(reader, writer, request.encode("ascii")))
    try:
        seen, exact = await _arrival(watch, source, answer)
        if seen is None:
            status = _line(answer)
            return Visit(reach=Reach.GATEWAY, fault=f"the gateway answered by itself: {status or 'nothing'}")
        if not await _settled(watch, seen):
            return Visit(reach=Reach.TUNNEL, exact=exact, fault=seen.failed or "the local service did not answer")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await asyncio.wait({answer})
        if (status := _line(answer)) and seen.answered():
            return Visit(reach=Reach.SERVICE, exact=exact)
        return Visit(
            reach=Reach.TUNNEL, exact=exact, fault=f"no HTTP answer from the local service, {status or 'none'}"
        )
    finally:
        answer.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await answer


async def _head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """Return what came of the answer's head."""
    writer.write(request)
    await writer.drain()
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_SIZE:
        piece = await reader.read(HEAD_SIZE)
        if not piece:
            break
        head += piece
    return head


def _line(answer: asyncio.Future[bytes]) -> str:
    """Return the status line of an answer that came, empty if none that is HTTP did."""
    if not answer.done() or answer.cancelled() or answer.exception() is not None:
        return ""
    head = answer.result()
    return head.partition(b"\r\n")[0].decode("latin-1")[:80] if _STATUS.match(head) else ""


async def _arrival(
    watch: StreamWatch, source: tuple[str, int], outcome: asyncio.Future[bytes]
) -> tuple[SeenStream | None, bool]:
    """Return the visit's stream, and whether it was told by its address; ``None`` if the gateway ended it first."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ANSWER_TIMEOUT
    while (seen := watch.find(source)) is None and not outcome.done() and loop.time() < deadline:
        if watch.streams and all(s.source is None or s.source[0] != source[0] for s in watch.streams):
            # Others arrive under addresses that are not ours: ours may be translated, too. Give it a last moment.
            deadline = min(deadline, loop.time() + TRANSLATED_GRACE)
        watch.changed.clear()
        changed = asyncio.ensure_future(watch.changed.wait())
        waiting: set[asyncio.Future[Any]] = {changed, outcome}
        try:
            await asyncio.wait(waiting, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
    if seen is not None:
        return seen, True
    return (watch.streams[-1] if watch.streams else None), False


async def _settled(watch: StreamWatch, seen: SeenStream) -> bool:
    """Wait until the local service was reached or not, and return which."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_TIMEOUT + 1.0):
            while not seen.accepted and seen.failed is None:
                watch.changed.clear()
                await watch.changed.wait()
    return seen.accepted
