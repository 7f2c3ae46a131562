"""Dials the local service for each visitor stream.

Rules:
- What is dialled comes from this agent's own configuration; OPEN names a service and nothing else.
- A name is resolved for each visitor, so a service may move; addresses of the machine's provider are never dialled.
- The stream is accepted once the local connection stands, and reset with the reason where it does not.

What must not live here: moving bytes (the tunnel does), and deciding what the user is told.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import attrs

from drtp_agent.target import Target, forbidden_reason
from drtp_api.dataplane.dial import Address, start_connect
from drtp_api.dataplane.engine import Engine, Handler, TimerHandle
from drtp_api.dataplane.sockopt import pending_error
from drtp_api.dataplane.tunnel import Tunnel
from drtp_protocol import DialDetail, ErrorCode, LocalProtocolError, OpenMetadata
from drtp_protocol import Protocol as StreamProtocol
from drtp_protocol.proxyproto import ProxyHeader, ProxyTlv, encode_v1, encode_v2

__all__ = ["DIAL_TIMEOUT", "DialFailure", "DialOwner", "Dialler", "LocalService", "proxy_header"]

DIAL_TIMEOUT: Final = 5.0
"""Seconds for a local connection: a local service that needs longer is down, and the edge may try another agent."""

_LOCALHOST: Final = ("127.0.0.1", "::1")
"""RFC 6761: localhost is loopback, whatever a resolver says; most services listen on IPv4."""

_REFUSED = {errno.ECONNREFUSED, errno.ENOENT, errno.ECONNRESET}
_TIMED_OUT = {errno.ETIMEDOUT}
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM}


@attrs.frozen(kw_only=True)
class LocalService:
    """A service of this agent: its key on the wire, where it listens, and whether it wants a PROXY header."""

    key: str
    target: Target
    proxy_protocol: str | None = None


@attrs.frozen(kw_only=True)
class DialFailure:
    """A visitor came and the local service did not answer."""

    service: LocalService
    detail: DialDetail
    reason: str


class DialOwner(Protocol):
    """Who is told how a dial went; the tunnel's own handler."""

    def stream_accepted(self, stream_id: int) -> None:
        """Take note that the local connection stands."""
        ...

    def stream_failed(self, stream_id: int, failure: DialFailure) -> None:
        """Take note that it does not; the stream is reset already."""
        ...


class Dialler:
    """Answers the streams of every tunnel of an agent.

    Args:
        engine: Drives the sockets.
        services: By key.
        timeout: Seconds for one stream's dial, names and all addresses included.
    """

    def __init__(
        self,
        engine: Engine,
        services: Mapping[str, LocalService],
        *,
        timeout: float = DIAL_TIMEOUT,
    ) -> None:
        self._engine = engine
        self._services = services
        self._timeout = timeout
        self._dials: dict[tuple[Tunnel, int], _Dial] = {}

    def open(self, tunnel: Tunnel, stream_id: int, metadata: OpenMetadata, owner: DialOwner) -> None:
        """Serve a stream that an edge opened, or reset it."""
        service = self._services.get(metadata.service)
        if service is None:
            tunnel.reset(stream_id, ErrorCode.REFUSED, reason="this agent does not serve it")
        elif metadata.protocol is not StreamProtocol.TCP:
            tunnel.reset(stream_id, ErrorCode.UNSUPPORTED, reason="this agent serves no datagrams")
        else:
            dial = _Dial(self, tunnel, stream_id, service=service, metadata=metadata, owner=owner)
            self._dials[tunnel, stream_id] = dial
            dial.begin()

    def cancel(self, tunnel: Tunnel, stream_id: int) -> None:
        """Give up a dial whose stream is over; harmless when there is none."""
        if (dial := self._dials.get((tunnel, stream_id))) is not None:
            dial.end()

    def cancel_all(self, tunnel: Tunnel) -> None:
        """Give up every dial of a tunnel that is over."""
        for owner, stream_id in list(self._dials):
            if owner is tunnel:
                self.cancel(tunnel, stream_id)


class _Dial(Handler):
    """One stream's local connection on its way."""

    __slots__ = (
        "_dialler",
        "_left",
        "_metadata",
        "_owner",
        "_service",
        "_sock",
        "_stream_id",
        "_task",
        "_timer",
        "_tunnel",
    )

    def __init__(
        self,
        dialler: Dialler,
        tunnel: Tunnel,
        stream_id: int,
        *,
        service: LocalService,
        metadata: OpenMetadata,
        owner: DialOwner,
    ) -> None:
        self.scheduled = False
        self._dialler = dialler
        self._tunnel = tunnel
        self._stream_id = stream_id
        self._service = service
        self._metadata = metadata
        self._owner = owner
        self._left: list[Address] = []
        self._sock: socket.socket | None = None
        self._timer: TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Find the addresses, then connect."""
        target = self._service.target
        if target.path is not None:
            self._try([target.path])
        elif target.host == "localhost":
            self._try([(host, target.port or 0) for host in _LOCALHOST])
        elif _is_literal(target.host or ""):
            self._try([(target.host or "", target.port or 0)])
        else:
            self._arm()
            self._task = self._dialler._engine.loop.create_task(self._resolve(target.host or "", target.port or 0))

    async def _resolve(self, host: str, port: int) -> None:
        try:
            found = await self._dialler._engine.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            self._task = None
            self._fail(DialDetail.DNS, f"{host} has no address: {error.strerror or error}")
            return
        self._task = None
        addresses = [str(entry[4][0]) for entry in found]
        allowed = [a for a in dict.fromkeys(addresses) if forbidden_reason(a) is None]
        if not allowed:
            self._fail(DialDetail.UNREACHABLE, f"{host} is {', '.join(addresses)}, which may not be dialled")
            return
        self._try([(a, port) for a in allowed])

    def _try(self, addresses: Sequence[Address]) -> None:
        self._left = list(addresses)
        self._next(None)

    def _next(self, failure: OSError | None) -> None:
        """Connect to the next address; once none is left, report the last failure."""
        while self._left:
            try:
                sock, connecting = start_connect(self._left.pop(0))
            except OSError as error:
                failure = error
                continue
            if connecting and (state := _connected(sock)) is not True:
                if state is None:
                    self._sock = sock
                    self._arm()
                    self._dialler._engine.add(sock, self)
                    return
                failure = state
                sock.close()
                continue
            self._attach(sock, watched=False)
            return
        self._fail(_detail(failure), _words(failure))

    def on_io(self, readable: bool, writable: bool, hangup: bool) -> None:  # noqa: ARG002
        """See whether the connection stands."""
        sock = self._sock
        if sock is None or not (writable or hangup):
            return
        state = _connected(sock)
        if state is None:
            self._dialler._engine.rearm(sock, write=True)
            return
        self._sock = None
        if state is True:
            self._attach(sock, watched=True)
            return
        self._dialler._engine.remove(sock)
        sock.close()
        self._next(state)

    def on_fault(self, error: Exception) -> None:
        """Reset the stream: its dial is broken, its neighbours are not."""
        self._fail(DialDetail.UNKNOWN, type(error).__name__)

    def end(self) -> None:
        """Release everything."""
        dialler = self._dialler
        dialler._dials.pop((self._tunnel, self._stream_id), None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._sock is not None:
            dialler._engine.remove(self._sock)
            self._sock.close()
            self._sock = None

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self._dialler._engine.call_later(self._dialler._timeout, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        self._fail(DialDetail.TIMEOUT, f"no answer within {self._dialler._timeout:g} s")

    def _attach(self, sock: socket.socket, *, watched: bool) -> None:
        self.end()
        preface = proxy_header(self._service.proxy_protocol, self._metadata)
        try:
            self._tunnel.attach(self._stream_id, sock, preface=preface, watched=watched)
        except LocalProtocolError:
            # The visitor or the tunnel went away in this very turn.
            if watched:
                self._dialler._engine.remove(sock)
            sock.close()
            return
        self._owner.stream_accepted(self._stream_id)

    def _fail(self, detail: DialDetail, reason: str) -> None:
        self.end()
        self._tunnel.reset(self._stream_id, ErrorCode.DIAL_FAILED, int(detail), reason)
        failure = DialFailure(service=self._service, detail=detail, reason=reason)
        self._owner.stream_failed(self._stream_id, failure)


def proxy_header(version: str | None, metadata: OpenMetadata) -> bytes:
    """Return the PROXY header for a stream, empty if ``version`` is ``None``; v1 and v2 as haproxy specifies them."""
    if version is None:
        return b""
    source, destination = metadata.source, metadata.destination
    if source is None or destination is None or source.family != destination.family or not source.family:
        source = destination = None
    if version == "v1":
        return encode_v1(ProxyHeader(source=source, destination=destination))
    tlvs = () if metadata.edge_conn_id is None else ((int(ProxyTlv.UNIQUE_ID), metadata.edge_conn_id),)
    return encode_v2(ProxyHeader(source=source, destination=destination, tlvs=tlvs))


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def _connected(sock: socket.socket) -> Literal[True] | OSError | None:
    """Return whether a connecting socket is connected, ``None`` while it is not known, or why it failed."""
    if (error := pending_error(sock)) is not None:
        return error
    try:
        sock.getpeername()
    except OSError as absent:
        return None if absent.errno == errno.ENOTCONN else absent
    return True


def _detail(error: OSError | None) -> DialDetail:
    number = error.errno if error is not None else None
    if number in _REFUSED:
        return DialDetail.CONNECTION_REFUSED
    if number in _TIMED_OUT:
        return DialDetail.TIMEOUT
    if number in _UNREACHABLE:
        return DialDetail.UNREACHABLE
    return DialDetail.UNKNOWN


def _words(error: OSError | None) -> str:
    return (error.strerror or str(error)) if error is not None else "no address"
