"""From Gateway API objects to what a gateway plugin is given: one exposure per routed service.

Rules:
- Only objects are read: whoever wrote the routes, we or a user, the translation is the same.
- A route of ours belongs to the DRTPService that owns it; users' routes come as claims, judged already.
- An allow-list narrows: several lists admit what each of them admits. What a list of prefixes cannot say is left to
  the edge, which judges every visitor again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from drtp_api.gateways import Backend, Exposure
from drtp_api.kube import Key, Obj, key_of
from drtp_api.resources import (
    AccessControlList,
    AclMode,
    Action,
    Connection,
    EnforceAt,
    Protocol,
    Server,
    Service,
    service_key,
)
from drtp_controller.planners.connection import ROLES, connected_bindings
from drtp_controller.planners.gateway import WAY_LABEL, child_name
from drtp_controller.planners.userroutes import Claim

__all__ = ["GatewayObjects", "allow_list", "plan_exposures"]

SERVICE_NAME = "kubernetes.io/service-name"
_MAX_PAIRS = 1_000_000
"""Prefix pairs that are compared when two lists are intersected; more is left to the edge."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@attrs.frozen(kw_only=True)
class GatewayObjects:
    """The observed objects that make exposures."""

    listener_sets: Mapping[Key, Obj] = attrs.field(factory=dict)
    http_routes: Iterable[Obj] = ()
    tcp_routes: Iterable[Obj] = ()
    udp_routes: Iterable[Obj] = ()
    slices: Iterable[Obj] = ()
    services: Mapping[str, Service] = attrs.field(factory=dict)
    connections: Mapping[str, Sequence[Connection]] = attrs.field(factory=dict)
    servers: Mapping[str, Server] = attrs.field(factory=dict)
    lists: Sequence[AccessControlList] = ()
    claims: Sequence[Claim] = ()


def plan_exposures(objects: GatewayObjects) -> list[Exposure]:
    """Return the exposures of every service that a route leads to, sorted by service."""
    slices: dict[Key, list[Obj]] = {}
    for item in objects.slices:
        namespace, _ = key_of(item)
        name = (item["metadata"].get("labels") or {}).get(SERVICE_NAME)
        if name:
            slices.setdefault(Key(namespace, name), []).append(item)
    found: dict[str, Exposure] = {}
    groups = (
        (Protocol.HTTP, objects.http_routes),
        (Protocol.TCP, objects.tcp_routes),
        (Protocol.UDP, objects.udp_routes),
    )
    for protocol, routes in groups:
        for route in routes:
            exposure = _exposure(protocol, route, slices, objects)
            if exposure is not None:
                found.setdefault(exposure.service, exposure)
    for claim in objects.claims:
        if claim.service in objects.services:
            found[claim.key] = _claimed(claim, slices, objects)
    return [found[key] for key in sorted(found)]


def _claimed(claim: Claim, slices: Mapping[Key, Sequence[Obj]], objects: GatewayObjects) -> Exposure:
    """Return the exposure that a user's route makes of a service."""
    service = objects.services[claim.service]
    namespace, _, name = claim.service.partition("/")
    backends = [b for item in slices.get(Key(namespace, child_name(name)), ()) for b in _backends(item)]
    address = _public_address(objects.connections.get(claim.service, ()), objects.servers, claim.port)
    return Exposure(
        service=claim.service,
        route=claim.name,
        protocol=claim.protocol,
        port=claim.port,
        hostnames=claim.hostnames,
        backends=_ordered(backends),
        allow=allow_list(service, objects.lists),
        public_address=address,
    )


def _ordered(backends: Iterable[Backend]) -> tuple[Backend, ...]:
    return tuple(sorted(backends, key=lambda b: (b.priority, b.address, b.port)))


def _exposure(
    protocol: Protocol, route: Obj, slices: Mapping[Key, Sequence[Obj]], objects: GatewayObjects
) -> Exposure | None:
    namespace, _ = key_of(route)
    owner = _owner(route)
    key = service_key(namespace, owner) if owner else ""
    service = objects.services.get(key)
    if service is None:
        return None
    port = None if protocol is Protocol.HTTP else _listener_port(route, namespace, objects.listener_sets)
    if protocol is not Protocol.HTTP and port is None:
        return None
    backends = [
        backend
        for rule in route["spec"].get("rules") or ()
        for ref in rule.get("backendRefs") or ()
        for item in slices.get(Key(namespace, ref["name"]), ())
        for backend in _backends(item)
    ]
    connections = objects.connections.get(key, ())
    return Exposure(
        service=key,
        protocol=protocol,
        port=port,
        hostnames=tuple(route["spec"].get("hostnames") or ()) if protocol is Protocol.HTTP else (),
        backends=_ordered(backends),
        allow=allow_list(service, objects.lists),
        public_address=_public_address(connections, objects.servers, port),
    )


def _owner(obj: Obj) -> str | None:
    if WAY_LABEL in (obj["metadata"].get("labels") or {}):
        return None  # derived from a user's route, which is a claim
    references = obj["metadata"].get("ownerReferences") or ()
    return next((r["name"] for r in references if r.get("kind") == "DRTPService"), None)


def _listener_port(route: Obj, namespace: str, listener_sets: Mapping[Key, Obj]) -> int | None:
    for parent in route["spec"].get("parentRefs") or ():
        listeners = listener_sets.get(Key(parent.get("namespace") or namespace, parent["name"]))
        for listener in (listeners or {}).get("spec", {}).get("listeners") or ():
            if parent.get("sectionName") in {None, listener["name"]}:
                return int(listener["port"])
    return None


def _backends(item: Obj) -> Iterable[Backend]:
    port = next((p.get("port") for p in item.get("ports") or ()), None)
    for endpoint in item.get("endpoints") or ():
        conditions: Mapping[str, Any] = endpoint.get("conditions") or {}
        for address in endpoint.get("addresses") or ():
            if port:
                yield Backend(address=address, port=port, ready=conditions.get("ready") is not False)


def _public_address(connections: Sequence[Connection], servers: Mapping[str, Server], port: int | None) -> str | None:
    """Return the address that an edge itself owns for the service at a port, the preferred role's first."""
    bindings = [
        b
        for c in connections
        for b in connected_bindings(c, servers)
        if b.public_address and (port is None or b.public_address.endswith(f":{port}"))
    ]
    bindings.sort(key=lambda b: (ROLES.index(b.role), b.name))
    return bindings[0].public_address if bindings else None


def allow_list(service: Service, lists: Sequence[AccessControlList]) -> tuple[str, ...] | None:
    """Return the prefixes that the gateway admits, ``None`` where it admits everybody."""
    allowed: tuple[str, ...] | None = None
    if service.spec.edge_allowlist_cidrs:
        allowed = tuple(service.spec.edge_allowlist_cidrs)
    for found in lists:
        prefixes = _prefixes(found) if _applies(found, service) else None
        if prefixes is not None:
            allowed = prefixes if allowed is None else _intersection(allowed, prefixes)
    return allowed


def _applies(found: AccessControlList, service: Service) -> bool:
    if found.metadata.namespace != service.metadata.namespace:
        return False
    if found.spec.mode is not AclMode.ENFORCE or EnforceAt.GATEWAY not in found.spec.enforce_at:
        return False
    reference = service.spec.acl_ref
    return (reference is not None and reference.name == found.metadata.name) or any(
        t.kind == "DRTPService" and t.name == service.metadata.name for t in found.spec.target_refs
    )


def _prefixes(found: AccessControlList) -> tuple[str, ...] | None:
    """Return the prefixes of a list that only allows, ``None`` for what prefixes cannot say."""
    if found.spec.default_action is Action.ALLOW or any(r.action is Action.DENY for r in found.spec.rules):
        return None
    return tuple(dict.fromkeys(cidr for rule in found.spec.rules for cidr in rule.client_cidrs))


def _intersection(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    if len(one) * len(other) > _MAX_PAIRS:
        return one
    left = [ipaddress.ip_network(c, strict=False) for c in one]
    right = [ipaddress.ip_network(c, strict=False) for c in other]
    narrower = (a if _within(a, b) else b for a in left for b in right if _within(a, b) or _within(b, a))
    return tuple(dict.fromkeys(str(n) for n in narrower))


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
