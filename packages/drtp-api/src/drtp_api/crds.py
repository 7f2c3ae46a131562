"""The CustomResourceDefinitions of our four kinds, generated from the attrs types.

Rules:
- Nothing of a schema is written by hand: types, bounds, patterns, defaults and descriptions come from
  ``resources.py`` through msgspec's schema generator; this file turns JSON Schema into the structural subset
  that Kubernetes accepts.
- What a schema cannot say (printer columns, list-map keys, immutability) is one table here.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec

from drtp_api.resources import (
    GROUP,
    VERSION,
    AccessControlList,
    Connection,
    Resource,
    Server,
    Service,
)
from drtp_api.wire import wire_name

__all__ = ["KIND_INFO", "KindInfo", "crd_documents"]


@attrs.frozen
class KindInfo:
    """Names and table columns of one kind."""

    cls: type[Resource]
    plural: str
    short_name: str
    namespaced: bool
    columns: tuple[tuple[str, str, str], ...]

    @property
    def kind(self) -> str:
        """The Kubernetes kind."""
        return f"DRTP{self.cls.__name__}"


def _condition(name: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].status'


_AGE: Final = ("Age", "date", ".metadata.creationTimestamp")

KIND_INFO: Final = (
    KindInfo(Server, "drtpservers", "drtps", False, (
        ("City", "string", r".metadata.labels.topology\.datum\.net/city-code"),
        ("Address", "string", ".spec.endpoints[0].address"),
        ("Health", "integer", ".status.health"),
        ("Connections", "integer", ".status.connections"),
        ("Ready", "string", _condition("Ready")),
        _AGE,
    )),
    KindInfo(Service, "drtpservices", "drtpsvc", True, (
        ("Protocol", "string", ".spec.application.protocol"),
        ("Hostname", "string", ".status.canonicalHostname"),
        ("Port", "integer", ".status.externalPort"),
        ("Public", "boolean", ".spec.exposure.enabled"),
        ("Ready", "string", _condition("Ready")),
        _AGE,
    )),
    KindInfo(Connection, "drtpconnections", "drtpc", True, (
        ("Service", "string", ".spec.serviceRef.name"),
        ("Client", "string", ".spec.client.wanIP"),
        ("Primary", "string", '.status.servers[?(@.role=="Primary")].clientStatus'),
        ("Secondary", "string", '.status.servers[?(@.role=="Secondary")].clientStatus'),
        ("Ready", "string", _condition("Ready")),
        _AGE,
    )),
    KindInfo(AccessControlList, "drtpaccesscontrollists", "drtpacl", True, (
        ("Mode", "string", ".spec.mode"),
        ("Default", "string", ".spec.defaultAction"),
        _AGE,
    )),
)  # fmt: skip

# (type title, wire field) -> key of the list-map
_LIST_MAPS: Final = {
    "conditions": ["type"],
    "servers": ["role"],
    "endpoints": None,
    "rules": ["name"],
}
_KEYWORDS: Final = {
    "type", "description", "enum", "minimum", "maximum", "pattern", "minLength", "maxLength", "minItems", "maxItems",
}  # fmt: skip
_SET_LISTS: Final = {"hostnames", "edgeAllowlistCIDRs", "enforceAt"}


def _structural(schema: Any, defs: dict[str, Any]) -> dict[str, Any]:
    """Return the structural schema of a JSON Schema: references inlined, null and titles gone, names on the wire."""
    if "$ref" in schema:
        target = _structural(defs[schema["$ref"].rpartition("/")[2]], defs)
        return target | _default(schema)
    if "anyOf" in schema:
        (only,) = [s for s in schema["anyOf"] if s != {"type": "null"}]
        return _structural(only, defs)
    out: dict[str, Any] = {k: v for k, v in schema.items() if k in _KEYWORDS}
    if "enum" in out:
        out["type"] = "string"
    if out.get("type") == "object":
        properties = schema.get("properties")
        if properties is None:
            values = schema.get("additionalProperties", {})
            out["additionalProperties"] = (
                _structural(values, defs) if values else {"x-kubernetes-preserve-unknown-fields": True}
            )
        else:
            out["properties"] = {
                wire_name(k): _list_type(wire_name(k), _structural(v, defs)) for k, v in properties.items()
            }
            if schema.get("required"):
                out["required"] = [wire_name(k) for k in schema["required"]]
    if out.get("type") == "array":
        out["items"] = _structural(schema["items"], defs)
    if out.get("type") == "integer":
        out["format"] = "int64"
    return out | _default(schema)


def _default(schema: dict[str, Any]) -> dict[str, Any]:
    default = schema.get("default")
    if default in (None, (), []):
        return {}
    if isinstance(default, dict):
        return {"default": {}}
    return {"default": list(default) if isinstance(default, tuple) else default}


def _list_type(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") != "array":
        return schema
    if keys := _LIST_MAPS.get(name):
        return schema | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
    if name in _SET_LISTS:
        return schema | {"x-kubernetes-list-type": "set"}
    return schema | {"x-kubernetes-list-type": "atomic"}


def _without_defaults(schema: dict[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in out:
        out["properties"] = {name: _without_defaults(value) for name, value in out["properties"].items()}
    if isinstance(out.get("items"), dict):
        out["items"] = _without_defaults(out["items"])
    return out


def _object_schema(info: KindInfo) -> dict[str, Any]:
    fields = attrs.fields_dict(attrs.resolve_types(info.cls))
    parts: dict[str, Any] = {}
    for part in ("spec", "status"):
        schema = msgspec.json.schema(fields[part].type)
        parts[part] = _structural(schema, schema.get("$defs", {}))
    # A default in a status would speak for a writer that said nothing, such as observedGeneration 0.
    parts["status"] = _without_defaults(parts["status"])
    return {
        "type": "object",
        "description": (info.cls.__doc__ or "").strip(),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            **parts,
        },
        "required": ["spec"],
    }


def _document(info: KindInfo) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{info.plural}.{GROUP}",
            "annotations": {"discovery.miloapis.com/parent-contexts": "Project"} if info.namespaced else {},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if info.namespaced else "Cluster",
            "names": {
                "kind": info.kind,
                "listKind": f"{info.kind}List",
                "plural": info.plural,
                "singular": info.kind.lower(),
                "shortNames": [info.short_name],
                "categories": ["datum"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": _object_schema(info)},
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path} for name, type_, path in info.columns
                    ],
                }
            ],
        },
    }


def crd_documents() -> list[dict[str, Any]]:
    """Return the CustomResourceDefinition objects of every DRTP kind, in a stable order."""
    return [_document(info) for info in KIND_INFO]
