"""The shell around sessions: carries out their commands on sockets and tunnels, and feeds back what happened.

Rules:
- Decisions are the session's. This file opens, attaches, detaches and closes.
- Every visitor that was admitted ends in exactly one access record.
- Bounds are checked before anything is allocated for a visitor; who is over them is reset and counted.

What must not live here: how visitors are accepted, PROXY headers, HTTP, and which tunnels exist.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from socket import socket
from typing import Protocol, assert_never

from drtp_api.acl import Decision, Verdict
from drtp_api.dataplane.engine import Engine
from drtp_api.dataplane.sockopt import reset_close
from drtp_api.dataplane.tunnel import StreamSummary, Tunnel
from drtp_edge.deadlines import Deadlines
from drtp_edge.gate import Gate
from drtp_edge.limits import EdgeLimits, LimitHits
from drtp_edge.metrics import EdgeStats
from drtp_edge.session import (
    AccessRecord,
    AskAcl,
    Command,
    DeadlinePassed,
    Decided,
    Event,
    Finish,
    OpenFailed,
    OpenStream,
    Phase,
    ResetStream,
    ResetVisitor,
    Session,
    StreamAccepted,
    StreamEnded,
    StreamRefused,
    TunnelLost,
    VisitorLeft,
)
from drtp_protocol.errors import ErrorCode, LocalProtocolError
from drtp_protocol.metadata import Address, OpenMetadata, TraceParent

__all__ = ["Carriers", "Link", "Visit", "Visitors"]


class Link(Protocol):
    """A live tunnel as visitors see it."""

    tunnel: Tunnel
    visits: dict[int, Visit]
    """The visitors on the tunnel by stream."""

    @property
    def agent(self) -> str:
        """The agent's instance in hexadecimal, for records."""


class Carriers(Protocol):
    """Where visitors find tunnels."""

    def candidates(self, service: str) -> tuple[int, ...]:
        """Return the live tunnels of a service in order of preference."""


class Visit:
    """One visitor: its session, its socket until a tunnel has it, and where it is attached."""

    __slots__ = ("destination", "link", "session", "sock", "source", "stream_id", "watched")

    def __init__(
        self, session: Session, sock: socket, source: Address, destination: Address | None, *, watched: bool
    ) -> None:
        self.session = session
        self.sock: socket | None = sock
        self.source = source
        self.destination = destination
        self.watched = watched
        self.link: Link | None = None
        self.stream_id = 0


class Visitors:
    """Every visitor of one edge.

    Args:
        engine: Drives the sockets.
        gate: Says who may enter.
        carriers: Names the tunnels of a service.
        links: The tunnels by number.
        limits: The bounds.
        hits: Counts bounds that were met.
        stats: Counts everything else.
        on_finished: Told of every record, with the agent that served the visitor, if one did.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        gate: Gate,
        carriers: Carriers,
        links: Mapping[int, Link],
        limits: EdgeLimits,
        hits: LimitHits,
        stats: EdgeStats,
        on_finished: Callable[[AccessRecord, str | None], None],
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._carriers = carriers
        self._links = links
        self._limits = limits
        self._hits = hits
        self._stats = stats
        self._on_finished = on_finished
        self._pending: Deadlines[Visit] = Deadlines(engine, limits.accept_timeout, self._deadline)
        self._pending_by_service: Counter[str] = Counter()
        self._deciding: set[asyncio.Future[Decision]] = set()
        # Connection ids are unique over restarts and machines, and their first half tells edges apart in logs.
        self._prefix = os.urandom(8)
        self._number = int.from_bytes(os.urandom(6), "big")

    @property
    def pending(self) -> int:
        """Visitors whose stream was not accepted yet."""
        return len(self._pending)

    def has_room(self, sock: socket) -> bool:
        """Return whether a connection just accepted may stay; if not it is reset and counted."""
        limit = None
        if sock.fileno() >= self._limits.descriptors:
            limit = "descriptors"
        elif self._stats.visitors_now >= self._limits.visitors:
            limit = "visitors"
        if limit is None:
            return True
        self._hits.hit(limit)
        reset_close(sock)
        return False

    def admit(
        self,
        sock: socket,
        service: str,
        source: Address,
        destination: Address | None = None,
        *,
        early: bytes = b"",
        watched: bool = False,
    ) -> None:
        """Take a visitor in; the socket is ours from now on.

        Args:
            sock: Connected and non-blocking.
            service: The key of the service it wants.
            source: Its real address.
            destination: The public address that it dialled.
            early: Bytes it sent that were read already.
            watched: The engine watches the socket already, for someone else.
        """
        limit = None
        if len(self._pending) >= self._limits.pending_visitors:
            limit = "pending_visitors"
        elif self._pending_by_service[service] >= self._limits.pending_per_service:
            limit = "pending_per_service"
        if limit is not None:
            self._hits.hit(limit)
            self._reset(sock, watched=watched)
            return
        self._number += 1
        connection_id = self._prefix + self._number.to_bytes(8, "big")
        session = Session(connection_id, service, source, self._engine.now(), early)
        visit = Visit(session, sock, source, destination, watched=watched)
        self._stats.visitors += 1
        self._stats.visitors_now += 1
        self._pending.add(visit)
        self._pending_by_service[service] += 1
        self._run(visit, session.start())

    # What tunnels report

    def stream_accepted(self, visit: Visit) -> None:
        """The agent accepted the visitor's stream."""
        self._feed(visit, StreamAccepted())
        if visit.session.phase is Phase.SPLICED:
            self._settled(visit)
            self._stats.accepted_after(visit.session.accepted - visit.session.opened)

    def stream_refused(self, visit: Visit, code: ErrorCode, detail: int) -> None:
        """The agent reset the stream before it accepted it; the socket comes back from the tunnel."""
        early = self._take_back(visit)
        if early is not None:
            self._feed(visit, StreamRefused(code, detail, early, self._candidates(visit)))

    def tunnel_lost(self, visit: Visit) -> None:
        """The tunnel ended before it accepted the stream; the socket comes back from it."""
        early = self._take_back(visit)
        if early is not None:
            self._feed(visit, TunnelLost(early, self._candidates(visit)))

    def stream_closed(self, visit: Visit, summary: StreamSummary) -> None:
        """The stream is over and its socket closed."""
        visit.sock = None
        visit.stream_id = 0
        if visit.session.phase is not Phase.SPLICED:
            self._feed(visit, VisitorLeft(summary.bytes_in))
            return
        match summary.closed_by:
            case "local":
                closed_by = "visitor"
            case "peer":
                closed_by = "agent"
            case "reset":
                closed_by = "agent" if summary.reset_by_peer else "visitor"
            case "tunnel":
                closed_by = "tunnel"
            case _:
                assert_never(summary.closed_by)
        self._feed(visit, StreamEnded(summary.bytes_in, summary.bytes_out, closed_by, summary.code))

    # Inside

    def _feed(self, visit: Visit, event: Event) -> None:
        self._run(visit, visit.session.receive(event, now=self._engine.now()))

    def _run(self, visit: Visit, commands: tuple[Command, ...]) -> None:
        for command in commands:
            match command:
                case OpenStream(tunnel, early):
                    self._open(visit, tunnel, early)
                case Finish(record):
                    self._finish(visit, record)
                case ResetVisitor():
                    if visit.sock is not None:
                        self._reset(visit.sock, watched=visit.watched)
                        visit.sock = None
                case AskAcl():
                    self._ask(visit)
                case ResetStream(code):
                    self._take_back(visit, code)
                case _:
                    assert_never(command)

    def _ask(self, visit: Visit) -> None:
        answer = self._gate.decide(visit.session.service, visit.source)
        if isinstance(answer, Decision):
            self._feed(visit, Decided(answer, self._candidates(visit)))
            return
        self._deciding.add(answer)

        def decided(future: asyncio.Future[Decision]) -> None:
            self._deciding.discard(future)
            if future.cancelled() or (error := future.exception()) is not None:
                cause = "cancelled" if future.cancelled() else repr(error)
                decision = Decision(Verdict.DENY, "acl/error", cause)
            else:
                decision = future.result()
            self._feed(visit, Decided(decision, self._candidates(visit)))

        answer.add_done_callback(decided)

    def _candidates(self, visit: Visit) -> tuple[int, ...]:
        return self._carriers.candidates(visit.session.service)

    def _open(self, visit: Visit, number: int, early: bytes) -> None:
        link = self._links.get(number)
        if len(visit.session.tried) > 1:
            self._stats.retries += 1
        if link is None or visit.sock is None:
            self._feed(visit, OpenFailed(early, self._candidates(visit)))
            return
        session = visit.session
        metadata = OpenMetadata(
            service=session.service,
            source=visit.source,
            destination=visit.destination,
            # The trace begins here: its id is the connection's, so that logs and traces join without a table.
            traceparent=TraceParent(session.connection_id, session.connection_id[8:]),
            edge_conn_id=session.connection_id,
            opened_at=time.time_ns() // 1000,
        )
        try:
            stream_id = link.tunnel.open(metadata)
            link.tunnel.attach(stream_id, visit.sock, early=early, retain=True, watched=visit.watched)
        except LocalProtocolError:
            self._feed(visit, OpenFailed(early, self._candidates(visit)))
            return
        visit.watched = False
        visit.link = link
        visit.stream_id = stream_id
        link.visits[stream_id] = visit

    def _take_back(self, visit: Visit, code: ErrorCode | None = None) -> bytes | None:
        """Return the bytes read so far, with the socket back in our hands; None if the tunnel kept it."""
        link, stream_id = visit.link, visit.stream_id
        visit.link = None
        visit.stream_id = 0
        if link is None or not stream_id:
            return None
        link.visits.pop(stream_id, None)
        try:
            visit.sock, early = link.tunnel.detach(stream_id)
        except LocalProtocolError:
            # Something reached the visitor already: then it cannot be moved, and the stream ends where it is.
            link.visits[stream_id] = visit
            visit.link, visit.stream_id = link, stream_id
            if code is not None:
                link.tunnel.reset(stream_id, code)
            return None
        return early

    def _reset(self, sock: socket, *, watched: bool) -> None:
        if watched:
            self._engine.remove(sock)
        reset_close(sock)

    def _deadline(self, visit: Visit) -> None:
        self._hits.hit("accept_timeout")
        self._released(visit)
        self._feed(visit, DeadlinePassed())

    def _settled(self, visit: Visit) -> None:
        """Take note that the visitor waits no more."""
        if visit in self._pending:
            self._pending.discard(visit)
            self._released(visit)

    def _released(self, visit: Visit) -> None:
        service = visit.session.service
        self._pending_by_service[service] -= 1
        if self._pending_by_service[service] <= 0:
            del self._pending_by_service[service]

    def _finish(self, visit: Visit, record: AccessRecord) -> None:
        self._settled(visit)
        link = visit.link
        visit.link = None
        stats = self._stats
        stats.visitors_now -= 1
        stats.outcomes[record.outcome] += 1
        stats.bytes_in += record.bytes_in
        stats.bytes_out += record.bytes_out
        if visit.sock is not None and record.outcome != "served":
            # A session that ends without a word about its socket must not leave it open.
            self._reset(visit.sock, watched=visit.watched)
        visit.sock = None
        self._on_finished(record, link.agent if link is not None else None)
