"""The CustomResourceDefinitions of our four kinds, generated from the attrs types.

Rules:
- Nothing of a schema is written by hand: types, bounds, patterns, defaults and descriptions come from
  ``resources.py`` through msgspec's schema generator; this file turns JSON Schema into the structural subset
  that Kubernetes accepts.
- What a schema cannot say is in tables: printer columns and list-map keys here, rules between fields and over time
  in ``crd_rules.py``.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import attrs
import msgspec

from drtp_api import resources
from drtp_api.crd_rules import RULES
from drtp_api.resources import (
    GROUP,
    IP_FORMAT,
    VERSION,
    AccessControlList,
    Connection,
    Resource,
    Server,
    Service,
)
from drtp_api.wire import wire_name

__all__ = ["KIND_INFO", "Column", "KindInfo", "crd_documents", "descriptions"]


@attrs.frozen(kw_only=True)
class Column:
    """One column of ``kubectl get``; a wide one is shown with ``-o wide`` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""

    def to_schema(self) -> dict[str, Any]:
        """Return the column as the CRD has it."""
        out: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            out["description"] = self.description
        return out | ({"priority": 1} if self.wide else {})


@attrs.frozen
class KindInfo:
    """Names and table columns of one kind."""

    cls: type[Resource]
    plural: str
    short_name: str
    namespaced: bool
    columns: tuple[Column, ...]

    @property
    def kind(self) -> str:
        """The Kubernetes kind."""
        return f"DRTP{self.cls.__name__}"


def _condition(name: str, *, wide: bool = False, why: bool = False) -> Column:
    path = f'.status.conditions[?(@.type=="{name}")].{"reason" if why else "status"}'
    return Column(name="Reason" if why else name, path=path, wide=wide)


def _bound(role: str, field: str) -> str:
    return f'.status.servers[?(@.role=="{role}")].{field}'


_AGE: Final = Column(name="Age", type="date", path=".metadata.creationTimestamp")

KIND_INFO: Final = (
    KindInfo(Server, "drtpservers", "drtps", False, (
        Column(name="City", path=r".metadata.labels.topology\.datum\.net/city-code"),
        Column(name="Address", path=".spec.endpoints[0].address", description="Where agents dial it."),
        Column(name="Health", type="integer", path=".status.health", description="0 to 100."),
        Column(name="Connections", type="integer", path=".status.connections"),
        _condition("Ready"),
        Column(name="Port", type="integer", path=".spec.endpoints[0].port", wide=True),
        Column(name="Host", path=".spec.instance.host", wide=True),
        Column(name="Instance", path=".spec.instance.id", wide=True),
        Column(name="Pod IP", path=".status.podIP", wide=True),
        Column(name="Draining", type="boolean", path=".spec.unschedulable", wide=True),
        Column(name="Version", path=".status.version", wide=True),
        _condition("Ready", wide=True, why=True),
        _AGE,
    )),
    KindInfo(Service, "drtpservices", "drtpsvc", True, (
        Column(name="Protocol", path=".spec.application.protocol"),
        Column(name="Hostname", path=".status.canonicalHostname"),
        Column(name="Port", type="integer", path=".status.externalPort"),
        Column(name="Public", type="boolean", path=".spec.exposure.enabled"),
        _condition("Ready"),
        Column(name="URL", path=".status.url", wide=True),
        Column(name="Application", path=".spec.application.name", wide=True),
        Column(name="Target", path=".spec.application.hostname", wide=True, description="What the agent dials."),
        Column(name="Replicas", type="integer", path=".spec.servers.replicas", wide=True),
        _condition("Accepted", wide=True),
        _condition("Programmed", wide=True),
        _condition("Ready", wide=True, why=True),
        _AGE,
    )),
    KindInfo(Connection, "drtpconnections", "drtpc", True, (
        Column(name="Service", path=".spec.serviceRef.name"),
        Column(name="Client", path=".spec.client.wanIP", description="The address the agent comes from."),
        Column(name="Primary", path=_bound("Primary", "clientStatus")),
        Column(name="Secondary", path=_bound("Secondary", "clientStatus")),
        _condition("Ready"),
        Column(name="Primary Server", path=_bound("Primary", "name"), wide=True),
        Column(name="Primary RTT", type="integer", path=_bound("Primary", "rttMilliseconds"), wide=True,
               description="Milliseconds."),
        Column(name="Secondary Server", path=_bound("Secondary", "name"), wide=True),
        Column(name="Secondary RTT", type="integer", path=_bound("Secondary", "rttMilliseconds"), wide=True,
               description="Milliseconds."),
        Column(name="Instance", path=".spec.client.instanceID", wide=True),
        Column(name="Version", path=".spec.client.version", wide=True),
        _condition("Ready", wide=True, why=True),
        _AGE,
    )),
    KindInfo(AccessControlList, "drtpaccesscontrollists", "drtpacl", True, (
        Column(name="Mode", path=".spec.mode"),
        Column(name="Default", path=".spec.defaultAction", description="For visitors that no rule matches."),
        Column(name="First Target", path=".spec.targetRefs[0].name", wide=True),
        Column(name="First Rule", path=".spec.rules[0].name", wide=True),
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
    "format",
}  # fmt: skip
_SET_LISTS: Final = {"hostnames", "edgeAllowlistCIDRs", "enforceAt"}


def descriptions(cls: type[Any]) -> tuple[str, dict[str, str]]:
    """Return what a class's docstring says of the class, and of each field by its Python name."""
    text, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("\n\nAttributes:\n")
    found = re.findall(r"^    (\w+): (.+(?:\n      +.+)*)$", attributes, flags=re.MULTILINE)
    return " ".join(text.split()), {name: " ".join(words.split()) for name, words in found}


def _rules(place: str) -> dict[str, Any]:
    rules = RULES.get(place)
    return {"x-kubernetes-validations": [rule.to_schema() for rule in rules]} if rules else {}


def _structural(schema: Any, defs: dict[str, Any]) -> dict[str, Any]:
    """Return the structural schema of a JSON Schema: references inlined, null and titles gone, names on the wire."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        target = _structural(defs[name], defs)
        if target.get("type") == "object":
            target = _of_class(getattr(resources, name), target)
        return target | _default(schema)
    if "anyOf" in schema:
        (only,) = [s for s in schema["anyOf"] if s != {"type": "null"}]
        return _structural(only, defs)
    out: dict[str, Any] = {k: v for k, v in schema.items() if k in _KEYWORDS}
    if "enum" in out:
        out["type"] = "string"
    if out.get("format") == IP_FORMAT:
        del out["format"]
        out["anyOf"] = [{"format": "ipv4"}, {"format": "ipv6"}]
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


def _of_class(cls: type[Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a class with what its docstring and the table of rules say of it and its fields."""
    text, of_fields = descriptions(cls)
    properties = dict(schema["properties"])
    for field in attrs.fields(cls):
        name = wire_name(field.name)
        place = f"{cls.__name__}.{name}"
        sub = properties[name] | _rules(place)
        if field.name in of_fields:
            sub["description"] = of_fields[field.name]
        if per_item := _rules(f"{place}[]"):
            sub["items"] = sub["items"] | per_item
        properties[name] = sub
    return schema | {"description": text, "properties": properties} | _rules(cls.__name__)


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
        cls: Any = fields[part].type
        schema = msgspec.json.schema(cls)
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
                    "additionalPrinterColumns": [column.to_schema() for column in info.columns],
                }
            ],
        },
    }


def crd_documents() -> list[dict[str, Any]]:
    """Return the CustomResourceDefinition objects of every DRTP kind, in a stable order."""
    return [_document(info) for info in KIND_INFO]
