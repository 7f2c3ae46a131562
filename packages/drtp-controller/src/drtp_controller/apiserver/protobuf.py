r"""Reads the few protobuf bodies that kubectl sends whatever the server says: typed creates and delete options. Pure.

Rules: only reading, only the kinds and fields in the table; unknown fields are skipped as protobuf wants it; a
body that is cut short or of another kind is a `BadRequest`.
Source: the `k8s\0` envelope (runtime.Unknown) and the generated.proto files of Kubernetes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import attrs

from drtp_api.kube import BadRequest, Obj, UnsupportedMediaType

MAGIC = b"k8s\x00"


@attrs.frozen
class _Field:
    """One field: its JSON name, its type (a scalar or a message name), and how often it occurs."""

    name: str
    type: str = "string"
    shape: str = "one"
    """one, list or map"""


_F = _Field

_MESSAGES: dict[str, dict[int, _Field]] = {
    "ObjectMeta": {
        1: _F("name"),
        2: _F("generateName"),
        3: _F("namespace"),
        5: _F("uid"),
        6: _F("resourceVersion"),
        11: _F("labels", shape="map"),
        12: _F("annotations", shape="map"),
        13: _F("ownerReferences", "OwnerReference", "list"),
        14: _F("finalizers", shape="list"),
    },
    "OwnerReference": {
        1: _F("kind"),
        3: _F("name"),
        4: _F("uid"),
        5: _F("apiVersion"),
        6: _F("controller", "bool"),
        7: _F("blockOwnerDeletion", "bool"),
    },
    "Namespace": {1: _F("metadata", "ObjectMeta"), 2: _F("spec", "NamespaceSpec")},
    "NamespaceSpec": {1: _F("finalizers", shape="list")},
    "ConfigMap": {
        1: _F("metadata", "ObjectMeta"),
        2: _F("data", shape="map"),
        3: _F("binaryData", "bytes", "map"),
        4: _F("immutable", "bool"),
    },
    "Secret": {
        1: _F("metadata", "ObjectMeta"),
        2: _F("data", "bytes", "map"),
        3: _F("type"),
        4: _F("stringData", shape="map"),
        5: _F("immutable", "bool"),
    },
    "Service": {1: _F("metadata", "ObjectMeta"), 2: _F("spec", "ServiceSpec")},
    "ServiceSpec": {
        1: _F("ports", "ServicePort", "list"),
        2: _F("selector", shape="map"),
        3: _F("clusterIP"),
        4: _F("type"),
        5: _F("externalIPs", shape="list"),
        7: _F("sessionAffinity"),
        10: _F("externalName"),
        18: _F("clusterIPs", shape="list"),
        19: _F("ipFamilies", shape="list"),
    },
    "ServicePort": {
        1: _F("name"),
        2: _F("protocol"),
        3: _F("port", "int"),
        4: _F("targetPort", "IntOrString"),
        5: _F("nodePort", "int"),
        6: _F("appProtocol"),
    },
    "IntOrString": {1: _F("type", "int"), 2: _F("intVal", "int"), 3: _F("strVal")},
    "Event": {
        1: _F("metadata", "ObjectMeta"),
        2: _F("involvedObject", "ObjectReference"),
        3: _F("reason"),
        4: _F("message"),
        5: _F("source", "EventSource"),
        6: _F("firstTimestamp", "Time"),
        7: _F("lastTimestamp", "Time"),
        8: _F("count", "int"),
        9: _F("type"),
    },
    "ObjectReference": {
        1: _F("kind"),
        2: _F("namespace"),
        3: _F("name"),
        4: _F("uid"),
        5: _F("apiVersion"),
        6: _F("resourceVersion"),
        7: _F("fieldPath"),
    },
    "EventSource": {1: _F("component"), 2: _F("host")},
    "Time": {1: _F("seconds", "int"), 2: _F("nanos", "int")},
    "DeleteOptions": {
        1: _F("gracePeriodSeconds", "int"),
        2: _F("preconditions", "Preconditions"),
        3: _F("orphanDependents", "bool"),
        4: _F("propagationPolicy"),
        5: _F("dryRun", shape="list"),
    },
    "Preconditions": {1: _F("uid"), 2: _F("resourceVersion")},
    "SelfSubjectAccessReview": {1: _F("metadata", "ObjectMeta"), 2: _F("spec", "SelfSubjectAccessReviewSpec")},
    "SelfSubjectAccessReviewSpec": {
        1: _F("resourceAttributes", "ResourceAttributes"),
        2: _F("nonResourceAttributes", "NonResourceAttributes"),
    },
    "ResourceAttributes": {
        1: _F("namespace"),
        2: _F("verb"),
        3: _F("group"),
        4: _F("version"),
        5: _F("resource"),
        6: _F("subresource"),
        7: _F("name"),
    },
    "NonResourceAttributes": {1: _F("path"), 2: _F("verb")},
    "SelfSubjectRulesReview": {1: _F("metadata", "ObjectMeta"), 2: _F("spec", "SelfSubjectRulesReviewSpec")},
    "SelfSubjectRulesReviewSpec": {1: _F("namespace")},
    "SelfSubjectReview": {1: _F("metadata", "ObjectMeta")},
}


def decode_body(body: bytes) -> Obj:
    """Return the object of a protobuf body.

    Raises:
        BadRequest: the body is malformed.
        UnsupportedMediaType: the kind is not among those we read.
    """
    if not body.startswith(MAGIC):
        raise BadRequest("the body is not a Kubernetes protobuf message")
    try:
        envelope = dict(_fields(body[len(MAGIC) :]))
        head = dict(_fields(_bytes(envelope[1])))
        api_version, kind = _bytes(head[1]).decode(), _bytes(head[2]).decode()
        raw = _bytes(envelope.get(2, b""))
        if kind not in _MESSAGES:
            raise UnsupportedMediaType(f"{kind} is not accepted as protobuf; send it as JSON")
        return {"apiVersion": api_version, "kind": kind} | _message(raw, kind)
    except (KeyError, IndexError, UnicodeDecodeError, TypeError) as error:
        raise BadRequest("the protobuf body is malformed") from error


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("a message was expected, not a number")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise IndexError("a varint of more than ten bytes")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        match wire_type:
            case 0:
                value, at = _varint(data, at)
                yield number, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case _:
                raise IndexError("a wire type that is not in use")
        if at + size > len(data):
            raise IndexError("the body is cut short")
        yield number, data[at : at + size]
        at += size


def _message(data: bytes, kind: str) -> Obj:
    table = _MESSAGES[kind]
    obj: Obj = {}
    for number, value in _fields(data):
        field = table.get(number)
        if field is None:
            continue
        match field.shape:
            case "list":
                obj.setdefault(field.name, []).append(_value(value, field.type))
            case "map":
                entry = dict(_fields(_bytes(value)))
                key = _bytes(entry.get(1, b"")).decode()
                obj.setdefault(field.name, {})[key] = _value(entry.get(2, b""), field.type)
            case _:
                converted = _value(value, field.type)
                # Go writes every scalar, set or not; an empty one means it was not set
                if converted not in ("", 0, {}) or converted is False:
                    obj[field.name] = converted
    return obj


def _value(value: int | bytes, kind: str) -> Any:
    match kind:
        case "string":
            return _bytes(value).decode()
        case "bytes":
            return base64.b64encode(_bytes(value)).decode()
        case "bool":
            return bool(value)
        case "int":
            if not isinstance(value, int):
                raise TypeError("a number was expected")
            return value - (1 << 64) if value >= 1 << 63 else value
        case "IntOrString":
            parts = _message(_bytes(value), kind)
            return parts.get("strVal", "") if parts.get("type") else parts.get("intVal", 0)
        case "Time":
            return _time(_message(_bytes(value), kind))
        case _:
            return _message(_bytes(value), kind)


def _time(parts: Obj) -> str:
    return datetime.fromtimestamp(parts.get("seconds", 0), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
