"""OpenAPI v3 documents of what is served, for `kubectl explain`, `apply` and validation. Pure.

Rules: one document per group version, made from the schemas; it says which query parameters a write takes, because
kubectl looks there for `fieldValidation` before it validates on its own.
"""

from __future__ import annotations

import copy
from typing import Any

from drtp_api.kube import NotFound, Obj
from drtp_controller.apiserver.kinds import Kind, Registry, Schema
from drtp_controller.apiserver.metadata import METADATA_SCHEMA

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_HEAD = {
    "apiVersion": {
        "type": "string",
        "description": "APIVersion defines the versioned schema of this representation of an object.",
    },
    "kind": {
        "type": "string",
        "description": "Kind is a string value representing the REST resource this object represents.",
    },
    "metadata": {
        "description": "Standard object's metadata.",
        "allOf": [{"$ref": f"#/components/schemas/{_META}"}],
    },
}
_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")


def index(registry: Registry) -> Obj:
    """Return `/openapi/v3`: where each group version's document is."""
    paths = {}
    for group, versions in registry.group_versions().items():
        for version in versions:
            place = f"apis/{group}/{version}" if group else f"api/{version}"
            # the address changes with the content, so that kubectl may keep what it has read
            paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={registry.generation}"}
    return {"paths": paths}


def document(registry: Registry, group: str, version: str) -> Obj:
    """Return the document of a group version. Raises `NotFound`."""
    kinds = registry.group_versions().get(group, {}).get(version)
    if not kinds:
        raise NotFound("the server could not find the requested resource")
    schemas: dict[str, Schema] = {_META: METADATA_SCHEMA}
    paths: dict[str, Any] = {}
    for kind in kinds:
        name = _schema_name(kind)
        schemas[name] = _schema(kind)
        schemas[f"{name}List"] = _list_schema(kind, name)
        paths |= _paths(kind, name)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(kind: Kind) -> str:
    resource = kind.resource
    reverse = ".".join(reversed(resource.group.split("."))) if resource.group else "io.k8s.api.core"
    return f"{reverse}.{resource.version}.{resource.kind}"


def _gvk(kind: Kind) -> Obj:
    resource = kind.resource
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _schema(kind: Kind) -> Schema:
    schema = copy.deepcopy(kind.schema)
    schema["properties"] = {**schema.get("properties", {}), **_HEAD}
    schema["x-kubernetes-group-version-kind"] = [_gvk(kind)]
    return schema


def _list_schema(kind: Kind, name: str) -> Schema:
    return {
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": _HEAD["apiVersion"],
            "kind": _HEAD["kind"],
            "metadata": {"type": "object"},
            "items": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}},
        },
        "x-kubernetes-group-version-kind": [_gvk(kind) | {"kind": kind.list_kind}],
    }


def _parameter(name: str) -> Obj:
    return {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}


def _operation(kind: Kind, name: str, action: str) -> Obj:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    operation: Obj = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
        "responses": {"200": {"description": "OK", "content": content}},
    }
    if action in {"post", "put", "patch"}:
        operation["parameters"] = [_parameter(parameter) for parameter in _WRITE_PARAMETERS]
    if action == "patch":
        operation["parameters"].append(_parameter("force"))
    return operation


def _paths(kind: Kind, name: str) -> dict[str, Any]:
    resource = kind.resource
    namespace = "{namespace}" if resource.namespaced else None
    collection = resource.path(namespace)
    one = resource.path(namespace, "{name}")
    verbs = ("get", "put", "patch", "delete")
    paths: dict[str, Any] = {
        collection: {
            "get": _operation(kind, f"{name}List", "list"),
            "post": _operation(kind, name, "post"),
        },
        one: {verb: _operation(kind, name, verb) for verb in verbs},
    }
    if kind.has_status:
        paths[f"{one}/status"] = {verb: _operation(kind, name, verb) for verb in ("get", "put", "patch")}
    return paths
