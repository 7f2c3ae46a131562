"""The Gateway API kinds as compact definitions of our own: the fields that DRTP uses, with the real names and limits.

Rules:
- Group, versions, list keys, enumerations, patterns and bounds are those of the Gateway API (v1); fields we do not
  use are kept as they come (`x-kubernetes-preserve-unknown-fields`).
- Whoever needs the whole API installs its own definitions: these then give way at the next start only if the
  administrator keeps them in a real cluster; the embedded server always serves these.
What must not enter: our own kinds (their definitions are generated from the attrs types).
"""

from __future__ import annotations

from typing import Any

from drtp_api.kube import GATEWAY_GROUP, Obj

Schema = dict[str, Any]

_HOSTNAME = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_PRECISE_HOSTNAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_NAMESPACE = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_KIND = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
_GROUP = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_CONTROLLER = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$"
_HEADER = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"


def _string(pattern: str = "", *, low: int = 0, high: int = 0, **more: Any) -> Schema:
    schema: Schema = {"type": "string"}
    if pattern:
        schema["pattern"] = pattern
    if low:
        schema["minLength"] = low
    if high:
        schema["maxLength"] = high
    return schema | more


def _integer(low: int, high: int, **more: Any) -> Schema:
    return {"type": "integer", "format": "int32", "minimum": low, "maximum": high, **more}


def _object(properties: dict[str, Schema], *required: str, free: bool = False, **more: Any) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if free:
        schema["x-kubernetes-preserve-unknown-fields"] = True
    return schema | more


def _list(items: Schema, high: int, *, low: int = 0, kind: str = "atomic") -> Schema:
    schema: Schema = {"type": "array", "items": items, "maxItems": high, "x-kubernetes-list-type": kind}
    return schema | ({"minItems": low} if low else {})


def _map(items: Schema, high: int, *keys: str, low: int = 0) -> Schema:
    return _list(items, high, low=low, kind="map") | {"x-kubernetes-list-map-keys": list(keys)}


_OBJECT_NAME = _string(low=1, high=253)
_SECTION = _string(_PRECISE_HOSTNAME, low=1, high=253)
_PORT = _integer(1, 65535)
_GROUP_NAME = _string(_GROUP, high=253)
_KIND_NAME = _string(_KIND, low=1, high=63)
_NAMESPACE_NAME = _string(_NAMESPACE, low=1, high=63)
_HOST = _string(_HOSTNAME, low=1, high=253)
_FREE: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

_CONDITION = _object(
    {
        "type": _string(high=316),
        "status": _string(enum=["True", "False", "Unknown"]),
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "lastTransitionTime": _string(format="date-time"),
        "reason": _string(r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", low=1, high=1024),
        "message": _string(high=32768),
    },
    "type",
    "status",
    "lastTransitionTime",
    "reason",
    "message",
)
_CONDITIONS = _map(_CONDITION, 8, "type")

_ALLOWED_ROUTES = _object(
    {
        "namespaces": _object(
            {
                "from": _string(enum=["All", "Selector", "Same", "None"], default="Same"),
                "selector": _FREE,
            },
            default={"from": "Same"},
        ),
        "kinds": _list(_object({"group": _GROUP_NAME | {"default": GATEWAY_GROUP}, "kind": _KIND_NAME}, "kind"), 8),
    },
    default={"namespaces": {"from": "Same"}},
)

_SECRET_REFERENCE = _object(
    {
        "group": _GROUP_NAME | {"default": ""},
        "kind": _KIND_NAME | {"default": "Secret"},
        "name": _OBJECT_NAME,
        "namespace": _NAMESPACE_NAME,
    },
    "name",
)

_TLS = _object(
    {
        "mode": _string(enum=["Terminate", "Passthrough"], default="Terminate"),
        "certificateRefs": _list(_SECRET_REFERENCE, 64),
        "options": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 16},
    },
    free=True,
)

_LISTENER = _object(
    {
        "name": _SECTION,
        "hostname": _HOST,
        "port": _PORT,
        "protocol": _string(
            r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|[a-z0-9]([-a-z0-9]*[a-z0-9])?"
            r"(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9]+$",
            low=1,
            high=255,
        ),
        "tls": _TLS,
        "allowedRoutes": _ALLOWED_ROUTES,
    },
    "name",
    "port",
    "protocol",
)

_LISTENER_STATUS = _object(
    {
        "name": _SECTION,
        "port": _PORT,
        "supportedKinds": _list(_object({"group": _GROUP_NAME, "kind": _KIND_NAME}, "kind"), 8),
        "attachedRoutes": {"type": "integer", "format": "int32"},
        "conditions": _CONDITIONS,
    },
    "name",
    "attachedRoutes",
    "conditions",
)

_PARENT_REFERENCE = _object(
    {
        "group": _GROUP_NAME | {"default": GATEWAY_GROUP},
        "kind": _KIND_NAME | {"default": "Gateway"},
        "namespace": _NAMESPACE_NAME,
        "name": _OBJECT_NAME,
        "sectionName": _SECTION,
        "port": _PORT,
    },
    "name",
)

_BACKEND: dict[str, Schema] = {
    "group": _GROUP_NAME | {"default": ""},
    "kind": _KIND_NAME | {"default": "Service"},
    "name": _OBJECT_NAME,
    "namespace": _NAMESPACE_NAME,
    "port": _PORT,
    "weight": _integer(0, 1_000_000, default=1),
}

_HEADER_VALUE = _object(
    {"name": _string(_HEADER, low=1, high=256), "value": _string(low=1, high=4096)}, "name", "value"
)
_HEADER_FILTER = _object(
    {
        "set": _map(_HEADER_VALUE, 16, "name"),
        "add": _map(_HEADER_VALUE, 16, "name"),
        "remove": _list({"type": "string"}, 16, kind="set"),
    }
)
_HTTP_FILTER = _object(
    {
        "type": _string(
            enum=[
                "RequestHeaderModifier",
                "ResponseHeaderModifier",
                "RequestMirror",
                "RequestRedirect",
                "URLRewrite",
                "ExtensionRef",
                "CORS",
                "ExternalAuth",
            ]
        ),
        "requestHeaderModifier": _HEADER_FILTER,
        "responseHeaderModifier": _HEADER_FILTER,
    },
    "type",
    free=True,
)
_MATCH_VALUE: dict[str, Schema] = {
    "type": _string(enum=["Exact", "RegularExpression"], default="Exact"),
    "name": _string(_HEADER, low=1, high=256),
    "value": _string(low=1, high=4096),
}
_HTTP_MATCH = _object(
    {
        "path": _object(
            {
                "type": _string(enum=["Exact", "PathPrefix", "RegularExpression"], default="PathPrefix"),
                "value": _string(high=1024, default="/"),
            },
            default={"type": "PathPrefix", "value": "/"},
        ),
        "headers": _map(_object(_MATCH_VALUE, "name", "value"), 16, "name"),
        "queryParams": _map(_object(_MATCH_VALUE, "name", "value"), 16, "name"),
        "method": _string(enum=["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]),
    }
)
_DURATION = _string(r"^([0-9]{1,5}(h|m|s|ms)){1,4}$")
_HTTP_RULE = _object(
    {
        "name": _SECTION,
        "matches": _list(_HTTP_MATCH, 64) | {"default": [{"path": {"type": "PathPrefix", "value": "/"}}]},
        "filters": _list(_HTTP_FILTER, 16),
        "backendRefs": _list(_object(_BACKEND | {"filters": _list(_HTTP_FILTER, 16)}, "name"), 16),
        "timeouts": _object({"request": _DURATION, "backendRequest": _DURATION}),
    },
    free=True,
)
_STREAM_RULE = _object(
    {"name": _SECTION, "backendRefs": _list(_object(_BACKEND, "name"), 16, low=1)}, "backendRefs", free=True
)

_ROUTE_STATUS = _object(
    {
        "parents": _list(
            _object(
                {
                    "parentRef": _PARENT_REFERENCE,
                    "controllerName": _string(_CONTROLLER, low=1, high=253),
                    "conditions": _CONDITIONS | {"minItems": 1},
                },
                "parentRef",
                "controllerName",
                "conditions",
            ),
            32,
        )
    },
    "parents",
)

_AGE = ("Age", "date", ".metadata.creationTimestamp")
_HOSTNAMES = _list(_HOST, 16)


def _condition(name: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].status'


def _route(rule: Schema, *, hosts: bool, default_rules: list[Obj] | None = None) -> Schema:
    rules = _list(rule, 16, low=1) | ({"default": default_rules} if default_rules else {})
    properties = {"parentRefs": _list(_PARENT_REFERENCE, 32), "rules": rules}
    if hosts:
        properties["hostnames"] = _HOSTNAMES
    required = () if default_rules else ("rules",)
    return _object(properties, *required, free=True)


_GATEWAY_CLASS_SPEC = _object(
    {
        "controllerName": _string(_CONTROLLER, low=1, high=253),
        "description": _string(high=64),
        "parametersRef": _FREE,
    },
    "controllerName",
)
_GATEWAY_SPEC = _object(
    {
        "gatewayClassName": _OBJECT_NAME,
        "listeners": _map(_LISTENER, 64, "name", low=1),
        "addresses": _list(
            _object({"type": _string(low=1, high=253, default="IPAddress"), "value": _string(high=253)}), 16
        ),
        "infrastructure": _FREE,
        "allowedListeners": _object(
            {
                "namespaces": _object(
                    {
                        "from": _string(enum=["All", "Selector", "Same", "None"], default="None"),
                        "selector": _FREE,
                    },
                    default={"from": "None"},
                )
            }
        ),
    },
    "gatewayClassName",
    "listeners",
    free=True,
)
_GATEWAY_STATUS = _object(
    {
        "addresses": _list(
            _object(
                {"type": _string(low=1, high=253, default="IPAddress"), "value": _string(low=1, high=253)},
                "value",
            ),
            16,
        ),
        "conditions": _CONDITIONS,
        "listeners": _map(_LISTENER_STATUS, 64, "name"),
        "attachedListenerSets": {"type": "integer", "format": "int32"},
    },
    free=True,
)
_LISTENER_SET_SPEC = _object(
    {
        "parentRef": _object(
            {
                "group": _GROUP_NAME | {"default": GATEWAY_GROUP},
                "kind": _KIND_NAME | {"default": "Gateway"},
                "name": _OBJECT_NAME,
                "namespace": _NAMESPACE_NAME,
            },
            "name",
        ),
        "listeners": _map(_LISTENER, 64, "name", low=1),
    },
    "parentRef",
    "listeners",
)
_GRANT_SPEC = _object(
    {
        "from": _list(
            _object(
                {"group": _GROUP_NAME, "kind": _KIND_NAME, "namespace": _NAMESPACE_NAME},
                "group",
                "kind",
                "namespace",
            ),
            16,
            low=1,
        ),
        "to": _list(
            _object({"group": _GROUP_NAME, "kind": _KIND_NAME, "name": _OBJECT_NAME}, "group", "kind"), 16, low=1
        ),
    },
    "from",
    "to",
)


def _definition(
    kind: str,
    plural: str,
    short_names: list[str],
    *,
    spec: Schema,
    status: Schema | None,
    columns: tuple[tuple[str, str, str], ...],
    cluster: bool = False,
) -> Obj:
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": spec,
    }
    version: Obj = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties, "required": ["spec"]}},
        "additionalPrinterColumns": [
            {"name": name, "type": column_type, "jsonPath": path} for name, column_type, path in columns
        ],
    }
    if status is not None:
        properties["status"] = status
        version["subresources"] = {"status": {}}
    names: Obj = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "categories": ["gateway-api"],
    }
    if short_names:
        names["shortNames"] = short_names
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GATEWAY_GROUP}",
            "annotations": {
                "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api",
                "gateway.networking.k8s.io/channel": "standard",
            },
        },
        "spec": {
            "group": GATEWAY_GROUP,
            "scope": "Cluster" if cluster else "Namespaced",
            "names": names,
            "versions": [version],
        },
    }


def gateway_crd_documents() -> list[Obj]:
    """Return the definitions of the Gateway API kinds, in a stable order."""
    hostnames = ("Hostnames", "string", ".spec.hostnames")
    catch_all: list[Obj] = [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]
    return [
        _definition(
            "GatewayClass",
            "gatewayclasses",
            ["gc"],
            spec=_GATEWAY_CLASS_SPEC,
            status=_object({"conditions": _CONDITIONS}, free=True),
            columns=(
                ("Controller", "string", ".spec.controllerName"),
                ("Accepted", "string", _condition("Accepted")),
                _AGE,
            ),
            cluster=True,
        ),
        _definition(
            "Gateway",
            "gateways",
            ["gtw"],
            spec=_GATEWAY_SPEC,
            status=_GATEWAY_STATUS,
            columns=(
                ("Class", "string", ".spec.gatewayClassName"),
                ("Address", "string", ".status.addresses[*].value"),
                ("Programmed", "string", _condition("Programmed")),
                _AGE,
            ),
        ),
        _definition(
            "ListenerSet",
            "listenersets",
            ["lset"],
            spec=_LISTENER_SET_SPEC,
            status=_object({"conditions": _CONDITIONS, "listeners": _map(_LISTENER_STATUS, 64, "name")}, free=True),
            columns=(
                ("Accepted", "string", _condition("Accepted")),
                ("Programmed", "string", _condition("Programmed")),
                _AGE,
            ),
        ),
        _definition(
            "HTTPRoute",
            "httproutes",
            [],
            spec=_route(_HTTP_RULE, hosts=True, default_rules=catch_all),
            status=_ROUTE_STATUS,
            columns=(hostnames, _AGE),
        ),
        _stream_route("TCPRoute", hosts=False),
        _stream_route("UDPRoute", hosts=False),
        _stream_route("TLSRoute", hosts=True),
        _definition("ReferenceGrant", "referencegrants", ["refgrant"], spec=_GRANT_SPEC, status=None, columns=(_AGE,)),
    ]


def _stream_route(kind: str, *, hosts: bool) -> Obj:
    columns = (("Hostnames", "string", ".spec.hostnames"), _AGE) if hosts else (_AGE,)
    return _definition(
        kind,
        f"{kind.lower()}s",
        [],
        spec=_route(_STREAM_RULE, hosts=hosts),
        status=_ROUTE_STATUS,
        columns=columns,
    )
