"""The resource types of group ``drtp.datumapis.com/v1alpha1``, as attrs classes.

Rules:
- These classes are the only definition: the CRDs are generated from them (``crds.py``).
- Wire names are camelCase with Kubernetes' acronyms (``pod_ip`` is ``podIP``); ``None`` and empty optional
  fields are left out on the wire; unknown fields of spec are errors, unknown fields of status are kept out.
- No behaviour: planners decide, reconcilers act.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

import attrs
from msgspec import Meta

__all__ = [
    "API_VERSION", "GROUP", "SYSTEM_NAMESPACE", "VERSION", "AccessControlList", "AccessControlListSpec",
    "AccessControlListStatus", "Action", "AclRule", "Address", "AncestorStatus", "Application", "ClientInfo",
    "ClientStatus", "Condition", "Connection", "ConnectionSpec", "ConnectionStatus", "Coordinates", "Endpoint",
    "Exposure", "Instance", "LocalReference", "Metadata", "Nature", "ObjectReference", "ProgrammingStatus",
    "Protocol", "Resource", "Role", "Server", "ServerAssignment", "ServerBinding", "ServerCapacity",
    "ServerIdentity", "ServerSpec", "ServerStatus", "Service", "ServiceServers", "ServiceSpec", "ServiceStatus",
    "service_key",
]  # fmt: skip

GROUP: Final = "drtp.datumapis.com"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
SYSTEM_NAMESPACE: Final = "drtp-system"

Port = Annotated[int, Meta(ge=1, le=65535)]
OptionalPort = Annotated[int, Meta(ge=0, le=65535)]
Latitude = Annotated[str, Meta(pattern=r"^[+-]?([0-9]|[1-8][0-9])(\.[0-9]{1,8})?$|^[+-]?90(\.0{1,8})?$")]
Longitude = Annotated[str, Meta(pattern=r"^[+-]?([0-9]|[1-9][0-9]|1[0-7][0-9])(\.[0-9]{1,8})?$|^[+-]?180(\.0{1,8})?$")]
Dns1123 = Annotated[str, Meta(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
HostName = Annotated[
    str, Meta(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
]
Cidr = Annotated[str, Meta(max_length=43, pattern=r"^[0-9A-Fa-f:.]+/[0-9]{1,3}$")]


def service_key(namespace: str, name: str) -> str:
    """Return the name of a service on the wire, in grants and in bindings: ``namespace/name``."""
    return f"{namespace}/{name}"


class Protocol(enum.Enum):
    """What a service speaks to its visitors."""

    TCP = "TCP"
    UDP = "UDP"
    HTTP = "HTTP"


class Role(enum.Enum):
    """The place of a server in a connection, in order of preference."""

    PRIMARY = "Primary"
    SECONDARY = "Secondary"
    TERTIARY = "Tertiary"


class ProgrammingStatus(enum.Enum):
    """How far the gateway is programmed for one server of a connection."""

    INIT = "Init"
    PROGRAMMED = "Programmed"
    FAILED = "Failed"


class ClientStatus(enum.Enum):
    """Whether the agent's tunnel to one server of a connection is up."""

    WAITING = "Waiting"
    CONNECTED = "Connected"
    DISCONNECTED = "Disconnected"


class Nature(enum.Enum):
    """Who may find and reach an exposed service."""

    PUBLIC = "Public"
    PUBLIC_OPTIMIZED = "PublicOptimized"
    RESTRICTED = "Restricted"
    PRIVATE = "Private"


class Action(enum.Enum):
    """What a rule of an access control list does with a visitor."""

    ALLOW = "Allow"
    DENY = "Deny"


class AclMode(enum.Enum):
    """Whether an access control list denies, only counts, or sleeps."""

    OBSERVE = "Observe"
    ENFORCE = "Enforce"
    DISABLED = "Disabled"


class EnforceAt(enum.Enum):
    """A place where an access control list holds."""

    GATEWAY = "Gateway"
    SERVER = "Server"


@attrs.frozen(kw_only=True)
class Metadata:
    """The part of ObjectMeta that DRTP reads; the rest is kept in ``extra`` untouched."""

    name: str
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = attrs.field(factory=dict)
    annotations: dict[str, str] = attrs.field(factory=dict)
    owner_references: tuple[dict[str, Any], ...] = ()
    finalizers: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Condition:
    """One condition, as in metav1.Condition."""

    type: Annotated[str, Meta(max_length=316)]
    status: Annotated[str, Meta(pattern="^(True|False|Unknown)$")]
    reason: Annotated[str, Meta(max_length=1024)] = ""
    message: Annotated[str, Meta(max_length=32768)] = ""
    observed_generation: Annotated[int, Meta(ge=0)] = 0
    last_transition_time: str = "1970-01-01T00:00:00Z"


@attrs.frozen(kw_only=True)
class LocalReference:
    """The name of an object in the same namespace."""

    name: Dns1123


@attrs.frozen(kw_only=True)
class ObjectReference:
    """The group, kind and name of an object in the same namespace."""

    name: Dns1123
    kind: str
    group: str = GROUP


# DRTPServer


@attrs.frozen(kw_only=True)
class Instance:
    """Which process of the fleet this is, for people who debug."""

    host: str
    id: str


@attrs.frozen(kw_only=True)
class Coordinates:
    """A place on earth in decimal degrees, as strings (Kubernetes has no floats)."""

    latitude: Latitude
    longitude: Longitude


@attrs.frozen(kw_only=True)
class Endpoint:
    """An address that agents dial."""

    address: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Port
    transport: str = "tcp"


@attrs.frozen(kw_only=True)
class ServerIdentity:
    """How an agent recognises the server: the TLS name, and the CA where it is not a public one."""

    server_name: HostName
    ca_bundle: str | None = None
    public_key_sha256: str | None = None


@attrs.frozen(kw_only=True)
class ServerCapacity:
    """How much one server takes."""

    connections: Annotated[int, Meta(ge=0)] = 10_000


@attrs.frozen(kw_only=True)
class ServerSpec:
    """Desired state of one tunnel server."""

    instance: Instance
    coordinates: Coordinates
    endpoints: Annotated[tuple[Endpoint, ...], Meta(max_length=8)] = ()
    identity: ServerIdentity | None = None
    capacity: ServerCapacity = ServerCapacity()
    unschedulable: bool = False


@attrs.frozen(kw_only=True)
class ServerStatus:
    """Observed state of one tunnel server."""

    health: Annotated[int, Meta(ge=0, le=100)] = 0
    pod_ip: str | None = None
    connections: Annotated[int, Meta(ge=0)] = 0
    version: str | None = None
    lease_ref: LocalReference | None = None
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=8)] = ()


@attrs.frozen(kw_only=True)
class Server:
    """A tunnel server: one edge daemon, registered by itself."""

    metadata: Metadata
    spec: ServerSpec
    status: ServerStatus = ServerStatus()


# DRTPService


@attrs.frozen(kw_only=True)
class Application:
    """The local service: the seed's Name/Type/Hostname/IP/Port."""

    protocol: Protocol
    name: Annotated[str, Meta(max_length=63)] | None = None
    hostname: Annotated[str, Meta(max_length=253)] | None = None
    ip: Annotated[str, Meta(max_length=45)] | None = None
    port: Port | None = None


@attrs.frozen(kw_only=True)
class Exposure:
    """Whether and how the world reaches the service; private by default."""

    enabled: bool = False
    nature: Nature = Nature.PUBLIC
    port: OptionalPort = 0
    hostnames: Annotated[tuple[HostName, ...], Meta(max_length=16)] = ()


@attrs.frozen(kw_only=True)
class ServiceServers:
    """How many servers carry the service, and whether all serve at once."""

    replicas: Annotated[int, Meta(ge=1, le=3)] = 2
    standby: bool = False


@attrs.frozen(kw_only=True)
class ServiceSpec:
    """Desired state of one service."""

    application: Application
    exposure: Exposure = Exposure()
    edge_allowlist_cidrs: Annotated[tuple[Cidr, ...], Meta(max_length=10_000)] = ()
    acl_ref: LocalReference | None = None
    servers: ServiceServers = ServiceServers()
    max_agents: Annotated[int, Meta(ge=1, le=25)] = 1


@attrs.frozen(kw_only=True)
class Address:
    """A public address; ``host`` is dialable as given."""

    protocol: Protocol
    host: str
    port: Port


@attrs.frozen(kw_only=True)
class ServiceStatus:
    """Observed state of one service."""

    canonical_hostname: str | None = None
    url: str | None = None
    external_port: Port | None = None
    addresses: Annotated[tuple[Address, ...], Meta(max_length=16)] = ()
    enrollment_secret_ref: LocalReference | None = None
    connection_refs: Annotated[tuple[LocalReference, ...], Meta(max_length=25)] = ()
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=8)] = ()


@attrs.frozen(kw_only=True)
class Service:
    """A local service that DRTP makes reachable: it owns host name, port and secret."""

    metadata: Metadata
    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()


# DRTPConnection


@attrs.frozen(kw_only=True)
class ClientInfo:
    """The agent behind a connection."""

    instance_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    public_key: Annotated[str, Meta(max_length=64)]
    wan_ip: Annotated[str, Meta(max_length=45)] | None = None
    version: Annotated[str, Meta(max_length=63)] | None = None
    epoch: Annotated[int, Meta(ge=0)] = 0


@attrs.frozen(kw_only=True)
class ServerAssignment:
    """A server that the picker chose for a connection."""

    role: Role
    name: Dns1123


@attrs.frozen(kw_only=True)
class ConnectionSpec:
    """Desired state of one running agent's connection."""

    service_ref: LocalReference
    client: ClientInfo
    servers: Annotated[tuple[ServerAssignment, ...], Meta(max_length=3)] = ()
    acl_ref: LocalReference | None = None


@attrs.frozen(kw_only=True)
class ServerBinding:
    """What one server says of its tunnel to the agent, and the data port it listens on for the gateway."""

    role: Role
    name: Dns1123
    programming_status: ProgrammingStatus = ProgrammingStatus.INIT
    client_status: ClientStatus = ClientStatus.WAITING
    pod_ip: str | None = None
    pod_port: Port | None = None
    public_address: str | None = None
    rtt_milliseconds: Annotated[int, Meta(ge=0)] | None = None
    transport: str | None = None


@attrs.frozen(kw_only=True)
class ConnectionStatus:
    """Observed state of one running agent's connection."""

    servers: Annotated[tuple[ServerBinding, ...], Meta(max_length=3)] = ()
    lease_ref: LocalReference | None = None
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=8)] = ()


@attrs.frozen(kw_only=True)
class Connection:
    """One running agent of a service and the servers it is connected to."""

    metadata: Metadata
    spec: ConnectionSpec
    status: ConnectionStatus = ConnectionStatus()


# DRTPAccessControlList


@attrs.frozen(kw_only=True)
class AclRule:
    """One rule; the first rule that matches the visitor decides."""

    name: Annotated[str, Meta(max_length=63)]
    action: Action
    client_cidrs: Annotated[tuple[Cidr, ...], Meta(max_length=10_000)] = ()


@attrs.frozen(kw_only=True)
class AccessControlListSpec:
    """Desired state of an access control list."""

    target_refs: Annotated[tuple[ObjectReference, ...], Meta(max_length=16)] = ()
    mode: AclMode = AclMode.ENFORCE
    enforce_at: Annotated[tuple[EnforceAt, ...], Meta(min_length=1, max_length=2)] = tuple(EnforceAt)
    default_action: Action = Action.DENY
    rules: Annotated[tuple[AclRule, ...], Meta(max_length=1000)] = ()


@attrs.frozen(kw_only=True)
class AncestorStatus:
    """What one controller says of the list for one target."""

    ancestor_ref: ObjectReference
    controller_name: str
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=8)] = ()


@attrs.frozen(kw_only=True)
class AccessControlListStatus:
    """Observed state of an access control list."""

    ancestors: Annotated[tuple[AncestorStatus, ...], Meta(max_length=16)] = ()


@attrs.frozen(kw_only=True)
class AccessControlList:
    """Who may connect to the services it targets."""

    metadata: Metadata
    spec: AccessControlListSpec
    status: AccessControlListStatus = AccessControlListStatus()


Resource = Server | Service | Connection | AccessControlList
