"""Label and field selectors: parsed once, matched often. Pure.

Rules: the grammar is the API's; what cannot be parsed is a `BadRequest` that quotes it.
What must not enter: stores, kinds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from drtp_api.kube import BadRequest, Obj
from drtp_controller.apiserver.formats import is_label_value, is_qualified_name
from drtp_controller.apiserver.store import Record

_SET = re.compile(r"(\S+)\s+(in|notin)\s*\((.*)\)\Z", re.DOTALL)
_COMPARE = re.compile(r"([^=!\s]+)\s*(==|=|!=)\s*(\S*)\Z")
_EXISTS = re.compile(r"(!?)\s*(\S+)\Z")


@attrs.frozen
class Requirement:
    """One condition on one label."""

    key: str
    operator: str
    """in, notin, exists or absent"""
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether labels meet the condition; `notin` holds where the label is missing."""
        match self.operator:
            case "in":
                return labels.get(self.key) in self.values
            case "notin":
                return labels.get(self.key) not in self.values
            case "exists":
                return self.key in labels
            case _:
                return self.key not in labels


@attrs.frozen
class FieldRequirement:
    """One condition on one field."""

    path: tuple[str, ...]
    value: str
    equal: bool


# Fields that can be told without decoding an object.
_KEY_FIELDS = {("metadata", "name"), ("metadata", "namespace")}


@attrs.frozen
class Selector:
    """A label selector and a field selector together."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldRequirement, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether every object matches."""
        return not self.labels and not self.fields

    @property
    def name(self) -> str:
        """The one name that is selected, else nothing: rights to named objects extend to such lists and watches."""
        path = ("metadata", "name")
        return next((field.value for field in self.fields if field.path == path and field.equal), "")

    def matches(self, record: Record | None) -> bool:
        """Return whether a stored object is selected; None never is."""
        if record is None:
            return False
        if not all(requirement.matches(record.labels) for requirement in self.labels):
            return False
        obj: Obj | None = None
        for wanted in self.fields:
            if wanted.path in _KEY_FIELDS:
                actual = record.key.name if wanted.path[1] == "name" else record.key.namespace
            else:
                obj = obj if obj is not None else record.decode()
                actual = _text(obj, wanted.path)
            if (actual == wanted.value) != wanted.equal:
                return False
        return True


EVERYTHING = Selector()


def parse_selector(label_selector: str, field_selector: str) -> Selector:
    """Parse both selectors of a request.

    Raises:
        BadRequest: one of them cannot be parsed.
    """
    return Selector(parse_labels(label_selector), parse_fields(field_selector))


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Parse `a=b,c!=d,e in (f,g),h,!i`. Raises `BadRequest`."""
    return tuple(_parse_label(part.strip(), text) for part in _split(text))


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    parts: list[str] = []
    depth, start = 0, 0
    for index, char in enumerate(text):
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return parts if text.strip() else []


def _parse_label(part: str, whole: str) -> Requirement:
    requirement: Requirement | None = None
    if found := _SET.match(part):
        values = frozenset(value.strip() for value in found.group(3).split(","))
        requirement = Requirement(found.group(1), found.group(2), values)
    elif found := _COMPARE.match(part):
        operator = "notin" if found.group(2) == "!=" else "in"
        requirement = Requirement(found.group(1), operator, frozenset({found.group(3)}))
    elif found := _EXISTS.match(part):
        requirement = Requirement(found.group(2), "absent" if found.group(1) else "exists")
    if (
        requirement is None
        or not is_qualified_name(requirement.key)
        or not all(is_label_value(value) for value in requirement.values)
    ):
        raise BadRequest(f"unable to parse requirement: {part!r} in the label selector {whole!r}")
    return requirement


def parse_fields(text: str) -> tuple[FieldRequirement, ...]:
    """Parse `metadata.name=x,spec.y!=z`. Raises `BadRequest`."""
    parsed: list[FieldRequirement] = []
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        found = re.match(r"([\w.\-]+)(==|!=|=)(.*)\Z", part, re.DOTALL)
        if found is None:
            raise BadRequest(f"invalid selector: {text!r}; can't understand {part!r}")
        path, operator, value = found.groups()
        parsed.append(FieldRequirement(tuple(path.split(".")), value, operator != "!="))
    return tuple(parsed)


def _text(obj: Obj, path: tuple[str, ...]) -> str:
    value: Any = obj
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
