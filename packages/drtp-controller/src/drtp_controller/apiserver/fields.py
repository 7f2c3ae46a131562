"""Sets of field paths in the FieldsV1 form, and what differs between two objects. Pure functions.

Rules:
- A set is a tree: `f:name` a field, `k:{...}` an item of an associative list, `v:...` a value of a set. A node is
  a member when it is empty or holds ".". The root is never a member.
- Maps are granular unless the schema says atomic; lists are atomic unless the schema gives them keys or calls
  them a set. Source: the structured-merge-diff conventions that kube-apiserver uses.
What must not enter: managers, time, objects' meaning.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from drtp_controller.apiserver.schema import LIST_TYPE, Schema, field_schema, item_defaults, list_map_keys

Fields: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]

SELF = "."
_MISSING = object()


def fields_of(value: dict[str, Any], schema: Schema | None) -> Fields:
    """Return the set of all fields of an object."""
    return {f"f:{name}": _node(item, field_schema(schema, name)) for name, item in value.items()}


def _node(value: Any, schema: Schema | None) -> Fields:
    if isinstance(value, dict) and not is_atomic(schema):
        return fields_of(value, schema)
    if isinstance(value, list):
        if list_map_keys(schema) is not None:
            items = (schema or {}).get("items")
            return {key: {SELF: {}} | _node(item, items) for key, item in keyed(value, schema).items()}
        if is_set(schema):
            return {value_key(item): {} for item in value}
    return {}


def is_atomic(schema: Schema | None) -> bool:
    """Return whether a map is owned as a whole."""
    return bool(schema) and (schema or {}).get("x-kubernetes-map-type") == "atomic"


def is_set(schema: Schema | None) -> bool:
    """Return whether a list is a set of scalars."""
    return bool(schema) and (schema or {}).get(LIST_TYPE) == "set"


def value_key(value: Any) -> str:
    """Return the path element of a value in a set."""
    return "v:" + json.dumps(value, separators=(",", ":"))


def item_key(item: dict[str, Any], schema: Schema | None) -> str:
    """Return the path element of an item of an associative list; missing keys take their defaults."""
    defaults = item_defaults(schema)
    keys = list_map_keys(schema) or []
    identity = {key: item.get(key, defaults.get(key)) for key in keys}
    return "k:" + json.dumps(
        {key: value for key, value in identity.items() if value is not None},
        separators=(",", ":"),
        sort_keys=True,
    )


def keyed(items: list[Any], schema: Schema | None) -> dict[str, Any]:
    """Return the items of an associative list by their path element, in order."""
    return {item_key(item, schema): item for item in items if isinstance(item, dict)}


# ---- set algebra


def _is_member(node: Fields) -> bool:
    return not node or SELF in node


def union(left: Fields, right: Fields) -> Fields:
    """Return the members of either set."""
    merged = dict(left)
    for key, node in right.items():
        if key not in merged:
            merged[key] = node
            continue
        mine = merged[key]
        both = union(mine, node)
        if both and (_is_member(mine) or _is_member(node)) and key != SELF:
            both.setdefault(SELF, {})
        merged[key] = both
    return merged


def difference(left: Fields, right: Fields) -> Fields:
    """Return the members of `left` that are not in `right`."""
    return _combine(left, right, keep_common=False)


def intersection(left: Fields, right: Fields) -> Fields:
    """Return the members of both sets."""
    return _combine(left, right, keep_common=True)


def _combine(left: Fields, right: Fields, *, keep_common: bool) -> Fields:
    result: Fields = {}
    for key, node in left.items():
        if key == SELF:
            continue
        other = right.get(key)
        if other is None:
            if not keep_common:
                result[key] = node
            continue
        child = _combine(node, other, keep_common=keep_common)
        if _is_member(node) and _is_member(other) == keep_common:
            result[key] = {SELF: {}} | child if child else {}
        elif child:
            result[key] = child
    return result


def paths(fields: Fields) -> Iterator[Path]:
    """Iterate over the members, parents before children."""
    for key, node in fields.items():
        if key == SELF:
            continue
        if _is_member(node):
            yield (key,)
        for rest in paths(node):
            yield (key, *rest)


def covers(fields: Fields, path: Path) -> bool:
    """Return whether a path or anything below it is in the set."""
    node = fields
    for key in path:
        if key not in node:
            return False
        node = node[key]
    return True


def describe(path: Path) -> str:
    """Return a path as conflict messages write it: `.spec.ports[port=80].name`."""
    text = ""
    for key in path:
        kind, _, rest = key.partition(":")
        match kind:
            case "f":
                text += f".{rest}"
            case "k":
                pairs = ",".join(f"{name}={json.dumps(value)}" for name, value in json.loads(rest).items())
                text += f"[{pairs}]"
            case _:
                text += f"[={rest}]"
    return text


# ---- comparing, merging and removing


def compare(old: Any, new: Any, schema: Schema | None) -> tuple[Fields, Fields]:
    """Return the fields that `new` sets or changes, and those of `old` that it no longer has."""
    if isinstance(old, dict) and isinstance(new, dict) and not is_atomic(schema):
        sides = {f"f:{name}": item for name, item in old.items()}, {f"f:{name}": item for name, item in new.items()}
        return _compare_keyed(*sides, schema, is_list=False)
    if isinstance(old, list) and isinstance(new, list):
        if list_map_keys(schema) is not None:
            return _compare_keyed(keyed(old, schema), keyed(new, schema), schema, is_list=True)
        if is_set(schema):
            before: Fields = {value_key(item): {} for item in old}
            after: Fields = {value_key(item): {} for item in new}
            return difference(after, before), difference(before, after)
    return {}, {}


def _compare_keyed(
    old: dict[str, Any], new: dict[str, Any], schema: Schema | None, *, is_list: bool
) -> tuple[Fields, Fields]:
    changed: Fields = {}
    removed: Fields = {}
    for key, item in new.items():
        sub = (schema or {}).get("items") if is_list else field_schema(schema, key[2:])
        before = old.get(key, _MISSING)
        if before is _MISSING:
            changed[key] = _owned_node(item, sub, is_list=is_list)
        elif before != item or type(before) is not type(item):
            inner_changed, inner_removed = compare(before, item, sub)
            if not inner_changed and not inner_removed:
                changed[key] = _owned_node(item, sub, is_list=is_list)
                stale = difference({key: _node(before, sub)}, {key: changed[key]})
                removed |= stale
            if inner_changed:
                changed[key] = inner_changed
            if inner_removed:
                removed[key] = inner_removed
    for key, item in old.items():
        if key not in new:
            sub = (schema or {}).get("items") if is_list else field_schema(schema, key[2:])
            removed[key] = _owned_node(item, sub, is_list=is_list)
    return changed, removed


def _owned_node(item: Any, schema: Schema | None, *, is_list: bool) -> Fields:
    node = _node(item, schema)
    return {SELF: {}} | node if is_list else node


def merge(live: Any, config: Any, schema: Schema | None) -> Any:
    """Return `live` with everything `config` says, by the schema's list types."""
    if isinstance(config, dict) and isinstance(live, dict) and not is_atomic(schema):
        merged = dict(live)
        for name, value in config.items():
            merged[name] = merge(live.get(name), value, field_schema(schema, name))
        return merged
    if isinstance(config, list) and isinstance(live, list):
        if list_map_keys(schema) is not None:
            return _merge_items(live, config, schema)
        if is_set(schema):
            return live + [item for item in config if item not in live]
    return copy.deepcopy(config)


def _merge_items(live: list[Any], config: list[Any], schema: Schema | None) -> list[Any]:
    wanted = keyed(config, schema)
    items = (schema or {}).get("items")
    merged = [
        merge(item, wanted.pop(key), items) if key in wanted else item for key, item in keyed(live, schema).items()
    ]
    return merged + [copy.deepcopy(item) for item in wanted.values()]


def remove_path(value: Any, path: Path, schema: Schema | None) -> None:
    """Remove what a path names, in place; containers it leaves empty go too."""
    key, rest = path[0], path[1:]
    if key.startswith("f:") and isinstance(value, dict):
        name = key[2:]
        if rest and name in value:
            remove_path(value[name], rest, field_schema(schema, name))
            if value[name] in ({}, []):
                del value[name]
        elif not rest:
            value.pop(name, None)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            same = value_key(item) if key.startswith("v:") else item_key(item, schema)
            if same != key:
                continue
            if rest:
                # an item that stays, for somebody else's fields, keeps what identifies it
                if rest[0][2:] not in (list_map_keys(schema) or ()):
                    remove_path(item, rest, (schema or {}).get("items"))
            else:
                del value[index]
            return
