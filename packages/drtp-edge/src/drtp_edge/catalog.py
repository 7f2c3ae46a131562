"""What the edge knows of services, connections and access lists: a typed, indexed copy. No I/O.

Rules:
- What was known stays in force until something newer is known; an object that cannot be read keeps its last good state.
- A service that names an access list which is not there admits nobody: a shut door beats an open one.
- A deleted connection is remembered, so that its grants stay dead until the owner registers again.

What must not live here: watches, tunnels, decisions about visitors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from drtp_api.errors import DrtpError
from drtp_api.grants import LEEWAY
from drtp_api.resources import (
    AccessControlList,
    AclMode,
    Connection,
    EnforceAt,
    Protocol,
    Role,
    Service,
    service_key,
)
from drtp_api.wire import from_wire

__all__ = ["Catalog", "Known"]

_REMEMBERED = 100_000


@attrs.frozen
class Known:
    """One service with the access lists that hold for it; ``missing`` names one that is not there."""

    service: Service
    lists: tuple[AccessControlList, ...]
    missing: str | None = None

    @property
    def http(self) -> bool:
        """Whether its visitors speak HTTP."""
        return self.service.spec.application.protocol is Protocol.HTTP

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The host names that lead to it, in lower case."""
        canonical = self.service.status.canonical_hostname
        own = (*((canonical,) if canonical else ()), *self.service.spec.exposure.hostnames)
        # The status has the names that users' routes give it, too; what is unpublished is so at once, not when the
        # controller has written it there.
        routed = (name for name in self.service.status.hostnames if name not in own)
        names = (*(own if self.service.spec.exposure.enabled else ()), *routed)
        return tuple(dict.fromkeys(name.lower() for name in names))


def _key(obj: Mapping[str, Any]) -> str:
    metadata = obj["metadata"]
    return service_key(metadata.get("namespace") or "", metadata["name"])


@attrs.define
class Catalog:
    """The objects of the control plane that matter to one edge.

    Args:
        server: This edge's name.
        on_fault: Told of objects that cannot be read.
    """

    server: str
    on_fault: Callable[[str, DrtpError], None] = lambda _key, _error: None
    _services: dict[str, Service] = attrs.field(factory=dict)
    _lists: dict[str, AccessControlList] = attrs.field(factory=dict)
    _connections: dict[str, Connection] = attrs.field(factory=dict)
    _deleted: dict[str, float] = attrs.field(factory=dict)
    _known: dict[str, Known] = attrs.field(factory=dict)

    # Changes

    def put_service(self, obj: Mapping[str, Any]) -> str:
        """Take a DRTPService and return its key."""
        key = _key(obj)
        if (service := self._read(key, obj, Service)) is not None:
            self._services[key] = service
            self._known.pop(key, None)
        return key

    def remove_service(self, key: str) -> None:
        """Forget a DRTPService."""
        self._services.pop(key, None)
        self._known.pop(key, None)

    def put_list(self, obj: Mapping[str, Any]) -> None:
        """Take a DRTPAccessControlList."""
        key = _key(obj)
        if (found := self._read(key, obj, AccessControlList)) is not None:
            self._lists[key] = found
            self._known.clear()

    def remove_list(self, key: str) -> None:
        """Forget a DRTPAccessControlList."""
        self._lists.pop(key, None)
        self._known.clear()

    def put_connection(self, obj: Mapping[str, Any]) -> str:
        """Take a DRTPConnection and return its key."""
        key = _key(obj)
        if (connection := self._read(key, obj, Connection)) is not None:
            self._connections[key] = connection
            self._known.pop(self.service_of(connection), None)
        return key

    def remove_connection(self, key: str, now: float) -> None:
        """Forget a DRTPConnection and remember when, in seconds since the Unix epoch."""
        connection = self._connections.pop(key, None)
        if connection is not None:
            self._known.pop(self.service_of(connection), None)
        self._deleted[key] = now
        while len(self._deleted) > _REMEMBERED:
            del self._deleted[next(iter(self._deleted))]

    # Questions

    def service(self, key: str) -> Known | None:
        """Return what is known of a service."""
        known = self._known.get(key)
        if known is None and (service := self._services.get(key)) is not None:
            known = self._known[key] = self._join(key, service)
        return known

    def services(self) -> tuple[str, ...]:
        """Return the key of every service."""
        return tuple(self._services)

    def connection(self, key: str) -> Connection | None:
        """Return a connection by its key."""
        return self._connections.get(key)

    def connections(self) -> Mapping[str, Connection]:
        """Return every connection by its key."""
        return self._connections

    def revoked(self, key: str, issued_at: float) -> bool:
        """Return whether a grant of the connection, made at that time, was withdrawn by deleting the connection."""
        deleted = self._deleted.get(key)
        if deleted is None:
            return False
        # A grant made after the deletion belongs to a new registration; the leeway is for clocks, not for old grants.
        return key not in self._connections or issued_at < deleted - LEEWAY

    def assigned(self, key: str) -> Role | None:
        """Return the role of this edge in a connection, None if it has none."""
        connection = self._connections.get(key)
        if connection is None:
            return None
        return next((a.role for a in connection.spec.servers if a.name == self.server), None)

    def primary(self, service: str) -> bool:
        """Return whether this edge is first in any connection of the service; alone it is first, too."""
        keys = [key for key, connection in self._connections.items() if self.service_of(connection) == service]
        return not keys or any(self.assigned(key) is Role.PRIMARY for key in keys)

    def alternates(self, key: str) -> tuple[str, ...]:
        """Return the names of the other servers of a connection, in order of preference."""
        connection = self._connections.get(key)
        if connection is None:
            return ()
        return tuple(a.name for a in connection.spec.servers if a.name != self.server)

    @staticmethod
    def service_of(connection: Connection) -> str:
        """Return the key of the service that a connection serves."""
        return service_key(connection.metadata.namespace or "", connection.spec.service_ref.name)

    # Inside

    def _read(self, key: str, obj: Mapping[str, Any], cls: type[Any]) -> Any:
        try:
            return from_wire(dict(obj), cls)
        except DrtpError as error:
            self.on_fault(key, error)
            return None

    def _join(self, key: str, service: Service) -> Known:
        namespace = service.metadata.namespace or ""
        wanted = []
        if service.spec.acl_ref is not None:
            wanted.append(service.spec.acl_ref.name)
        wanted += [
            connection.spec.acl_ref.name
            for connection in self._connections.values()
            if connection.spec.acl_ref is not None and self.service_of(connection) == key
        ]
        found: dict[str, AccessControlList] = {}
        missing = None
        for name in wanted:
            acl = self._lists.get(service_key(namespace, name))
            if acl is None:
                missing = name
            else:
                found[name] = acl
        for acl in self._lists.values():
            if (acl.metadata.namespace or "") == namespace and any(
                ref.kind == "DRTPService" and ref.name == service.metadata.name for ref in acl.spec.target_refs
            ):
                found[acl.metadata.name] = acl
        lists = tuple(
            acl
            for _, acl in sorted(found.items())
            if EnforceAt.SERVER in acl.spec.enforce_at and acl.spec.mode is not AclMode.DISABLED
        )
        return Known(service, lists, missing)
