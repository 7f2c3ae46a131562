"""The data port's door: reads the gateway's PROXY header and hands the visitor over.

Rules:
- Only who speaks PROXY v2 gets in; everything else is reset, because its source address would be a lie.
- Health probes (LOCAL, or connect and close) are answered by having been accepted: they are closed without a word and
  never reach an agent.
- What follows the header belongs to the visitor's first bytes.

What must not live here: listening, and who may visit.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import Any

import attrs

from drtp_api.acl import normalise_ip
from drtp_api.dataplane.engine import Engine, Handler
from drtp_api.dataplane.sockopt import reset_close
from drtp_edge.config import Network
from drtp_edge.deadlines import Deadlines
from drtp_edge.limits import EdgeLimits, LimitHits
from drtp_edge.metrics import EdgeStats
from drtp_edge.visitors import Visitors
from drtp_protocol import Address, ProxyProtocolError, decode_proxy

__all__ = ["Door", "Intake"]

_READ = 16_384

_V2_BEGINS = b"\r"
"""The first byte tells the versions apart. Version 1 has no LOCAL, so probes could not be told from visitors."""

_UNKNOWN = Address(b"", 0)


@attrs.define(kw_only=True, eq=False)
class Intake:
    """What all data ports share.

    Args:
        engine: Drives the sockets.
        visitors: Takes those who came with a header.
        limits: The bounds.
        hits: Counts bounds that were met.
        stats: Counts everything else.
        gateways: Networks that gateways connect from; empty for any.
        on_fault: Told of connections that were turned away: service, peer, what was wrong.
    """

    engine: Engine
    visitors: Visitors
    limits: EdgeLimits
    hits: LimitHits
    stats: EdgeStats
    gateways: tuple[Network, ...] = ()
    on_fault: Callable[[str, str, str], None] = lambda _service, _peer, _fault: None
    waiting: Deadlines[_Reader] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start the clock of headers."""
        self.waiting = Deadlines(self.engine, self.limits.proxy_header_timeout, self._late)

    def _late(self, reader: _Reader) -> None:
        self.hits.hit("proxy_header_timeout")
        reader.turn_away("header_timeout")

    def door(self, service: str) -> Door:
        """Return what accepts the connections of one service's data port."""
        return Door(self, service)


class Door:
    """Accepts the gateway's connections for one service."""

    __slots__ = ("intake", "service")

    def __init__(self, intake: Intake, service: str) -> None:
        self.intake = intake
        self.service = service

    def __call__(self, sock: socket, peer: Any) -> None:
        """Take a connection that the listener accepted."""
        intake = self.intake
        if not intake.visitors.has_room(sock):
            return
        if intake.gateways and not _listed(peer, intake.gateways):
            intake.stats.intake_faults["gateway"] += 1
            intake.on_fault(self.service, str(peer), "gateway")
            reset_close(sock)
            return
        if len(intake.waiting) >= intake.limits.pending_visitors:
            intake.hits.hit("pending_visitors")
            reset_close(sock)
            return
        _Reader(self, sock, peer).begin()


def _listed(peer: Any, networks: tuple[Network, ...]) -> bool:
    ip = normalise_ip(peer[0])
    return any(ip in network for network in networks)


class _Reader(Handler):
    """Reads one connection's PROXY header."""

    __slots__ = ("_buffer", "_door", "_peer", "_sock", "_watched")

    def __init__(self, door: Door, sock: socket, peer: Any) -> None:
        self.scheduled = False
        self._door = door
        self._sock = sock
        self._peer = peer
        self._buffer = b""
        self._watched = False

    def begin(self) -> None:
        """Read at once: the gateway's header most often came with the connection."""
        if not self._read():
            intake = self._door.intake
            self._watched = True
            intake.waiting.add(self)
            intake.engine.add(self._sock, self)

    def on_io(self, readable: bool, writable: bool, hangup: bool) -> None:  # noqa: ARG002
        """Read more of the header."""
        if readable or hangup:
            self._read()

    def on_fault(self, error: Exception) -> None:  # noqa: ARG002
        """Give the connection up."""
        self._leave()
        reset_close(self._sock)

    def _read(self) -> bool:
        """Return whether the connection is settled: handed over, closed or turned away."""
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            if self._watched:
                self._door.intake.engine.rearm(self._sock, read=True)
            return False
        except OSError:
            self._close()
            return True
        if not data:
            if self._buffer:
                self.turn_away("truncated_header")
            else:
                self._close()
            return True
        self._buffer += data
        try:
            decoded = decode_proxy(self._buffer)
        except ProxyProtocolError:
            self.turn_away("no_header")
            return True
        if self._buffer[:1] != _V2_BEGINS:
            self.turn_away("version_1")
            return True
        if decoded is None:
            if self._watched:
                # Perhaps there is more; an edge-triggered engine reports only what comes anew.
                return self._read()
            return False
        header, consumed = decoded
        if header.local:
            self._close()
            return True
        self._leave()
        self._door.intake.visitors.admit(
            self._sock,
            self._door.service,
            header.source or _UNKNOWN,
            header.destination,
            early=self._buffer[consumed:],
            watched=self._watched,
        )
        return True

    def turn_away(self, fault: str) -> None:
        """Reset the connection and count why."""
        intake = self._door.intake
        intake.stats.intake_faults[fault] += 1
        intake.on_fault(self._door.service, str(self._peer), fault)
        self._leave()
        if self._watched:
            intake.engine.remove(self._sock)
        reset_close(self._sock)

    def _close(self) -> None:
        """Close without a word: it was a health probe."""
        self._door.intake.stats.probes += 1
        self._leave()
        if self._watched:
            self._door.intake.engine.remove(self._sock)
        self._sock.close()

    def _leave(self) -> None:
        self._door.intake.waiting.discard(self)
