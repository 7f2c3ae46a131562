"""Routes that users wrote: from a backendRef that names a DRTPService to what the gateway shall listen for.

Rules:
- A route that leads to a DRTPService is judged for each of its parents of ours; the words are the Gateway API's.
- One listener leads to one service, one host name to one route; the older route keeps it, the later one is told.
- What this gateway cannot do (weights, filters, paths) is refused with a condition, never done half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from drtp_api.errors import DrtpError
from drtp_api.kube import DRTP_GROUP, GATEWAY_GROUP, Key, Obj, key_of
from drtp_api.resources import Protocol, Service, service_key
from drtp_controller.planners.hostnames import HostnameBook
from drtp_controller.planners.listeners import Door, Doors, Fault, admits, age

__all__ = ["Claim", "ParentVerdict", "RouteVerdict", "UserPlan", "backend_services", "observe_hosts", "plan_routes"]

_PROTOCOLS = {"HTTPRoute": Protocol.HTTP, "TCPRoute": Protocol.TCP, "UDPRoute": Protocol.UDP}


@attrs.frozen(kw_only=True)
class Claim:
    """One public way to a service that a user's route makes. ``port`` is ``None`` for HTTP, told apart by host."""

    service: str
    protocol: Protocol
    kind: str
    route: Key
    port: int | None = None
    hostnames: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return what tells this way apart from the service's other ones."""
        suffix = "" if self.port is None else f":{self.port}"
        return f"{self.kind}/{self.route}{suffix}"

    @property
    def key(self) -> str:
        """Return the key of its exposure."""
        return f"{self.service}@{self.name}"


@attrs.frozen(kw_only=True)
class ParentVerdict:
    """What is said of a route to one of its parents. ``doors`` are the listeners that it is attached to."""

    reference: Mapping[str, Any]
    accepted: Fault | None = None
    resolved: Fault | None = None
    conflict: bool = False
    doors: tuple[Door, ...] = ()
    claims: tuple[Claim, ...] = ()


@attrs.frozen(kw_only=True)
class RouteVerdict:
    """What is said of one route."""

    kind: str
    key: Key
    parents: tuple[ParentVerdict, ...]


@attrs.frozen(kw_only=True)
class UserPlan:
    """What users' Gateways and routes come to."""

    doors: Doors = Doors()
    routes: tuple[RouteVerdict, ...] = ()

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Return every public way, sorted by key."""
        found = {c.key: c for r in self.routes for p in r.parents for c in p.claims}
        return tuple(found[k] for k in sorted(found))

    @property
    def troubled(self) -> bool:
        """Return whether something was refused that another owner may give back."""
        return any(d.fault is not None for d in self.doors.listeners) or any(
            p.conflict for r in self.routes for p in r.parents
        )


def backend_services(route: Obj) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    """Yield the DRTPServices that a route names, with the reference."""
    for rule in route["spec"].get("rules") or ():
        for reference in rule.get("backendRefs") or ():
            if reference.get("group") == DRTP_GROUP and reference.get("kind") == "DRTPService":
                yield Key(reference.get("namespace") or key_of(route).namespace, reference["name"]), reference


def observe_hosts(routes: Iterable[Obj], controller: str, names: HostnameBook) -> None:
    """Let routes that were accepted before this process began keep their host names."""
    for route in sorted(routes, key=age):
        for parent in (route.get("status") or {}).get("parents") or ():
            conditions = parent.get("conditions") or ()
            if parent.get("controllerName") == controller and any(
                c.get("type") == "Accepted" and c.get("status") == "True" for c in conditions
            ):
                for host in route["spec"].get("hostnames") or ():
                    names.observe(_owner("HTTPRoute", key_of(route)), host)


def plan_routes(
    routes: Iterable[tuple[str, Obj]],
    doors: Doors,
    services: Mapping[str, Service],
    *,
    grants: Iterable[Obj],
    namespaces: Mapping[str, Mapping[str, str]],
    names: HostnameBook,
) -> UserPlan:
    """Return what users' routes come to; claims their host names in the book.

    Args:
        routes: Kind and object of every route that is not ours.
        doors: The listeners.
        services: Every DRTPService by its key.
        grants: Every ReferenceGrant.
        namespaces: Labels by name.
        names: Who owns which host name.
    """
    planner = _Planner(doors, services, list(grants), namespaces, names)
    verdicts = [planner.judge(kind, route) for kind, route in sorted(routes, key=lambda pair: (age(pair[1]), pair[0]))]
    kept = frozenset(planner.hosts)
    for owner in names.owners():
        if " " in owner:
            names.retain(owner, frozenset(h for o, h in kept if o == owner))
    return UserPlan(doors=doors, routes=tuple(v for v in verdicts if v.parents))


def _owner(kind: str, key: Key) -> str:
    return f"{kind} {key}"


@attrs.define
class _Planner:
    doors: Doors
    services: Mapping[str, Service]
    grants: Sequence[Obj]
    namespaces: Mapping[str, Mapping[str, str]]
    names: HostnameBook
    taken: dict[tuple[str, Key, str], str] = attrs.field(factory=dict)
    hosts: set[tuple[str, str]] = attrs.field(factory=set)

    def judge(self, kind: str, route: Obj) -> RouteVerdict:
        key = key_of(route)
        parents = []
        for reference in route["spec"].get("parentRefs") or ():
            place = Key(reference.get("namespace") or key.namespace, reference["name"])
            where = reference.get("kind", "Gateway")
            if reference.get("group", GATEWAY_GROUP) == GATEWAY_GROUP and self.doors.known(where, place):
                # our own Gateway is for our own routes; a user's that does not name a DRTPService is none of ours
                parents.append(self._parent(kind, route, reference, self.doors.of(where, place)))
        return RouteVerdict(kind=kind, key=key, parents=tuple(parents))

    def _parent(self, kind: str, route: Obj, reference: Mapping[str, Any], candidates: Sequence[Door]) -> ParentVerdict:
        service, resolved = self._service(kind, route)
        protocol = _PROTOCOLS.get(kind)
        if protocol is None:
            fault: Fault | None = Fault("UnsupportedValue", f"this gateway carries no {kind}; use a TCPRoute")
        else:
            fault = _unsupported(kind, route)
        doors: list[Door] = []
        if fault is None:
            doors, fault = self._doors(kind, route, reference, candidates)
        if fault is not None or service is None or protocol is None:
            return ParentVerdict(reference=reference, accepted=fault, resolved=resolved, doors=tuple(doors))
        if protocol is Protocol.HTTP:
            return self._http(route, reference, doors, service)
        return self._stream(kind, route, reference, doors, service)

    def _http(self, route: Obj, reference: Mapping[str, Any], doors: Sequence[Door], service: str) -> ParentVerdict:
        key = key_of(route)
        owner = _owner("HTTPRoute", key)
        hosts = _hosts(route, doors)
        if not hosts:
            text = "name the route's hostnames, or the listener's: this gateway is shared and needs to tell them apart"
            return ParentVerdict(reference=reference, accepted=Fault("UnsupportedValue", text))
        for host in hosts:
            try:
                self.names.claim(owner, host)
            except DrtpError as error:
                text = f"{error.code} {error.message}; choose another host name, or remove it there"
                return ParentVerdict(reference=reference, accepted=Fault("HostnameConflict", text), conflict=True)
        self.hosts |= {(owner, h) for h in hosts}
        claim = Claim(service=service, protocol=Protocol.HTTP, kind="HTTPRoute", route=key, hostnames=hosts)
        return ParentVerdict(reference=reference, doors=tuple(doors), claims=(claim,))

    def _stream(
        self, kind: str, route: Obj, reference: Mapping[str, Any], doors: Sequence[Door], service: str
    ) -> ParentVerdict:
        key, protocol = key_of(route), _PROTOCOLS[kind]
        owner = _owner(kind, key)
        for door in doors:
            holder = self.taken.get((door.kind, door.key, door.name), owner)
            if holder != owner:
                text = f"the {holder} has the listener {door.name} of {door.key}; give this route a listener of its own"
                return ParentVerdict(reference=reference, accepted=Fault("PortConflict", text), conflict=True)
        claims = []
        for door in doors:
            self.taken[door.kind, door.key, door.name] = owner
            claims.append(Claim(service=service, protocol=protocol, kind=kind, route=key, port=door.port))
        return ParentVerdict(reference=reference, doors=tuple(doors), claims=tuple(claims))

    def _doors(
        self, kind: str, route: Obj, reference: Mapping[str, Any], candidates: Sequence[Door]
    ) -> tuple[list[Door], Fault | None]:
        named = [
            d
            for d in candidates
            if reference.get("sectionName") in {None, d.name} and reference.get("port") in {None, d.port}
        ]
        if not named:
            return [], Fault("NoMatchingParent", "no listener has this sectionName and port")
        namespace = key_of(route).namespace
        allowed = [d for d in named if kind in d.kinds and admits(d, namespace, self.namespaces)]
        if not allowed:
            return [], Fault("NotAllowedByListeners", f"no listener takes a {kind} from the namespace {namespace}")
        matching = [
            d for d in allowed if kind != "HTTPRoute" or not route["spec"].get("hostnames") or _hosts(route, [d])
        ]
        if not matching:
            return [], Fault("NoMatchingListenerHostname", "no listener has a host name that matches the route's")
        ready = [d for d in matching if d.fault is None]
        if not ready:
            fault = matching[0].fault
            return [], Fault("NoReadyListeners", fault.message if fault is not None else "")
        return ready, None

    def _service(self, kind: str, route: Obj) -> tuple[str | None, Fault | None]:
        """Return the key of the DRTPService behind a route, or why there is none."""
        references = [r for rule in route["spec"].get("rules") or () for r in rule.get("backendRefs") or ()]
        services = list(backend_services(route))
        if len(services) != len(references) or not services:
            text = f"every backendRef must be {{group: {DRTP_GROUP}, kind: DRTPService}}: this gateway leads to tunnels"
            return None, Fault("InvalidKind", text)
        for key, _ in services:
            if key.namespace != key_of(route).namespace and not self._granted(kind, key_of(route).namespace, key):
                text = f"a ReferenceGrant in {key.namespace} must allow {kind}s of this namespace to name it"
                return None, Fault("RefNotPermitted", text)
            found = self.services.get(service_key(key.namespace, key.name))
            if found is None or found.metadata.deletion_timestamp is not None:
                return None, Fault("BackendNotFound", f"DRTP-2006 there is no DRTPService {key}; create it")
            protocol = found.spec.application.protocol
            if _PROTOCOLS.get(kind) is not protocol:
                text = f"the DRTPService {key} speaks {protocol.value}; lead to it by an {protocol.value}Route"
                return None, Fault("UnsupportedProtocol", text)
        return service_key(*services[0][0]), None

    def _granted(self, kind: str, namespace: str, service: Key) -> bool:
        return any(
            key_of(grant).namespace == service.namespace
            and any(
                f.get("group") == GATEWAY_GROUP and f.get("kind") == kind and f.get("namespace") == namespace
                for f in grant["spec"].get("from") or ()
            )
            and any(
                t.get("group") == DRTP_GROUP
                and t.get("kind") == "DRTPService"
                and t.get("name") in {None, service.name}
                for t in grant["spec"].get("to") or ()
            )
            for grant in self.grants
        )


def _within(wanted: Mapping[str, str], found: Mapping[str, Any]) -> bool:
    return all(found.get(k) == v for k, v in wanted.items())


def _unsupported(kind: str, route: Obj) -> Fault | None:
    """Return what of a route this gateway cannot do."""
    rules = list(route["spec"].get("rules") or ())
    if len(rules) != 1 or len(rules[0].get("backendRefs") or ()) != 1:
        return Fault("UnsupportedValue", "one rule with one backendRef is supported; write one route per service")
    rule = rules[0]
    if rule.get("filters") or rule["backendRefs"][0].get("filters"):
        return Fault("IncompatibleFilters", "filters are not supported; requests reach the service as they came")
    plain = [{"path": {"type": "PathPrefix", "value": "/"}}]
    if kind == "HTTPRoute" and (rule.get("matches") or plain) != plain:
        return Fault("UnsupportedValue", "matches are not supported; the whole host name leads to one service")
    return None


def _hosts(route: Obj, doors: Sequence[Door]) -> tuple[str, ...]:
    """Return the host names that a route gets at these listeners."""
    own = [h.lower() for h in route["spec"].get("hostnames") or ()]
    found: dict[str, None] = {}
    for door in doors:
        outer = door.hostname.lower() if door.hostname is not None else None
        if not own and outer is not None:
            found[outer] = None
        for host in own:
            narrow = _narrower(host, outer)
            if narrow is not None:
                found[narrow] = None
    return tuple(found)


def _narrower(host: str, outer: str | None) -> str | None:
    """Return what two host names have in common, either of which may begin with a wildcard."""
    if outer is None or host == outer:
        return host
    if outer.startswith("*.") and host.removeprefix("*.").endswith(outer[1:]):
        return host
    if host.startswith("*.") and outer.removeprefix("*.").endswith(host[1:]):
        return outer
    return None
