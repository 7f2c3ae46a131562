"""Tunnels of agents: from a carrier that a transport hands over to a live tunnel in the roster, and its end.

Rules:
- Until it proved itself a peer gets the core's handshake bounds and one answer for every failure.
- What an event means for a visitor is the visitor's session's; what it means for the service is the roster's.
- A tunnel that ends gives its unaccepted visitors back before anything else happens.

What must not live here: judging credentials, listening for visitors, Kubernetes.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import assert_never

import attrs

from drtp_api.dataplane.carrier import Carrier
from drtp_api.dataplane.engine import Engine
from drtp_api.dataplane.tunnel import StreamSummary, Tunnel
from drtp_edge.limits import EdgeLimits, LimitHits
from drtp_edge.metrics import EdgeStats
from drtp_edge.policy import Admission, HandshakePolicy, Refused
from drtp_edge.records import Log
from drtp_edge.roster import Entered, Roster, TooOld
from drtp_edge.visitors import Visit, Visitors
from drtp_protocol import (
    AuthReceived,
    AuthRequired,
    Binding,
    Budget,
    Challenge,
    Connection,
    ConnectionEstablished,
    ConnectionTerminated,
    DatagramReceived,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    LeaseExpiring,
    LeaseRenewed,
    Limits,
    LocalProtocolError,
    ReportReceived,
    Role,
    RttMeasured,
    StreamAccepted,
    StreamClosed,
    StreamOpened,
    StreamReset,
    StreamWritable,
    Welcome,
)

__all__ = ["TunnelHub", "TunnelLink"]

REPLACED_DRAIN = 30.0
"""Seconds that streams of a replaced tunnel get: the agent that replaced it still serves them."""

SUPERSEDED_DRAIN = 5.0
"""Seconds for streams of an older process: most often it is gone and nobody hears this."""


class TunnelLink:
    """One agent's tunnel at this edge; the handler of its :class:`Tunnel`."""

    def __init__(self, hub: TunnelHub, number: int) -> None:
        self.number = number
        self.visits: dict[int, Visit] = {}
        self.admission: Admission | None = None
        self.since = 0.0
        self.session_id = os.urandom(16)
        self.rtt: float | None = None
        self.reason = ""
        self.code = ErrorCode.NO_ERROR
        self.tunnel: Tunnel
        self._hub = hub

    @property
    def agent(self) -> str:
        """The agent's instance in hexadecimal; empty until it is known."""
        return self.admission.instance.hex() if self.admission is not None else ""

    @property
    def established(self) -> bool:
        """Whether the agent proved itself."""
        return self.admission is not None

    def on_tunnel_event(self, tunnel: Tunnel, event: Event) -> None:
        """Take an event of the core."""
        match event:
            case StreamAccepted(stream_id):
                if (visit := self.visits.get(stream_id)) is not None:
                    self._hub.visitors.stream_accepted(visit)
            case StreamReset(stream_id=stream_id, code=code, detail=detail):
                if (visit := self.visits.get(stream_id)) is not None:
                    self._hub.visitors.stream_refused(visit, code, detail)
            case RttMeasured(smoothed=smoothed):
                first = self.rtt is None
                self.rtt = smoothed
                if first:
                    self._hub.on_change(self)
            case AuthReceived():
                self._hub.authenticate(self, event)
            case ConnectionEstablished():
                self._hub.established(self)
            case LeaseExpiring():
                tunnel.connection.challenge(
                    os.urandom(32), server_time=int(self._hub.clock() * 1e6), now=tunnel.engine.now()
                )
                tunnel.wake()
            case GoAwayReceived(code=code, reason=reason):
                self.code, self.reason = code, reason
                self._hub.leaving(self)
            case ConnectionTerminated(code=code, reason=reason):
                if not self.reason:
                    self.code, self.reason = code, reason
            case StreamOpened(stream_id=stream_id):
                # Agents may not open streams: the capability is not offered.
                tunnel.reset(stream_id, ErrorCode.UNSUPPORTED)
            case LeaseRenewed() | ReportReceived() | AuthRequired() | DatagramReceived():
                pass
            case DataReceived() | StreamClosed() | StreamWritable():
                pass
            case _:
                assert_never(event)

    def on_connect_failed(self, tunnel: Tunnel, stream_id: int, error: OSError) -> None:
        """Take note that a socket did not connect; the edge attaches connected sockets only."""
        tunnel.reset(stream_id, ErrorCode.INTERNAL, reason=error.strerror or "")

    def on_stream_closed(self, tunnel: Tunnel, stream_id: int, summary: StreamSummary) -> None:
        """Take note that a visitor's stream is over."""
        del tunnel
        if (visit := self.visits.pop(stream_id, None)) is not None:
            self._hub.visitors.stream_closed(visit, summary)

    def on_tunnel_closed(self, tunnel: Tunnel, error: Exception | None) -> None:
        """Give unaccepted visitors to other tunnels, then leave."""
        self._hub.ended(self, error)
        for stream_id in tunnel.unaccepted():
            if (visit := self.visits.get(stream_id)) is not None:
                self._hub.visitors.tunnel_lost(visit)


@attrs.define(kw_only=True, eq=False)
class TunnelHub:
    """Every tunnel of one edge.

    Args:
        engine: Drives them.
        name: This edge's name, as agents expect it.
        policy: Judges agents.
        roster: Which tunnel lives for which service.
        limits: The bounds.
        hits: Counts bounds that were met.
        stats: Counts everything else.
        log: For what operators want to know.
        on_change: Told of every tunnel that came up, went, drains, or learned its round-trip time.
        on_established: Told of every tunnel that came up.
        on_ended: Told of every established tunnel that ended.
        wire_limits: Offered to agents.
        budget: Bytes that all tunnels may promise to receive together.
        clock: Seconds since the Unix epoch.
    """

    engine: Engine
    name: str
    policy: HandshakePolicy
    roster: Roster
    limits: EdgeLimits
    hits: LimitHits
    stats: EdgeStats
    log: Log
    links: dict[int, TunnelLink]
    on_change: Callable[[TunnelLink], None] = lambda _link: None
    on_established: Callable[[TunnelLink], None] = lambda _link: None
    on_ended: Callable[[TunnelLink], None] = lambda _link: None
    wire_limits: Limits = attrs.field(factory=Limits)
    budget: Budget = attrs.field(factory=Budget)
    clock: Callable[[], float] = time.time
    visitors: Visitors = attrs.field(init=False)
    draining: bool = False
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    _unauthenticated: int = 0

    def on_carrier(self, carrier: Carrier) -> None:
        """Take a carrier that finished its transport's handshake."""
        limit = None
        if self._unauthenticated >= self.limits.unauthenticated:
            limit = "unauthenticated"
        elif len(self.links) >= self.limits.tunnels + self.limits.unauthenticated:
            limit = "tunnels"
        if limit is not None or self.draining:
            if limit is not None:
                self.hits.hit(limit)
            carrier.abort()
            return
        number = next(self._numbers)
        link = TunnelLink(self, number)
        connection = Connection(
            Role.EDGE,
            now=self.engine.now(),
            nonce=os.urandom(32),
            challenge=Challenge(
                edge_id=self.name,
                methods=tuple(self.policy.methods),
                binding_types=self.policy.binding_types,
                server_time=int(self.clock() * 1e6),
            ),
            limits=self.wire_limits,
            budget=self.budget,
        )
        link.tunnel = Tunnel(self.engine, carrier, connection, link)
        self.links[number] = link
        self._unauthenticated += 1
        link.tunnel.start()

    # From links

    def authenticate(self, link: TunnelLink, event: AuthReceived) -> None:
        """Judge an AUTH, first or repeated, and answer it."""
        tunnel = link.tunnel
        now = self.engine.now()
        info = tunnel.carrier.info
        try:
            admission = self.policy.judge(
                event.hello, event.auth, event.transcript, binding=info.channel_binding, now=self.clock()
            )
            self._admit(link, admission, event.renewal)
        except Refused as refused:
            self.stats.handshakes[refused.code.name.lower()] += 1
            link.code, link.reason = refused.code, refused.reason
            self.log.info(
                "agent_refused",
                peer=f"{info.peer[0]}:{info.peer[1]}",
                instance=event.hello.instance_id.hex(),
                agent=event.hello.agent,
                code=refused.code.name,
                reason=refused.reason,
                renewal=event.renewal,
            )
            tunnel.connection.reject(refused.code, now=now)
        tunnel.wake()

    def _admit(self, link: TunnelLink, admission: Admission, renewal: bool) -> None:
        if renewal:
            before = link.admission
            if before is None or (admission.services, admission.instance) != (before.services, before.instance):
                raise Refused("a renewal must be for the same services and instance")
        elif len(self.roster) >= self.limits.tunnels:
            self.hits.hit("tunnels")
            raise Refused("the edge has no room for more tunnels", ErrorCode.OVER_CAPACITY)
        elif self.draining:
            raise Refused("the edge is draining", ErrorCode.DRAINING)
        else:
            self._enter(link, admission)
        link.admission = admission
        self.roster.renew(link.number, admission)
        link.tunnel.connection.accept(
            Welcome(
                session_id=link.session_id,
                lease=int(admission.lease),
                bindings=tuple(Binding(service) for service in admission.services),
                edge_proof=admission.edge_proof,
            ),
            now=self.engine.now(),
        )

    def _enter(self, link: TunnelLink, admission: Admission) -> None:
        match self.roster.enter(link.number, admission, self.engine.now()):
            case TooOld(newest):
                raise Refused(
                    f"epoch {admission.epoch} is older than {newest}: a newer process took over", ErrorCode.SUPERSEDED
                )
            case Entered(superseded, replaced):
                for number in superseded:
                    self._send_away(number, ErrorCode.SUPERSEDED, SUPERSEDED_DRAIN)
                for number in replaced:
                    self._send_away(number, ErrorCode.NO_ERROR, REPLACED_DRAIN)

    def established(self, link: TunnelLink) -> None:
        """Take note that an agent is in."""
        self._unauthenticated -= 1
        link.since = self.engine.now()
        self.stats.handshakes["established"] += 1
        assert link.admission is not None
        info = link.tunnel.carrier.info
        self.log.info(
            "tunnel_up",
            tunnel=link.number,
            services=list(link.admission.services),
            connection=link.admission.connection,
            instance=link.agent,
            epoch=link.admission.epoch,
            transport=info.transport,
            peer=f"{info.peer[0]}:{info.peer[1]}",
        )
        self.on_established(link)
        self.on_change(link)

    def leaving(self, link: TunnelLink) -> None:
        """Give no more visitors to an agent that announced its end."""
        self.roster.drain(link.number)
        self.on_change(link)

    def ended(self, link: TunnelLink, error: Exception | None) -> None:
        """Forget a tunnel."""
        self.links.pop(link.number, None)
        entry = self.roster.leave(link.number)
        if link.since == 0.0:
            self._unauthenticated -= 1
            if link.admission is None and link.code is not ErrorCode.AUTH_FAILED:
                self.stats.handshakes["broken"] += 1
        if entry is None:
            return
        self.stats.tunnels_ended[link.code.name.lower()] += 1
        self.log.info(
            "tunnel_down",
            tunnel=link.number,
            services=list(entry.admission.services),
            instance=link.agent,
            code=link.code.name,
            reason=link.reason or (str(error) if error is not None else ""),
            streams=len(link.visits),
        )
        self.on_ended(link)
        self.on_change(link)

    # From the control plane and the daemon

    def revoke(self, connection: str) -> int:
        """Cut every tunnel of a connection and return how many there were."""
        cut = 0
        for entry in self.roster.of_connection(connection):
            cut += 1
            link = self.links[entry.id]
            link.code, link.reason = ErrorCode.REVOKED, "the connection was deleted"
            self.roster.drain(entry.id)
            link.tunnel.close(ErrorCode.REVOKED)
        return cut

    def drain(self, seconds: float, alternates: Callable[[str], tuple[str, ...]]) -> None:
        """Tell every agent to go elsewhere; streams have ``seconds`` to finish.

        Args:
            seconds: For streams.
            alternates: Names the other servers of a connection.
        """
        self.draining = True
        for link in list(self.links.values()):
            if link.admission is None:
                link.tunnel.close(ErrorCode.DRAINING)
                continue
            self.roster.drain(link.number)
            link.code, link.reason = ErrorCode.DRAINING, "this edge goes away"
            with_others = alternates(link.admission.connection)
            try:
                link.tunnel.go_away(ErrorCode.DRAINING, drain=seconds, alternates=with_others)
            except LocalProtocolError:
                link.tunnel.close(ErrorCode.DRAINING)
            self.on_change(link)

    def close(self, code: ErrorCode = ErrorCode.DRAINING) -> None:
        """End every tunnel politely."""
        self.draining = True
        for link in list(self.links.values()):
            link.tunnel.close(code)

    def abort(self) -> None:
        """End every tunnel at once."""
        self.draining = True
        for link in list(self.links.values()):
            link.tunnel.abort()

    @property
    def streams(self) -> int:
        """Visitors on tunnels now."""
        return sum(len(link.visits) for link in self.links.values())

    def _send_away(self, number: int, code: ErrorCode, drain: float) -> None:
        link = self.links.get(number)
        if link is None:
            return
        link.code, link.reason = code, "a newer tunnel of the agent came"
        try:
            link.tunnel.go_away(code, drain=drain)
        except LocalProtocolError:
            link.tunnel.close(code)
        self.on_change(link)
