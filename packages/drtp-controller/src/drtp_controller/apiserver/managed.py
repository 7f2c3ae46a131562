"""Who owns which field: `metadata.managedFields`, and server-side apply. Pure functions.

Rules:
- Every write is by a named manager; what it sets becomes its own, what it removes belongs to nobody.
- An apply names everything its manager wants: what it named before and no longer names goes away, unless another
  manager owns it; changing another manager's field is a conflict unless forced.
- Entries whose fields did not change keep their time, so that a repeated apply changes nothing.
What must not enter: stores, clocks (the time is passed in).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import attrs

from drtp_api.kube import BadRequest, Conflict, Obj
from drtp_controller.apiserver.fields import (
    Fields,
    Path,
    compare,
    covers,
    describe,
    difference,
    fields_of,
    intersection,
    merge,
    paths,
    remove_path,
    union,
)
from drtp_controller.apiserver.schema import Schema

APPLY = "Apply"
UPDATE = "Update"
MAX_UPDATE_MANAGERS = 10
"""The real server's bound; beyond it the oldest update entries are merged into one."""
_ANCIENT = "ancient-changes"

_OWNED_METADATA = ("annotations", "finalizers", "labels", "ownerReferences")


@attrs.frozen
class Writer:
    """Who writes: the manager's name, the version it speaks, and the subresource it writes to."""

    manager: str
    api_version: str
    subresource: str = ""
    time: str = ""


def _view(obj: Obj) -> Obj:
    """Return the part of an object that managers own."""
    view = {name: value for name, value in obj.items() if name not in {"apiVersion", "kind", "metadata"}}
    metadata = obj.get("metadata") or {}
    owned = {name: metadata[name] for name in _OWNED_METADATA if metadata.get(name)}
    return view | ({"metadata": owned} if owned else {})


def _entry(writer: Writer, operation: str, fields: Fields) -> Obj:
    entry: Obj = {
        "manager": writer.manager,
        "operation": operation,
        "apiVersion": writer.api_version,
        "time": writer.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    if writer.subresource:
        entry["subresource"] = writer.subresource
    return entry


def _is_writers(entry: Obj, writer: Writer, operation: str) -> bool:
    return (
        entry.get("manager") == writer.manager
        and entry.get("operation") == operation
        and entry.get("apiVersion") == writer.api_version
        and entry.get("subresource", "") == writer.subresource
    )


def after_update(old: Obj | None, new: Obj, schema: Schema, writer: Writer) -> list[Obj]:
    """Return the managed fields after a create, an update or a patch.

    The entries `new` carries count, if it carries any: a client may hand fields over by editing them.
    """
    given = new["metadata"].get("managedFields")
    entries: list[Obj] = given if given is not None else (old or {"metadata": {}})["metadata"].get("managedFields", [])
    changed, removed = compare(_view(old) if old else {}, _view(new), schema)
    if not changed and not removed:
        return entries
    gone = union(changed, removed)
    result: list[Obj] = []
    mine: Fields = {}
    for entry in entries:
        fields = entry.get("fieldsV1") or {}
        if _is_writers(entry, writer, UPDATE):
            mine = union(mine, difference(fields, removed))
            continue
        left = difference(fields, gone)
        if left:
            result.append(entry if left == fields else entry | {"fieldsV1": left})
    mine = union(mine, changed)
    if mine:
        previous = next((e for e in entries if _is_writers(e, writer, UPDATE)), None)
        same = previous is not None and previous.get("fieldsV1") == mine
        result.append(previous if same and previous else _entry(writer, UPDATE, mine))
    return _bounded(result)


def _bounded(entries: list[Obj]) -> list[Obj]:
    updates = [entry for entry in entries if entry["operation"] == UPDATE and not entry.get("subresource")]
    excess = len(updates) - MAX_UPDATE_MANAGERS
    if excess <= 0:
        return entries
    oldest = sorted(updates, key=lambda entry: (entry["manager"] != _ANCIENT, str(entry.get("time", ""))))[: excess + 1]
    fields: Fields = {}
    for entry in oldest:
        fields = union(fields, entry.get("fieldsV1") or {})
    merged = oldest[-1] | {"manager": _ANCIENT, "fieldsV1": fields}
    return [entry for entry in entries if entry not in oldest] + [merged]


def clean_config(config: Obj) -> Obj:
    """Return an applied configuration without what cannot be applied: nulls and what the server sets.

    Raises:
        BadRequest: it carries `managedFields`.
    """
    metadata = config.get("metadata") or {}
    if metadata.get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    cleaned: Obj = _without_nulls(config)
    return cleaned


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def first_apply(config: Obj, schema: Schema, writer: Writer) -> Obj:
    """Return the object that an apply creates."""
    obj = copy.deepcopy(config)
    obj["metadata"]["managedFields"] = [_entry(writer, APPLY, fields_of(_view(config), schema))]
    return obj


def apply(live: Obj, config: Obj, schema: Schema, writer: Writer, *, force: bool) -> Obj:
    """Return `live` after a server-side apply of `config`.

    Raises:
        Conflict: the apply changes fields of other managers and does not force it.
    """
    wanted = fields_of(_view(config), schema)
    live_view = copy.deepcopy(_view(live))
    merged: Obj = merge(live_view, _view(config), schema)
    entries: list[Obj] = live["metadata"].get("managedFields") or []
    mine = [entry for entry in entries if _is_writers_apply(entry, writer)]
    others = [entry for entry in entries if not _is_writers_apply(entry, writer)]

    changed, removed = compare(live_view, merged, schema)
    others = _take_over(others, intersection(union(changed, removed), wanted), force=force)
    kept = [wanted, *(entry.get("fieldsV1") or {} for entry in others)]
    for entry in mine:
        _remove_unwanted(merged, difference(entry.get("fieldsV1") or {}, wanted), kept, schema)

    unchanged = len(mine) == 1 and mine[0].get("fieldsV1") == wanted
    entry = mine[0] if unchanged else _entry(writer, APPLY, wanted)
    result = _with_view(live, merged)
    result["metadata"]["managedFields"] = [*others, entry]
    return result


def _is_writers_apply(entry: Obj, writer: Writer) -> bool:
    # an apply in another version replaces the earlier one of the same manager
    return (
        entry.get("manager") == writer.manager
        and entry.get("operation") == APPLY
        and entry.get("subresource", "") == writer.subresource
    )


def _take_over(others: list[Obj], touched: Fields, *, force: bool) -> list[Obj]:
    """Return the other managers' entries without what we take from them."""
    if not touched:
        return others
    conflicts: list[tuple[Obj, Path]] = []
    left: list[Obj] = []
    for entry in others:
        fields = entry.get("fieldsV1") or {}
        common = intersection(fields, touched)
        conflicts += [(entry, path) for path in paths(common)]
        rest = difference(fields, common)
        if rest:
            left.append(entry | {"fieldsV1": rest} if common else entry)
    if conflicts and not force:
        raise _conflict(conflicts)
    return left


def _remove_unwanted(merged: Obj, unwanted: Fields, kept: Sequence[Fields], schema: Schema) -> None:
    """Remove what nobody wants any more: whole items before their fields, which take the item's keys with them."""
    removed: list[Path] = []
    for path in sorted(paths(unwanted), key=len):
        inside_removed = any(path[: len(done)] == done for done in removed)
        if inside_removed or any(covers(fields, path) for fields in kept):
            continue
        remove_path(merged, path, schema)
        removed.append(path)


def _with_view(live: Obj, view: Obj) -> Obj:
    """Return `live` with its owned part replaced."""
    result: Obj = {name: live[name] for name in ("apiVersion", "kind") if name in live}
    metadata = {name: value for name, value in live["metadata"].items() if name not in _OWNED_METADATA}
    result["metadata"] = metadata | view.get("metadata", {})
    return result | {name: value for name, value in view.items() if name != "metadata"}


def _conflict(conflicts: list[tuple[Obj, Path]]) -> Conflict:
    by_manager: dict[str, list[str]] = {}
    causes = []
    for entry, path in conflicts:
        name = f'"{entry["manager"]}"'
        if entry.get("subresource"):
            name += f' with subresource "{entry["subresource"]}"'
        if entry["operation"] == UPDATE:
            name += f" using {entry['apiVersion']}"
        by_manager.setdefault(name, []).append(describe(path))
        causes.append({"reason": "FieldManagerConflict", "message": f"conflict with {name}", "field": describe(path)})
    texts = [
        f"conflict with {name}: {fields[0]}"
        if len(fields) == 1
        else f"conflicts with {name}:" + "".join(f"\n- {field}" for field in fields)
        for name, fields in by_manager.items()
    ]
    plural = "s" if len(conflicts) > 1 else ""
    joined = (" " if len(texts) == 1 else "\n") + "\n".join(texts)
    return Conflict(f"Apply failed with {len(conflicts)} conflict{plural}:{joined}", details={"causes": causes})
