"""The resource types of group ``drtp.datumapis.com/v1alpha1``, as attrs classes.

Rules:
- These classes are the only definition: the CRDs are generated from them (``crds.py``).
- Wire names are camelCase with Kubernetes' acronyms (``pod_ip`` is ``podIP``); ``None`` and empty optional
  fields are left out on the wire; unknown fields of spec are errors, unknown fields of status are kept out.
- What `kubectl explain` says of a field stands under "Attributes" in its class's docstring.
- No behaviour: planners decide, reconcilers act. Rules between fields stand in ``crd_rules.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import attrs
from msgspec import Meta

from drtp_api.words import (
    AclMode,
    Action,
    ClientStatus,
    EnforceAt,
    Nature,
    ProgrammingStatus,
    Protocol,
    Role,
)

__all__ = [
    "API_VERSION", "GROUP", "IP_FORMAT", "SYSTEM_NAMESPACE", "VERSION", "AccessControlList", "AccessControlListSpec",
    "AccessControlListStatus", "AclMode", "AclRule", "Action", "Address", "AncestorStatus", "Application", "ClientInfo",
    "ClientStatus", "Condition", "Connection", "ConnectionSpec", "ConnectionStatus", "Coordinates", "Endpoint",
    "EnforceAt", "Exposure", "Instance", "LocalReference", "Metadata", "Nature", "ObjectReference", "ProgrammingStatus",
    "Protocol", "Resource", "Role", "Server", "ServerAssignment", "ServerBinding", "ServerCapacity",
    "ServerIdentity", "ServerSpec", "ServerStatus", "Service", "ServiceServers", "ServiceSpec", "ServiceStatus",
    "service_key",
]  # fmt: skip

GROUP: Final = "drtp.datumapis.com"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
SYSTEM_NAMESPACE: Final = "drtp-system"
IP_FORMAT: Final = "ip"
"""An IPv4 or an IPv6 address; OpenAPI has no one word for both, ``crds.py`` writes two."""

Port = Annotated[int, Meta(ge=1, le=65535)]
OptionalPort = Annotated[int, Meta(ge=0, le=65535)]
Latitude = Annotated[str, Meta(pattern=r"^[+-]?([0-9]|[1-8][0-9])(\.[0-9]{1,8})?$|^[+-]?90(\.0{1,8})?$")]
Longitude = Annotated[str, Meta(pattern=r"^[+-]?([0-9]|[1-9][0-9]|1[0-7][0-9])(\.[0-9]{1,8})?$|^[+-]?180(\.0{1,8})?$")]
Dns1123 = Annotated[str, Meta(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
HostName = Annotated[
    str, Meta(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
]
Cidr = Annotated[str, Meta(max_length=49, pattern=r"^[0-9A-Fa-f:.]+/[0-9]{1,3}$", extra_json_schema={"format": "cidr"})]
IpAddress = Annotated[str, Meta(max_length=45, extra_json_schema={"format": IP_FORMAT})]
Text63 = Annotated[str, Meta(max_length=63)]
Text253 = Annotated[str, Meta(max_length=253)]


def service_key(namespace: str, name: str) -> str:
    """Return the name of a service on the wire, in grants and in bindings: ``namespace/name``."""
    return f"{namespace}/{name}"


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
    """One condition, as in metav1.Condition.

    Attributes:
        type: What the condition is about, such as Ready.
        status: Whether it holds: True, False or Unknown.
        reason: Why, in one CamelCase word for programs.
        message: Why, in a sentence for people.
        observed_generation: The metadata.generation that this was said of; an older one is out of date.
        last_transition_time: Since when the status is what it is.
    """

    type: Annotated[str, Meta(max_length=316)]
    status: Annotated[str, Meta(pattern="^(True|False|Unknown)$")]
    reason: Annotated[str, Meta(max_length=1024)] = ""
    message: Annotated[str, Meta(max_length=32768)] = ""
    observed_generation: Annotated[int, Meta(ge=0)] = 0
    last_transition_time: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] = "1970-01-01T00:00:00Z"


@attrs.frozen(kw_only=True)
class LocalReference:
    """The name of an object in the same namespace.

    Attributes:
        name: The object's metadata.name.
    """

    name: Dns1123


@attrs.frozen(kw_only=True)
class ObjectReference:
    """The group, kind and name of an object in the same namespace.

    Attributes:
        name: The object's metadata.name.
        kind: The object's kind, such as DRTPService.
        group: The object's API group.
    """

    name: Dns1123
    kind: Text63
    group: Text253 = GROUP


# DRTPServer


@attrs.frozen(kw_only=True)
class Instance:
    """Which process of the fleet this is, for people who debug.

    Attributes:
        host: The machine the server runs on.
        id: The process or pod on that machine.
    """

    host: Text253
    id: Text253


@attrs.frozen(kw_only=True)
class Coordinates:
    """A place on earth in decimal degrees, as strings (Kubernetes has no floats).

    Attributes:
        latitude: Degrees north, -90 to 90; south is negative.
        longitude: Degrees east, -180 to 180; west is negative.
    """

    latitude: Latitude
    longitude: Longitude


@attrs.frozen(kw_only=True)
class Endpoint:
    """An address that agents dial.

    Attributes:
        address: An IP address or a host name that agents can reach.
        port: The port the server listens on there.
        transport: The transport plugin that speaks on this port.
    """

    address: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Port
    transport: Text63 = "tcp"


@attrs.frozen(kw_only=True)
class ServerIdentity:
    """How an agent recognises the server: the TLS name, and the CA where it is not a public one.

    Attributes:
        server_name: The name in the server's certificate.
        ca_bundle: PEM certificates of the authority to trust; absent, the public ones are trusted.
        public_key_sha256: The hash of the server's public key, for people who compare.
    """

    server_name: HostName
    ca_bundle: Annotated[str, Meta(max_length=65_536)] | None = None
    public_key_sha256: Annotated[str, Meta(max_length=128)] | None = None


@attrs.frozen(kw_only=True)
class ServerCapacity:
    """How much one server takes.

    Attributes:
        connections: How many agents; a full server is not chosen for more.
    """

    connections: Annotated[int, Meta(ge=0)] = 10_000


@attrs.frozen(kw_only=True)
class ServerSpec:
    """Desired state of one tunnel server.

    Attributes:
        instance: Which process this is.
        coordinates: Where it stands; agents get servers near to them.
        endpoints: Where agents dial it, best first.
        identity: How agents recognise it.
        capacity: How much it takes.
        unschedulable: True drains it: it keeps what it has and is chosen for nothing new.
    """

    instance: Instance
    coordinates: Coordinates
    endpoints: Annotated[tuple[Endpoint, ...], Meta(max_length=8)] = ()
    identity: ServerIdentity | None = None
    capacity: ServerCapacity = ServerCapacity()
    unschedulable: bool = False


@attrs.frozen(kw_only=True)
class ServerStatus:
    """Observed state of one tunnel server.

    Attributes:
        health: 0 (takes nothing) to 100 (at its best), by the server's own measure.
        pod_ip: The address on which gateways reach the server.
        connections: How many agents are connected.
        version: The server's software version.
        lease_ref: The Lease in namespace drtp-system that the server renews while it lives.
        conditions: Ready says whether the server may be chosen.
    """

    health: Annotated[int, Meta(ge=0, le=100)] = 0
    pod_ip: Text253 | None = None
    connections: Annotated[int, Meta(ge=0)] = 0
    version: Text63 | None = None
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
    """The local service: the seed's Name/Type/Hostname/IP/Port.

    Attributes:
        protocol: What it speaks; fixed once the service exists.
        name: What people call it, such as PostgreSQL.
        hostname: The host the agent dials, as the agent's own network names it.
        ip: The address the agent dials instead, where the name does not resolve.
        port: The port the agent dials.
    """

    protocol: Protocol
    name: Text63 | None = None
    hostname: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    ip: IpAddress | None = None
    port: Port | None = None


@attrs.frozen(kw_only=True)
class Exposure:
    """Whether and how the world reaches the service; private by default.

    Attributes:
        enabled: True lets visitors in.
        nature: Who may find and reach it.
        port: The public port of a TCP or UDP service; 0 means that one is chosen and kept.
        hostnames: Names of an HTTP service besides the one it is given.
    """

    enabled: bool = False
    nature: Nature = Nature.PUBLIC
    port: OptionalPort = 0
    hostnames: Annotated[tuple[HostName, ...], Meta(max_length=16)] = ()


@attrs.frozen(kw_only=True)
class ServiceServers:
    """How many servers carry the service, and whether all serve at once.

    Attributes:
        replicas: How many servers each agent connects to.
        standby: True keeps all but the first idle until it fails; slower to fail over.
    """

    replicas: Annotated[int, Meta(ge=1, le=3)] = 2
    standby: bool = False


@attrs.frozen(kw_only=True)
class ServiceSpec:
    """Desired state of one service.

    Attributes:
        application: The local service.
        exposure: Whether and how the world reaches it.
        edge_allowlist_cidrs: Networks whose visitors are let in; empty lets everyone in whom no list denies.
        acl_ref: An access control list that holds besides those that name this service.
        servers: How many servers carry it.
        max_agents: How many agents may serve it at the same time.
    """

    application: Application
    exposure: Exposure = Exposure()
    edge_allowlist_cidrs: Annotated[tuple[Cidr, ...], Meta(max_length=10_000)] = ()
    acl_ref: LocalReference | None = None
    servers: ServiceServers = ServiceServers()
    max_agents: Annotated[int, Meta(ge=1, le=25)] = 1


@attrs.frozen(kw_only=True)
class Address:
    """A public address; ``host`` is dialable as given.

    Attributes:
        protocol: What to speak there.
        host: The host to dial, as given.
        port: The port to dial.
    """

    protocol: Protocol
    host: Text253
    port: Port


@attrs.frozen(kw_only=True)
class ServiceStatus:
    """Observed state of one service.

    Attributes:
        canonical_hostname: The host name the service was given; it survives restarts.
        url: What to open or dial.
        external_port: The public port of a TCP or UDP service.
        hostnames: Every host name by which the gateway finds it.
        addresses: Every public address.
        enrollment_secret_ref: The Secret with the hash of what an agent must present.
        connection_refs: The DRTPConnections of its agents.
        conditions: Accepted, Programmed and Ready.
    """

    canonical_hostname: Text253 | None = None
    url: Annotated[str, Meta(max_length=2048)] | None = None
    external_port: Port | None = None
    hostnames: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
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
    """The agent behind a connection.

    Attributes:
        instance_id: The agent's identity, 32 hexadecimal digits; fixed once the connection exists.
        public_key: The agent's Ed25519 public key, base64url.
        wan_ip: The address the agent comes from.
        version: The agent's software version.
        epoch: When the agent's process began, milliseconds since 1970; a later one supersedes an earlier one.
    """

    instance_id: Annotated[str, Meta(max_length=32, pattern="^[0-9a-f]{32}$")]
    public_key: Annotated[str, Meta(max_length=64)]
    wan_ip: Annotated[str, Meta(max_length=45)] | None = None
    version: Text63 | None = None
    epoch: Annotated[int, Meta(ge=0)] = 0


@attrs.frozen(kw_only=True)
class ServerAssignment:
    """A server that the picker chose for a connection.

    Attributes:
        role: Its place in the order of preference.
        name: The DRTPServer's name.
    """

    role: Role
    name: Dns1123


@attrs.frozen(kw_only=True)
class ConnectionSpec:
    """Desired state of one running agent's connection.

    Attributes:
        service_ref: The DRTPService that the agent serves; fixed once the connection exists.
        client: The agent.
        servers: The servers it connects to, chosen by the controller, each in another role.
        acl_ref: An access control list for the visitors of this connection.
    """

    service_ref: LocalReference
    client: ClientInfo
    servers: Annotated[tuple[ServerAssignment, ...], Meta(max_length=3)] = ()
    acl_ref: LocalReference | None = None


@attrs.frozen(kw_only=True)
class ServerBinding:
    """What one server says of its tunnel to the agent, and the data port it listens on for the gateway.

    Attributes:
        role: The server's place in the order of preference.
        name: The DRTPServer's name.
        programming_status: How far the gateway is programmed for this server.
        client_status: Whether the agent's tunnel to this server is up.
        pod_ip: Where the gateway sends this service's visitors.
        pod_port: The port there.
        public_address: HOST:PORT that the server owns itself, where it plays the gateway.
        rtt_milliseconds: The round trip between server and agent.
        transport: What carries the tunnel.
    """

    role: Role
    name: Dns1123
    programming_status: ProgrammingStatus = ProgrammingStatus.INIT
    client_status: ClientStatus = ClientStatus.WAITING
    pod_ip: Text253 | None = None
    pod_port: Port | None = None
    public_address: Annotated[str, Meta(max_length=262)] | None = None
    rtt_milliseconds: Annotated[int, Meta(ge=0)] | None = None
    transport: Text63 | None = None


@attrs.frozen(kw_only=True)
class ConnectionStatus:
    """Observed state of one running agent's connection.

    Attributes:
        servers: What each server says, by role.
        lease_ref: The Lease that shows the agent to be alive.
        conditions: Accepted, ServersAssigned, Programmed, Connected and Ready.
    """

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
    """One rule; the first rule that matches the visitor decides.

    Attributes:
        name: What logs and metrics call the rule; unique in the list.
        action: What to do with a visitor that matches.
        client_cidrs: Networks of visitors that match; empty matches nobody.
    """

    name: Annotated[str, Meta(max_length=63)]
    action: Action
    client_cidrs: Annotated[tuple[Cidr, ...], Meta(max_length=10_000)] = ()


@attrs.frozen(kw_only=True)
class AccessControlListSpec:
    """Desired state of an access control list.

    Attributes:
        target_refs: The DRTPServices it holds for, besides those that name it in aclRef.
        mode: Whether it denies, only counts what it would deny, or sleeps.
        enforce_at: Where it holds: at the gateway, at the tunnel server, or at both.
        default_action: What to do with a visitor that no rule matches.
        rules: Tried in order; the first that matches decides.
    """

    target_refs: Annotated[tuple[ObjectReference, ...], Meta(max_length=16)] = ()
    mode: AclMode = AclMode.ENFORCE
    enforce_at: Annotated[tuple[EnforceAt, ...], Meta(min_length=1, max_length=2)] = tuple(EnforceAt)
    default_action: Action = Action.DENY
    rules: Annotated[tuple[AclRule, ...], Meta(max_length=1000)] = ()


@attrs.frozen(kw_only=True)
class AncestorStatus:
    """What one controller says of the list for one target.

    Attributes:
        ancestor_ref: The target.
        controller_name: Who says it.
        conditions: Accepted and Programmed.
    """

    ancestor_ref: ObjectReference
    controller_name: Text253
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=8)] = ()


@attrs.frozen(kw_only=True)
class AccessControlListStatus:
    """Observed state of an access control list.

    Attributes:
        ancestors: What each controller says for each target.
    """

    ancestors: Annotated[tuple[AncestorStatus, ...], Meta(max_length=16)] = ()


@attrs.frozen(kw_only=True)
class AccessControlList:
    """Who may connect to the services it targets."""

    metadata: Metadata
    spec: AccessControlListSpec
    status: AccessControlListStatus = AccessControlListStatus()


Resource = Server | Service | Connection | AccessControlList
