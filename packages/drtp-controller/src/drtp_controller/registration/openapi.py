"""The OpenAPI description, generated from the message classes.

Rules:
- Schemas come from the classes of ``drtp_api.registration`` with their bounds; the table below names the routes.
- What the strict reader enforces is what the schema says: one source for both.
"""

from __future__ import annotations

import functools
from typing import Any

import attrs
import msgspec

from drtp_api import registration as messages
from drtp_api.resources import IP_FORMAT
from drtp_api.wire import wire_name

__all__ = ["openapi_document"]


@attrs.frozen
class _Route:
    method: str
    path: str
    summary: str
    answer: type[Any] | None
    status: int = 200
    body: type[Any] | None = None
    auth: tuple[str, ...] = ("bearer",)
    refusals: tuple[int, ...] = (400, 401)
    stream: bool = False
    namespaced: bool = True


_CONNECTION = "/v1alpha1/connections/{name}"
_SERVICE = "/v1alpha1/services/{name}"
_ROUTES = (
    _Route("get", "/v1alpha1/servers", "Up to five servers for an agent to measure.", messages.ServerCandidates,
           auth=(), refusals=(503,), namespaced=False),
    _Route("post", "/v1alpha1/connections", "Register an agent.", messages.RegisterResponse, 201,
           messages.RegisterRequest, ("bearer", ""), (400, 401, 403, 404, 409, 413, 503), namespaced=False),
    _Route("post", f"{_CONNECTION}/grants", "Renew the grants of an agent.", messages.ConnectionGrants, 200,
           messages.GrantRequest, (), (400, 401, 404, 413, 503)),
    _Route("get", _CONNECTION, "Show a connection.", messages.ConnectionView, refusals=(400, 401, 404)),
    _Route("get", f"{_CONNECTION}/events", "Server-sent events: the connection now and whenever it changes.",
           messages.ConnectionView, refusals=(400, 401, 404), stream=True),
    _Route("delete", _CONNECTION, "Revoke a connection.", None, 204, refusals=(400, 401, 404)),
    _Route("get", "/v1alpha1/services", "List the services of a namespace.", messages.ServiceList),
    _Route("post", "/v1alpha1/services", "Create a service with a one-time secret.", messages.CreateServiceResponse,
           201, messages.CreateServiceRequest, refusals=(400, 401, 403, 404, 409, 413, 503), namespaced=False),
    _Route("post", f"{_SERVICE}/publish", "Open a service to the world.", messages.ServiceView,
           body=messages.PublishRequest, refusals=(400, 401, 403, 404, 409, 413, 503)),
    _Route("post", f"{_SERVICE}/unpublish", "Close a service to the world.", messages.ServiceView,
           refusals=(400, 401, 404, 409, 503)),
    _Route("post", f"{_SERVICE}/secret", "Issue a new secret; the one before stays valid for a while.",
           messages.ServiceSecret, 201, messages.RotateRequest, refusals=(400, 401, 404, 409, 413, 503)),
    _Route("delete", f"{_SERVICE}/secret", "Revoke every secret and end the agents that enrolled with one.",
           messages.SecretRevocation, refusals=(400, 401, 404, 409, 503)),
)  # fmt: skip


@functools.cache
def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    used = [messages.ErrorBody]
    used += [cls for route in _ROUTES for cls in (route.answer, route.body) if cls is not None]
    _, components = msgspec.json.schema_components(used, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for route in _ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "DRTP registration API", "version": "v1alpha1"},
        "paths": paths,
        "components": {
            "schemas": {name: _on_the_wire(schema, name) for name, schema in components.items()},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: _Route) -> dict[str, Any]:
    parameters = []
    if "{name}" in route.path:
        shape = _NAME if route.path.startswith(_SERVICE) else {"type": "string", "minLength": 1}
        parameters.append({"name": "name", "in": "path", "required": True, "schema": shape})
    if route.namespaced:
        parameters.append({"name": "namespace", "in": "query", "schema": {**_NAME, "default": "default"}})
    success: dict[str, Any] = {"description": "Success."}
    if route.answer is not None:
        kind = "text/event-stream" if route.stream else "application/json"
        content = {"type": "string"} if route.stream else _reference(route.answer)
        success["content"] = {kind: {"schema": content}}
    refusal = {"content": {"application/json": {"schema": _reference(messages.ErrorBody)}}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            str(route.status): success,
            **{str(code): {"description": "Refused; the body says why.", **refusal} for code in route.refusals},
        },
        "security": [{name: []} if name else {} for name in route.auth],
    }
    if route.body is not None:
        body = {"application/json": {"schema": _reference(route.body)}}
        operation["requestBody"] = {"required": route.body not in _OPTIONAL, "content": body}
    return operation


def _reference(cls: type[Any]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{cls.__name__}"}


def _on_the_wire(schema: Any, name: str = "") -> Any:
    """Return the schema with wire names, closed to unknown fields where it describes a request."""
    if isinstance(schema, list):
        return [_on_the_wire(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == IP_FORMAT:
        either = [{"format": "ipv4"}, {"format": "ipv6"}]
        return {k: v for k, v in schema.items() if k != "format"} | {"anyOf": either}
    out = {k: _on_the_wire(v) for k, v in schema.items() if k not in {"properties", "required", "default"}}
    if "properties" in schema:
        out["properties"] = {wire_name(k): _on_the_wire(v) for k, v in schema["properties"].items()}
        out["required"] = [wire_name(k) for k in schema.get("required", ())]
        if name in _CLOSED:
            out["additionalProperties"] = False
    return out


_CLOSED = frozenset({
    "RegisterRequest", "GrantRequest", "CreateServiceRequest", "ServiceDefinition", "ServiceName", "PublishRequest",
    "RotateRequest",
})  # fmt: skip
_NAME = msgspec.json.schema(messages.Name)
_OPTIONAL = frozenset({messages.PublishRequest, messages.RotateRequest})
