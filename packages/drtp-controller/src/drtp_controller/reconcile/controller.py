"""The controller: which change wakes which key, and what a key's reconcile does.

Rules:
- Keys are of five sorts: a server, a service, a connection, the objects that all services share, and all that users
  wrote for gateways. Their reconciles plan and write differences.
- Ports, host names and lease times are books in memory, filled from what the API knows before anything is planned.
What must not enter: HTTP, processes, the registration's rules.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import attrs

from drtp_api.clustergateways import ClusterGateway
from drtp_api.errors import DrtpError
from drtp_api.gateways import Exposure, Gateway
from drtp_api.kube import (
    DRTP_CONNECTIONS,
    DRTP_SERVERS,
    DRTP_SERVICES,
    ENDPOINT_SLICES,
    GATEWAY_CLASSES,
    GATEWAYS,
    HTTP_ROUTES,
    LISTENER_SETS,
    Change,
    Forbidden,
    Key,
    Kube,
    NotFound,
    Obj,
    Reflector,
    Resource,
    Unauthorized,
    WorkQueue,
)
from drtp_api.pickers import Picker, Place
from drtp_api.resources import Connection, Server, Service, service_key
from drtp_api.wire import to_wire
from drtp_controller.planners.cluster import own_exposure, plan_cluster
from drtp_controller.planners.conditions import find, parse_time
from drtp_controller.planners.connection import Applied, assign_servers, connected_bindings, plan_connection
from drtp_controller.planners.exposures import GatewayObjects, plan_exposures
from drtp_controller.planners.gateway import GatewayConfig, child_resources, plan_gateway, plan_shared
from drtp_controller.planners.gateway_status import (
    gateway_class_status,
    gateway_status,
    listener_set_status,
    route_status,
)
from drtp_controller.planners.hostnames import HostnameBook
from drtp_controller.planners.ports import IsFree, PortAllocator
from drtp_controller.planners.servers import DEFAULT_LEASE_SECONDS, LeaseBook, is_online, plan_server
from drtp_controller.planners.service import Front, ServicePlan, Way, key_of_service, plan_service
from drtp_controller.reconcile.apply import Applier
from drtp_controller.reconcile.caches import Caches
from drtp_controller.reconcile.cluster import ClusterReader
from drtp_controller.reconcile.events import Recorder
from drtp_controller.reconcile.gateway import GatewayRuntime
from drtp_controller.reconcile.users import UserGateways, is_ours

__all__ = ["Controller", "ControllerConfig", "Sort", "Work"]

_log = logging.getLogger(__name__)

FAULT_RETRY_SECONDS = 10.0
"""How soon a port that was taken is tried again: its other owner may be gone."""

SYNC_LOOK_SECONDS = 0.2
"""How often the first lists are looked at for refusals."""


@attrs.frozen(kw_only=True)
class ControllerConfig:
    """What the controller is told. ``ports`` bounds vended ports, both inclusive.

    ``sweep_events`` is for an API server that does not itself let old Events expire.
    """

    installation: str
    base_domain: str
    front: Front
    gateway: GatewayConfig
    ports: tuple[int, int]
    is_free: IsFree
    picker: Picker
    sweep_events: bool = False


class Sort(enum.Enum):
    """What a key names."""

    SERVER = "server"
    SERVICE = "service"
    CONNECTION = "connection"
    SHARED = "shared gateway"
    USERS = "users' gateways"


class Work(NamedTuple):
    """One thing to reconcile."""

    sort: Sort
    key: Key

    def __str__(self) -> str:
        return f"{self.sort.value} {self.key}"


class Controller:
    """Turns observed objects into desired ones until cancelled."""

    def __init__(
        self,
        kube: Kube,
        config: ControllerConfig,
        gateway: Gateway | ClusterGateway,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.kube = kube
        self.config = config
        self.clock = clock
        self.caches = Caches(kube, child_resources(config.gateway))
        self.ports = PortAllocator(config.ports[0], config.ports[1], config.is_free)
        self.names = HostnameBook(config.installation, config.base_domain)
        self.leases = LeaseBook()
        self.queue: WorkQueue[Work] = WorkQueue(clock=time.monotonic)
        self.applier = Applier(kube)
        self.ready = asyncio.Event()
        self._lease_seen = asyncio.Event()
        self._changed_servers: set[str] = set()
        self.users = UserGateways(kube, self.caches, config.gateway, self.ports, self.names)
        self.cluster: ClusterReader | None = None
        if isinstance(gateway, ClusterGateway):
            gateway = self.cluster = ClusterReader(gateway, config.gateway, self.caches, self.users.gateways)
        rereads = self.cluster is not None
        self.runtime = GatewayRuntime(gateway, self.exposures, self._programmed, rereads=rereads)
        self.recorder = Recorder(kube, clock=clock, sweep=config.sweep_events)
        self._wire()
        self.recorder.attach(self.caches, self.ready)

    async def run(self) -> None:
        """Reconcile until cancelled.

        Raises:
            DrtpError: DRTP-2003, DRTP-2008, DRTP-2031; what the controller needs it may not do, or is not there.
        """
        try:
            await self._run()
        except BaseExceptionGroup as group:
            coded = group.subgroup(DrtpError)
            if coded is None:
                raise
            raise _first(coded) from group

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            reflectors = (*self.caches.reflectors(), *self.users.reflectors())
            for reflector in reflectors:
                group.create_task(reflector.run())
            await _synced(reflectors)
            self._fill_books()
            self.users.replan(self.clock())
            self.ready.set()
            await self.write_shared()
            # what the gateway confirms of the objects that are there already must not look like a loss to them
            await self.runtime.apply_once()
            group.create_task(self.runtime.run())
            group.create_task(self.recorder.run())
            group.create_task(self._expire())
            group.create_task(self.queue.run(self.reconcile))

    def applied(self, service: str) -> Applied | None:
        """Return what the gateway last said of a service, by its key.

        Where users' routes lead to it, too, that is what speaks best for it.
        """
        found = [self.runtime.applied.get(service), *(w.applied for w in self.ways(service))]
        said = [a for a in found if a is not None]
        return next((a for a in said if a.status.programmed), said[0] if said else None)

    @property
    def front(self) -> Front:
        """Return how visitors reach the gateway; a cluster's is known once its Gateway has an address."""
        front = self.config.front
        if front.host or self.cluster is None:
            return front
        return attrs.evolve(front, host=self.cluster.address() or "")

    def ways(self, service: str) -> tuple[Way, ...]:
        """Return the ways to a service that users' routes make."""
        return self.users.ways(service, self.runtime.applied.get)

    def plan_of(self, service: Service, connections: Sequence[Connection]) -> ServicePlan:
        """Return the plan of a service, for the reconciles and for whoever must answer before they ran."""
        owner = key_of_service(service)
        return plan_service(
            service, connections, self.caches.servers_by_name(), self.runtime.applied.get(owner),
            ports=self.ports, names=self.names, front=self.front, now=self.clock(), routed=self.ways(owner),
            missing_list=self._missing_list(service), **self._cluster_says(service),
        )  # fmt: skip

    def _missing_list(self, service: Service) -> str | None:
        reference = service.spec.acl_ref
        found = reference is None or self.caches.lists.get(reference.name, service.metadata.namespace or "default")
        return None if found or reference is None else reference.name

    async def reconcile(self, work: Work) -> float | None:
        """Bring one thing to its desired state; return seconds after which to look again, if at all."""
        match work.sort:
            case Sort.SERVER:
                return await self._server(work.key)
            case Sort.SERVICE:
                return await self._service(work.key)
            case Sort.CONNECTION:
                return await self._connection(work.key)
            case Sort.SHARED:
                return await self.write_shared()
            case Sort.USERS:
                return await self._users()

    def exposures(self) -> list[Exposure]:
        """Return what the gateway shall make reachable now."""
        children = {r: i.reflector.cache for r, i in self.caches.children.items()}
        config = self.config.gateway
        services = {service_key(k.namespace, k.name): s for k, s in self.caches.services.objects.items()}
        return plan_exposures(
            GatewayObjects(
                listener_sets=children[LISTENER_SETS],
                http_routes=children[HTTP_ROUTES].values(),
                tcp_routes=children[config.tcp_routes].values(),
                udp_routes=children[config.udp_routes].values(),
                slices=children[ENDPOINT_SLICES].values(),
                services=services,
                connections={
                    service_key(k.namespace, k.name): self.caches.connections_of(k.namespace, k.name)
                    for k in self.caches.services.objects
                },
                servers=self.caches.servers_by_name(),
                lists=tuple(self.caches.lists),
                claims=self.users.plan.claims,
            )
        )

    # what wakes what

    def _wire(self) -> None:
        self.caches.servers.subscribe(self._server_changed)
        self.caches.services.subscribe(self._service_changed)
        self.caches.connections.subscribe(self._connection_changed)
        self.caches.lists.subscribe(self._list_changed)
        self.caches.leases.subscribe(self._lease_changed)
        for index in self.caches.children.values():
            index.reflector.subscribe(self._child_changed)
        for resource in (LISTENER_SETS, HTTP_ROUTES, self.config.gateway.tcp_routes, self.config.gateway.udp_routes):
            self.caches.children[resource].reflector.subscribe(self._route_changed)
        self.users.subscribe(self._users_changed)
        self.users.gateways.subscribe(self._gateway_changed)

    def _server_changed(self, key: Key, old: Server | None, new: Server | None) -> None:
        self.queue.add(Work(Sort.SERVER, key))
        if _as_seen_by_others(old) == _as_seen_by_others(new):
            return
        if not self._changed_servers:
            asyncio.get_running_loop().call_soon(self._wake_agents)
        self._changed_servers.add(key.name)
        self.runtime.touch()

    def _wake_agents(self) -> None:
        """Look at every agent once for all servers that changed together: at a start that is all of them."""
        changed, self._changed_servers = self._changed_servers, set()
        for where, connection in self.caches.connections.objects.items():
            service = self.caches.services.get(connection.spec.service_ref.name, where.namespace)
            wanted = service.spec.servers.replicas if service is not None else 0
            if any(a.name in changed for a in connection.spec.servers) or len(connection.spec.servers) < wanted:
                self.queue.add(Work(Sort.CONNECTION, where))
                self.queue.add(Work(Sort.SERVICE, Key(where.namespace, connection.spec.service_ref.name)))

    def _service_changed(self, key: Key, old: Service | None, new: Service | None) -> None:
        self.queue.add(Work(Sort.SERVICE, key))
        if old is None or new is None or old.spec != new.spec:
            self._users_changed()
            for connection in self.caches.connections_of(key.namespace, key.name):
                self.queue.add(Work(Sort.CONNECTION, Key(key.namespace, connection.metadata.name)))
            self.runtime.touch()

    def _connection_changed(self, key: Key, old: Connection | None, new: Connection | None) -> None:
        self.queue.add(Work(Sort.CONNECTION, key))
        for connection in (old, new):
            if connection is not None:
                self.queue.add(Work(Sort.SERVICE, Key(key.namespace, connection.spec.service_ref.name)))
        self.runtime.touch()

    def _lease_changed(self, change: Change) -> None:
        name = change.key.name
        if change.new is None:
            self.leases.forget(name)
        else:
            spec = change.new.get("spec") or {}
            duration = float(spec.get("leaseDurationSeconds") or DEFAULT_LEASE_SECONDS)
            self.leases.observe(name, parse_time(spec.get("renewTime")), duration, self.clock())
            self._lease_seen.set()
        server = self.caches.servers.get(name)
        if server is None:
            return
        skewed = self.leases.skewed(name)
        told = find(server.status.conditions, "ClockInSync")
        clock = skewed is not None and (told is not None and told.status == "False") is not skewed
        if clock or is_online(server) is not self.leases.alive(name, self.clock()):
            self.queue.add(Work(Sort.SERVER, Key("", name)))

    def _child_changed(self, change: Change) -> None:
        for obj in (change.old, change.new):
            metadata = (obj or {}).get("metadata", {})
            for reference in metadata.get("ownerReferences") or ():
                if reference.get("kind") == "DRTPService":
                    self.queue.add(Work(Sort.SERVICE, Key(change.key.namespace, reference["name"])))
        self.runtime.touch()

    def _route_changed(self, change: Change) -> None:
        if change.old is None or change.new is None:
            self.queue.add(Work(Sort.SHARED, Key("", "")))
        if not is_ours(change.new or change.old or {}):
            self._users_changed()

    def _list_changed(self, key: Key, old: object | None, new: object | None) -> None:
        self.runtime.touch()
        for where, service in self.caches.services.objects.items():
            if where.namespace != key.namespace:
                continue
            reference = service.spec.acl_ref
            named = reference is not None and reference.name == key.name and (old is None or new is None)
            if named or self.cluster is not None:  # a cluster's allow-lists are children of the services
                self.queue.add(Work(Sort.SERVICE, where))

    def _gateway_changed(self, change: Change) -> None:
        if self.cluster is None or change.key != Key(self.config.gateway.namespace, self.config.gateway.gateway_name):
            return
        self.queue.add(Work(Sort.SHARED, Key("", "")))
        self.runtime.touch()
        if _addresses(change.old) != _addresses(change.new):
            for where in self.caches.services.objects:
                self.queue.add(Work(Sort.SERVICE, where))

    def _users_changed(self) -> None:
        self.queue.add(Work(Sort.USERS, Key("", "")))

    def _programmed(self, changed: Sequence[str]) -> None:
        """Take what the gateway says: a vended port that it cannot bind is replaced, the rest is reported."""
        for exposure in changed:
            owner, _, route = exposure.partition("@")
            if route:
                self._users_changed()
            namespace, _, name = owner.partition("/")
            applied = self.runtime.applied.get(owner)
            service = self.caches.services.get(name, namespace)
            if (
                applied is not None
                and service is not None
                and applied.status.code == "DRTP-5003"
                and applied.exposure.port is not None
                and applied.exposure.port == self.ports.owned(owner)
                and service.spec.exposure.port == 0
            ):
                _log.warning("the gateway cannot bind port %s; %s gets another", applied.exposure.port, owner)
                self.ports.reject(owner, self.clock())
            self.queue.add(Work(Sort.SERVICE, Key(namespace, name)))
            for connection in self.caches.connections_of(namespace, name):
                self.queue.add(Work(Sort.CONNECTION, Key(namespace, connection.metadata.name)))

    async def _expire(self) -> None:
        """Wake the servers whose heartbeats ended."""
        while True:
            self._lease_seen.clear()
            now = self.clock()
            ahead, expired = self.leases.next_expiry(now)
            for name in expired:
                server = self.caches.servers.get(name)
                if server is not None and is_online(server):
                    self.queue.add(Work(Sort.SERVER, Key("", name)))
            try:
                async with asyncio.timeout(max(0.05, min(ahead - now, 3600.0))):
                    await self._lease_seen.wait()
            except TimeoutError:
                continue

    def _fill_books(self) -> None:
        """Let what was promised before this process began stay promised, the oldest promise first."""
        services = sorted(
            self.caches.services.objects.items(), key=lambda item: (item[1].metadata.creation_timestamp or "", item[0])
        )
        for key, service in services:
            owner = service_key(key.namespace, key.name)
            if service.status.external_port is not None:
                self.ports.observe(owner, service.spec.application.protocol, service.status.external_port)
            if service.status.canonical_hostname is not None:
                self.names.observe(owner, service.status.canonical_hostname)
        self.users.fill_books()
        for key, service in services:
            for name in service.spec.exposure.hostnames:
                self.names.observe(service_key(key.namespace, key.name), name)

    # reconciles

    async def _server(self, key: Key) -> float | None:
        server, raw = self.caches.servers.get(key.name), self.caches.servers.raw(key)
        if server is None or raw is None:
            return None
        now = self.clock()
        skewed = self.leases.skewed(key.name)
        status = plan_server(server, alive=self.leases.alive(key.name, now), skewed=skewed, now=now)
        await self.applier.status(DRTP_SERVERS, raw, status)
        return None

    async def _service(self, key: Key) -> float | None:
        owner, now = service_key(key.namespace, key.name), self.clock()
        service, raw = self.caches.services.get(key.name, key.namespace), self.caches.services.raw(key)
        if service is None or raw is None:
            self.ports.release(owner, now)
            self.names.retain(owner, frozenset())
            return None
        if service.metadata.deletion_timestamp is not None:
            return None
        connections = self.caches.connections_of(key.namespace, key.name)
        servers = self.caches.servers_by_name()
        plan = self.plan_of(service, connections)
        desired = plan_gateway(service, plan, connections, servers, self.config.gateway)
        if self.cluster is not None:
            lists = tuple(self.caches.lists)
            extra = plan_cluster(
                service, plan, self.ways(owner), lists, config=self.config.gateway, gateway=self.cluster.plugin
            )
            desired = (*desired, *extra)
        uid = service.metadata.uid or ""
        await self.applier.children(uid, desired, self.caches.children)
        if plan.status != service.status:
            await self.applier.status(DRTP_SERVICES, raw, plan.status)
        await self._child_statuses(uid, self.runtime.applied.get(owner), now)
        accepted = find(plan.status.conditions, "Accepted")
        return FAULT_RETRY_SECONDS if accepted is not None and accepted.status == "False" else None

    def _cluster_says(self, service: Service) -> dict[str, Any]:
        """Return what the plan of a service hears of the cluster's gateway."""
        if self.cluster is None:
            return {}
        plugin = self.cluster.plugin
        asked = own_exposure(service, None, tuple(self.caches.lists))
        return {"refusal": plugin.refusal(asked), "notes": tuple(plugin.conditions())}

    async def _child_statuses(self, uid: str, applied: Applied | None, now: float) -> None:
        config = self.config.gateway
        if not config.programs:
            return  # whoever programs says so
        for _, obj in self.caches.children[LISTENER_SETS].of(uid):
            await self._write_status(LISTENER_SETS, obj, listener_set_status(obj, applied, now=now))
        for resource in (HTTP_ROUTES, config.tcp_routes, config.udp_routes):
            for _, obj in self.caches.children[resource].of(uid):
                status = route_status(obj, applied, controller=config.controller_name, now=now)
                await self._write_status(resource, obj, status)

    async def _write_status(self, resource: Resource, obj: dict[str, Any], status: dict[str, Any]) -> None:
        if obj["metadata"].get("deletionTimestamp"):
            return
        try:
            await self.applier.raw_status(resource, obj, status)
        except NotFound:
            return  # this reconcile has just deleted it; the cache hears of it in a moment

    async def _connection(self, key: Key) -> float | None:
        connection, raw = self.caches.connections.get(key.name, key.namespace), self.caches.connections.raw(key)
        if connection is None or raw is None or connection.metadata.deletion_timestamp is not None:
            return None
        name = connection.spec.service_ref.name
        service = self.caches.services.get(name, key.namespace)
        servers = self.caches.servers_by_name()
        count = service.spec.servers.replicas if service is not None else len(connection.spec.servers)
        place = Place(wan_ip=connection.spec.client.wan_ip)
        up = frozenset(b.name for b in connected_bindings(connection, servers))
        assigned = assign_servers(
            connection.spec.servers, servers, self.config.picker, place, count=count, connected=up
        )
        if assigned != connection.spec.servers:
            patch = {
                "metadata": {"resourceVersion": connection.metadata.resource_version},
                "spec": {"servers": [to_wire(a) for a in assigned]},
            }
            self.applier.writes += 1
            raw = await self.kube.merge_patch(DRTP_CONNECTIONS, key.name, patch, key.namespace)
            spec = attrs.evolve(connection.spec, servers=assigned)
            connection = attrs.evolve(connection, spec=spec)
        applied = self.applied(service_key(key.namespace, name))
        status = plan_connection(connection, service, servers, applied, now=self.clock())
        if status != connection.status:  # the usual answer, without comparing what is on the wire
            await self.applier.status(DRTP_CONNECTIONS, raw, status)
        return None

    async def _users(self) -> float | None:
        """Replan what users wrote, wake the services that it concerns, and answer."""
        now = self.clock()
        for owner in self.users.replan(now):
            namespace, _, name = owner.partition("/")
            self.queue.add(Work(Sort.SERVICE, Key(namespace, name)))
            self.runtime.touch()
        await self.users.write(self.applier, self.runtime.applied, self.front.host, now)
        return FAULT_RETRY_SECONDS if self.users.plan.troubled else None

    async def write_shared(self) -> float | None:
        """Write the GatewayClass and the Gateway, and what we say of them."""
        now = self.clock()
        for resource, desired in plan_shared(self.config.gateway):
            metadata = desired["metadata"]
            try:
                observed = await self.kube.get(resource, metadata["name"], metadata.get("namespace"))
            except NotFound:
                observed = None
            await self.applier.ensure(resource, desired, observed)
            current = await self.kube.get(resource, metadata["name"], metadata.get("namespace"))
            if resource is GATEWAY_CLASSES:
                await self.applier.raw_status(resource, current, gateway_class_status(current, now=now))
            elif resource is GATEWAYS and self.config.gateway.programs:
                ours = sum(is_ours(r) for r in self.caches.children[HTTP_ROUTES].reflector.cache.values())
                routes = ours + self.users.attached_to_shared()
                status = gateway_status(current, host=self.config.front.host, routes=routes, now=now)
                await self.applier.raw_status(resource, current, status)
        return None


async def _synced(reflectors: Sequence[Reflector]) -> None:
    """Wait until every cache was filled once; an API that is away is waited for, one that refuses is not.

    Raises:
        DrtpError: What may not be read, or does not exist.
    """
    while waiting := [r for r in reflectors if not r.synced.is_set()]:
        for reflector in waiting:
            error = reflector.last_error
            if isinstance(error, Forbidden | Unauthorized | NotFound):
                raise DrtpError(
                    error.code, f"the controller cannot read {reflector.resource.qualified}: {error.message}"
                )
        tasks = [asyncio.create_task(r.synced.wait()) for r in waiting]
        await asyncio.wait(tasks, timeout=SYNC_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


def _first(group: BaseExceptionGroup[DrtpError]) -> DrtpError:
    """Return the first error of a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, DrtpError)
    return error


def _addresses(gateway: Obj | None) -> object:
    return ((gateway or {}).get("status") or {}).get("addresses") or ()


def _as_seen_by_others(server: Server | None) -> tuple[object, ...] | None:
    """Return what connections and exposures depend on; a heartbeat or a counter is not among it."""
    if server is None:
        return None
    full = server.status.connections >= server.spec.capacity.connections
    return (is_online(server), server.spec, full, server.metadata.labels)
