"""The messages of the registration API (``/v1alpha1``), shared by the controller that serves it and by agents.

Rules:
- Wire names as in ``wire.py``; requests are read strictly: unknown fields are DRTP-2009.
- A secret travels in a request body only, and never in an answer but the one that creates it.
"""

from __future__ import annotations

from typing import Annotated

import attrs
from msgspec import Meta

from drtp_api.resources import (
    Address,
    Application,
    Cidr,
    Coordinates,
    Exposure,
    HostName,
    OptionalPort,
    Port,
    Protocol,
    Role,
    ServiceServers,
)

__all__ = [
    "ConnectionEvent", "ConnectionGrants", "ConnectionView", "CreateServiceRequest", "CreateServiceResponse",
    "ErrorBody", "GrantRequest", "PublishRequest", "RegisterRequest", "RegisterResponse", "RotateRequest",
    "SecretRevocation", "ServerCandidate", "ServerCandidates", "ServerView", "ServiceDefinition", "ServiceList",
    "ServiceName", "ServiceSecret", "ServiceView", "TunnelEndpoint", "TunnelServer",
]  # fmt: skip

Whole = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""A whole number that every reader of JSON keeps exactly."""
Name = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]


@attrs.frozen(kw_only=True)
class ServiceName:
    """Which service."""

    name: Name
    namespace: Name = "default"


@attrs.frozen(kw_only=True)
class ServiceDefinition:
    """What the service is; creates it, or updates it where the caller may."""

    application: Application
    exposure: Exposure = Exposure()
    edge_allowlist_cidrs: Annotated[tuple[str, ...], Meta(max_length=10_000)] = ()
    servers: ServiceServers = ServiceServers()


@attrs.frozen(kw_only=True)
class RegisterRequest:
    """``POST /v1alpha1/connections``: an agent registers, or registers again after a restart.

    Either ``secret`` authenticates it, or a bearer token in the Authorization header; only the latter may bring
    a definition. ``round_trips`` are milliseconds by server name, as measured by the agent.
    """

    service: ServiceName
    public_key: Annotated[str, Meta(min_length=43, max_length=43)]
    instance_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    epoch: Whole
    definition: ServiceDefinition | None = None
    secret: Annotated[str, Meta(max_length=256)] | None = None
    version: Annotated[str, Meta(max_length=63)] | None = None
    round_trips: dict[str, float] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class TunnelEndpoint:
    """One address of a server that the agent may dial."""

    address: str
    port: Port
    transport: str


@attrs.frozen(kw_only=True)
class TunnelServer:
    """A server that was assigned to the agent: where it is, how to trust it, and the grant for it.

    ``ca_pem`` absent means the system's trusted roots.
    """

    name: str
    role: Role
    city: str
    endpoints: tuple[TunnelEndpoint, ...]
    server_name: str
    grant: str
    ca_pem: str | None = None


@attrs.frozen(kw_only=True)
class ServerView:
    """What the control plane knows of the tunnel to one server."""

    name: str
    role: Role
    city: str
    connected: bool
    programmed: bool
    transport: str | None = None
    rtt_milliseconds: int | None = None


@attrs.frozen(kw_only=True)
class ConnectionView:
    """``GET /v1alpha1/connections/{name}`` and each event: the connection as its agent and user see it.

    ``programmed`` is true once the gateway has confirmed every public address. ``fault`` says what keeps the
    service from being reachable, with a code of the error table.
    """

    name: str
    namespace: str
    service: str
    private: bool
    programmed: bool
    url: str | None = None
    hostnames: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    servers: tuple[ServerView, ...] = ()
    fault: ErrorBody | None = None


@attrs.frozen(kw_only=True)
class RegisterResponse:
    """The answer to a registration.

    ``application`` is the service's definition, so that an agent that brought only a name and a secret learns what
    to serve.
    """

    connection: ConnectionView
    servers: tuple[TunnelServer, ...]
    expires_in_seconds: int
    application: Application | None = None


@attrs.frozen(kw_only=True)
class GrantRequest:
    r"""``POST /v1alpha1/connections/{name}/grants``: the agent renews its grants.

    ``proof`` is base64url of the agent key's signature over ``"drtp grant renewal\0" || connection key || "\0" ||
    decimal Unix seconds``; ``issued_at`` are these seconds, at most 60 s off the server's clock.
    """

    issued_at: Whole
    proof: Annotated[str, Meta(max_length=128)]


@attrs.frozen(kw_only=True)
class ConnectionGrants:
    """The renewed grants and servers."""

    servers: tuple[TunnelServer, ...]
    expires_in_seconds: int


@attrs.frozen(kw_only=True)
class ServerCandidate:
    """``GET /v1alpha1/servers``: one of up to five servers for the agent to measure."""

    name: str
    city: str
    coordinates: Coordinates
    probe: TunnelEndpoint | None = None


@attrs.frozen(kw_only=True)
class ServerCandidates:
    """The answer of ``GET /v1alpha1/servers``, the best guess first."""

    servers: tuple[ServerCandidate, ...] = ()


@attrs.frozen(kw_only=True)
class ServiceView:
    """A service as commands list it; also the answer of ``POST …/services/{name}/publish`` and ``unpublish``."""

    name: str
    namespace: str
    protocol: Protocol
    private: bool
    programmed: bool
    ready: bool
    url: str | None = None
    hostnames: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()


@attrs.frozen(kw_only=True)
class ServiceList:
    """``GET /v1alpha1/services``: the services of a namespace, by name."""

    services: tuple[ServiceView, ...] = ()


@attrs.frozen(kw_only=True)
class CreateServiceRequest:
    """``POST /v1alpha1/services``: create a service with a one-time secret; needs a bearer token."""

    service: ServiceName
    definition: ServiceDefinition


@attrs.frozen(kw_only=True)
class CreateServiceResponse:
    """The created service; ``secret`` is shown here and never again."""

    service: ServiceName
    secret: str


@attrs.frozen(kw_only=True)
class PublishRequest:
    """``POST …/services/{name}/publish``: what to change on the way; what is absent or empty stays as it is.

    ``port`` is for TCP and UDP services, ``hostnames`` for HTTP ones. ``allow_all`` empties the allow-list.
    """

    port: OptionalPort | None = None
    hostnames: Annotated[tuple[HostName, ...], Meta(max_length=16)] = ()
    edge_allowlist_cidrs: Annotated[tuple[Cidr, ...], Meta(max_length=10_000)] = ()
    allow_all: bool = False


@attrs.frozen(kw_only=True)
class RotateRequest:
    """``POST …/services/{name}/secret``: how long the secret before stays valid beside the new one.

    An hour lets a fleet change over without a gap; a week is the longest that two secrets may be about.
    """

    overlap_seconds: Annotated[int, Meta(ge=0, le=604_800)] = 3600


@attrs.frozen(kw_only=True)
class ServiceSecret:
    """A new secret of a service, shown here and never again; the one before is valid for a while."""

    service: ServiceName
    secret: str
    previous_valid_seconds: int
    application: Application


@attrs.frozen(kw_only=True)
class SecretRevocation:
    """``DELETE …/services/{name}/secret``: no secret is valid now; these connections were ended."""

    service: ServiceName
    connections: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class ErrorBody:
    """The body of every answer that is not a success."""

    code: str
    message: str
    hint: str
    retryable: bool = False


@attrs.frozen(kw_only=True)
class ConnectionEvent:
    """One server-sent event of ``GET …/{name}/events``.

    Event name ``connection`` has a :class:`ConnectionView` as its data; ``error`` has an :class:`ErrorBody` and is
    the last one (the connection was revoked). Lines that begin with a colon are keepalives.
    """

    type: str
    connection: ConnectionView | None = None
    error: ErrorBody | None = None
