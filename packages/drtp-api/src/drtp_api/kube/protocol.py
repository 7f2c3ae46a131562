"""The one way every part of DRTP talks to a Kubernetes API: `Kube`, over plain dicts.

Rules:
- Objects are JSON data (`dict`); what an implementation returns belongs to the caller and may be changed.
- Every refusal is a `KubeError` subclass; a server out of reach is `Unavailable`.
- Implementations: `HttpKube` (any API server), `LocalKube` in the controller (the embedded store, no HTTP).
What must not enter: retries, caches, typed models.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import attrs

from drtp_api.kube.resource import Obj, Resource


class WatchEventType(enum.StrEnum):
    """Kinds of watch event; errors are raised instead."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


class PatchType(enum.StrEnum):
    """Media types of a PATCH body."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@attrs.frozen
class WatchEvent:
    """One change, or a bookmark that only moves the resource version."""

    type: WatchEventType
    object: Obj

    @property
    def resource_version(self) -> str:
        """Return the version to resume a watch from after this event."""
        return str(self.object.get("metadata", {}).get("resourceVersion", ""))

    @property
    def ends_initial_events(self) -> bool:
        """Return whether this bookmark closes the initial events of `send_initial_events`."""
        annotations = self.object.get("metadata", {}).get("annotations") or {}
        return self.type is WatchEventType.BOOKMARK and "k8s.io/initial-events-end" in annotations


@attrs.frozen
class ObjectList:
    """One page of a list."""

    items: list[Obj]
    resource_version: str
    continue_token: str = ""
    """Pass it to the next `list` call; empty on the last page."""


class Kube(Protocol):
    """A client of a Kubernetes API over plain dicts.

    Every method may raise any `KubeError`; the ones a caller normally handles are named.
    """

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
        """List objects of a namespace, or of all namespaces when it is None.

        Args:
            resource: the kind.
            namespace: None for all namespaces, and for cluster-scoped kinds.
            label_selector: as in kubectl `-l`.
            field_selector: as in kubectl `--field-selector`.
            limit: page size, 0 for everything at once.
            continue_token: from the previous page. Raises `Gone` when the snapshot was compacted.
        """
        ...

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        """Read one object. Raises `NotFound`."""
        ...

    async def create(self, resource: Resource, obj: Obj, namespace: str | None = None, *, dry_run: bool = False) -> Obj:
        """Create an object and return it as stored. Raises `AlreadyExists`, `Invalid`, `NotFound` (namespace).

        The namespace defaults to `metadata.namespace`.
        """
        ...

    async def update(self, resource: Resource, obj: Obj, *, dry_run: bool = False) -> Obj:
        """Replace everything but the status. Raises `Conflict`, `Invalid`, `NotFound`.

        With `metadata.resourceVersion` the write happens only if nobody wrote since.
        """
        ...

    async def update_status(self, resource: Resource, obj: Obj) -> Obj:
        """Replace only the status subresource. Raises `Conflict`, `Invalid`, `NotFound`."""
        ...

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: Obj,
        namespace: str | None = None,
        *,
        subresource: str = "",
    ) -> Obj:
        """Apply an RFC 7386 merge patch. Raises `Conflict` (patch names a stale resourceVersion), `NotFound`."""
        ...

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
        """Apply a patch of any of the four kinds; `force` takes over fields in a server-side apply."""
        ...

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str = "",
        resource_version: str = "",
    ) -> None:
        """Delete an object, or mark it when it has finalizers. Raises `NotFound`, `Conflict` (preconditions)."""
        ...

    def watch(
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
        """Iterate over changes after `resource_version`, with bookmarks, until `timeout` seconds passed.

        Without a resource version (or with "0") the present objects come first, as ADDED. Raises `Gone` when
        the server no longer remembers that version; then list again. A normal end of iteration means: watch
        again from the last version seen. Close the iterator (`aclosing`) when leaving early.
        """
        ...

    async def served_resources(self, group: str, version: str) -> tuple[Resource, ...]:
        """Return the kinds a group version serves, nothing when the server does not know it."""
        ...

    async def close(self) -> None:
        """Release connections; running watches end."""
        ...
