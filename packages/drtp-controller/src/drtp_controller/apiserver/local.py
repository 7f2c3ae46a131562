"""`Kube` without HTTP: the same protocol, straight on the core of the embedded server.

Rules: what it returns is a copy; a user's rights are checked as over HTTP; a watch gets the same events.
What must not enter: anything the HTTP server does not do as well.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Self

import msgspec

from drtp_api.kube import (
    Key,
    NotFound,
    Obj,
    ObjectList,
    PatchType,
    Resource,
    Unavailable,
    WatchEvent,
    WatchEventType,
)
from drtp_controller.apiserver.core import Api, parse_version
from drtp_controller.apiserver.kinds import Kind
from drtp_controller.apiserver.options import DeleteOptions, ListOptions, WriteOptions
from drtp_controller.apiserver.rbac import Role, User
from drtp_controller.apiserver.selectors import parse_selector
from drtp_controller.apiserver.watching import Emission, WatchCursor, stream


class LocalKube:
    """A client in the same process.

    Args:
        api: the core.
        user: on whose behalf; the controller role by default.
        field_manager: the name our writes carry in `managedFields`.
    """

    def __init__(self, api: Api, *, user: User | None = None, field_manager: str = "drtp") -> None:
        self._api = api
        self._user = user or User("drtp-controller", Role.CONTROLLER)
        self._manager = field_manager
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Refuse further calls; the core goes on."""
        self._closed = True

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> ObjectList:
        """List objects; see `Kube.list`."""
        kind = self._kind(resource)
        options = ListOptions(parse_selector(label_selector, field_selector), limit, continue_token)
        page = self._api.list(self._user, kind, namespace, options)
        return ObjectList(
            [self._versioned(kind, record.decode()) for record in page.records],
            str(page.resource_version),
            page.continue_token,
        )

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        """Read one object; see `Kube.get`."""
        kind = self._kind(resource)
        record = self._api.get(self._user, kind, self._key(kind, name, namespace))
        return self._versioned(kind, record.decode())

    async def create(self, resource: Resource, obj: Obj, namespace: str | None = None, *, dry_run: bool = False) -> Obj:
        """Create an object; see `Kube.create`."""
        kind = self._kind(resource)
        where = namespace or obj.get("metadata", {}).get("namespace")
        options = WriteOptions(self._manager, dry_run)
        return self._api.create(self._user, kind, where, _copied(obj), options).obj

    async def update(self, resource: Resource, obj: Obj, *, dry_run: bool = False) -> Obj:
        """Replace everything but the status; see `Kube.update`."""
        return self._update(resource, obj, WriteOptions(self._manager, dry_run), "")

    async def update_status(self, resource: Resource, obj: Obj) -> Obj:
        """Replace only the status; see `Kube.update_status`."""
        return self._update(resource, obj, WriteOptions(self._manager), "status")

    def _update(self, resource: Resource, obj: Obj, options: WriteOptions, subresource: str) -> Obj:
        kind = self._kind(resource, subresource)
        metadata = obj["metadata"]
        key = self._key(kind, metadata["name"], metadata.get("namespace"))
        return self._api.update(self._user, kind, key, _copied(obj), options, subresource=subresource).obj

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: Obj,
        namespace: str | None = None,
        *,
        subresource: str = "",
    ) -> Obj:
        """Apply an RFC 7386 merge patch; see `Kube.merge_patch`."""
        return await self.patch(resource, name, patch, namespace, patch_type=PatchType.MERGE, subresource=subresource)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Any,
        namespace: str | None = None,
        *,
        patch_type: PatchType,
        subresource: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Obj:
        """Apply a patch of any kind; see `Kube.patch`."""
        kind = self._kind(resource, subresource)
        outcome = self._api.patch(
            self._user,
            kind,
            self._key(kind, name, namespace),
            patch_type=patch_type,
            body=_copied(body),
            options=WriteOptions(self._manager, dry_run, force=force),
            subresource=subresource,
        )
        return outcome.obj

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str = "",
        resource_version: str = "",
    ) -> None:
        """Delete an object; see `Kube.delete`."""
        kind = self._kind(resource)
        options = DeleteOptions(uid=uid, resource_version=resource_version)
        self._api.delete(self._user, kind, self._key(kind, name, namespace), options)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout: float = 300.0,
        send_initial_events: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Iterate over changes; see `Kube.watch`."""
        kind = self._kind(resource)
        selector = parse_selector(label_selector, field_selector)
        self._api.authorize_watch(self._user, kind, namespace, selector.name)
        from_present = send_initial_events or resource_version in {"", "0"}
        store = self._api.store
        position = store.revision if from_present else parse_version(resource_version)
        emissions = stream(
            WatchCursor(store, kind.collection, namespace, selector, position),
            from_present=from_present,
            mark_initial=send_initial_events,
            bookmarks=True,
            seconds=timeout,
            clock=time.monotonic,
        )
        async with aclosing(emissions):
            async for emission in emissions:
                yield self._event(kind, emission)

    async def served_resources(self, group: str, version: str) -> tuple[Resource, ...]:
        """Return the kinds a group version serves; see `Kube.served_resources`."""
        kinds = self._api.registry.group_versions().get(group, {}).get(version, [])
        return tuple(kind.resource for kind in kinds)

    def _kind(self, resource: Resource, subresource: str = "") -> Kind:
        if self._closed:
            raise Unavailable("this client is closed")
        kind = self._api.registry.require(resource.group, resource.version, resource.plural)
        if subresource and not (subresource == "status" and kind.has_status):
            raise NotFound("the server could not find the requested resource")
        return kind

    def _key(self, kind: Kind, name: str, namespace: str | None) -> Key:
        if not kind.resource.namespaced:
            return Key("", name)
        if not namespace:
            raise NotFound("the server could not find the requested resource")
        return Key(namespace, name)

    def _versioned(self, kind: Kind, obj: Obj) -> Obj:
        obj["apiVersion"] = kind.api_version
        return obj

    def _event(self, kind: Kind, emission: Emission) -> WatchEvent:
        if emission.record is not None:
            return WatchEvent(emission.type, self._versioned(kind, emission.record.decode()))
        metadata: Obj = {"resourceVersion": str(emission.rv)}
        if emission.ends_initial_events:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        bookmark = {"kind": kind.resource.kind, "apiVersion": kind.api_version, "metadata": metadata}
        return WatchEvent(WatchEventType.BOOKMARK, bookmark)


def _copied(value: Any) -> Any:
    """Return a copy that went through JSON: what could not travel over HTTP is refused here too."""
    return msgspec.json.decode(msgspec.json.encode(value))
