"""The static types of CEL expressions, and those that a structural schema gives to objects.

Rules:
- `dyn` fits everything and is checked when the rule runs; everything else is checked when the rule is compiled.
- Names that CEL cannot spell are escaped as Kubernetes does: `foo-bar` is `foo__dash__bar`.
- Only what the schema declares can be named: unknown fields that are kept cannot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

Schema = dict[str, Any]


@attrs.frozen
class Type:
    """A type by name; a lone capital letter is a type parameter of a signature."""

    name: str
    args: tuple[Type, ...] = ()
    fields: Mapping[str, Field] | None = attrs.field(default=None, eq=False, repr=False)
    """The fields of an object by escaped name; None for every other type."""
    identity: tuple[str, ...] | None = attrs.field(default=None, eq=False)
    """How items of a list are told apart: (), the whole item (a set); keys (a map); None, by position."""

    @property
    def is_parameter(self) -> bool:
        """Whether it stands for any type in a signature."""
        return len(self.name) == 1

    def __str__(self) -> str:
        """Return the type as messages show it."""
        return self.name + (f"({', '.join(map(str, self.args))})" if self.args else "")


@attrs.frozen
class Field:
    """A field of an object: its name on the wire and its type."""

    name: str
    type: Type


DYN = Type("dyn")
BOOL, INT, UINT, DOUBLE, STRING, BYTES = map(Type, ("bool", "int", "uint", "double", "string", "bytes"))
NULL, TYPE = Type("null_type"), Type("type")
TIMESTAMP, DURATION = Type("google.protobuf.Timestamp"), Type("google.protobuf.Duration")
OBJECT = "object"
"""The name of every type that has fields."""

_NULLABLE = {OBJECT, TIMESTAMP.name, DURATION.name, "optional_type", "null_type"}


def list_of(item: Type, identity: tuple[str, ...] | None = None) -> Type:
    """Return the type of a list."""
    return Type("list", (item,), identity=identity)


def map_of(key: Type, value: Type) -> Type:
    """Return the type of a map."""
    return Type("map", (key, value))


def optional_of(value: Type) -> Type:
    """Return the type of a value that may be absent."""
    return Type("optional_type", (value,))


def fits(wanted: Type, given: Type, bound: dict[str, Type]) -> bool:
    """Return whether a value of one type may stand where another is wanted; binds type parameters."""
    if wanted.is_parameter:
        known = bound.get(wanted.name)
        if known is None or known == DYN:
            bound[wanted.name] = given
            return True
        return fits(known, given, {}) or fits(given, known, {})
    if DYN in {wanted, given}:
        return True
    if given == NULL and wanted.name in _NULLABLE:
        return True
    if wanted.name != given.name or len(wanted.args) != len(given.args):
        return False
    if wanted.fields is not None and given.fields is not None:
        return wanted.fields is given.fields or wanted.fields == given.fields
    return all(fits(w, g, bound) for w, g in zip(wanted.args, given.args, strict=True))


def substituted(result: Type, bound: Mapping[str, Type]) -> Type:
    """Return a signature's type with its parameters replaced by what they were bound to."""
    if result.is_parameter:
        return bound.get(result.name, DYN)
    if not result.args:
        return result
    return attrs.evolve(result, args=tuple(substituted(arg, bound) for arg in result.args))


# ---- from schemas

_IDENTIFIER = re.compile(r"[A-Za-z_.\-/][A-Za-z0-9_.\-/]*\Z")
_KEYWORDS = {
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
    "let", "loop", "package", "namespace", "return", "var", "void", "while",
}  # fmt: skip


def escape(name: str) -> str | None:
    """Return a field's name as rules write it, None when they cannot."""
    if not _IDENTIFIER.match(name):
        return None
    if name in _KEYWORDS:
        return f"__{name}__"
    out = name.replace("__", "__underscores__")
    return out.replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")


_TEXT_FORMATS = {"byte": BYTES, "date": TIMESTAMP, "date-time": TIMESTAMP, "duration": DURATION}
_SCALARS = {"boolean": BOOL, "integer": INT, "number": DOUBLE}
_HEAD: Schema = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}},
}


def type_of_schema(schema: Schema, *, root: bool = False) -> Type | None:
    """Return the type of values of a schema; None when rules may not look at them."""
    if schema.get("x-kubernetes-int-or-string"):
        return DYN
    kind = schema.get("type", "")
    if kind == "string":
        return _TEXT_FORMATS.get(schema.get("format", ""), STRING)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind == "array" and isinstance(schema.get("items"), dict):
        item = type_of_schema(schema["items"])
        return None if item is None else list_of(item, _identity(schema))
    if kind != "object":
        return None
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        inner = type_of_schema(values)
        return None if inner is None else map_of(STRING, inner)
    properties = dict(schema.get("properties") or {})
    if root or schema.get("x-kubernetes-embedded-resource"):
        properties |= _HEAD
    return Type(OBJECT, fields=_fields(properties))


def _identity(schema: Schema) -> tuple[str, ...] | None:
    match schema.get("x-kubernetes-list-type"):
        case "set":
            return ()
        case "map":
            return tuple(schema["x-kubernetes-list-map-keys"])
        case _:
            return None


def _fields(properties: Mapping[str, Schema]) -> dict[str, Field]:
    fields = {}
    for name, sub in properties.items():
        escaped, found = escape(name), type_of_schema(sub)
        if escaped is not None and found is not None:
            fields[escaped] = Field(name, found)
    return fields
