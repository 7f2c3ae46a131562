"""Strategic merge patch for builtin kinds, guided by the patch annotations of their schemas. Pure functions.

Rules:
- Lists with `x-kubernetes-patch-merge-key` merge by that key; lists of scalars with the strategy `merge` unite;
  every other list is replaced.
- The directives `$patch` (delete, replace, merge), `$deleteFromPrimitiveList/…`, `$setElementOrder/…` and
  `$retainKeys` are honoured.
What must not enter: custom kinds (the server refuses this patch for them, like the real one).
"""

from __future__ import annotations

import copy
from typing import Any

from drtp_api.kube import Invalid
from drtp_controller.apiserver.schema import Schema, field_schema

MERGE_KEY = "x-kubernetes-patch-merge-key"
STRATEGY = "x-kubernetes-patch-strategy"

_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def strategic_merge(target: Any, patch: Any, schema: Schema | None) -> Any:
    """Return a target with a strategic merge patch applied.

    Raises:
        Invalid: the patch has a directive that cannot be applied.
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive == "replace":
        return _without_directives(patch)
    if directive not in {None, "merge"}:
        raise Invalid(f"unknown $patch directive {directive!r}")
    merged = copy.deepcopy(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        merged = {name: value for name, value in merged.items() if name in retained}
    for name, value in patch.items():
        if not name.startswith("$"):
            _merge_field(merged, name, value, field_schema(schema, name))
    _apply_list_directives(merged, patch, schema)
    return merged


def _merge_field(merged: dict[str, Any], name: str, value: Any, schema: Schema | None) -> None:
    if value is None:
        merged.pop(name, None)
    elif isinstance(value, dict):
        merged[name] = strategic_merge(merged.get(name), value, schema)
        if value.get("$patch") == "delete":
            del merged[name]
    elif isinstance(value, list) and schema and MERGE_KEY in schema:
        merged[name] = _merge_list(merged.get(name) or [], value, schema)
    elif isinstance(value, list) and schema and schema.get(STRATEGY) == "merge":
        present = merged.get(name) or []
        merged[name] = present + [item for item in value if item not in present]
    else:
        merged[name] = copy.deepcopy(value)


def _merge_list(target: list[Any], patch: list[Any], schema: Schema) -> list[Any]:
    key = schema[MERGE_KEY]
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [_without_directives(item) for item in patch if set(item) != {"$patch"}]
    merged = list(target)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise Invalid(f"a list item of the patch does not have the merge key {key}")
        places = [index for index, old in enumerate(merged) if old.get(key) == item[key]]
        if item.get("$patch") == "delete":
            merged = [old for old in merged if old.get(key) != item[key]]
        elif places:
            merged[places[0]] = strategic_merge(merged[places[0]], item, schema.get("items"))
        else:
            merged.append(_without_directives(item))
    return merged


def _apply_list_directives(merged: dict[str, Any], patch: dict[str, Any], schema: Schema | None) -> None:
    for directive, value in patch.items():
        if directive.startswith(_DELETE_FROM):
            name = directive.removeprefix(_DELETE_FROM)
            merged[name] = [item for item in merged.get(name) or [] if item not in value]
        elif directive.startswith(_ORDER):
            name = directive.removeprefix(_ORDER)
            if isinstance(merged.get(name), list):
                key = (field_schema(schema, name) or {}).get(MERGE_KEY)
                merged[name] = _ordered(merged[name], value, key)


def _ordered(items: list[Any], order: list[Any], key: str | None) -> list[Any]:
    """Sort items as the patch's author saw them; items the author did not know keep their place at the end."""
    wanted = [entry.get(key) if isinstance(entry, dict) else entry for entry in order]

    def rank(item: Any) -> int:
        identity = item.get(key) if isinstance(item, dict) else item
        return wanted.index(identity) if identity in wanted else len(wanted)

    return sorted(items, key=rank)


def _without_directives(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_directives(item) for name, item in value.items() if not name.startswith("$")}
    if isinstance(value, list):
        return [_without_directives(item) for item in value]
    return value
