"""Which servers carry an agent, and what is true of its connection.

Rules:
- Assignments stick: a server that is online and not draining keeps its agent; the picker fills vacant places.
- An offline server is replaced where another is free, and kept where none is: it may come back.
- A draining server is left only when its replacement has the agent's tunnel, where a role is free for both.
- The order of roles follows use: surviving servers first, so that the Primary is one that works.
- What a server that is not online says of its tunnels is not believed; it is not rewritten either, because the
  tunnel may live on while only the heartbeat is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from drtp_api.gateways import Exposure, ExposureStatus
from drtp_api.pickers import Picker, Place, city_of
from drtp_api.resources import (
    ClientStatus,
    Condition,
    Connection,
    ConnectionStatus,
    ProgrammingStatus,
    Role,
    Server,
    ServerAssignment,
    ServerBinding,
    Service,
)
from drtp_controller.planners.conditions import condition, merge_conditions
from drtp_controller.planners.servers import has_room, is_online

__all__ = [
    "Applied", "assign_servers", "carries", "connected_bindings", "connection_programmed", "is_live", "plan_connection",
]  # fmt: skip

ROLES = (Role.PRIMARY, Role.SECONDARY, Role.TERTIARY)
STARTING_SECONDS = 10.0
"""A freshly registered agent counts as live this long before its first tunnel: two that start at once must not
both be admitted."""


@attrs.frozen
class Applied:
    """The exposure that the gateway was last given for a service, and what it answered."""

    exposure: Exposure
    status: ExposureStatus


def assign_servers(
    current: Sequence[ServerAssignment],
    servers: Mapping[str, Server],
    picker: Picker,
    place: Place,
    *,
    count: int,
    connected: frozenset[str] = frozenset(),
) -> tuple[ServerAssignment, ...]:
    """Return who carries the agent, in order of preference.

    At most ``count`` servers, and beside them, last, a draining one that has the agent's tunnel while another that
    replaces it has not: the agent never loses a tunnel before it has the next. ``connected`` are those that have one.
    """
    ordered = sorted(current, key=lambda a: ROLES.index(a.role))
    known = [servers[a.name] for a in ordered if a.name in servers]
    kept = [s for s in known if is_online(s) and not s.spec.unschedulable][:count]
    chosen = list(kept)
    if len(kept) < count:  # else nobody else is looked at: thousands of agents times a thousand servers are millions
        names = {s.metadata.name for s in kept}
        free = [s for s in servers.values() if has_room(s) and s.metadata.name not in names]
        chosen = _fill(kept, picker.order(place, sorted(free, key=lambda s: s.metadata.name)), count)
    # nobody better is there: a draining or offline server of before is better than none
    chosen += [s for s in known if s not in chosen][: count - len(chosen)]
    if any(s.metadata.name not in connected for s in chosen):
        leaving = [s for s in known if s not in chosen and is_online(s) and s.spec.unschedulable]
        chosen += [s for s in leaving if s.metadata.name in connected][: len(ROLES) - len(chosen)]
    return tuple(ServerAssignment(role=r, name=s.metadata.name) for r, s in zip(ROLES, chosen, strict=False))


def _fill(kept: Sequence[Server], ordered: Sequence[Server], count: int) -> list[Server]:
    """Return the kept servers and then the best others, cities of their own first."""
    chosen = list(kept)
    for fresh_city in (True, False):
        for server in ordered:
            if len(chosen) >= count:
                return chosen
            taken = {city_of(s) for s in chosen}
            if server not in chosen and not (fresh_city and city_of(server) in taken):
                chosen.append(server)
    return chosen


def connected_bindings(connection: Connection, servers: Mapping[str, Server]) -> tuple[ServerBinding, ...]:
    """Return the bindings whose tunnel is up at a server that is online."""
    return tuple(
        b
        for b in connection.status.servers
        if b.client_status is ClientStatus.CONNECTED and b.name in servers and is_online(servers[b.name])
    )


def is_live(connection: Connection, servers: Mapping[str, Server], *, registered_at: float | None, now: float) -> bool:
    """Return whether an agent is behind the connection: it has a tunnel, or has only just registered."""
    if connected_bindings(connection, servers):
        return True
    gone = any(b.client_status is ClientStatus.DISCONNECTED for b in connection.status.servers)
    return not gone and registered_at is not None and now - registered_at < STARTING_SECONDS


def carries(binding: ServerBinding, exposure: Exposure) -> bool:
    """Return whether the gateway sends visitors to this server's data port."""
    return any(b.ready and b.address == binding.pod_ip and b.port == binding.pod_port for b in exposure.backends)


def connection_programmed(connection: Connection, servers: Mapping[str, Server], applied: Applied | None) -> bool:
    """Return whether a visitor at the public address reaches this very agent's tunnel."""
    if applied is None or not applied.status.programmed:
        return False
    if applied.exposure.public_address is not None:
        return True
    return any(carries(b, applied.exposure) for b in connected_bindings(connection, servers))


def plan_connection(
    connection: Connection,
    service: Service | None,
    servers: Mapping[str, Server],
    applied: Applied | None,
    *,
    now: float,
) -> ConnectionStatus:
    """Return the status that the connection shall have."""
    by_name = {b.name: b for b in connection.status.servers}
    bindings = tuple(
        _programmed(attrs.evolve(by_name.get(a.name) or ServerBinding(role=a.role, name=a.name), role=a.role), applied)
        for a in connection.spec.servers
    )
    planned = attrs.evolve(connection, status=attrs.evolve(connection.status, servers=bindings))
    wanted = _conditions(planned, service, servers, applied)
    return attrs.evolve(
        planned.status,
        conditions=merge_conditions(
            connection.status.conditions, wanted, generation=connection.metadata.generation or 0, now=now
        ),
    )


def _programmed(binding: ServerBinding, applied: Applied | None) -> ServerBinding:
    if applied is None:
        status = ProgrammingStatus.INIT
    elif not applied.status.programmed and applied.status.code is not None:
        status = ProgrammingStatus.FAILED
    elif applied.status.programmed and (
        carries(binding, applied.exposure)
        or (binding.public_address is not None and binding.public_address == applied.exposure.public_address)
    ):
        status = ProgrammingStatus.PROGRAMMED
    else:
        status = ProgrammingStatus.INIT
    return attrs.evolve(binding, programming_status=status)


def _conditions(
    connection: Connection, service: Service | None, servers: Mapping[str, Server], applied: Applied | None
) -> tuple[Condition, ...]:
    if service is None:
        accepted = condition("Accepted", False, "ServiceNotFound", "DRTP-2006 the service does not exist")
    else:
        accepted = condition("Accepted", True, "Accepted")
    total = len(connection.spec.servers)
    wanted = service.spec.servers.replicas if service is not None else total
    if total:
        assigned = condition("ServersAssigned", True, "ServersAssigned", f"{min(total, wanted)} of {wanted} servers")
    else:
        assigned = condition("ServersAssigned", False, "NoServerAvailable", "DRTP-2014 no tunnel server is available")
    up = connected_bindings(connection, servers)
    if up:
        connected = condition("Connected", True, "Connected", f"{len(up)} of {total} tunnels")
    else:
        connected = condition("Connected", False, "AgentOffline", "no tunnel is up")
    # a private service that a user's route leads to is exposed all the same
    private = service is not None and not service.spec.exposure.enabled and applied is None
    programmed = _programmed_condition(connection, servers, applied, private)
    done = programmed.status == "True" or private
    ready = service is not None and bool(up) and done
    missing = next((c.reason for c in (accepted, assigned, connected, programmed) if c.status != "True"), "Ready")
    return (accepted, assigned, programmed, connected, condition("Ready", ready, "Ready" if ready else missing))


def _programmed_condition(
    connection: Connection, servers: Mapping[str, Server], applied: Applied | None, private: bool
) -> Condition:
    if private:
        return condition("Programmed", False, "NotExposed", "the service is private")
    if connection_programmed(connection, servers, applied):
        return condition("Programmed", True, "Programmed")
    if applied is not None and applied.status.code is not None:
        return condition(
            "Programmed", False, applied.status.reason or "GatewayFailed",
            f"{applied.status.code} {applied.status.message}",
        )  # fmt: skip
    return condition("Programmed", False, "Pending", "the gateway does not carry this agent yet")
