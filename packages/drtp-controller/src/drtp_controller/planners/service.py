"""What a service is called, where it is reached, and whether it is.

Rules:
- Names and ports outlive agents and pauses: an unpublished service keeps both, so that publishing it again gives
  the same address.
- What the user asked for and cannot have is a condition with a code, never something else silently.
- The gateway's word counts only for the exposure that is wanted now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import attrs

from drtp_api.errors import DrtpError
from drtp_api.gateways import ExposureStatus
from drtp_api.resources import (
    Address,
    Condition,
    Connection,
    LocalReference,
    Protocol,
    Server,
    Service,
    ServiceStatus,
    service_key,
)
from drtp_controller.planners.conditions import condition, merge_conditions
from drtp_controller.planners.connection import Applied, connected_bindings
from drtp_controller.planners.hostnames import HostnameBook
from drtp_controller.planners.ports import PortAllocator
from drtp_controller.planners.userroutes import Claim

__all__ = ["Front", "ServicePlan", "Way", "key_of_service", "plan_service"]

_T = TypeVar("_T")
_REASONS = {
    "DRTP-2011": "PortTaken",
    "DRTP-2012": "PortForbidden",
    "DRTP-2013": "HostnameTaken",
    "DRTP-2031": "AccessControlListNotFound",
}


@attrs.frozen(kw_only=True)
class Front:
    """How visitors reach the gateway: the host to dial, empty while it is not known, and the shared HTTP port."""

    host: str
    http_port: int


@attrs.frozen
class Way:
    """A way to a service that a user's route makes, and what the gateway said of it."""

    claim: Claim
    applied: Applied | None


@attrs.frozen(kw_only=True)
class ServicePlan:
    """The status a service shall have, and what the gateway shall listen to: host names of HTTP, else a port.

    ``routed`` says that routes of users lead to it, besides or instead.
    """

    status: ServiceStatus
    hostnames: tuple[str, ...] = ()
    port: int | None = None
    routed: bool = False

    @property
    def exposed(self) -> bool:
        """Whether there is an address to program."""
        return bool(self.hostnames) or self.port is not None


def key_of_service(service: Service) -> str:
    """Return ``namespace/name`` of a service."""
    return service_key(service.metadata.namespace or "default", service.metadata.name)


def plan_service(
    service: Service,
    connections: Sequence[Connection],
    servers: Mapping[str, Server],
    applied: Applied | None,
    *,
    ports: PortAllocator,
    names: HostnameBook,
    front: Front,
    now: float,
    routed: Sequence[Way] = (),
    refusal: ExposureStatus | None = None,
    notes: Sequence[Condition] = (),
    missing_list: str | None = None,
) -> ServicePlan:
    """Return the plan of one service; claims its port and names in the two books.

    Args:
        service: as observed.
        connections: the service's own.
        servers: every server by name.
        applied: what the gateway last said of the service.
        ports: who owns which port.
        names: who owns which host name.
        front: how visitors reach the gateway.
        now: seconds since the Unix epoch.
        routed: the ways to it that users' routes make.
        refusal: why the gateway must not make it reachable although it could.
        notes: conditions that every service has on this gateway.
        missing_list: the access control list that it names and that does not exist; its edges deny every visitor.
    """
    owner = key_of_service(service)
    fault: DrtpError | None = None
    hostnames: tuple[str, ...] = ()
    port = service.status.external_port
    canonical = service.status.canonical_hostname
    http = service.spec.application.protocol is Protocol.HTTP
    enabled = service.spec.exposure.enabled
    if http:
        canonical = names.vend(owner, canonical)
        granted, fault = _claim(owner, service.spec.exposure.hostnames, names)
        names.retain(owner, frozenset((*granted, canonical)))
        hostnames = (*granted, canonical)
        ports.release(owner, now)
        port = None
    else:
        names.retain(owner, frozenset())
        canonical = None
        if enabled:
            port, fault = _port(owner, service, ports, now)
    public = enabled and fault is None and refusal is None
    status = attrs.evolve(
        service.status,
        canonical_hostname=canonical,
        external_port=port,
        url=_url(service, hostnames, port, front) if public else _routed_url(routed, front),
        hostnames=_unique(hostnames if public else (), [h for w in routed for h in w.claim.hostnames])[:64],
        addresses=_unique(_addresses(service, port, front) if public else (), _routed_addresses(routed, front))[:16],
        connection_refs=tuple(LocalReference(name=c.metadata.name) for c in sorted(connections, key=_name))[:25],
    )
    plan = ServicePlan(
        status=status,
        hostnames=hostnames if public and http else (),
        port=port if public and not http else None,
        routed=bool(routed),
    )
    up = any(connected_bindings(c, servers) for c in connections)
    if enabled and refusal is not None:
        programmed = condition("Programmed", False, refusal.reason, f"{refusal.code} {refusal.message}")
    else:
        programmed = _programmed(service, plan, applied, routed)
    if missing_list is not None and fault is None:
        text = f"spec.aclRef names the DRTPAccessControlList {missing_list}, and nobody is let in until it exists"
        fault = DrtpError("DRTP-2031", text)
    conditions = merge_conditions(
        service.status.conditions,
        (*_conditions(programmed, fault, up), *notes),
        generation=service.metadata.generation or 0,
        now=now,
    )
    return attrs.evolve(plan, status=attrs.evolve(status, conditions=conditions))


def _unique(first: Iterable[_T], second: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _name(connection: Connection) -> str:
    return connection.metadata.name


def _claim(owner: str, wanted: Sequence[str], names: HostnameBook) -> tuple[tuple[str, ...], DrtpError | None]:
    granted: list[str] = []
    fault: DrtpError | None = None
    for name in wanted:
        try:
            names.claim(owner, name)
        except DrtpError as error:
            fault = fault or error
        else:
            granted.append(name)
    return tuple(granted), fault


def _port(owner: str, service: Service, ports: PortAllocator, now: float) -> tuple[int | None, DrtpError | None]:
    try:
        return ports.allocate(owner, service.spec.application.protocol, service.spec.exposure.port, now), None
    except DrtpError as error:
        return None, error


def _url(service: Service, hostnames: Sequence[str], port: int | None, front: Front) -> str | None:
    if service.spec.application.protocol is Protocol.HTTP:
        shown = "" if front.http_port == 80 else f":{front.http_port}"
        return f"http://{hostnames[0]}{shown}/"
    if not front.host:
        return None
    host = f"[{front.host}]" if ":" in front.host else front.host
    return f"{service.spec.application.protocol.value.lower()}://{host}:{port}"


def _addresses(service: Service, port: int | None, front: Front) -> tuple[Address, ...]:
    protocol = service.spec.application.protocol
    number = front.http_port if protocol is Protocol.HTTP else port
    return () if number is None or not front.host else (Address(protocol=protocol, host=front.host, port=number),)


def _conditions(programmed: Condition, fault: DrtpError | None, up: bool) -> tuple[Condition, ...]:
    if fault is not None:
        reason = _REASONS.get(fault.code, "Refused")
        accepted = condition("Accepted", False, reason, f"{fault.code} {fault.message}")
    else:
        accepted = condition("Accepted", True, "Accepted")
    if programmed.status != "True":
        ready = condition("Ready", False, programmed.reason)
    elif fault is not None:
        ready = condition("Ready", False, accepted.reason)
    elif not up:
        ready = condition("Ready", False, "AgentOffline", "no agent has a tunnel")
    else:
        ready = condition("Ready", True, "Ready")
    return (accepted, programmed, ready)


def _programmed(service: Service, plan: ServicePlan, applied: Applied | None, routed: Sequence[Way]) -> Condition:
    if routed and not service.spec.exposure.enabled:
        return _routed(routed)
    if not service.spec.exposure.enabled:
        return condition("Programmed", False, "NotExposed", "the service is private; publish it to expose it")
    if not plan.exposed:
        return condition("Programmed", False, "NotAccepted")
    if (
        applied is None
        or applied.exposure.port != plan.port
        or applied.exposure.hostnames != plan.hostnames
        or applied.exposure.protocol is not service.spec.application.protocol
    ):
        return condition("Programmed", False, "Pending", "the gateway has not confirmed it yet")
    if applied.status.programmed:
        return condition("Programmed", True, "Programmed")
    return _refused(applied, requested=service.spec.exposure.port != 0)


def _routed(routed: Sequence[Way]) -> Condition:
    """Return whether a private service is reached by at least one of the users' routes that lead to it."""
    for way in routed:
        if way.applied is not None and way.applied.status.programmed:
            return condition("Programmed", True, "Programmed", f"by the {way.claim.kind} {way.claim.route}")
    first = routed[0]
    if first.applied is None or first.applied.status.code is None:
        text = f"the gateway has not confirmed the {first.claim.kind} {first.claim.route} yet"
        return condition("Programmed", False, "Pending", text)
    return _refused(first.applied, requested=False)


def _routed_url(routed: Sequence[Way], front: Front) -> str | None:
    for way in routed:
        if way.claim.hostnames:
            shown = "" if front.http_port == 80 else f":{front.http_port}"
            return f"http://{way.claim.hostnames[0]}{shown}/"
        if way.claim.port is not None and front.host:
            host = f"[{front.host}]" if ":" in front.host else front.host
            return f"{way.claim.protocol.value.lower()}://{host}:{way.claim.port}"
    return None


def _routed_addresses(routed: Sequence[Way], front: Front) -> tuple[Address, ...]:
    return tuple(
        Address(protocol=w.claim.protocol, host=front.host, port=w.claim.port or front.http_port)
        for w in routed
        if front.host
    )


def _refused(applied: Applied, *, requested: bool) -> Condition:
    """Return what to say of an exposure that the gateway could not make.

    A requested port that it cannot bind is the user's to change; a vended one is replaced by itself.
    """
    status = applied.status
    if status.code == "DRTP-5003" and requested:
        forbidden = "ermission denied" in status.message or "ermitted" in status.message
        code, reason = ("DRTP-2012", "PortForbidden") if forbidden else ("DRTP-2011", "PortTaken")
        return condition("Programmed", False, reason, f"{code} {status.message}")
    code = f"{status.code} " if status.code else ""
    return condition("Programmed", False, status.reason or "GatewayFailed", code + status.message)
