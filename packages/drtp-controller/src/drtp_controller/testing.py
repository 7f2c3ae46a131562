"""A control plane in one process for tests: the real store, controller and registration API, a gateway that notes.

Rules:
- Only the data plane is absent: edges are played by writing what edges write.
- Builders give small valid objects; a test names only what it is about.
What must not enter: production code (nothing outside tests imports this).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from drtp_api.clustergateways import ClusterGateway
from drtp_api.gateways import Exposure, ExposureStatus, GatewayContext, GatewayInfo
from drtp_api.grants import GrantIssuer
from drtp_api.kube import CUSTOM_RESOURCE_DEFINITIONS, DRTP_CONNECTIONS, DRTP_SERVERS, LEASES, Key, Obj
from drtp_api.pickers import CITY_LABEL, Place
from drtp_api.resources import (
    SYSTEM_NAMESPACE,
    Application,
    ClientInfo,
    Condition,
    Connection,
    ConnectionSpec,
    Coordinates,
    Endpoint,
    Instance,
    LocalReference,
    Metadata,
    Protocol,
    Server,
    ServerSpec,
    ServerStatus,
    Service,
    ServiceSpec,
)
from drtp_api.resources import Exposure as ServiceExposure
from drtp_api.wire import object_to_wire
from drtp_controller.apiserver import EmbeddedApiServer, LocalKube
from drtp_controller.apiserver.rbac import Role, User
from drtp_controller.planners.conditions import is_true
from drtp_controller.planners.gateway import GatewayConfig
from drtp_controller.planners.ports import IsFree, PortState
from drtp_controller.planners.service import Front
from drtp_controller.reconcile.controller import Controller, ControllerConfig
from drtp_controller.registration.keys import ensure_installation, ensure_issuer, ensure_namespaces
from drtp_controller.registration.registrar import Registrar

__all__ = [
    "ByName", "ControlPlane", "NotingGateway", "control_plane", "make_connection", "make_server", "make_service",
]  # fmt: skip

WAIT_SECONDS = 10.0


class ByName:
    """A picker that orders by name."""

    name = "by-name"

    def order(self, place: Place, candidates: Sequence[Server]) -> Sequence[Server]:
        """Return the candidates by name."""
        del place
        return sorted(candidates, key=lambda s: s.metadata.name)


class NotingGateway:
    """A gateway that notes what it is given and answers what it is told; it opens no port."""

    name = "noting"

    def __init__(self) -> None:
        self.applied: list[list[Exposure]] = []
        self.refuse: dict[int, ExposureStatus] = {}

    async def start(self, context: GatewayContext) -> GatewayInfo:
        """Say how visitors would reach it."""
        return GatewayInfo(host=context.listen_host, http_port=context.http_port)

    async def apply(self, exposures: Sequence[Exposure]) -> Mapping[str, ExposureStatus]:
        """Note the exposures; those on a port in ``refuse`` get that answer."""
        self.applied.append(list(exposures))
        good = ExposureStatus(programmed=True)
        return {e.key: self.refuse.get(e.port or 0, good) for e in exposures}

    async def stop(self) -> None:
        """Do nothing: nothing was opened."""


def make_server(
    name: str = "edge-a", *, city: str = "NYC", online: bool = True, unschedulable: bool = False, connections: int = 0
) -> Server:
    """Return a server as it is once its heartbeats were seen."""
    status, reason = ("True", "ServerReady") if online else ("False", "AgentOffline")
    return Server(
        metadata=Metadata(name=name, labels={CITY_LABEL: city}, generation=1),
        spec=ServerSpec(
            instance=Instance(host="host", id=name),
            coordinates=Coordinates(latitude="1.0", longitude="2.0"),
            endpoints=(Endpoint(address="127.0.0.1", port=7000),),
            unschedulable=unschedulable,
        ),
        status=ServerStatus(
            health=100 if online else 0,
            connections=connections,
            conditions=(Condition(type="Ready", status=status, reason=reason),),
        ),
    )


def make_service(
    name: str = "web", *, protocol: Protocol = Protocol.HTTP, public: bool = True, port: int = 0, **spec: Any
) -> Service:
    """Return a service as a user would define it."""
    return Service(
        metadata=Metadata(name=name, namespace="default", uid=f"uid-{name}", generation=1),
        spec=ServiceSpec(
            application=Application(protocol=protocol, port=8080),
            exposure=ServiceExposure(enabled=public, port=port, hostnames=spec.pop("hostnames", ())),
            **spec,
        ),
    )


def make_connection(service: str = "web", instance: str = "a" * 32) -> Connection:
    """Return a connection as the registration writes it, without servers."""
    return Connection(
        metadata=Metadata(name=f"{service}-{instance[:10]}", namespace="default", generation=1),
        spec=ConnectionSpec(
            service_ref=LocalReference(name=service), client=ClientInfo(instance_id=instance, public_key="k" * 43)
        ),
    )


def always_free(protocol: Protocol, port: int) -> PortState:
    """Say that every port is free."""
    del protocol, port
    return PortState.FREE


@attrs.define
class ControlPlane:
    """A running control plane and the hands of its missing edges."""

    kube: LocalKube
    controller: Controller
    gateway: NotingGateway
    registrar: Registrar
    issuer: GrantIssuer
    server: EmbeddedApiServer
    _renewals: int = 0

    async def edge(self, name: str, city: str, *, lease_seconds: int = 30) -> None:
        """Let an edge register and heartbeat once, and wait until it counts."""
        server = make_server(name, city=city)
        await self.kube.create(DRTP_SERVERS, object_to_wire(attrs.evolve(server, status=ServerStatus())))
        await self.heartbeat(name, lease_seconds=lease_seconds)
        await self.until(lambda: self._ready(name))

    def _ready(self, name: str) -> bool:
        server = self.controller.caches.servers.get(name)
        return server is not None and is_true(server.status.conditions, "Ready")

    async def heartbeat(self, name: str, *, lease_seconds: int = 30) -> None:
        """Write an edge's lease anew."""
        self._renewals += 1
        micro = self._renewals % 1_000_000
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": lease_seconds,
            "renewTime": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{micro:06d}Z",
        }
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE},
            "spec": spec,
        }
        if self.controller.caches.leases.get(name, SYSTEM_NAMESPACE) is None:
            await self.kube.create(LEASES, body)
        else:
            await self.kube.merge_patch(LEASES, name, {"spec": spec}, SYSTEM_NAMESPACE)

    async def tunnel(self, connection: str, server: str, *, port: int = 50000, up: bool = True) -> None:
        """Let an edge say that an agent's tunnel came up or went down."""
        await self.until(lambda: self._binding(connection, server) is not None)
        obj = await self.kube.get(DRTP_CONNECTIONS, connection, "default")
        for binding in obj["status"]["servers"]:
            if binding["name"] == server:
                binding["clientStatus"] = "Connected" if up else "Disconnected"
                binding["podIP"], binding["podPort"] = "127.0.0.1", port
        await self.kube.update_status(DRTP_CONNECTIONS, obj)

    def _binding(self, connection: str, server: str) -> object | None:
        found = self.controller.caches.connections.objects.get(Key("default", connection))
        return next((b for b in found.status.servers if b.name == server), None) if found is not None else None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds in the caches.

        Raises:
            TimeoutError: It did not within :data:`WAIT_SECONDS`.
        """
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():  # noqa: ASYNC110 - caches have no event per condition
                await asyncio.sleep(0.002)

    async def settle(self) -> None:
        """Wait until the controller has nothing left to do.

        Raises:
            TimeoutError: It still works after :data:`WAIT_SECONDS`.
        """
        quiet, last = 0, (-1, -1, -1)
        async with asyncio.timeout(WAIT_SECONDS):
            while quiet < 20:
                await asyncio.sleep(0.005)
                controller = self.controller
                now = (controller.queue.runs, controller.applier.writes, controller.recorder.writes)
                quiet = quiet + 1 if now == last and controller.queue.state.idle else 0
                last = now


@contextlib.asynccontextmanager
async def control_plane(
    directory: Path,
    *,
    is_free: IsFree = always_free,
    ports: tuple[int, int] = (20000, 29999),
    cluster: ClusterGateway | None = None,
    definitions: Sequence[Obj] = (),
) -> AsyncIterator[ControlPlane]:
    """Run a control plane for the length of the block; the same directory continues where the last one ended.

    Args:
        directory: Where its store is.
        is_free: Answers for ports.
        ports: Vended ones.
        cluster: A plugin for a cluster's own gateway, whose part the test plays.
        definitions: Further CustomResourceDefinitions.
    """
    server = EmbeddedApiServer(directory, allow_loopback_endpoints=True)
    kube = server.kube()
    # the controller has its own rights only; whoever plays users and edges has all
    hands = server.kube(User("test", Role.ADMIN))
    try:
        await ensure_namespaces(kube)
        issuer = await ensure_issuer(kube)
        for definition in definitions:
            if definition["metadata"]["name"] not in {
                d["metadata"]["name"] for d in (await hands.list(CUSTOM_RESOURCE_DEFINITIONS)).items
            }:
                await hands.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
        name = "drtp.datumapis.com/gateway-noting"
        shared = GatewayConfig(controller_name=name, http_port=8880)
        if cluster is not None:
            shared = GatewayConfig.of_cluster(await cluster.connect(kube), controller_name=name, http_port=8880)
        config = ControllerConfig(
            installation=await ensure_installation(kube),
            base_domain="prism.test",
            front=Front(host="" if cluster is not None else "127.0.0.1", http_port=8880),
            gateway=shared,
            ports=ports,
            is_free=is_free,
            picker=ByName(),
        )
        gateway = NotingGateway()
        controller = Controller(kube, config, cluster or gateway)
        task = asyncio.create_task(controller.run())
        try:
            await controller.ready.wait()
            yield ControlPlane(hands, controller, gateway, Registrar(controller, issuer), issuer, server)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    finally:
        await server.stop()
