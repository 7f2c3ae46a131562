"""What the server serves: one `Kind` per group, version and plural, and the registry of them.

Rules:
- A `Kind` is data: names, schema, columns, and hooks for what a schema cannot say. It is never changed in place.
- Two versions of one kind share their storage; only `apiVersion` differs between them (conversion strategy None).
What must not enter: requests, objects' lifecycles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import attrs

from drtp_api.kube import NotFound, Obj, Resource
from drtp_controller.apiserver.cel.rules import SchemaRules
from drtp_controller.apiserver.faults import Fault
from drtp_controller.apiserver.store import Collection

Schema: TypeAlias = dict[str, Any]

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS_VERBS = ("get", "patch", "update")

FREE: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
"""An object with any fields."""


@attrs.frozen
class Column:
    """One column of `kubectl get`."""

    name: str
    type: str
    json_path: str
    format: str = ""
    description: str = ""
    priority: int = 0
    compute: Callable[[Obj], Any] | None = None
    """Makes the cell of a builtin kind, where a path cannot."""


def _nothing(_new: Obj, _old: Obj | None) -> list[Fault]:
    return []


def _unchanged(_new: Obj, _old: Obj | None) -> None:
    return None


@attrs.frozen
class Kind:
    """One served kind in one version."""

    resource: Resource
    singular: str
    list_kind: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    schema: Schema = attrs.field(factory=lambda: FREE)
    """Structural schema with `apiVersion`, `kind` and `metadata` among its properties."""
    columns: tuple[Column, ...] = ()
    has_status: bool = False
    builtin: bool = False
    """Builtin kinds accept strategic merge patches, and their status is not dropped on create."""
    verbs: tuple[str, ...] = VERBS
    has_generation: bool = True
    prepare: Callable[[Obj, Obj | None], None] = _unchanged
    """Fills in what the server sets itself (new object, old one or None), before validation."""
    check: Callable[[Obj, Obj | None], list[Fault]] = _nothing
    """Finds what a schema cannot say (new object, old one or None)."""
    rules: SchemaRules | None = None
    """The schema's CEL rules, None where it has none."""

    @property
    def collection(self) -> Collection:
        """Where its objects are stored."""
        return Collection(self.resource.group, self.resource.plural)

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return self.resource.api_version

    def property_schema(self, name: str) -> Schema | None:
        """Return the schema of a top-level field."""
        found = self.schema.get("properties", {}).get(name)
        return found if isinstance(found, dict) else None


class Registry:
    """The kinds being served, in the order they were added."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        self.generation = 0
        """Counts changes, so that documents made from the registry can be kept."""

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def add(self, kind: Kind) -> None:
        """Serve a kind, replacing an earlier definition of it."""
        resource = kind.resource
        self._kinds[resource.group, resource.version, resource.plural] = kind
        self.generation += 1

    def drop(self, group: str, plural: str, *, keep_versions: frozenset[str] = frozenset()) -> None:
        """Stop serving a kind in every version but the named ones."""
        for key in [k for k in self._kinds if k[0] == group and k[2] == plural and k[1] not in keep_versions]:
            del self._kinds[key]
            self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """Return the kind at an address, None when nothing is served there."""
        return self._kinds.get((group, version, plural))

    def require(self, group: str, version: str, plural: str) -> Kind:
        """Return the kind at an address. Raises `NotFound`."""
        kind = self.find(group, version, plural)
        if kind is None:
            raise NotFound("the server could not find the requested resource")
        return kind

    def by_kind(self, api_version: str, kind_name: str) -> Kind | None:
        """Return the kind that an object's `apiVersion` and `kind` name."""
        for kind in self:
            if kind.resource.kind == kind_name and kind.api_version == api_version:
                return kind
        return None

    def of_collection(self, collection: Collection) -> Kind | None:
        """Return one version of a stored kind, None when it is not served."""
        for kind in self:
            if kind.collection == collection:
                return kind
        return None

    def distinct(self) -> list[Kind]:
        """Return every stored kind once."""
        return list({kind.collection: kind for kind in reversed(list(self))}.values())[::-1]

    def group_versions(self) -> dict[str, dict[str, list[Kind]]]:
        """Return the kinds by group and version, in the order they were added."""
        groups: dict[str, dict[str, list[Kind]]] = {}
        for kind in self:
            versions = groups.setdefault(kind.resource.group, {})
            versions.setdefault(kind.resource.version, []).append(kind)
        return groups
