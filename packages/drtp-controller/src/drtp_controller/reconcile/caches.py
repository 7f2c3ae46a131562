"""Live copies of everything the controller looks at, our own kinds as typed objects.

Rules:
- Read-only for everybody; the reflectors alone change them.
- An object that cannot be read (a field of a future version, say) is logged once per version and left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from drtp_api import resources
from drtp_api.errors import DrtpError
from drtp_api.kube import (
    DRTP_ACCESS_CONTROL_LISTS,
    DRTP_CONNECTIONS,
    DRTP_SERVERS,
    DRTP_SERVICES,
    LEASES,
    Change,
    Key,
    Kube,
    Obj,
    Reflector,
    Resource,
)
from drtp_api.wire import from_wire

__all__ = ["Caches", "OwnerIndex", "TypedCache"]

_log = logging.getLogger(__name__)

T = TypeVar("T", bound=resources.Resource)


class TypedCache(Generic[T]):
    """A reflector's cache as attrs objects. Callbacks get the key, the old and the new object."""

    def __init__(self, kube: Kube, resource: Resource, cls: type[T]) -> None:
        self.objects: dict[Key, T] = {}
        self.reflector = Reflector(kube, resource, on_change=self._changed)
        self._cls = cls
        self._callbacks: list[Callable[[Key, T | None, T | None], None]] = []

    def subscribe(self, callback: Callable[[Key, T | None, T | None], None]) -> None:
        """Call back on every change from now on."""
        self._callbacks.append(callback)

    def get(self, name: str, namespace: str = "") -> T | None:
        """Return one object."""
        return self.objects.get(Key(namespace, name))

    def raw(self, key: Key) -> Obj | None:
        """Return the object as the API sent it."""
        return self.reflector.cache.get(key)

    def __iter__(self) -> Iterator[T]:
        return iter(self.objects.values())

    def _changed(self, change: Change) -> None:
        old = self.objects.pop(change.key, None)
        new: T | None = None
        if change.new is not None:
            try:
                new = from_wire(change.new, self._cls)
            except DrtpError as error:
                _log.warning("%s %s is left out: %s", self._cls.__name__, change.key, error.message)
            else:
                self.objects[change.key] = new
        for callback in self._callbacks:
            callback(change.key, old, new)


class OwnerIndex:
    """The objects of one kind by the uid of their owner: finding children must not read every object."""

    def __init__(self, reflector: Reflector) -> None:
        self.reflector = reflector
        self._keys: dict[str, set[Key]] = {}
        reflector.subscribe(self._changed)

    def of(self, uid: str) -> list[tuple[Key, Obj]]:
        """Return the objects that an owner has."""
        cache = self.reflector.cache
        return [(key, cache[key]) for key in sorted(self._keys.get(uid, ())) if key in cache]

    def _changed(self, change: Change) -> None:
        for obj, add in ((change.old, False), (change.new, True)):
            for uid in _owner_uids(obj):
                keys = self._keys.setdefault(uid, set())
                keys.add(change.key) if add else keys.discard(change.key)
                if not keys:
                    del self._keys[uid]


def _owner_uids(obj: Obj | None) -> list[str]:
    references = (obj or {}).get("metadata", {}).get("ownerReferences") or ()
    return [r["uid"] for r in references if r.get("uid")]


class Caches:
    """The controller's view of the API."""

    def __init__(self, kube: Kube, children: tuple[Resource, ...]) -> None:
        self.servers = TypedCache(kube, DRTP_SERVERS, resources.Server)
        self._servers_by_name: dict[str, resources.Server] = {}
        self.servers.subscribe(self._server_changed)
        self.services = TypedCache(kube, DRTP_SERVICES, resources.Service)
        self.connections = TypedCache(kube, DRTP_CONNECTIONS, resources.Connection)
        self.lists = TypedCache(kube, DRTP_ACCESS_CONTROL_LISTS, resources.AccessControlList)
        self.leases = Reflector(kube, LEASES, resources.SYSTEM_NAMESPACE)
        # user-made children are none of ours, but a user's routes may lead to our services: no label selector
        self.children: dict[Resource, OwnerIndex] = {r: OwnerIndex(Reflector(kube, r)) for r in children}
        self._by_service: dict[Key, dict[Key, resources.Connection]] = {}
        self.connections.subscribe(self._connection_changed)

    def reflectors(self) -> tuple[Reflector, ...]:
        """Return every reflector, to run and to wait for."""
        typed = (self.servers, self.services, self.connections, self.lists)
        return (*(t.reflector for t in typed), self.leases, *(i.reflector for i in self.children.values()))

    async def synced(self) -> None:
        """Wait until every cache has been filled once."""
        await asyncio.gather(*(r.synced.wait() for r in self.reflectors()))

    def servers_by_name(self) -> Mapping[str, resources.Server]:
        """Return the servers by name; the same mapping each time, so that ten thousand reconciles copy nothing."""
        return MappingProxyType(self._servers_by_name)

    def connections_of(self, namespace: str, service: str) -> list[resources.Connection]:
        """Return the connections of a service, those being deleted left out."""
        found = self._by_service.get(Key(namespace, service), {})
        return [c for c in found.values() if c.metadata.deletion_timestamp is None]

    def _server_changed(self, key: Key, _old: resources.Server | None, new: resources.Server | None) -> None:
        self._servers_by_name.pop(key.name, None)
        if new is not None:
            self._servers_by_name[key.name] = new

    def _connection_changed(self, key: Key, old: resources.Connection | None, new: resources.Connection | None) -> None:
        if old is not None:
            self._by_service.get(Key(key.namespace, old.spec.service_ref.name), {}).pop(key, None)
        if new is not None:
            self._by_service.setdefault(Key(key.namespace, new.spec.service_ref.name), {})[key] = new
