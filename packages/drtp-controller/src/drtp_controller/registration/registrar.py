"""The rules of registration: who may serve what, on which servers, with which grants.

Rules:
- One registration of a service at a time; ports, names and agents are decided in one place, so that two callers
  never both get the last one.
- The answer is complete: servers are picked and grants are signed before it is given, by the planners that the
  reconcilers use, so that both always agree.
- A refusal that could tell a stranger whether a service exists is the same whether it does or not.
What must not enter: HTTP.
"""

from __future__ import annotations

import asyncio
import secrets as random_source
import weakref
from collections.abc import Mapping

from drtp_api.errors import DrtpError
from drtp_api.grants import GRANT_LIFETIME, Grant, GrantIssuer, b64url_decode, thumbprint, verify_signature
from drtp_api.kube import DRTP_CONNECTIONS, DRTP_SERVICES, AlreadyExists, Conflict, Kube, NotFound, Obj
from drtp_api.pickers import Place, city_of
from drtp_api.registration import (
    ConnectionGrants,
    ConnectionView,
    GrantRequest,
    RegisterRequest,
    RegisterResponse,
    SecretRevocation,
    ServerCandidate,
    ServiceName,
    ServiceSecret,
    TunnelServer,
)
from drtp_api.resources import (
    API_VERSION,
    ClientInfo,
    Connection,
    ConnectionSpec,
    LocalReference,
    Server,
    ServerAssignment,
    Service,
    ServiceStatus,
    service_key,
)
from drtp_api.wire import from_wire, to_wire
from drtp_controller.planners.conditions import parse_time, timestamp
from drtp_controller.planners.connection import Applied, assign_servers, connected_bindings, is_live
from drtp_controller.planners.events import Happening, Subject
from drtp_controller.planners.gateway import SERVICE_LABEL
from drtp_controller.planners.servers import has_room, is_online
from drtp_controller.reconcile.controller import Controller
from drtp_controller.registration import enrolment, services
from drtp_controller.registration.auth import Identity
from drtp_controller.registration.views import connection_view, endpoints_of, server_candidate

__all__ = ["Registrar"]

MAX_CANDIDATES = 5
PROOF_SKEW_SECONDS = 60.0
REGISTERED_AT = "drtp.datumapis.com/registered-at"
_TRIES = 5
_TOLD = frozenset({"DRTP-2005", "DRTP-2007", "DRTP-2008", "DRTP-2014", "DRTP-4006"})
"""Refusals that the owner of a service wants to know of."""


class Registrar:
    """Answers registrations with the controller's caches, books and planners."""

    def __init__(self, controller: Controller, issuer: GrantIssuer) -> None:
        self.controller = controller
        self.issuer = issuer
        self._kube: Kube = controller.kube
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    # agents

    def candidates(self, wan_ip: str | None) -> tuple[ServerCandidate, ...]:
        """Return the servers that an agent at this address may measure, best guess first."""
        free = [s for s in self.controller.caches.servers if has_room(s)]
        ordered = self.controller.config.picker.order(Place(wan_ip=wan_ip), sorted(free, key=_server_name))
        return tuple(server_candidate(s) for s in ordered[:MAX_CANDIDATES])

    async def register(
        self, request: RegisterRequest, *, wan_ip: str | None, identity: Identity | None
    ) -> RegisterResponse:
        """Register an agent and return its connection, servers and grants.

        Raises:
            DrtpError: DRTP-2003, 2005, 2006, 2007, 2008, 2009, 2011-2014, 4006.
        """
        try:
            return await self._register(request, wan_ip=wan_ip, identity=identity)
        except DrtpError as error:
            self._tell(request.service, error, wan_ip)
            raise

    def _tell(self, name: ServiceName, error: DrtpError, wan_ip: str | None) -> None:
        """Tell the owner of a service that an agent was refused."""
        service = self.controller.caches.services.get(name.name, name.namespace)
        if service is not None and error.code in _TOLD:
            text = f"{error.code} {error.message}" + (f" (agent at {wan_ip})" if wan_ip else "")
            subject = Subject.of("DRTPService", service.metadata)
            self.controller.recorder.record([Happening(subject, "AgentRefused", text, "Warning")])

    async def _register(
        self, request: RegisterRequest, *, wan_ip: str | None, identity: Identity | None
    ) -> RegisterResponse:
        _public_key(request.public_key)
        key = service_key(request.service.namespace, request.service.name)
        async with self._lock(key):
            if identity is None:
                await self._check_secret(request.service, request.secret)
            if request.definition is not None:
                if identity is None:
                    raise DrtpError("DRTP-2008", "only a signed-in user may bring a definition; leave it out")
                service = await services.write_definition(self.controller, request.service, request.definition)
            else:
                service = await services.read(self.controller, request.service)
            proof = enrolment.BY_SECRET if identity is None else enrolment.BY_USER
            connection = await self._connect(request, service, wan_ip, proof)
        planned = self._plan(service, connection)
        view = connection_view(connection, service, self._servers(), self._applied(service), planned=planned)
        return RegisterResponse(
            connection=view,
            servers=self._tunnel_servers(connection, service),
            expires_in_seconds=GRANT_LIFETIME,
            application=service.spec.application,
        )

    async def renew(self, namespace: str, name: str, request: GrantRequest) -> ConnectionGrants:
        """Return fresh grants to the agent that proves to hold the connection's key.

        Raises:
            DrtpError: DRTP-2010 revoked; DRTP-2004 clock; DRTP-2016 proof.
        """
        connection, service = await self._both(namespace, name)
        now = self.controller.clock()
        if abs(now - request.issued_at) > PROOF_SKEW_SECONDS:
            raise DrtpError("DRTP-2004", f"the request says {request.issued_at}, it is {now:.0f}")
        text = f"drtp grant renewal\0{namespace}/{name}\0{request.issued_at}"
        try:
            proof = b64url_decode(request.proof)
        except ValueError as error:
            raise DrtpError("DRTP-2009", "body.proof: is not base64url") from error
        if not verify_signature(_public_key(connection.spec.client.public_key), proof, text.encode()):
            raise DrtpError("DRTP-2016", "the proof is not by the connection's key")
        return ConnectionGrants(servers=self._tunnel_servers(connection, service), expires_in_seconds=GRANT_LIFETIME)

    async def view(self, namespace: str, name: str) -> ConnectionView:
        """Return the connection as it is now.

        Raises:
            DrtpError: DRTP-2010; there is none (any more).
        """
        connection, service = await self._both(namespace, name)
        return connection_view(connection, service, self._servers(), self._applied(service))

    async def revoke(self, namespace: str, name: str) -> None:
        """Delete the connection; its edges end its tunnels.

        Raises:
            DrtpError: DRTP-2010; there is none (any more).
        """
        try:
            await self._kube.delete(DRTP_CONNECTIONS, name, namespace)
        except NotFound as error:
            raise DrtpError("DRTP-2010", f"there is no connection {namespace}/{name}") from error

    # secrets

    async def rotate(self, name: ServiceName, *, overlap: float) -> ServiceSecret:
        """Issue a new secret; the one before stays valid for ``overlap`` seconds.

        Raises:
            DrtpError: DRTP-2006; there is no such service.
        """
        async with self._lock(service_key(name.namespace, name.name)):
            return await enrolment.issue(self.controller, await services.read(self.controller, name), overlap=overlap)

    async def revoke_secret(self, name: ServiceName) -> SecretRevocation:
        """Make every secret invalid and end the connections that were enrolled by one.

        Raises:
            DrtpError: DRTP-2006; there is no such service.
        """
        async with self._lock(service_key(name.namespace, name.name)):
            return await enrolment.revoke(self.controller, await services.read(self.controller, name))

    # parts

    def _lock(self, key: str) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def _servers(self) -> Mapping[str, Server]:
        return self.controller.caches.servers_by_name()

    def _applied(self, service: Service) -> Applied | None:
        return self.controller.applied(service_key(service.metadata.namespace or "default", service.metadata.name))

    async def _check_secret(self, service: ServiceName, secret: str | None) -> None:
        if not secret:
            raise DrtpError("DRTP-2003", "neither a bearer token nor a secret was given")
        await enrolment.check(self.controller, service, secret)

    async def _both(self, namespace: str, name: str) -> tuple[Connection, Service]:
        caches = self.controller.caches
        connection = caches.connections.get(name, namespace)
        try:
            if connection is None:
                connection = from_wire(await self._kube.get(DRTP_CONNECTIONS, name, namespace), Connection)
            service = caches.services.get(connection.spec.service_ref.name, namespace)
            if service is None:
                raw = await self._kube.get(DRTP_SERVICES, connection.spec.service_ref.name, namespace)
                service = from_wire(raw, Service)
        except NotFound as error:
            raise DrtpError("DRTP-2010", f"there is no connection {namespace}/{name}") from error
        if connection.metadata.deletion_timestamp is not None:
            raise DrtpError("DRTP-2010", f"the connection {namespace}/{name} is being deleted")
        return connection, service

    async def _connect(self, request: RegisterRequest, service: Service, wan_ip: str | None, proof: str) -> Connection:
        """Create or update the connection object of this agent, once nobody else is in its way."""
        name = f"{request.service.name}-{request.instance_id[:10]}"
        for _ in range(_TRIES):
            existing = await self._admit(request, service, name)
            servers = self._assign(request, service, existing, wan_ip)
            spec = ConnectionSpec(
                service_ref=LocalReference(name=service.metadata.name),
                client=ClientInfo(
                    instance_id=request.instance_id,
                    public_key=request.public_key,
                    wan_ip=wan_ip,
                    version=request.version,
                    epoch=request.epoch,
                ),
                servers=servers,
            )
            try:
                return from_wire(await self._write(name, spec, service, existing, proof), Connection)
            except (AlreadyExists, Conflict):
                continue  # an edge wrote its status meanwhile, or a twin registered
        raise DrtpError("DRTP-2015", f"the connection {name} keeps changing")

    async def _admit(self, request: RegisterRequest, service: Service, name: str) -> Obj | None:
        """Return the agent's present connection object if it may serve now.

        Connections of other agents that are gone are deleted: their grants end with them.
        """
        namespace = request.service.namespace
        selector = f"{SERVICE_LABEL}={service.metadata.name}"
        page = await self._kube.list(DRTP_CONNECTIONS, namespace, label_selector=selector)
        mine: Obj | None = None
        others: list[Connection] = []
        for raw in page.items:
            found = from_wire(raw, Connection)
            if raw["metadata"]["name"] == name:
                mine = raw
                if found.spec.client.epoch > request.epoch:
                    raise DrtpError("DRTP-4006", f"a process started later serves {name}")
            elif found.metadata.deletion_timestamp is None:
                others.append(found)
        servers, now = self._servers(), self.controller.clock()
        live = [
            c
            for c in others
            if is_live(c, servers, registered_at=parse_time(c.metadata.annotations.get(REGISTERED_AT)), now=now)
        ]
        allowed = service.spec.max_agents
        if len(live) >= allowed:
            raise DrtpError("DRTP-2007", f"{len(live)} of {allowed} agents serve {namespace}/{service.metadata.name}")
        dead = [c for c in others if c not in live]
        for gone in dead[: max(0, len(others) + 1 - allowed)]:
            await self._forget(gone)
        return mine

    async def _forget(self, connection: Connection) -> None:
        try:
            await self._kube.delete(
                DRTP_CONNECTIONS,
                connection.metadata.name,
                connection.metadata.namespace,
                uid=connection.metadata.uid or "",
            )
        except NotFound:
            return

    def _assign(
        self, request: RegisterRequest, service: Service, existing: Obj | None, wan_ip: str | None
    ) -> tuple[ServerAssignment, ...]:
        servers = self._servers()
        place = Place(wan_ip=wan_ip, round_trips={k: v / 1000 for k, v in request.round_trips.items()})
        current: tuple[ServerAssignment, ...] = ()
        connected: frozenset[str] = frozenset()
        if existing is not None:
            before = from_wire(existing, Connection)
            current = before.spec.servers
            connected = frozenset(b.name for b in connected_bindings(before, servers))
        picker, count = self.controller.config.picker, service.spec.servers.replicas
        chosen = assign_servers(current, servers, picker, place, count=count, connected=connected)
        if not any(a.name in servers and is_online(servers[a.name]) for a in chosen):
            raise DrtpError("DRTP-2014", f"none of {len(servers)} tunnel servers is ready")
        return chosen

    async def _write(self, name: str, spec: ConnectionSpec, service: Service, existing: Obj | None, proof: str) -> Obj:
        annotations = {REGISTERED_AT: timestamp(self.controller.clock()), enrolment.ENROLLED_BY: proof}
        if existing is not None:
            metadata = existing["metadata"]
            annotations = {**(metadata.get("annotations") or {}), **annotations}
            body = {**existing, "metadata": {**metadata, "annotations": annotations}, "spec": to_wire(spec)}
            return await self._kube.update(DRTP_CONNECTIONS, body)
        owner = service.metadata
        body = {
            "apiVersion": API_VERSION,
            "kind": "DRTPConnection",
            "metadata": {
                "name": name,
                "namespace": owner.namespace,
                "labels": {SERVICE_LABEL: owner.name, "app.kubernetes.io/managed-by": "drtp.datumapis.com"},
                "annotations": annotations,
                "ownerReferences": [
                    {
                        "apiVersion": API_VERSION,
                        "kind": "DRTPService",
                        "name": owner.name,
                        "uid": owner.uid,
                        "controller": True,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "spec": to_wire(spec),
        }
        return await self._kube.create(DRTP_CONNECTIONS, body, owner.namespace)

    def _plan(self, service: Service, connection: Connection) -> ServiceStatus:
        return self.controller.plan_of(service, [connection]).status

    def _tunnel_servers(self, connection: Connection, service: Service) -> tuple[TunnelServer, ...]:
        servers, made = self._servers(), []
        for assignment in connection.spec.servers:
            server = servers.get(assignment.name)
            if server is None or not server.spec.endpoints:
                continue
            identity = server.spec.identity
            made.append(
                TunnelServer(
                    name=assignment.name,
                    role=assignment.role,
                    city=city_of(server),
                    endpoints=endpoints_of(server),
                    server_name=identity.server_name if identity is not None else server.spec.endpoints[0].address,
                    grant=self._grant(connection, service, assignment.name),
                    ca_pem=identity.ca_bundle if identity is not None else None,
                )
            )
        return tuple(made)

    def _grant(self, connection: Connection, service: Service, server: str) -> str:
        now = int(self.controller.clock())
        namespace = connection.metadata.namespace or "default"
        return self.issuer.issue(
            Grant(
                connection=f"{namespace}/{connection.metadata.name}",
                server=server,
                service=service_key(namespace, service.metadata.name),
                protocol=service.spec.application.protocol.value.lower(),
                instance_id=connection.spec.client.instance_id,
                key_thumbprint=thumbprint(_public_key(connection.spec.client.public_key)),
                issued_at=now,
                expires_at=now + GRANT_LIFETIME,
                token_id=random_source.token_urlsafe(12),
            )
        )


def _server_name(server: Server) -> str:
    return server.metadata.name


def _public_key(text: str) -> bytes:
    try:
        key = b64url_decode(text)
    except ValueError as error:
        raise DrtpError("DRTP-2009", "body.publicKey: is not base64url") from error
    if len(key) != 32:
        raise DrtpError("DRTP-2009", f"body.publicKey: {len(key)} bytes, an Ed25519 key has 32")
    return key
