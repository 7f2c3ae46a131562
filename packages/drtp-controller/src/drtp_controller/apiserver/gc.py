"""What follows from a deletion: finalizers, dependents, namespaces and definitions.

Rules:
- It happens within the write that caused it; a start sweeps up what a crash left behind.
- Background (the default) removes the owner first and the dependents after it; Foreground keeps the owner, marked,
  until they are gone; Orphan lets go of them.
- A dependent goes when its last owner is gone. An owner of a kind we do not serve counts as alive.
- A namespace goes when it is empty, a definition when it has no objects; until then they are marked.
What must not enter: who may delete (core.py), schemas.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from drtp_api.kube import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, Key, Obj
from drtp_controller.apiserver.kinds import Kind
from drtp_controller.apiserver.options import Outcome
from drtp_controller.apiserver.store import Collection

if TYPE_CHECKING:
    from drtp_controller.apiserver.core import Api

FOREGROUND = "foregroundDeletion"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


class GarbageCollector:
    """Carries out deletions and their consequences."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._store = api.store
        self._orphaned: deque[str] = deque()
        """uids whose dependents must be looked at"""
        self._settling: deque[tuple[Collection, Key]] = deque()
        """marked objects that may be ready to go"""
        self._busy = False

    def delete(self, kind: Kind, obj: Obj, propagation: str) -> Outcome:
        """Delete an object by a propagation policy and everything that follows."""
        metadata = obj["metadata"]
        first_time = not metadata.get("deletionTimestamp")
        if propagation == "Orphan":
            self._release_dependents(metadata["uid"])
        if first_time:
            self._add_own_finalizers(kind, obj, propagation)
        if not metadata.get("finalizers"):
            self._api.drop(kind, obj)
            return Outcome(obj, removed=True)
        if first_time:
            metadata["deletionTimestamp"] = self._api.now()
            metadata["deletionGracePeriodSeconds"] = 0
            if "generation" in metadata:
                metadata["generation"] += 1
            if kind.resource == NAMESPACES:
                obj["status"] = {"phase": "Terminating"}
            self._api.mark(kind, obj)
        key = Key(metadata.get("namespace", ""), metadata["name"])
        self._delete_contents(kind, obj)
        self._settling.append((kind.collection, key))
        self._drain()
        left = self._store.get(kind.collection, key)
        if left is None or left.uid != metadata["uid"]:
            return Outcome(obj, removed=True)
        return Outcome(left.decode())

    def after_write(self, kind: Kind, obj: Obj) -> None:
        """Delete an object at once if all its owners are gone already, and finish what waited for it."""
        metadata = obj["metadata"]
        if metadata.get("ownerReferences") and not self._has_living_owner(metadata["ownerReferences"]):
            self._delete_dependent(kind.collection, Key(metadata.get("namespace", ""), metadata["name"]))
        self._drain()

    def after_removal(self, kind: Kind, obj: Obj) -> None:
        """Look at the dependents of a removed object, and at whatever waited for it to go."""
        metadata = obj["metadata"]
        self._orphaned.append(metadata["uid"])
        for reference in metadata.get("ownerReferences") or []:
            place = self._store.find_uid(reference["uid"])
            if place is not None:
                self._settling.append(place)
        if metadata.get("namespace"):
            self._settling.append((Collection("", "namespaces"), Key("", metadata["namespace"])))
        resource = kind.resource
        definition = Key("", f"{resource.plural}.{resource.group}")
        self._settling.append((Collection("apiextensions.k8s.io", "customresourcedefinitions"), definition))
        self._drain()

    def sweep(self) -> None:
        """Finish what an earlier process did not: dependents without owner, marked objects that may go."""
        for uid in self._store.owners():
            if self._store.find_uid(uid) is None:
                self._orphaned.append(uid)
        for collection in self._store.collections():
            for record in self._store.scan(collection):
                if b'"deletionTimestamp"' in record.raw:
                    self._settling.append((collection, record.key))
        self._drain()

    def _drain(self) -> None:
        if self._busy:
            return  # the outer call goes on with what was queued meanwhile
        self._busy = True
        try:
            while self._orphaned or self._settling:
                while self._orphaned:
                    for collection, key in self._store.owned_by(self._orphaned.popleft()):
                        self._collect(collection, key)
                if self._settling:
                    self._settle(*self._settling.popleft())
        finally:
            self._busy = False

    def _collect(self, collection: Collection, key: Key) -> None:
        """Delete a dependent unless another owner lives."""
        record = self._store.get(collection, key)
        if record is None:
            return
        if not self._has_living_owner(record.decode()["metadata"].get("ownerReferences") or []):
            self._delete_dependent(collection, key)

    def _delete_dependent(self, collection: Collection, key: Key) -> None:
        kind = self._api.registry.of_collection(collection)
        record = self._store.get(collection, key)
        if kind is not None and record is not None:
            self.delete(kind, record.decode(), "Background")

    def _has_living_owner(self, references: list[dict[str, Any]]) -> bool:
        return any(
            self._store.find_uid(reference["uid"]) is not None
            or self._api.registry.by_kind(reference["apiVersion"], reference["kind"]) is None
            for reference in references
        )

    def _release_dependents(self, uid: str) -> None:
        for collection, key in self._store.owned_by(uid):
            kind = self._api.registry.of_collection(collection)
            record = self._store.get(collection, key)
            if kind is None or record is None:
                continue
            child = record.decode()
            metadata = child["metadata"]
            kept = [reference for reference in metadata["ownerReferences"] if reference["uid"] != uid]
            if kept:
                metadata["ownerReferences"] = kept
            else:
                del metadata["ownerReferences"]
            self._api.mark(kind, child)

    def _add_own_finalizers(self, kind: Kind, obj: Obj, propagation: str) -> None:
        """Add the finalizer that keeps an object while its contents are being deleted."""
        metadata = obj["metadata"]
        finalizers: list[str] = metadata.get("finalizers") or []
        if propagation == "Foreground" and self._store.owned_by(metadata["uid"]):
            finalizers = [*finalizers, FOREGROUND]
        if kind.resource == CUSTOM_RESOURCE_DEFINITIONS and self._store.count(_instances(obj)):
            finalizers = [*finalizers, CLEANUP]
        if kind.resource == NAMESPACES and not self._is_empty(metadata["name"]):
            # a real namespace has this in spec.finalizers; one place is enough for us
            finalizers = [*finalizers, CLEANUP]
        if finalizers:
            metadata["finalizers"] = finalizers

    def _delete_contents(self, kind: Kind, obj: Obj) -> None:
        metadata = obj["metadata"]
        if FOREGROUND in metadata.get("finalizers", []):
            for collection, key in self._store.owned_by(metadata["uid"]):
                self._delete_dependent(collection, key)
        if kind.resource == CUSTOM_RESOURCE_DEFINITIONS:
            for record in self._store.scan(_instances(obj)):
                self._delete_dependent(_instances(obj), record.key)
        if kind.resource == NAMESPACES:
            for collection in self._store.collections():
                for record in self._store.scan(collection, metadata["name"]):
                    self._delete_dependent(collection, record.key)

    def _settle(self, collection: Collection, key: Key) -> None:
        """Take our own finalizers off a marked object whose contents are gone."""
        kind = self._api.registry.of_collection(collection)
        record = self._store.get(collection, key)
        if kind is None or record is None or b'"deletionTimestamp"' not in record.raw:
            return
        obj = record.decode()
        metadata = obj["metadata"]
        finalizers: list[str] = metadata.get("finalizers") or []
        left = [name for name in finalizers if not self._may_remove(kind, obj, name)]
        if left != finalizers:
            metadata["finalizers"] = left
            if not left:
                del metadata["finalizers"]
            self._api.mark(kind, obj)

    def _may_remove(self, kind: Kind, obj: Obj, finalizer: str) -> bool:
        metadata = obj["metadata"]
        if finalizer == FOREGROUND:
            return not self._store.owned_by(metadata["uid"])
        if finalizer == CLEANUP and kind.resource == NAMESPACES:
            return self._is_empty(metadata["name"])
        if finalizer == CLEANUP and kind.resource == CUSTOM_RESOURCE_DEFINITIONS:
            return not self._store.count(_instances(obj))
        return False

    def _is_empty(self, namespace: str) -> bool:
        return not any(self._store.scan(collection, namespace) for collection in self._store.collections())


def _instances(crd: Obj) -> Collection:
    return Collection(crd["spec"]["group"], crd["spec"]["names"]["plural"])
