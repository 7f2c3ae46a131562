"""Direct mode: the edge itself owns public ports, one edge at a time for each.

Rules:
- A port is wanted while its service is exposed and has a live tunnel here. The edge that is primary for it takes it
  at once, the others try every 250 ms, so that they take over soon after its owner died.
- HTTP services share one port; the first request's host decides for its connection.
- Visitors come with their own address: no PROXY header is read, and the same access rules hold.

What must not live here: access decisions, tunnels.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from socket import AF_INET6, inet_aton, inet_pton, socket
from typing import Any

import attrs

from drtp_api.dataplane.carrier import Farewell
from drtp_api.dataplane.engine import Engine, Handler, TimerHandle
from drtp_api.dataplane.sockopt import reset_close
from drtp_api.resources import ClientStatus, Protocol
from drtp_edge.catalog import Catalog
from drtp_edge.dataports import Listening
from drtp_edge.deadlines import Deadlines
from drtp_edge.httphead import HeadError, HeadReader, answer
from drtp_edge.limits import EdgeLimits, LimitHits
from drtp_edge.metrics import EdgeStats
from drtp_edge.roster import Roster
from drtp_edge.visitors import Visitors
from drtp_protocol.metadata import Address

__all__ = ["RETRY", "DirectPorts", "route", "wants_http", "wanted_ports"]

RETRY = 0.25
"""Seconds between attempts to take over a port: four tries within the second that visitors are promised."""

_READ = 16_384

_MAPPED = bytes(10) + b"\xff\xff"


def wanted_ports(catalog: Catalog, live: tuple[str, ...]) -> dict[int, str]:
    """Return the public TCP ports this edge can serve now, with their services."""
    wanted: dict[int, str] = {}
    for key in sorted(live):
        known = catalog.service(key)
        if known is None or known.service.spec.application.protocol is not Protocol.TCP:
            continue
        status = known.service.status
        if known.service.spec.exposure.enabled and status.external_port is not None:
            wanted.setdefault(status.external_port, key)
        for address in status.addresses:  # the ports that users' routes give it, too
            if address.port != status.external_port:
                wanted.setdefault(address.port, key)
    return wanted


def wants_http(catalog: Catalog, live: tuple[str, ...]) -> bool:
    """Return whether this edge shall try to own the HTTP port.

    With an HTTP service alive here it shall. Without one it still answers (404, 503), unless another edge has one.
    """
    if any((known := catalog.service(key)) is not None and known.http for key in live):
        return True
    for connection in catalog.connections().values():
        known = catalog.service(catalog.service_of(connection))
        if known is not None and known.http:
            for binding in connection.status.servers:
                if binding.name != catalog.server and binding.client_status is ClientStatus.CONNECTED:
                    return False
    return True


def route(catalog: Catalog, roster: Roster, host: str) -> str:
    """Return the service of a host name.

    Raises:
        HeadError: 404 no service has it; 503 the service has no live tunnel here.
    """
    for key in catalog.services():
        known = catalog.service(key)
        if known is None or not known.http or host not in known.hostnames:
            continue
        if not roster.candidates(key):
            raise HeadError(HTTPStatus.SERVICE_UNAVAILABLE, "Tunnel not online. Its agent is not connected.")
        return key
    raise HeadError(HTTPStatus.NOT_FOUND, f"no such tunnel: {host[:253]!r}")


@attrs.define(kw_only=True, eq=False)
class DirectPorts:
    """The public ports of one edge.

    Args:
        engine: Drives them.
        host: The public address.
        http_port: The port that HTTP services share; 0 for none.
        catalog: What is exposed.
        roster: What is alive.
        visitors: Takes who comes.
        limits: The bounds.
        hits: Counts bounds that were met.
        stats: Counts everything else.
        on_change: Told when an address was won or given up: service, or None for the HTTP port.
        on_conflict: Told once when a port is owned by someone else: port and why.
    """

    engine: Engine
    host: str
    http_port: int
    catalog: Catalog
    roster: Roster
    visitors: Visitors
    limits: EdgeLimits
    hits: LimitHits
    stats: EdgeStats
    on_change: Callable[[str | None], None] = lambda _service: None
    on_conflict: Callable[[int, str], None] = lambda _port, _why: None
    closed: bool = False
    heads: Deadlines[_Head] = attrs.field(init=False)
    _owned: dict[int, tuple[str | None, Listening]] = attrs.field(factory=dict)
    _conflicts: set[int] = attrs.field(factory=set)
    _timer: TimerHandle | None = None

    def __attrs_post_init__(self) -> None:
        """Start the clock of request heads."""
        self.heads = Deadlines(self.engine, self.limits.http_head_timeout, self._slow)

    def public_address(self, service: str) -> str | None:
        """Return the address at which this edge serves a service to the world, None if another edge does."""
        known = self.catalog.service(service)
        if known is not None and known.http:
            owned = self._owned.get(self.http_port)
            return f"{self.host}:{owned[1].port}" if owned is not None and owned[0] is None else None
        return next((f"{self.host}:{port}" for port, (key, _) in self._owned.items() if key == service), None)

    def owned(self) -> tuple[int, ...]:
        """Return the public ports this edge has."""
        return tuple(listening.port for _, listening in self._owned.values())

    def sync(self) -> None:
        """Give up what is not wanted any more, take what this edge is first for, and go on trying for the rest."""
        if self.closed:
            return
        wanted = self._wanted()
        for port in [p for p, (key, _) in self._owned.items() if p not in wanted or wanted[p] != key]:
            self._give_up(port, take_rest=False)
        for port, key in wanted.items():
            if port not in self._owned and self._first_for(key):
                self._take(port, key)
        self._arm(wanted)

    def close(self) -> None:
        """Give every port up, taking what the kernel accepted already."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for port in list(self._owned):
            self._give_up(port, take_rest=True)

    def _wanted(self) -> dict[int, str | None]:
        live = self.roster.services()
        wanted: dict[int, str | None] = dict(wanted_ports(self.catalog, live).items())
        if self.http_port and wants_http(self.catalog, live):
            wanted[self.http_port] = None
        return wanted

    def _first_for(self, key: str | None) -> bool:
        if key is not None:
            return self.catalog.primary(key)
        live = self.roster.services()
        return any((k := self.catalog.service(s)) is not None and k.http and self.catalog.primary(s) for s in live)

    def _arm(self, wanted: dict[int, str | None]) -> None:
        if self._timer is None and any(port not in self._owned for port in wanted):
            self._timer = self.engine.call_later(RETRY, self._retry)

    def _retry(self) -> None:
        self._timer = None
        if self.closed:
            return
        wanted = self._wanted()
        for port, key in wanted.items():
            if port not in self._owned:
                self._take(port, key)
        self._arm(wanted)

    def _take(self, port: int, key: str | None) -> None:
        accept = self._http_visitor if key is None else _TcpDoor(self, key)
        try:
            listening = Listening.open(self.engine, self.host, port, accept)
        except OSError as error:
            if port not in self._conflicts:
                self._conflicts.add(port)
                self.on_conflict(port, error.strerror or str(error))
            return
        self._conflicts.discard(port)
        self._owned[port] = (key, listening)
        self.on_change(key)

    def _give_up(self, port: int, *, take_rest: bool) -> None:
        key, listening = self._owned.pop(port)
        listening.close(take_rest=take_rest)
        self.on_change(key)

    def _http_visitor(self, sock: socket, peer: Any) -> None:
        if not self.visitors.has_room(sock):
            return
        if len(self.heads) >= self.limits.pending_visitors:
            self.hits.hit("pending_visitors")
            reset_close(sock)
            return
        _Head(self, sock, peer)

    def _slow(self, head: _Head) -> None:
        self.hits.hit("http_head_timeout")
        head.refuse(HeadError(HTTPStatus.REQUEST_TIMEOUT, "The request's head did not arrive in time."))


class _TcpDoor:
    """Accepts the visitors of one TCP service."""

    __slots__ = ("_ports", "_service")

    def __init__(self, ports: DirectPorts, service: str) -> None:
        self._ports = ports
        self._service = service

    def __call__(self, sock: socket, peer: Any) -> None:
        """Take a visitor."""
        if not self._ports.visitors.has_room(sock):
            return
        self._ports.visitors.admit(sock, self._service, _address(peer), _address(sock.getsockname()))


def _address(name: Any) -> Address:
    """Return the address of what ``accept`` and ``getsockname`` give; an IPv4 address mapped into IPv6 becomes IPv4."""
    host = name[0]
    if ":" not in host:
        return Address(inet_aton(host), name[1])
    packed = inet_pton(AF_INET6, host.partition("%")[0])
    return Address(packed[12:] if packed[:12] == _MAPPED else packed, name[1])


class _Head(Handler):
    """Reads the head of one connection's first request."""

    __slots__ = ("_peer", "_ports", "_reader", "_sock")

    def __init__(self, ports: DirectPorts, sock: socket, peer: Any) -> None:
        self.scheduled = False
        self._ports = ports
        self._sock = sock
        self._peer = peer
        self._reader = HeadReader(ports.limits.http_head_size)
        ports.heads.add(self)
        ports.engine.add(sock, self)

    def on_io(self, readable: bool, writable: bool, hangup: bool) -> None:  # noqa: ARG002
        """Read more."""
        if readable or hangup:
            self.on_turn()

    def on_turn(self) -> None:
        """Read until the head is whole, the socket is dry, or nothing can come of it."""
        ports = self._ports
        while self in ports.heads:
            try:
                data = self._sock.recv(_READ)
            except BlockingIOError:
                ports.engine.rearm(self._sock, read=True)
                return
            except OSError:
                data = b""
            if not data:
                self._leave()
                self._sock.close()
                return
            try:
                host = self._reader.feed(data)
                service = None if host is None else route(ports.catalog, ports.roster, host)
            except HeadError as error:
                self.refuse(error)
                return
            if service is not None:
                ports.heads.discard(self)
                ports.visitors.admit(
                    self._sock,
                    service,
                    _address(self._peer),
                    _address(self._sock.getsockname()),
                    early=bytes(self._reader.raw),
                    watched=True,
                )
                return

    def on_fault(self, error: Exception) -> None:  # noqa: ARG002
        """Give the connection up."""
        self._ports.heads.discard(self)
        reset_close(self._sock)

    def refuse(self, error: HeadError) -> None:
        """Answer the visitor in its own language and close."""
        self._ports.stats.intake_faults[f"http_{error.status.value}"] += 1
        self._leave()
        Farewell(self._ports.engine, self._sock, answer(error.status, error.text))

    def _leave(self) -> None:
        self._ports.heads.discard(self)
        self._ports.engine.remove(self._sock)
