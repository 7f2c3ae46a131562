"""The rules of `metadata`: names, what the server sets, what a client may not change. Pure functions.

Rules: the server owns uid, creationTimestamp, generation, resourceVersion, deletionTimestamp and
deletionGracePeriodSeconds; whatever a client sends for them is ignored or, where it is a claim, checked.
What must not enter: stores, kinds' own schemas.
"""

from __future__ import annotations

import json
import secrets
import uuid
from typing import Any

from drtp_api.kube import Obj
from drtp_controller.apiserver.faults import Fault, forbidden, invalid, required
from drtp_controller.apiserver.formats import (
    is_dns_label,
    is_dns_subdomain,
    is_label_value,
    is_qualified_name,
)
from drtp_controller.apiserver.schema import Schema, prune, validate

_STRING: Schema = {"type": "string"}
_STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}

METADATA_SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "name": _STRING,
        "generateName": _STRING,
        "namespace": _STRING,
        "uid": _STRING,
        "resourceVersion": _STRING,
        "selfLink": _STRING,
        "generation": {"type": "integer", "format": "int64"},
        "creationTimestamp": {"type": "string", "format": "date-time", "nullable": True},
        "deletionTimestamp": {"type": "string", "format": "date-time", "nullable": True},
        "deletionGracePeriodSeconds": {"type": "integer", "format": "int64"},
        "labels": _STRINGS | {"nullable": True},
        "annotations": _STRINGS | {"nullable": True},
        "finalizers": {
            "type": "array",
            "nullable": True,
            "items": _STRING,
            "x-kubernetes-list-type": "set",
            "x-kubernetes-patch-strategy": "merge",
        },
        "ownerReferences": {
            "type": "array",
            "nullable": True,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "x-kubernetes-patch-merge-key": "uid",
            "x-kubernetes-patch-strategy": "merge",
            "items": {
                "type": "object",
                "required": ["apiVersion", "kind", "name", "uid"],
                "properties": {
                    "apiVersion": _STRING,
                    "kind": _STRING,
                    "name": _STRING,
                    "uid": _STRING,
                    "controller": {"type": "boolean"},
                    "blockOwnerDeletion": {"type": "boolean"},
                },
            },
        },
        "managedFields": {
            "type": "array",
            "nullable": True,
            "items": {
                "type": "object",
                "properties": {
                    "manager": _STRING,
                    "operation": _STRING,
                    "apiVersion": _STRING,
                    "time": _STRING,
                    "fieldsType": _STRING,
                    "subresource": _STRING,
                    "fieldsV1": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
        },
    },
}
"""ObjectMeta, as a structural schema."""

SERVER_SET = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "name",
    "namespace",
    "selfLink",
    "uid",
)
_ANNOTATIONS_BYTES = 256 * 1024
_GENERATED_NAME_LENGTH = 5
_LEGACY_GENERATED = "bcdfghjklmnpqrstvwxz2456789"
"""The alphabet of generated names: no vowels, no look-alikes."""


def generate_name(prefix: str) -> str:
    """Return a name from `generateName`: the prefix, cut if need be, and five random characters."""
    room = 63 - _GENERATED_NAME_LENGTH
    return prefix[:room] + "".join(secrets.choice(_LEGACY_GENERATED) for _ in range(_GENERATED_NAME_LENGTH))


def clean_metadata(obj: Obj) -> tuple[list[str], list[Fault]]:
    """Drop unknown fields and empty values of metadata in place; return their paths and the faults of the rest."""
    metadata = obj["metadata"]
    unknown = prune(METADATA_SCHEMA, metadata, "metadata")
    for name in [name for name, value in metadata.items() if value is None or value in ({}, [], "")]:
        if name != "managedFields":
            del metadata[name]
    return unknown, validate(METADATA_SCHEMA, metadata, "metadata")


def stamp_new(metadata: dict[str, Any], now: str, *, with_generation: bool) -> None:
    """Set what the server sets on a new object, in place."""
    for name in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
        metadata.pop(name, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = now
    if with_generation:
        metadata["generation"] = 1


def carry_over(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Give a new metadata what only the server sets, from the old one, in place."""
    for name in SERVER_SET:
        if name in old:
            new[name] = old[name]
        else:
            new.pop(name, None)
    if "generateName" in old:
        new["generateName"] = old["generateName"]


def check_metadata(metadata: dict[str, Any], *, name_is_label: bool) -> list[Fault]:
    """Return what is wrong with names, labels, annotations, finalizers and owners."""
    faults: list[Fault] = []
    name = metadata.get("name", "")
    if not name:
        faults.append(required("metadata.name", "name or generateName is required"))
    elif name_is_label and not is_dns_label(name):
        faults.append(
            invalid(
                "metadata.name",
                name,
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
                "start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc')",
            )
        )
    elif not name_is_label and not is_dns_subdomain(name):
        faults.append(
            invalid(
                "metadata.name",
                name,
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
                "and must start and end with an alphanumeric character (e.g. 'example.com')",
            )
        )
    return faults + _check_maps(metadata) + _check_owners(metadata)


def _check_maps(metadata: dict[str, Any]) -> list[Fault]:
    faults: list[Fault] = []
    for key, value in (metadata.get("labels") or {}).items():
        if not is_qualified_name(key):
            faults.append(invalid("metadata.labels", key, "name part must consist of alphanumeric characters"))
        if not is_label_value(value):
            faults.append(
                invalid(
                    "metadata.labels",
                    value,
                    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
                    "and must start and end with an alphanumeric character, no more than 63 bytes",
                )
            )
    annotations = metadata.get("annotations") or {}
    faults += [
        invalid("metadata.annotations", key, "name part must consist of alphanumeric characters")
        for key in annotations
        if not is_qualified_name(key.lower())
    ]
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > _ANNOTATIONS_BYTES:
        faults.append(
            Fault(
                "metadata.annotations",
                f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes",
                "FieldValueTooLong",
            )
        )
    faults += [
        invalid("metadata.finalizers", value, "name is not fully qualified")
        for value in metadata.get("finalizers") or []
        if not is_qualified_name(value)
    ]
    return faults


def _check_owners(metadata: dict[str, Any]) -> list[Fault]:
    faults: list[Fault] = []
    controllers = 0
    for index, owner in enumerate(metadata.get("ownerReferences") or []):
        path = f"metadata.ownerReferences[{index}]"
        faults += [required(f"{path}.{field}") for field in ("apiVersion", "kind", "name", "uid") if owner[field] == ""]
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        faults.append(
            invalid(
                "metadata.ownerReferences",
                controllers,
                "Only one reference can have Controller set to true",
            )
        )
    return faults


def check_deleting(old: dict[str, Any], new: dict[str, Any]) -> list[Fault]:
    """Return the fault of adding finalizers to an object that is being deleted."""
    if not old.get("deletionTimestamp"):
        return []
    added = set(new.get("finalizers") or []) - set(old.get("finalizers") or [])
    if not added:
        return []
    text = json.dumps(sorted(added))
    return [
        forbidden(
            "metadata.finalizers",
            f"no new finalizers can be added if the object is being deleted, found new finalizers {text}",
        )
    ]
