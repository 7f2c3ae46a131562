"""What agents and commands see of a connection, a server, a service: pure translations of observed objects.

Rules:
- A view shows only what is true now: an address appears with the fault that keeps it from working.
- Nothing secret is in a view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drtp_api.errors import DrtpError
from drtp_api.pickers import city_of
from drtp_api.registration import (
    ConnectionView,
    ErrorBody,
    ServerCandidate,
    ServerView,
    TunnelEndpoint,
)
from drtp_api.resources import Connection, Protocol, Server, Service, ServiceStatus
from drtp_controller.planners.conditions import fault_of, is_true
from drtp_controller.planners.connection import Applied, connected_bindings, connection_programmed

__all__ = ["connection_view", "endpoints_of", "error_body", "server_candidate"]


def error_body(error: DrtpError) -> ErrorBody:
    """Return the body that reports an error."""
    return ErrorBody(code=error.code, message=error.message, hint=error.hint, retryable=error.retryable)


def endpoints_of(server: Server) -> tuple[TunnelEndpoint, ...]:
    """Return where an agent may dial the server."""
    return tuple(TunnelEndpoint(address=e.address, port=e.port, transport=e.transport) for e in server.spec.endpoints)


def server_candidate(server: Server) -> ServerCandidate:
    """Return a server as a candidate to measure."""
    endpoints = endpoints_of(server)
    return ServerCandidate(
        name=server.metadata.name,
        city=city_of(server),
        coordinates=server.spec.coordinates,
        probe=endpoints[0] if endpoints else None,
    )


def connection_view(
    connection: Connection,
    service: Service,
    servers: Mapping[str, Server],
    applied: Applied | None,
    *,
    planned: ServiceStatus | None = None,
) -> ConnectionView:
    """Return the connection as its agent and user see it.

    Args:
        connection: as observed.
        service: its service.
        servers: every server by name.
        applied: what the gateway last said of the service.
        planned: the service's status where it is planned and not yet observed.
    """
    status = planned or service.status
    private = not service.spec.exposure.enabled
    up = {b.name for b in connected_bindings(connection, servers)}
    carried = connection_programmed(connection, servers, applied)
    views = tuple(
        ServerView(
            name=a.name,
            role=a.role,
            city=city_of(servers[a.name]) if a.name in servers else a.name,
            connected=a.name in up,
            programmed=carried and a.name in up,
            transport=binding.transport if binding is not None else None,
            rtt_milliseconds=binding.rtt_milliseconds if binding is not None else None,
        )
        for a in connection.spec.servers
        for binding in [next((b for b in connection.status.servers if b.name == a.name), None)]
    )
    fault = fault_of((*status.conditions, *connection.status.conditions))
    return ConnectionView(
        name=connection.metadata.name,
        namespace=connection.metadata.namespace or "default",
        service=service.metadata.name,
        private=private,
        programmed=not private and is_true(status.conditions, "Programmed") and carried,
        url=status.url,
        hostnames=_hostnames(service, status),
        addresses=status.addresses,
        servers=views,
        fault=error_body(fault) if fault is not None else None,
    )


def _hostnames(service: Service, status: ServiceStatus) -> tuple[str, ...]:
    if service.spec.application.protocol is not Protocol.HTTP or not status.addresses:
        return ()
    canonical: Sequence[str] = (status.canonical_hostname,) if status.canonical_hostname else ()
    return (*service.spec.exposure.hostnames, *canonical)
