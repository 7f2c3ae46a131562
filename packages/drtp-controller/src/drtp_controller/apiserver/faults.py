"""What is wrong with an object: one `Fault` per field, and the API's errors made from them.

Rules: the wording is that of kube-apiserver, because people search for it; every fault names its field.
What must not enter: finding faults.
"""

from __future__ import annotations

import json
from typing import Any

import attrs

from drtp_api.kube import AlreadyExists, Conflict, Invalid, NotFound, Obj, Resource

INVALID = "FieldValueInvalid"
REQUIRED = "FieldValueRequired"
FORBIDDEN = "FieldValueForbidden"
NOT_SUPPORTED = "FieldValueNotSupported"
DUPLICATE = "FieldValueDuplicate"
TOO_LONG = "FieldValueTooLong"
TOO_MANY = "FieldValueTooMany"
TYPE_INVALID = "FieldValueTypeInvalid"

_SHOWN_BYTES = 256


@attrs.frozen
class Fault:
    """One field at fault; `message` does not repeat the field."""

    field: str
    message: str
    reason: str = INVALID

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def shown(value: Any) -> str:
    """Return a value as it appears in a message: JSON, shortened."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text if len(text) <= _SHOWN_BYTES else text[:_SHOWN_BYTES] + "..."


def invalid(field: str, value: Any, why: str) -> Fault:
    """Return the fault of a value that breaks a rule."""
    return Fault(field, f"Invalid value: {shown(value)}: {why}")


def required(field: str, why: str = "") -> Fault:
    """Return the fault of a missing field."""
    return Fault(field, f"Required value{': ' + why if why else ''}", REQUIRED)


def forbidden(field: str, why: str) -> Fault:
    """Return the fault of a field that may not be set or changed."""
    return Fault(field, f"Forbidden: {why}", FORBIDDEN)


def not_supported(field: str, value: Any, allowed: list[Any]) -> Fault:
    """Return the fault of a value outside an enumeration."""
    choices = ", ".join(shown(choice) for choice in allowed)
    return Fault(field, f"Unsupported value: {shown(value)}: supported values: {choices}", NOT_SUPPORTED)


def duplicate(field: str, value: Any) -> Fault:
    """Return the fault of a list item that is there twice."""
    return Fault(field, f"Duplicate value: {shown(value)}", DUPLICATE)


def _details(resource: Resource, name: str) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name, "kind": resource.plural}
    if resource.group:
        details["group"] = resource.group
    return details


def invalid_object(resource: Resource, name: str, faults: list[Fault]) -> Invalid:
    """Return the 422 that names every fault."""
    qualified = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    texts = [str(fault) for fault in faults]
    body = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = _details(resource, name) | {
        "kind": resource.kind,
        "causes": [{"reason": fault.reason, "message": fault.message, "field": fault.field} for fault in faults],
    }
    return Invalid(f'{qualified} "{name}" is invalid: {body}', details=details)


def not_found(resource: Resource, name: str) -> NotFound:
    """Return the 404 of an object."""
    return NotFound(f'{resource.qualified} "{name}" not found', details=_details(resource, name))


def already_exists(resource: Resource, name: str) -> AlreadyExists:
    """Return the 409 of a name that is taken."""
    return AlreadyExists(f'{resource.qualified} "{name}" already exists', details=_details(resource, name))


def modified(resource: Resource, name: str) -> Conflict:
    """Return the 409 of a stale resource version."""
    return Conflict(
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again",
        details=_details(resource, name),
    )


def precondition_failed(resource: Resource, obj: Obj, field: str, expected: str) -> Conflict:
    """Return the 409 of a precondition on uid or resourceVersion."""
    label = "UID" if field == "uid" else "ResourceVersion"
    actual = obj["metadata"].get(field, "")
    name = obj["metadata"]["name"]
    return Conflict(
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": Precondition failed: '
        f"{label} in precondition: {expected}, {label} in object meta: {actual}",
        details=_details(resource, name),
    )
