"""The daemon: an edge, its control plane, its admin endpoint and its end.

Rules:
- Agents are let in only once the key set and the services are known: a restarted edge must not refuse good agents.
- The first signal drains, the second stops at once.
- Whatever fails while running is logged and goes on; whatever fails at the start ends with a code.

What must not live here: options' texts, and everything that has a room of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import structlog

from drtp_api.acl import AclBackend
from drtp_api.dataplane.engine import Engine, create_engine, settle
from drtp_api.errors import ExitCode
from drtp_api.grants import GrantVerifier
from drtp_api.kube import HttpKube, find_config
from drtp_api.plugins import Plugins, load_plugins
from drtp_api.transports import ListenConfig
from drtp_edge import __version__
from drtp_edge.admin import Admin, Answer
from drtp_edge.catalog import Catalog
from drtp_edge.certificate import certificate_name, read_pem
from drtp_edge.config import DaemonConfig, HostPort
from drtp_edge.edge import Edge, EdgeOptions
from drtp_edge.limits import EdgeLimits
from drtp_edge.metrics import EdgeCollector, exposition
from drtp_edge.objects import BindingFacts, ServerFacts
from drtp_edge.policy import HandshakePolicy
from drtp_edge.registration import Registration
from drtp_edge.standalone import StandaloneFile, load_standalone
from drtp_protocol import AuthMethod

__all__ = ["Daemon", "run"]

TICK = 5.0
"""Seconds between looks at what may have changed without an event: counts, ports that could not be bound."""

_LAST_WRITES = 3.0
"""Seconds that the last status writes may take when the daemon ends."""


def load_configured(config: DaemonConfig) -> Plugins:
    """Load the plugins that the configuration names; all installed ones only if a name is not an entry point's."""
    wanted = {*config.transports, *config.acl, *config.observers}
    plugins = load_plugins(only=wanted)
    known = {r.name for r in plugins.transports} | {r.name for r in plugins.acl_backends}
    if not {*config.transports, *config.acl} <= known:
        plugins = load_plugins()
    plugins.observers = tuple(o for o in plugins.observers if o[0] in config.observers)
    return plugins


class Daemon:
    """One edge daemon; implements :class:`drtp_edge.registration.Facts`.

    Args:
        config: What to be.
        log: For operators.
    """

    def __init__(self, config: DaemonConfig, *, log: Any = None) -> None:
        self.config = config
        self.log = log or structlog.get_logger("drtp_edge")
        self.stop = asyncio.Event()
        self.stop_now = asyncio.Event()
        self.endpoints: list[dict[str, Any]] = []
        self.admin_address = HostPort("", 0)
        self.ready = False
        self._sync_due = False
        self._instance = f"{os.getpid()}-{time.time_ns() // 1_000_000}"
        self._standalone: StandaloneFile | None = None
        if config.standalone is not None:
            self._standalone = load_standalone(config.standalone)
        self._server_name = config.server_name or (
            certificate_name(config.tls_cert) if config.tls_cert is not None else config.name
        )
        self._ca_bundle = read_pem(config.ca_bundle, "--ca-bundle") if config.ca_bundle is not None else None
        self.plugins = load_configured(config)
        self.catalog = Catalog(config.name, lambda key, error: self.log.warning("faulty", key=key, error=str(error)))
        self.verifier = GrantVerifier(config.name)
        self.registration: Registration | None = None
        self.edge: Edge
        self.admin = Admin(
            {
                "/healthz": lambda: (HTTPStatus.OK, "text/plain", b"ok\n"),
                "/ready": self._ready_page,
                "/metrics": self._metrics_page,
                "/sessions": self._sessions_page,
            }
        )

    # Life

    async def run(self, on_ready: Callable[[Mapping[str, Any]], None]) -> int:
        """Serve until told to stop; return the exit code.

        Raises:
            DrtpError: it cannot start.
        """
        engine = create_engine(spin_us=self.config.spin_us)
        try:
            self._build(engine)
            where = self.config.admin
            self.admin_address = HostPort(*await self.admin.start(where.host, where.port))
            try:
                return await self._serve(on_ready)
            finally:
                await self.admin.close()
        finally:
            engine.close()

    def _build(self, engine: Engine) -> None:
        config = self.config
        if self._standalone is not None:
            self._standalone.fill(self.catalog)
            policy = HandshakePolicy(
                methods=(AuthMethod.PSK,),
                keys=self._standalone.keys(),
                require_binding=not self._standalone.plaintext,
            )
        else:
            policy = HandshakePolicy(
                methods=(AuthMethod.GRANT,), verifier=self.verifier, outage_grace=config.outage_grace
            )
        backends: list[AclBackend] = [
            self.plugins.acl_backends.create(name, options) for name, options in config.acl.items()
        ]
        self.edge = Edge(
            engine,
            EdgeOptions(
                name=config.name,
                data_host=config.data_host,
                data_ports=config.data_ports,
                direct_host=config.direct_host,
                direct_http_port=config.direct_http_port,
                gateways=config.gateways,
            ),
            policy=policy,
            catalog=self.catalog,
            backends=backends,
            log=self.log,
            limits=EdgeLimits(tunnels=config.capacity, drain=max(config.drain, 0.0)),
            observe=self.plugins.observe if self.plugins.observers else None,
            on_tunnels=self._tunnels_changed,
        )
        self._policy = policy

    async def _serve(self, on_ready: Callable[[Mapping[str, Any]], None]) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        kube: HttpKube | None = None
        ticker = loop.create_task(self._tick())
        try:
            if self._standalone is None:
                kube = HttpKube(await find_config(self.config.kubeconfig), field_manager="drtp-edge")
                self.registration = Registration(
                    kube=kube,
                    name=self.config.name,
                    facts=self,
                    catalog=self.catalog,
                    verifier=self.verifier,
                    log=self.log,
                )
                self._policy.revocations = self.registration
                self.registration.watch()
                if not await self._before_stop(self.registration.synced):
                    return ExitCode.OK
            await self._listen()
            if self.registration is not None:
                self.registration.announce()
                if not await self._before_stop(self.registration.registered):
                    return ExitCode.OK
            self.edge.sync()
            self.ready = True
            settle()
            on_ready(self._report())
            await self.stop.wait()
            return await self._end()
        finally:
            ticker.cancel()
            if self.registration is not None:
                await self.registration.close()
            if kube is not None:
                await kube.close()
            await self.edge.close(politely=not self.stop_now.is_set())
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _listen(self) -> None:
        plaintext = self._standalone is not None and self._standalone.plaintext
        for name, where in self.config.transports.items():
            options = {"allowPlaintext": True} if plaintext else {}
            transport = self.plugins.transports.create(name, options)
            config = ListenConfig(
                host=where.host,
                port=where.port,
                certificate_file=str(self.config.tls_cert) if self.config.tls_cert is not None else None,
                key_file=str(self.config.tls_key) if self.config.tls_key is not None else None,
                tls=not plaintext,
            )
            host, port = await self.edge.listen(transport, config)
            advertised = self.config.advertise
            self.endpoints.append(
                {
                    "address": advertised.host if advertised is not None else host,
                    "port": advertised.port if advertised is not None and advertised.port else port,
                    "transport": name,
                }
            )

    async def _before_stop(self, event: asyncio.Event) -> bool:
        """Wait for an event; return False if we were told to stop first."""
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self.stop.wait())]
        try:
            while not (await asyncio.wait(waits, timeout=TICK, return_when=asyncio.FIRST_COMPLETED))[0]:
                why = self.registration.trouble if self.registration is not None else ""
                self.log.warning("waiting_for_the_control_plane", code="DRTP-2002", reason=why)
        finally:
            for wait in waits:
                wait.cancel()
        return event.is_set()

    async def _end(self) -> int:
        """Drain: doors, control plane, agents, streams."""
        self.ready = False
        self.log.info("draining", seconds=self.config.drain, streams=self.edge.stats.visitors_now)
        self.edge.draining = True
        if self.registration is not None:
            self.registration.server_changed(urgent=True)
        drain = asyncio.ensure_future(self.edge.drain(self.config.drain))
        second = asyncio.ensure_future(self.stop_now.wait())
        await asyncio.wait([drain, second], return_when=asyncio.FIRST_COMPLETED)
        if self.stop_now.is_set():
            drain.cancel()
            self.log.warning("stopped", streams=self.edge.stats.visitors_now)
            return ExitCode.INTERRUPTED
        second.cancel()
        left = self.edge.stats.visitors_now
        await self.edge.close()
        if self.registration is not None:
            self.registration.server_changed(urgent=True)
            last = asyncio.ensure_future(self.registration.flush(_LAST_WRITES))
            second = asyncio.ensure_future(self.stop_now.wait())
            await asyncio.wait([last, second], return_when=asyncio.FIRST_COMPLETED)
            last.cancel()
            second.cancel()
        self.log.info("drained", streams_cut=left)
        return ExitCode.OK

    def _signalled(self) -> None:
        if self.stop.is_set():
            self.stop_now.set()
        self.stop.set()

    async def _tick(self) -> None:
        """Look now and then at what changes without an event."""
        known = (-1, False)
        while True:
            await asyncio.sleep(TICK)
            if self.ready:
                self.edge.sync()
            now = (len(self.edge.roster), self.edge.draining)
            if now != known and self.registration is not None:
                known = now
                self.registration.server_changed()

    # Facts for the control plane

    def server_facts(self) -> ServerFacts:
        """Return what to write into the DRTPServer."""
        tunnels = len(self.edge.roster)
        return ServerFacts(
            name=self.config.name,
            instance=self._instance,
            latitude=self.config.coordinates[0],
            longitude=self.config.coordinates[1],
            city=self.config.city,
            endpoints=tuple(self.endpoints),
            server_name=self._server_name,
            ca_bundle=self._ca_bundle,
            capacity=self.config.capacity,
            pod_ip=self.config.data_host,
            version=__version__,
            draining=self.edge.draining,
            connections=tunnels,
            health=0 if self.edge.draining else max(1, 100 - 100 * tunnels // self.config.capacity),
        )

    def binding_facts(self, connection: str) -> BindingFacts:
        """Return what to write into the status of a DRTPConnection."""
        return self.edge.binding_facts(connection)

    def carried_connections(self) -> tuple[str, ...]:
        """Return the connections of all live tunnels."""
        return self.edge.carried_connections()

    def connection_deleted(self, connection: str) -> None:
        """Cut the tunnels of a deleted DRTPConnection."""
        cut = self.edge.hub.revoke(connection)
        if cut:
            self.log.info("revoked", connection=connection, tunnels=cut)

    def catalog_changed(self) -> None:
        """Let what listens follow, once for many changes."""
        if self.ready and not self._sync_due:
            self._sync_due = True
            self.edge.engine.call_later(0.0, self._sync)

    def _sync(self) -> None:
        self._sync_due = False
        self.edge.sync()

    def _tunnels_changed(self, connection: str) -> None:
        if self.registration is not None:
            self.registration.connection_changed(connection)
            self.registration.server_changed()

    # Pages

    def _report(self) -> dict[str, Any]:
        first = self.endpoints[0]
        return {
            "type": "edge_ready",
            "name": self.config.name,
            "tunnel": str(HostPort(first["address"], first["port"])),
            "endpoints": self.endpoints,
            "admin": str(self.admin_address),
            "pid": os.getpid(),
        }

    def _ready_page(self) -> Answer:
        if self.ready and not self.edge.draining:
            return HTTPStatus.OK, "text/plain", b"ready\n"
        why = b"draining\n" if self.edge.draining else b"waiting for the control plane\n"
        return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", why

    def _metrics_page(self) -> Answer:
        collector = EdgeCollector(self.config.name, __version__, self.edge.stats, self.edge.hits, self.edge.gauges)
        return HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", exposition(collector)

    def _sessions_page(self) -> Answer:
        body = {**self.edge.snapshot(), "admin": str(self.admin_address), "endpoints": self.endpoints}
        return HTTPStatus.OK, "application/json", json.dumps(body).encode() + b"\n"


async def run(config: DaemonConfig, on_ready: Callable[[Mapping[str, Any]], None]) -> int:
    """Run one edge daemon until it is told to stop; return the exit code.

    Raises:
        DrtpError: it cannot start.
    """
    return await Daemon(config).run(on_ready)
