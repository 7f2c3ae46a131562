"""The Gateway API objects of a service: what a gateway, ours or a cluster's, is programmed with.

Rules:
- One shared Gateway; a ListenerSet per public port; HTTP shares the Gateway's listener and is told apart by host.
- Routes name a selector-less Service; its EndpointSlices, one per tunnel server because their ports differ, are
  the edges' data ports, ready while a tunnel of the service is up there.
- Every object is owned by the DRTPService: deleting it removes all. A private service has none.
What must not enter: what a particular gateway understands.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from drtp_api.clustergateways import ClusterInfo
from drtp_api.kube import (
    ENDPOINT_SLICES,
    GATEWAY_CLASSES,
    GATEWAY_GROUP,
    GATEWAYS,
    HTTP_ROUTES,
    LISTENER_SETS,
    REFERENCE_GRANTS,
    SERVICES,
    TCP_ROUTES,
    TLS_ROUTES,
    UDP_ROUTES,
    Obj,
    Resource,
)
from drtp_api.resources import (
    API_VERSION,
    SYSTEM_NAMESPACE,
    Connection,
    Protocol,
    Role,
    Server,
    ServerBinding,
    Service,
)
from drtp_controller.planners.connection import ROLES, connected_bindings
from drtp_controller.planners.service import ServicePlan

__all__ = [
    "MANAGED_BY",
    "SERVICE_LABEL",
    "WAY_LABEL",
    "GatewayConfig",
    "Maker",
    "child_name",
    "child_resources",
    "object_name",
    "plan_gateway",
    "plan_shared",
    "service_port",
]

SERVICE_LABEL = "drtp.datumapis.com/service"
WAY_LABEL = "drtp.datumapis.com/way"
"""Marks what was derived from a user's route."""
MANAGED_BY = "drtp.datumapis.com"
PORT_NAME = "tunnel"


@attrs.frozen(kw_only=True)
class GatewayConfig:
    """Names of the shared objects, and the versions of the routes that this API serves, ``None`` where it has none.

    ``implementation_class`` is the class of the shared Gateway where the cluster programs it, and empty where our own
    gateway does; ``policies`` are the kinds of that implementation which come with each route.
    """

    controller_name: str
    http_port: int
    class_name: str = "datum-external-global-proxy"
    gateway_name: str = "drtp-gateway"
    namespace: str = SYSTEM_NAMESPACE
    tcp_routes: Resource = TCP_ROUTES
    udp_routes: Resource = UDP_ROUTES
    tls_routes: Resource | None = TLS_ROUTES
    grants: Resource | None = REFERENCE_GRANTS
    implementation_class: str = ""
    policies: tuple[Resource, ...] = ()

    @classmethod
    def of_cluster(cls, info: ClusterInfo, *, controller_name: str, http_port: int) -> GatewayConfig:
        """Return the configuration for a cluster whose own gateway implementation programs."""
        return cls(
            controller_name=controller_name,
            http_port=http_port,
            tcp_routes=info.tcp_routes,
            udp_routes=info.udp_routes,
            tls_routes=info.tls_routes,
            grants=info.grants,
            implementation_class=info.implementation_class,
            policies=info.policies,
        )

    @property
    def programs(self) -> bool:
        """Return whether we play the gateway implementation ourselves; else the cluster has one."""
        return not self.implementation_class

    @property
    def answers_users(self) -> bool:
        """Return whether Gateways that users write are ours to answer: they are, of a class that nobody else has."""
        return self.class_name != self.implementation_class


def child_resources(config: GatewayConfig) -> tuple[Resource, ...]:
    """Return the kinds of a service's children, in the order in which they are created."""
    routes = (config.tcp_routes, config.udp_routes, HTTP_ROUTES)
    return (SERVICES, ENDPOINT_SLICES, LISTENER_SETS, *routes, *config.policies)


def child_name(service: str, *parts: str) -> str:
    """Return a DNS label for a child of the service: readable, at most 63 characters, unique to its parts."""
    whole = "-".join(("drtp", service, *parts))
    label = re.sub(r"[^a-z0-9-]", "-", whole.lower()).strip("-")
    if label == whole and len(label) <= 63:
        return label
    return f"{label[:52].rstrip('-')}-{hashlib.sha256(whole.encode()).hexdigest()[:10]}"


def object_name(service: str, route: str = "") -> str:
    """Return the name of the listener, the route and the policies of one way to a service."""
    return child_name(service, route) if route else child_name(service)


def plan_shared(config: GatewayConfig) -> tuple[tuple[Resource, Obj], ...]:
    """Return the GatewayClass and the Gateway that all services share."""
    klass = {
        "apiVersion": GATEWAY_CLASSES.api_version,
        "kind": GATEWAY_CLASSES.kind,
        "metadata": {"name": config.class_name},
        "spec": {"controllerName": config.controller_name},
    }
    gateway = {
        "apiVersion": GATEWAYS.api_version,
        "kind": GATEWAYS.kind,
        "metadata": {
            "name": config.gateway_name,
            "namespace": config.namespace,
            "labels": {"app.kubernetes.io/managed-by": MANAGED_BY},
        },
        "spec": {
            "gatewayClassName": config.implementation_class or config.class_name,
            "allowedListeners": {"namespaces": {"from": "All"}},
            "listeners": [
                {
                    "name": "http",
                    "protocol": "HTTP",
                    "port": config.http_port,
                    "allowedRoutes": {"namespaces": {"from": "All"}, "kinds": [{"kind": "HTTPRoute"}]},
                }
            ],
        },
    }
    # the class of a cluster's implementation is its administrator's
    classes = ((GATEWAY_CLASSES, klass),) if config.answers_users else ()
    return (*classes, (GATEWAYS, gateway))


def plan_gateway(
    service: Service,
    plan: ServicePlan,
    connections: Sequence[Connection],
    servers: Mapping[str, Server],
    config: GatewayConfig,
) -> tuple[tuple[Resource, Obj], ...]:
    """Return the objects that expose a service; none where there is nothing to expose.

    A service that only users' routes lead to has a Service and slices, and neither a route nor a listener of its own.
    """
    if not (plan.exposed or plan.routed) or service.metadata.deletion_timestamp is not None:
        return ()
    maker = Maker(service, config)
    protocol = service.spec.application.protocol
    port = service_port(service)
    objects = [(SERVICES, maker.service(port))]
    objects += [(ENDPOINT_SLICES, s) for s in maker.slices(connections, servers)]
    if not plan.exposed:
        return tuple(objects)
    if protocol is Protocol.HTTP:
        objects.append((HTTP_ROUTES, maker.http_route(plan.hostnames, port)))
    else:
        assert plan.port is not None
        objects.append((LISTENER_SETS, maker.listener_set(protocol, plan.port)))
        resource = config.tcp_routes if protocol is Protocol.TCP else config.udp_routes
        objects.append((resource, maker.stream_route(resource, protocol, plan.port, port)))
    return tuple(objects)


def service_port(service: Service) -> int:
    """Return the port of the Service in front of the data ports: a name only, nothing listens there."""
    if service.spec.application.protocol is Protocol.HTTP:
        return 80
    return service.spec.application.port or 1


@attrs.frozen
class Maker:
    """Makes the children of one service."""

    owner: Service
    config: GatewayConfig

    @property
    def name(self) -> str:
        """Return the name of the service's own children."""
        return child_name(self.owner.metadata.name)

    def metadata(self, name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the metadata of a child."""
        meta = self.owner.metadata
        return {
            "name": name,
            "namespace": meta.namespace or "default",
            "labels": {
                "app.kubernetes.io/managed-by": MANAGED_BY,
                # label values end at 63 characters, names of services do not
                SERVICE_LABEL: meta.name if len(meta.name) <= 63 else child_name(meta.name),
                **(labels or {}),
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "DRTPService",
                    "name": meta.name,
                    "uid": meta.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        }

    def service(self, port: int) -> Obj:
        """Return the Service in front of the data ports."""
        wire = "UDP" if self.owner.spec.application.protocol is Protocol.UDP else "TCP"
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(self.name),
            "spec": {"ports": [{"name": PORT_NAME, "port": port, "protocol": wire}]},
        }

    def slices(self, connections: Sequence[Connection], servers: Mapping[str, Server]) -> list[Obj]:
        """Return one slice per server that has a data port for the service."""
        found: dict[str, tuple[ServerBinding, bool]] = {}
        for connection in sorted(connections, key=lambda c: c.metadata.name):
            up = {b.name for b in connected_bindings(connection, servers)}
            for binding in connection.status.servers:
                if binding.pod_ip is None or binding.pod_port is None:
                    continue
                known = found.get(binding.name)
                if known is None or (binding.name in up and not known[1]):
                    found[binding.name] = (binding, binding.name in up)
        if self.owner.spec.servers.standby:
            found = _standby(found)
        return [self._slice(b, ready) for _, (b, ready) in sorted(found.items())]

    def _slice(self, binding: ServerBinding, ready: bool) -> Obj:
        wire = "UDP" if self.owner.spec.application.protocol is Protocol.UDP else "TCP"
        return {
            "apiVersion": ENDPOINT_SLICES.api_version,
            "kind": ENDPOINT_SLICES.kind,
            "metadata": self.metadata(
                child_name(self.owner.metadata.name, binding.name),
                {"kubernetes.io/service-name": self.name, "endpointslice.kubernetes.io/managed-by": MANAGED_BY},
            ),
            "addressType": _address_type(binding.pod_ip or ""),
            "ports": [{"name": PORT_NAME, "port": binding.pod_port, "protocol": wire}],
            "endpoints": [
                {
                    "addresses": [binding.pod_ip],
                    "conditions": {"ready": ready, "serving": ready, "terminating": False},
                }
            ],
        }

    def listener_set(
        self, protocol: Protocol, port: int, name: str = "", labels: Mapping[str, str] | None = None
    ) -> Obj:
        """Return the ListenerSet of one public port."""
        return {
            "apiVersion": LISTENER_SETS.api_version,
            "kind": LISTENER_SETS.kind,
            "metadata": self.metadata(name or self.name, labels),
            "spec": {
                "parentRef": {**self._gateway_ref(), "kind": "Gateway", "group": GATEWAY_GROUP},
                "listeners": [
                    {
                        "name": _section(protocol, port),
                        "protocol": protocol.value,
                        "port": port,
                        "allowedRoutes": {
                            "namespaces": {"from": "Same"},
                            "kinds": [{"kind": f"{protocol.value}Route"}],
                        },
                    }
                ],
            },
        }

    def stream_route(
        self,
        resource: Resource,
        protocol: Protocol,
        port: int,
        service_port: int,
        *,
        name: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> Obj:
        """Return the route from a public port to the Service."""
        return {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": self.metadata(name or self.name, labels),
            "spec": {
                "parentRefs": [
                    {
                        "group": GATEWAY_GROUP,
                        "kind": "ListenerSet",
                        "name": name or self.name,
                        "sectionName": _section(protocol, port),
                    }
                ],
                "rules": [{"backendRefs": [{"name": self.name, "port": service_port}]}],
            },
        }

    def http_route(
        self, hostnames: Sequence[str], service_port: int, name: str = "", labels: Mapping[str, str] | None = None
    ) -> Obj:
        """Return the route from host names to the Service."""
        return {
            "apiVersion": HTTP_ROUTES.api_version,
            "kind": HTTP_ROUTES.kind,
            "metadata": self.metadata(name or self.name, labels),
            "spec": {
                "parentRefs": [
                    {"group": GATEWAY_GROUP, "kind": "Gateway", **self._gateway_ref(), "sectionName": "http"}
                ],
                "hostnames": list(hostnames),
                "rules": [{"backendRefs": [{"name": self.name, "port": service_port}]}],
            },
        }

    def _gateway_ref(self) -> dict[str, str]:
        return {"name": self.config.gateway_name, "namespace": self.config.namespace}


def _section(protocol: Protocol, port: int) -> str:
    return f"{protocol.value.lower()}-{port}"


def _address_type(address: str) -> str:
    try:
        return f"IPv{ipaddress.ip_address(address).version}"
    except ValueError:
        return "FQDN"


def _rank(role: Role) -> int:
    return ROLES.index(role)


def _standby(found: Mapping[str, tuple[ServerBinding, bool]]) -> dict[str, tuple[ServerBinding, bool]]:
    """Return the seed's active/standby pair: only the first connected server by role stays ready."""
    up = sorted((b for b, ready in found.values() if ready), key=lambda b: (_rank(b.role), b.name))
    active = up[0].name if up else None
    return {name: (binding, name == active) for name, (binding, _) in found.items()}
