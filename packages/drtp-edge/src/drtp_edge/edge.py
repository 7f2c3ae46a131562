"""The edge, assembled: tunnels in, visitors in, and the two joined. Knows no control plane and no command line.

Rules:
- What listens follows what lives: every change of tunnels or services goes through :meth:`Edge.sync`.
- A drain closes doors first, tells agents next, and waits for streams last.

What must not live here: Kubernetes, signals, configuration files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from drtp_api.acl import AclBackend
from drtp_api.dataplane.engine import Engine
from drtp_api.observe import ObservedEvent, TunnelDown, TunnelUp, VisitorClosed, VisitorDenied
from drtp_api.transports import ListenConfig, Transport, TransportListener
from drtp_edge.catalog import Catalog
from drtp_edge.config import Network
from drtp_edge.dataports import DataPorts
from drtp_edge.direct import DirectPorts
from drtp_edge.gate import Gate
from drtp_edge.intake import Intake
from drtp_edge.limits import EdgeLimits, LimitHits
from drtp_edge.metrics import EdgeStats
from drtp_edge.objects import BindingFacts
from drtp_edge.policy import HandshakePolicy
from drtp_edge.ports import PortBook, PortRange
from drtp_edge.records import AccessLog, Log, RateLimiter
from drtp_edge.roster import Roster
from drtp_edge.session import AccessRecord
from drtp_edge.tunnels import TunnelHub, TunnelLink
from drtp_edge.visitors import Visitors
from drtp_protocol import Limits

__all__ = ["Edge", "EdgeOptions"]

_LAST_HEADERS = 0.5
"""Seconds that a drain waits for headers of visitors who connected just before."""

_MAX_LISTED = 1_000


@attrs.frozen(kw_only=True)
class EdgeOptions:
    """How an edge listens.

    Attributes:
        name: The DRTPServer's name.
        data_host: The pod's address, for data ports; empty for none.
        data_ports: Where to vend data ports from.
        direct_host: The address for public ports; None for no direct mode.
        direct_http_port: The public port that HTTP services share; 0 for none.
        gateways: Networks that gateways connect from; empty for any.
        wire_limits: Offered to agents.
    """

    name: str
    data_host: str = "127.0.0.1"
    data_ports: PortRange = PortRange()
    direct_host: str | None = None
    direct_http_port: int = 0
    gateways: tuple[Network, ...] = ()
    wire_limits: Limits = Limits()


class Edge:
    """One edge.

    Args:
        engine: Drives every socket.
        options: How to listen.
        policy: Judges agents.
        catalog: What is known of services.
        backends: Judge visitors.
        log: For operators.
        limits: The bounds.
        observe: Told of events, for plugins; None if nobody listens.
        on_tunnels: Told of connections whose tunnels changed.
    """

    def __init__(
        self,
        engine: Engine,
        options: EdgeOptions,
        *,
        policy: HandshakePolicy,
        catalog: Catalog,
        backends: Sequence[AclBackend],
        log: Log,
        limits: EdgeLimits | None = None,
        observe: Callable[[ObservedEvent], None] | None = None,
        on_tunnels: Callable[[str], None] = lambda _connection: None,
    ) -> None:
        self.engine = engine
        self.options = options
        self.catalog = catalog
        self.limits = limits or EdgeLimits()
        self.hits = LimitHits()
        self.stats = EdgeStats()
        self.roster = Roster()
        self.log = log
        self.started = time.time()
        self.draining = False
        self.on_tunnels = on_tunnels
        self._observe = observe
        self._access = AccessLog(log)
        self._faults = RateLimiter()
        self._listeners: list[TransportListener] = []
        self._direct_due = False
        self._binding_rtt: dict[str, int] = {}
        links: dict[int, TunnelLink] = {}
        self.gate = Gate(catalog, backends)
        self.hub = TunnelHub(
            engine=engine,
            name=options.name,
            policy=policy,
            roster=self.roster,
            limits=self.limits,
            hits=self.hits,
            stats=self.stats,
            log=log,
            links=links,
            on_change=self._tunnel_changed,
            on_established=self._tunnel_up,
            on_ended=self._tunnel_down,
            wire_limits=options.wire_limits,
        )
        self.visitors = Visitors(
            engine,
            gate=self.gate,
            carriers=self.roster,
            links=links,
            limits=self.limits,
            hits=self.hits,
            stats=self.stats,
            on_finished=self._visitor_finished,
        )
        self.hub.visitors = self.visitors
        self.intake = Intake(
            engine=engine,
            visitors=self.visitors,
            limits=self.limits,
            hits=self.hits,
            stats=self.stats,
            gateways=options.gateways,
            on_fault=self._intake_fault,
        )
        self.ports = DataPorts(
            engine=engine,
            host=options.data_host,
            book=PortBook(options.data_ports, self.limits.port_reservation),
            door=self.intake.door,
            on_change=self._service_changed,
            on_failure=lambda service, why: self.log.warning("no_data_port", service=service, reason=why),
        )
        self.direct: DirectPorts | None = None
        if options.direct_host is not None:
            self.direct = DirectPorts(
                engine=engine,
                host=options.direct_host,
                http_port=options.direct_http_port,
                catalog=catalog,
                roster=self.roster,
                visitors=self.visitors,
                limits=self.limits,
                hits=self.hits,
                stats=self.stats,
                on_change=self._public_changed,
                on_conflict=lambda port, why: self.log.info("public_port_elsewhere", port=port, reason=why),
            )

    # Listening

    async def listen(self, transport: Transport, config: ListenConfig) -> tuple[str, int]:
        """Listen for agents and return the address they dial.

        Raises:
            DrtpError: DRTP-3001, DRTP-3002.
        """
        listener = await transport.listen(self.engine, config, self.hub.on_carrier)
        self._listeners.append(listener)
        return listener.address

    def sync(self) -> None:
        """Let what listens follow what lives."""
        if self.draining:
            return
        if self.options.data_host:
            self.ports.sync({key for key in self.roster.services() if self.catalog.service(key) is not None})
        if self.direct is not None:
            self.direct.sync()

    def _follow(self, services: Iterable[str]) -> None:
        """The same for some services: a thousand agents that return together must not cost a million looks."""
        if self.draining:
            return
        if self.options.data_host:
            for service in services:
                lives = self.roster.serves(service) and self.catalog.service(service) is not None
                self.ports.follow(service, lives=lives)
        if self.direct is not None and not self._direct_due:
            self._direct_due = True
            self.engine.call_later(0.0, self._sync_direct)

    def _sync_direct(self) -> None:
        self._direct_due = False
        if self.direct is not None and not self.draining:
            self.direct.sync()

    # The end

    async def drain(self, seconds: float) -> None:
        """Close the doors, send agents elsewhere, and wait for streams at most ``seconds``."""
        self.draining = True
        self.ports.close()
        if self.direct is not None:
            self.direct.close()
        deadline = self.engine.now() + _LAST_HEADERS
        # Looked at now and then: an event for it would be a cost of every visitor, for a moment that comes once.
        while self.engine.now() < deadline and (len(self.intake.waiting) or self.visitors.pending):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.hub.drain(seconds, self.catalog.alternates)
        deadline = self.engine.now() + seconds
        while self.engine.now() < deadline and self.stats.visitors_now:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def close(self, *, politely: bool = True) -> None:
        """End everything. Idempotent."""
        self.draining = True
        self.ports.close()
        if self.direct is not None:
            self.direct.close()
        for listener in self._listeners:
            await listener.close()
        self._listeners.clear()
        if politely:
            self.hub.close()
            # The last frames leave and the peers close: a carrier lingers for its peer's end.
            await asyncio.sleep(0.05)
        else:
            self.hub.abort()
        await self.gate.aclose()

    # What is known

    def binding_facts(self, connection: str) -> BindingFacts:
        """Return what to write about the tunnel of a connection."""
        link = self._link_of(connection)
        if link is None or link.admission is None:
            return BindingFacts(connected=False)
        service = link.admission.services[0]
        port = self.ports.port(service)
        return BindingFacts(
            connected=True,
            pod_ip=self.options.data_host if port is not None else None,
            pod_port=port,
            public_address=self.direct.public_address(service) if self.direct is not None else None,
            rtt_milliseconds=self._steady_rtt(connection, link.rtt),
            transport=link.tunnel.carrier.info.transport,
        )

    def carried_connections(self) -> tuple[str, ...]:
        """Return the connections of all live tunnels."""
        return self.roster.connections()

    def gauges(self) -> dict[str, float]:
        """Return what Prometheus shows as it is now."""
        return {
            "tunnels": len(self.roster),
            "streams": self.hub.streams,
            "visitors_now": self.stats.visitors_now,
            "visitors_pending": self.visitors.pending,
            "services": len(self.roster.services()),
            "data_ports": len(self.ports),
            "public_ports": len(self.direct.owned()) if self.direct is not None else 0,
            "draining": int(self.draining),
        }

    def snapshot(self) -> Mapping[str, Any]:
        """Return tunnels and streams for people; at most 1,000 streams are listed."""
        now = self.engine.now()
        tunnels = []
        listed = 0
        for link in self.hub.links.values():
            if link.admission is None:
                continue
            entry = self.roster.get(link.number)
            info = link.tunnel.carrier.info
            streams = []
            for visit in link.visits.values():
                if listed >= _MAX_LISTED:
                    break
                listed += 1
                streams.append(
                    {
                        "connectionID": visit.session.connection_id.hex(),
                        "service": visit.session.service,
                        "source": str(visit.session.source),
                        "phase": visit.session.phase.value,
                        "seconds": round(now - visit.session.arrived, 3),
                    }
                )
            tunnels.append(
                {
                    "tunnel": link.number,
                    "services": list(link.admission.services),
                    "connection": link.admission.connection,
                    "instanceID": link.agent,
                    "epoch": link.admission.epoch,
                    "transport": info.transport,
                    "peer": f"{info.peer[0]}:{info.peer[1]}",
                    "seconds": round(now - link.since, 3),
                    "rttMilliseconds": round(link.rtt * 1000, 3) if link.rtt is not None else None,
                    "draining": entry.draining if entry is not None else True,
                    "streamCount": len(link.visits),
                    "streams": streams,
                }
            )
        return {
            "name": self.options.name,
            "draining": self.draining,
            "ports": {service: self.ports.port(service) for service in self.roster.services()},
            "publicPorts": list(self.direct.owned()) if self.direct is not None else [],
            "tunnels": tunnels,
        }

    # What happened

    def _link_of(self, connection: str) -> TunnelLink | None:
        for entry in self.roster.of_connection(connection):
            if not entry.draining:
                return self.hub.links.get(entry.id)
        return None

    def _steady_rtt(self, connection: str, rtt: float | None) -> int | None:
        """Return the round-trip time in milliseconds, which moves only when it moved much: each change is a write."""
        if rtt is None:
            return None
        milliseconds = round(rtt * 1000)
        known = self._binding_rtt.get(connection)
        if known is None or abs(milliseconds - known) > max(5, known // 4):
            self._binding_rtt[connection] = known = milliseconds
        return known

    def _tunnel_changed(self, link: TunnelLink) -> None:
        if link.admission is not None:
            self._follow(link.admission.services)
            self.on_tunnels(link.admission.connection)

    def _service_changed(self, service: str) -> None:
        for entry in self.roster.of_service(service):
            self.on_tunnels(entry.admission.connection)

    def _public_changed(self, service: str | None) -> None:
        entries = self.roster.entries() if service is None else self.roster.of_service(service)
        for entry in entries:
            self.on_tunnels(entry.admission.connection)

    def _tunnel_up(self, link: TunnelLink) -> None:
        if self._observe is not None and link.admission is not None:
            for service in link.admission.services:
                transport = link.tunnel.carrier.info.transport
                self._observe(
                    TunnelUp(service=service, server=self.options.name, instance_id=link.agent, transport=transport)
                )

    def _tunnel_down(self, link: TunnelLink) -> None:
        if link.admission is None:
            return
        self._binding_rtt.pop(link.admission.connection, None)
        if self._observe is not None:
            for service in link.admission.services:
                self._observe(
                    TunnelDown(service=service, server=self.options.name, instance_id=link.agent, reason=link.code.name)
                )

    def _visitor_finished(self, record: AccessRecord, agent: str | None) -> None:
        self._access.write(record, agent=agent, now=self.engine.now())
        if self._observe is None:
            return
        if record.outcome == "denied":
            self._observe(VisitorDenied(service=record.service, source=str(record.source), rule=record.rule))
        self._observe(
            VisitorClosed(
                service=record.service,
                connection_id=record.connection_id.hex(),
                source=str(record.source),
                rule=record.rule,
                bytes_in=record.bytes_in,
                bytes_out=record.bytes_out,
                duration=record.duration,
                closed_by=record.closed_by,
                code=record.code.name,
            )
        )

    def _intake_fault(self, service: str, peer: str, fault: str) -> None:
        left_out = self._faults.admit((service, fault), self.engine.now())
        if left_out is not None:
            self.log.info(
                "turned_away", code="DRTP-3004", service=service, peer=peer, fault=fault, similar_left_out=left_out
            )
