"""Users' own Gateways and routes: replanned as a whole when one of them changes, and answered in their status.

Rules:
- One reconcile for all: who was first is decided among all of them.
- Objects of classes that are not ours, and routes to parents that are not ours, are left alone.
What must not enter: judgements (planners), anything about our own children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from drtp_api.kube import (
    GATEWAYS,
    HTTP_ROUTES,
    LISTENER_SETS,
    NAMESPACES,
    Key,
    Kube,
    NotFound,
    Obj,
    Reflector,
    Resource,
    key_of,
)
from drtp_api.resources import service_key
from drtp_controller.planners.connection import Applied
from drtp_controller.planners.gateway import GatewayConfig
from drtp_controller.planners.hostnames import HostnameBook
from drtp_controller.planners.listeners import observe_listeners, plan_doors
from drtp_controller.planners.ports import PortAllocator
from drtp_controller.planners.service import Way
from drtp_controller.planners.user_status import (
    attached,
    user_gateway_status,
    user_listener_set_status,
    user_route_status,
)
from drtp_controller.planners.userroutes import Claim, UserPlan, observe_hosts, plan_routes
from drtp_controller.reconcile.apply import Applier
from drtp_controller.reconcile.caches import Caches

__all__ = ["UserGateways", "is_ours"]


class UserGateways:
    """Plans and answers what users wrote."""

    def __init__(
        self, kube: Kube, caches: Caches, config: GatewayConfig, ports: PortAllocator, names: HostnameBook
    ) -> None:
        self.plan = UserPlan()
        self._caches = caches
        self._config = config
        self._ports = ports
        self._names = names
        self._ways: dict[str, list[Claim]] = {}
        self.gateways = Reflector(kube, GATEWAYS)
        self.namespaces = Reflector(kube, NAMESPACES)
        self._grants = Reflector(kube, config.grants) if config.grants is not None else None
        self._tls = Reflector(kube, config.tls_routes) if config.tls_routes is not None else None

    def reflectors(self) -> tuple[Reflector, ...]:
        """Return the reflectors that nobody else needs."""
        return tuple(r for r in (self.gateways, self.namespaces, self._grants, self._tls) if r is not None)

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call back when something changed that a plan depends on."""
        for reflector in self.reflectors():
            reflector.subscribe(lambda _: callback())

    def fill_books(self) -> None:
        """Let what was promised to users' Gateways and routes stay promised."""
        name = self._config.class_name
        gateways = [g for g in self.gateways.cache.values() if g["spec"].get("gatewayClassName") == name]
        observe_listeners("Gateway", gateways, self._ports)
        observe_listeners("ListenerSet", self._sets(), self._ports)
        routes = (r for kind, _, r in self._routes() if kind == "HTTPRoute")
        observe_hosts(routes, self._config.controller_name, self._names)

    def replan(self, now: float) -> set[str]:
        """Plan anew; return the keys of the services that gained or lost a way."""
        if not self._config.answers_users:
            return set()
        namespaces = {k.name: n["metadata"].get("labels") or {} for k, n in self.namespaces.cache.items()}
        doors = plan_doors(
            self.gateways.cache.values(),
            self._sets(),
            class_name=self._config.class_name,
            shared=Key(self._config.namespace, self._config.gateway_name),
            http_port=self._config.http_port,
            namespaces=namespaces,
            ports=self._ports,
            now=now,
        )
        services = {service_key(k.namespace, k.name): s for k, s in self._caches.services.objects.items()}
        self.plan = plan_routes(
            ((kind, route) for kind, _, route in self._routes()), doors, services,
            grants=self._grants.cache.values() if self._grants is not None else (), namespaces=namespaces,
            names=self._names,
        )  # fmt: skip
        before, self._ways = self._ways, {}
        for claim in self.plan.claims:
            self._ways.setdefault(claim.service, []).append(claim)
        return {k for k in before.keys() | self._ways.keys() if before.get(k) != self._ways.get(k)}

    def ways(self, service: str, applied: Callable[[str], Applied | None]) -> tuple[Way, ...]:
        """Return the ways to a service that users' routes make."""
        return tuple(Way(claim, applied(claim.key)) for claim in self._ways.get(service, ()))

    def attached_to_shared(self) -> int:
        """Return how many of users' routes are attached to our own Gateway."""
        return attached(self.plan, "Gateway", Key(self._config.namespace, self._config.gateway_name), "http")

    async def write(self, applier: Applier, applied: dict[str, Applied], host: str, now: float) -> None:
        """Write the statuses that differ."""
        doors = self.plan.doors
        shared = Key(self._config.namespace, self._config.gateway_name)
        for key, obj in list(self.gateways.cache.items()):
            if key != shared and doors.known("Gateway", key):
                status = user_gateway_status(obj, self.plan, applied, host=host, now=now)
                await _write(applier, GATEWAYS, obj, status)
        for obj in list(self._sets()):
            if doors.known("ListenerSet", key_of(obj)):
                status = user_listener_set_status(obj, self.plan, applied, now=now)
                await _write(applier, LISTENER_SETS, obj, status)
        verdicts = {(v.kind, v.key): v for v in self.plan.routes}
        controller = self._config.controller_name
        for kind, resource, obj in list(self._routes()):
            verdict = verdicts.get((kind, key_of(obj)))
            if verdict is None and not _answered(obj, controller):
                continue
            status = user_route_status(obj, verdict, applied, controller=controller, now=now)
            await _write(applier, resource, obj, status)

    def _sets(self) -> Iterator[Obj]:
        return (s for s in self._caches.children[LISTENER_SETS].reflector.cache.values() if not is_ours(s))

    def _routes(self) -> Iterator[tuple[str, Resource, Obj]]:
        config = self._config
        for resource in (HTTP_ROUTES, config.tcp_routes, config.udp_routes):
            for route in self._caches.children[resource].reflector.cache.values():
                if not is_ours(route):
                    yield resource.kind, resource, route
        if self._tls is not None and config.tls_routes is not None:
            for route in self._tls.cache.values():
                yield config.tls_routes.kind, config.tls_routes, route


def is_ours(obj: Obj) -> bool:
    """Return whether an object is a child that we wrote."""
    references = obj["metadata"].get("ownerReferences") or ()
    return any(r.get("kind") == "DRTPService" and r.get("controller") for r in references)


def _answered(obj: Obj, controller: str) -> bool:
    return any(p.get("controllerName") == controller for p in (obj.get("status") or {}).get("parents") or ())


async def _write(applier: Applier, resource: Resource, obj: Obj, status: Obj) -> None:
    if obj["metadata"].get("deletionTimestamp"):
        return
    try:
        await applier.raw_status(resource, obj, status)
    except NotFound:
        return  # deleted meanwhile; the cache hears of it in a moment
