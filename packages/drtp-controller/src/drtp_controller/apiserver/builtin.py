"""The builtin kinds the control plane needs: names, schemas, columns and their own rules.

Rules: field names, list keys and validation are the real ones; a kind holds only fields that DRTP or kubectl
uses, and keeps unknown fields where the real kind has many more.
What must not enter: our own kinds and the Gateway API (they are CRDs).
"""

from __future__ import annotations

from drtp_api.kube import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    ENDPOINT_SLICES,
    EVENTS,
    LEASES,
    NAMESPACES,
    SECRETS,
    SERVICES,
)
from drtp_controller.apiserver import builtin_rules as rules
from drtp_controller.apiserver.crds import check_crd, prepare_crd
from drtp_controller.apiserver.kinds import FREE, Column, Kind, Schema
from drtp_controller.apiserver.metadata import METADATA_SCHEMA

_STRING: Schema = {"type": "string"}
_BOOLEAN: Schema = {"type": "boolean"}
_INTEGER: Schema = {"type": "integer", "format": "int32"}
_TIME: Schema = {"type": "string", "format": "date-time", "nullable": True}
_STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_BYTES: Schema = {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}}
_STRING_LIST: Schema = {"type": "array", "items": _STRING, "x-kubernetes-list-type": "atomic"}
_REFERENCE: Schema = {
    "type": "object",
    "x-kubernetes-map-type": "atomic",
    "properties": dict.fromkeys(
        ("apiVersion", "kind", "namespace", "name", "uid", "resourceVersion", "fieldPath"), _STRING
    ),
}


def _object(properties: dict[str, Schema], *required: str, description: str = "") -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if description:
        schema["description"] = description
    return schema


def _root(description: str, **properties: Schema) -> Schema:
    head = {"apiVersion": _STRING, "kind": _STRING, "metadata": METADATA_SCHEMA}
    return _object(head | properties, description=description)


def _keyed_list(items: Schema, *keys: str, merge_key: str = "") -> Schema:
    return {
        "type": "array",
        "items": items,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(keys),
        "x-kubernetes-patch-merge-key": merge_key or keys[0],
        "x-kubernetes-patch-strategy": "merge",
    }


_AGE = Column("Age", "date", ".metadata.creationTimestamp")

_CONDITIONS = _keyed_list(
    _object(
        {
            "type": _STRING,
            "status": _STRING,
            "reason": _STRING,
            "message": _STRING,
            "lastTransitionTime": _TIME,
            "observedGeneration": {"type": "integer", "format": "int64"},
        },
        "type",
        "status",
    ),
    "type",
)

_NAMESPACE = Kind(
    NAMESPACES,
    "namespace",
    "NamespaceList",
    short_names=("ns",),
    schema=_root(
        "Namespace provides a scope for names.",
        spec=_object({"finalizers": {"type": "array", "items": _STRING, "x-kubernetes-list-type": "atomic"}}),
        status=_object({"phase": _STRING, "conditions": _CONDITIONS}),
    ),
    columns=(Column("Status", "string", ".status.phase"), _AGE),
    has_status=True,
    builtin=True,
    has_generation=False,
    prepare=rules.prepare_namespace,
)

_CONFIG_MAP = Kind(
    CONFIG_MAPS,
    "configmap",
    "ConfigMapList",
    short_names=("cm",),
    schema=_root(
        "ConfigMap holds configuration data for pods to consume.",
        data=_STRINGS,
        binaryData=_BYTES,
        immutable=_BOOLEAN,
    ),
    columns=(Column("Data", "string", ".data", compute=rules.count_data), _AGE),
    builtin=True,
    has_generation=False,
    check=rules.check_config_map,
)

_SECRET = Kind(
    SECRETS,
    "secret",
    "SecretList",
    schema=_root(
        "Secret holds secret data of a certain type.",
        data=_BYTES,
        stringData=_STRINGS,
        type=_STRING | {"default": "Opaque"},
        immutable=_BOOLEAN,
    ),
    columns=(Column("Type", "string", ".type"), Column("Data", "string", ".data", compute=rules.count_data), _AGE),
    builtin=True,
    has_generation=False,
    prepare=rules.prepare_secret,
    check=rules.check_secret,
)

_SERVICE_PORT = _object(
    {
        "name": _STRING,
        "protocol": _STRING | {"default": "TCP", "enum": ["TCP", "UDP", "SCTP"]},
        "port": _INTEGER | {"minimum": 1, "maximum": 65535},
        "targetPort": {"x-kubernetes-int-or-string": True},
        "nodePort": _INTEGER,
        "appProtocol": _STRING,
    },
    "port",
)

_SERVICE = Kind(
    SERVICES,
    "service",
    "ServiceList",
    short_names=("svc",),
    categories=("all",),
    schema=_root(
        "Service is a named abstraction of software service.",
        spec=_object(
            {
                "type": _STRING
                | {
                    "default": "ClusterIP",
                    "enum": ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
                },
                "ports": _keyed_list(_SERVICE_PORT, "port", "protocol", merge_key="port"),
                "selector": _STRINGS | {"x-kubernetes-map-type": "atomic"},
                "clusterIP": _STRING,
                "clusterIPs": _STRING_LIST,
                "externalName": _STRING,
                "externalIPs": _STRING_LIST,
                "sessionAffinity": _STRING | {"default": "None"},
                "ipFamilies": _STRING_LIST,
                "ipFamilyPolicy": _STRING,
                "internalTrafficPolicy": _STRING,
                "externalTrafficPolicy": _STRING,
                "publishNotReadyAddresses": _BOOLEAN,
                "loadBalancerClass": _STRING,
            }
        )
        | {"default": {}},
        status=_object({"loadBalancer": FREE, "conditions": _CONDITIONS}) | {"default": {"loadBalancer": {}}},
    ),
    columns=(
        Column("Type", "string", ".spec.type"),
        Column("Cluster-IP", "string", ".spec.clusterIP"),
        Column("Port(s)", "string", ".spec.ports", compute=rules.show_service_ports),
        _AGE,
    ),
    has_status=True,
    builtin=True,
    has_generation=False,
    prepare=rules.prepare_service,
    check=rules.check_service,
)

_EVENT = Kind(
    EVENTS,
    "event",
    "EventList",
    short_names=("ev",),
    schema=_root(
        "Event is a report of an event somewhere in the cluster.",
        involvedObject=_REFERENCE,
        related=_REFERENCE,
        reason=_STRING,
        message=_STRING,
        source=_object({"component": _STRING, "host": _STRING}),
        type=_STRING,
        count=_INTEGER,
        action=_STRING,
        firstTimestamp=_TIME,
        lastTimestamp=_TIME,
        eventTime=_TIME,
        reportingComponent=_STRING,
        reportingInstance=_STRING,
        series=_object({"count": _INTEGER, "lastObservedTime": _TIME}),
    ),
    columns=(
        Column("Last Seen", "date", ".lastTimestamp"),
        Column("Type", "string", ".type"),
        Column("Reason", "string", ".reason"),
        Column("Object", "string", ".involvedObject", compute=rules.show_involved_object),
        Column("Message", "string", ".message"),
    ),
    builtin=True,
    has_generation=False,
    check=rules.check_event,
)

_LEASE = Kind(
    LEASES,
    "lease",
    "LeaseList",
    schema=_root(
        "Lease defines a lease concept.",
        spec=_object(
            {
                "holderIdentity": _STRING,
                "leaseDurationSeconds": _INTEGER,
                "leaseTransitions": _INTEGER,
                "acquireTime": _TIME,
                "renewTime": _TIME,
                "strategy": _STRING,
                "preferredHolder": _STRING,
            }
        ),
    ),
    columns=(Column("Holder", "string", ".spec.holderIdentity"), _AGE),
    builtin=True,
    has_generation=False,
    check=rules.check_lease,
)

_ENDPOINT = _object(
    {
        "addresses": _STRING_LIST | {"minItems": 1, "maxItems": 100, "x-kubernetes-list-type": "set"},
        "conditions": _object(dict.fromkeys(("ready", "serving", "terminating"), _BOOLEAN)),
        "hostname": _STRING,
        "targetRef": _REFERENCE,
        "deprecatedTopology": _STRINGS,
        "nodeName": _STRING,
        "zone": _STRING,
        "hints": FREE,
    },
    "addresses",
)

_ENDPOINT_SLICE = Kind(
    ENDPOINT_SLICES,
    "endpointslice",
    "EndpointSliceList",
    schema=_root(
        "EndpointSlice represents a set of service endpoints.",
        addressType=_STRING | {"enum": ["FQDN", "IPv4", "IPv6"]},
        endpoints={
            "type": "array",
            "items": _ENDPOINT,
            "maxItems": 1000,
            "nullable": True,
            "x-kubernetes-list-type": "atomic",
        },
        ports={
            "type": "array",
            "maxItems": 100,
            "nullable": True,
            "x-kubernetes-list-type": "atomic",
            "items": _object(
                {
                    "name": _STRING | {"default": ""},
                    "protocol": _STRING | {"default": "TCP", "enum": ["TCP", "UDP", "SCTP"]},
                    "port": _INTEGER | {"minimum": 1, "maximum": 65535},
                    "appProtocol": _STRING,
                }
            ),
        },
    )
    | {"required": ["addressType"]},
    columns=(
        Column("AddressType", "string", ".addressType"),
        Column("Ports", "string", ".ports", compute=rules.show_slice_ports),
        Column("Endpoints", "string", ".endpoints", compute=rules.show_endpoints),
        _AGE,
    ),
    builtin=True,
    check=rules.check_endpoint_slice,
)

_CRD = Kind(
    CUSTOM_RESOURCE_DEFINITIONS,
    "customresourcedefinition",
    "CustomResourceDefinitionList",
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    schema=_root(
        "CustomResourceDefinition represents a resource that should be exposed on the API server.",
        spec=_object(
            {
                "group": _STRING,
                "scope": _STRING | {"enum": ["Cluster", "Namespaced"]},
                "names": _object(
                    {
                        "plural": _STRING,
                        "singular": _STRING,
                        "kind": _STRING,
                        "listKind": _STRING,
                        "shortNames": _STRING_LIST,
                        "categories": _STRING_LIST,
                    },
                    "plural",
                    "kind",
                ),
                "conversion": FREE,
                "preserveUnknownFields": _BOOLEAN,
                "versions": {
                    "type": "array",
                    "minItems": 1,
                    "x-kubernetes-list-type": "atomic",
                    "items": _object({"name": _STRING, "served": _BOOLEAN, "storage": _BOOLEAN}, "name")
                    | {"x-kubernetes-preserve-unknown-fields": True},
                },
            },
            "group",
            "scope",
            "names",
            "versions",
        ),
        status=FREE,
    )
    | {"required": ["spec"]},
    columns=(
        Column("Created At", "string", ".metadata.creationTimestamp"),
        Column("Group", "string", ".spec.group", priority=1),
    ),
    has_status=True,
    builtin=True,
    prepare=prepare_crd,
    check=check_crd,
)

BUILTIN_KINDS = (
    _NAMESPACE,
    _CONFIG_MAP,
    _SECRET,
    _SERVICE,
    _EVENT,
    _LEASE,
    _ENDPOINT_SLICE,
    _CRD,
)
