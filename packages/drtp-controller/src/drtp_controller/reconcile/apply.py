"""Writing differences: what is desired is compared with what is there, and only what differs is written.

Rules:
- An object matches if everything desired is in it; what the API server or others added is left alone.
- Status is replaced under the resource version that was read; a conflict means look again.
- Nothing is written to an object that is not ours.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from drtp_api.kube import AlreadyExists, Conflict, Key, Kube, NotFound, Obj, Resource, key_of
from drtp_api.wire import to_wire, wire_name
from drtp_controller.reconcile.caches import OwnerIndex

__all__ = ["Applier", "contains"]

_log = logging.getLogger(__name__)


def contains(observed: Any, desired: Any) -> bool:
    """Return whether everything that is desired is there; lists must be equal in length and order."""
    if isinstance(desired, Mapping):
        return isinstance(observed, Mapping) and all(contains(observed.get(k), v) for k, v in desired.items())
    if isinstance(desired, list):
        return (
            isinstance(observed, list)
            and len(observed) == len(desired)
            and all(contains(o, d) for o, d in zip(observed, desired, strict=True))
        )
    return bool(observed == desired)


class Applier:
    """Makes objects what they shall be; ``writes`` counts every request that changes something."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self.writes = 0

    async def ensure(self, resource: Resource, desired: Obj, observed: Obj | None) -> None:
        """Create the object, or merge what differs into it.

        Raises:
            Conflict: the cache behind ``observed`` is stale.
        """
        namespace, name = key_of(desired)
        if observed is None:
            self.writes += 1
            try:
                await self.kube.create(resource, desired, namespace or None)
            except AlreadyExists as error:
                raise Conflict(f"{resource.kind} {name} appeared meanwhile") from error
            return
        patch = {k: v for k, v in desired.items() if k not in {"apiVersion", "kind"}}
        if contains(observed, patch):
            return
        self.writes += 1
        await self.kube.merge_patch(resource, name, patch, namespace or None)

    async def children(
        self, owner_uid: str, desired: Iterable[tuple[Resource, Obj]], observed: Mapping[Resource, OwnerIndex]
    ) -> None:
        """Make the owner's children exactly the desired ones."""
        wanted: set[tuple[Resource, Key]] = set()
        for resource, obj in desired:
            key = key_of(obj)
            wanted.add((resource, key))
            present = observed[resource].reflector.cache.get(key)
            if present is not None and not _owned_by(present, owner_uid):
                _log.warning("%s %s is not ours and is left alone", resource.kind, key)
                continue
            await self.ensure(resource, obj, present)
        for resource, index in observed.items():
            for key, obj in index.of(owner_uid):
                # our connections are the service's children too, but no planner's: only these kinds are swept
                if (resource, key) not in wanted and not obj["metadata"].get("deletionTimestamp"):
                    await self.delete(resource, key, obj)

    async def delete(self, resource: Resource, key: Key, observed: Obj) -> None:
        """Delete the very object that was observed; one that is gone already is fine."""
        self.writes += 1
        with contextlib.suppress(NotFound):
            await self.kube.delete(resource, key.name, key.namespace or None, uid=observed["metadata"].get("uid") or "")

    async def status(self, resource: Resource, observed: Obj, planned: Any) -> bool:
        """Replace the status of one of our kinds; return whether it was written.

        Raises:
            Conflict: somebody else wrote meanwhile.
        """
        present: dict[str, Any] = observed.get("status") or {}
        known = {wire_name(a.name) for a in attrs.fields(type(planned))}
        status = {k: v for k, v in present.items() if k not in known} | to_wire(planned)
        if _normal(present) == _normal(status):
            return False
        self.writes += 1
        await self.kube.update_status(resource, {**observed, "status": status})
        return True

    async def raw_status(self, resource: Resource, observed: Obj, status: Obj) -> bool:
        """Replace the given keys of the status of an object of a foreign kind."""
        present = observed.get("status") or {}
        if contains(present, status):
            return False
        self.writes += 1
        await self.kube.update_status(resource, {**observed, "status": {**present, **status}})
        return True


def _owned_by(obj: Obj, uid: str) -> bool:
    references: Sequence[Mapping[str, Any]] = obj["metadata"].get("ownerReferences") or ()
    return any(r.get("uid") == uid for r in references)


def _normal(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status without what a schema's defaults add or the wire leaves out."""
    return {k: _plain(v) for k, v in status.items() if v not in (None, [], {}, ())}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v not in (None, "", [], {})}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
