"""Structural schemas: default, prune and validate plain objects. Pure functions.

Rules:
- The order is the server's: drop unknown fields, fill defaults, then validate.
- Nothing is coerced: a value of the wrong type is a fault, never converted.
- Messages are kube-apiserver's and name the field with its path.
What must not enter: metadata rules, CEL (see cel/), anything that knows a kind.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from drtp_controller.apiserver.faults import (
    TOO_LONG,
    TOO_MANY,
    TYPE_INVALID,
    Fault,
    duplicate,
    invalid,
    not_supported,
    required,
    shown,
)
from drtp_controller.apiserver.formats import compile_pattern, matches_format

Schema = dict[str, Any]

PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
EMBEDDED = "x-kubernetes-embedded-resource"
LIST_TYPE = "x-kubernetes-list-type"
LIST_MAP_KEYS = "x-kubernetes-list-map-keys"


def child_path(path: str, name: str) -> str:
    """Return the path of a field inside another."""
    return f"{path}.{name}" if path else name


def field_schema(schema: Schema | None, name: str) -> Schema | None:
    """Return the schema of a field of an object: a property, or that of all values of a map."""
    if not schema:
        return None
    found = schema.get("properties", {}).get(name)
    if found is None:
        found = schema.get("additionalProperties")
    return found if isinstance(found, dict) else None


def list_map_keys(schema: Schema | None) -> list[str] | None:
    """Return the keys that identify the items of an associative list, None for other lists."""
    if schema and schema.get(LIST_TYPE) == "map":
        keys: list[str] = schema[LIST_MAP_KEYS]
        return keys
    return None


def item_defaults(schema: Schema | None) -> dict[str, Any]:
    """Return the defaults of the fields of a list's items; they count when items are told apart."""
    properties = (schema or {}).get("items", {}).get("properties", {})
    return {name: sub["default"] for name, sub in properties.items() if "default" in sub}


# ---- prune


def prune(schema: Schema, value: Any, path: str = "") -> list[str]:
    """Remove fields that the schema does not know, in place; return their paths."""
    unknown: list[str] = []
    _prune(schema, value, path, unknown)
    return unknown


def _prune(schema: Schema, value: Any, path: str, unknown: list[str]) -> None:
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        keep = schema.get(PRESERVE) or rest is True or "type" not in schema
        embedded = schema.get(EMBEDDED)
        for name in list(value):
            if name in properties:
                _prune(properties[name], value[name], child_path(path, name), unknown)
            elif isinstance(rest, dict):
                _prune(rest, value[name], child_path(path, name), unknown)
            elif not keep and not (embedded and name in {"apiVersion", "kind", "metadata"}):
                unknown.append(child_path(path, name))
                del value[name]
    elif isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                _prune(items, item, f"{path}[{index}]", unknown)


# ---- default


def apply_defaults(schema: Schema, value: Any) -> None:
    """Fill in missing fields that have a default, in place.

    A null where null is not allowed and a default exists counts as missing, as in the real server.
    """
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name, sub in properties.items():
            if "default" not in sub:
                continue
            if name not in value or (value[name] is None and not sub.get("nullable")):
                value[name] = copy.deepcopy(sub["default"])
        rest = schema.get("additionalProperties")
        for name, item in value.items():
            sub = properties.get(name, rest)
            if isinstance(sub, dict) and isinstance(item, (dict, list)):
                apply_defaults(sub, item)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            apply_defaults(schema["items"], item)


# ---- validate


def validate(schema: Schema, value: Any, path: str = "") -> list[Fault]:
    """Return what is wrong with a value, in document order."""
    return list(_validate(schema, value, path))


def _validate(schema: Schema, value: Any, path: str) -> Iterator[Fault]:
    if value is None:
        if not schema.get("nullable") and ("type" in schema or schema.get(INT_OR_STRING)):
            yield _wrong_type(schema.get("type", "integer,string"), value, path)
        return
    if schema.get(INT_OR_STRING):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            yield _wrong_type("integer,string", value, path)
            return
    elif not _has_type(schema.get("type"), value):
        yield _wrong_type(schema["type"], value, path)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield not_supported(path, value, schema["enum"])
    if isinstance(value, dict):
        yield from _validate_object(schema, value, path)
    elif isinstance(value, list):
        yield from _validate_list(schema, value, path)
    elif isinstance(value, str):
        yield from _validate_string(schema, value, path)
    elif not isinstance(value, bool):
        yield from _validate_number(schema, value, path)
    yield from _validate_logic(schema, value, path)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}


def _has_type(expected: str | None, value: Any) -> bool:
    return expected is None or _TYPES[expected](value)


def _type_name(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _wrong_type(expected: str, value: Any, path: str) -> Fault:
    name = _type_name(value)
    why = f'{path} in body must be of type {expected}: "{name}"'
    return Fault(path, f'Invalid value: "{name}": {why}', TYPE_INVALID)


def _validate_object(schema: Schema, value: dict[str, Any], path: str) -> Iterator[Fault]:
    for name in schema.get("required", ()):
        if name not in value:
            yield required(child_path(path, name))
    properties = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    for name, item in value.items():
        sub = properties.get(name, rest)
        if isinstance(sub, dict):
            yield from _validate(sub, item, child_path(path, name))
    if len(value) > schema.get("maxProperties", len(value)):
        limit = schema["maxProperties"]
        yield Fault(path, f"Too many: {len(value)}: must have at most {limit} items", TOO_MANY)
    if len(value) < schema.get("minProperties", 0):
        minimum = schema["minProperties"]
        yield invalid(path, value, f"{path} in body should have at least {minimum} properties")


def _validate_list(schema: Schema, value: list[Any], path: str) -> Iterator[Fault]:
    items = schema.get("items")
    if isinstance(items, dict):
        for index, item in enumerate(value):
            yield from _validate(items, item, f"{path}[{index}]")
    if len(value) > schema.get("maxItems", len(value)):
        limit = schema["maxItems"]
        yield Fault(path, f"Too many: {len(value)}: must have at most {limit} items", TOO_MANY)
    if len(value) < schema.get("minItems", 0):
        minimum = schema["minItems"]
        yield Fault(path, f"Invalid value: {len(value)}: {path} in body should have at least {minimum} items")
    yield from _validate_unique(schema, value, path)


def _validate_unique(schema: Schema, value: list[Any], path: str) -> Iterator[Fault]:
    keys = list_map_keys(schema)
    is_set = schema.get(LIST_TYPE) == "set" or schema.get("uniqueItems")
    if keys is None and not is_set:
        return
    seen: set[str] = set()
    for index, item in enumerate(value):
        identity = item
        if keys is not None:
            if not isinstance(item, dict):
                continue
            identity = {key: item[key] for key in keys if key in item}
        text = json.dumps(identity, sort_keys=True)
        if text in seen:
            yield duplicate(f"{path}[{index}]", identity)
        seen.add(text)


def _validate_string(schema: Schema, value: str, path: str) -> Iterator[Fault]:
    if len(value) > schema.get("maxLength", len(value)):
        yield Fault(path, f"Too long: may not be more than {schema['maxLength']} bytes", TOO_LONG)
    if len(value) < schema.get("minLength", 0):
        yield invalid(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    if "pattern" in schema and not compile_pattern(schema["pattern"]).search(value):
        yield invalid(path, value, f"{path} in body should match '{schema['pattern']}'")
    kind = schema.get("format")
    if kind and not matches_format(kind, value):
        yield invalid(path, value, f"{path} in body must be of type {kind}: {shown(value)}")


def _validate_number(schema: Schema, value: float, path: str) -> Iterator[Fault]:
    maximum, minimum = schema.get("maximum"), schema.get("minimum")
    if maximum is not None and (value > maximum or (schema.get("exclusiveMaximum") and value == maximum)):
        word = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        yield invalid(path, value, f"{path} in body should be {word} {maximum}")
    if minimum is not None and (value < minimum or (schema.get("exclusiveMinimum") and value == minimum)):
        word = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        yield invalid(path, value, f"{path} in body should be {word} {minimum}")
    step = schema.get("multipleOf")
    if step and value % step:
        yield invalid(path, value, f"{path} in body should be a multiple of {step}")
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits and not -(2**bits) <= value < 2**bits:
        yield invalid(path, value, f"{path} in body must be of type {schema['format']}: {value}")


def _validate_logic(schema: Schema, value: Any, path: str) -> Iterator[Fault]:
    for sub in schema.get("allOf", ()):
        yield from _validate(sub, value, path)
    if "anyOf" in schema and not any(_holds(sub, value) for sub in schema["anyOf"]):
        yield invalid(path, value, f"{path} in body must validate at least one schema (anyOf)")
    if "oneOf" in schema and sum(_holds(sub, value) for sub in schema["oneOf"]) != 1:
        yield invalid(path, value, f"{path} in body must validate one and only one schema (oneOf)")
    if "not" in schema and _holds(schema["not"], value):
        yield invalid(path, value, f"{path} in body must not validate the schema (not)")


def _holds(schema: Schema, value: Any) -> bool:
    return next(_validate(schema, value, ""), None) is None
