"""Addresses of Kubernetes kinds and objects: small values, no I/O.

Rules:
- A `Resource` says where a kind lives in the API; it never holds an object.
- A `Key` names one object inside a resource; cluster-scoped objects have the namespace "".
What must not enter: schemas, defaults, anything that talks to a server.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import attrs

Obj: TypeAlias = dict[str, Any]
"""One Kubernetes object as plain JSON data."""


class Key(NamedTuple):
    """Namespace and name of an object; the namespace of a cluster-scoped object is the empty string."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(obj: Obj) -> Key:
    """Return the key of an object from its metadata."""
    metadata = obj["metadata"]
    return Key(metadata.get("namespace") or "", metadata["name"])


@attrs.frozen
class Resource:
    """Where one kind lives in the API: group, version and plural for URLs, kind for bodies."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return the `apiVersion` of its objects: "v1", "drtp.datumapis.com/v1alpha1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """Return `plural.group`, the form error messages use; the core group has no suffix."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """Return the URL path of the collection, of one object or of its subresource.

        Without a namespace the collection over all namespaces is meant.
        """
        prefix = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        middle = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{prefix}{middle}/{self.plural}{tail}"


DRTP_GROUP = "drtp.datumapis.com"
GATEWAY_GROUP = "gateway.networking.k8s.io"

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICES = Resource("", "v1", "services", "Service")
EVENTS = Resource("", "v1", "events", "Event")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)

DRTP_SERVERS = Resource(DRTP_GROUP, "v1alpha1", "drtpservers", "DRTPServer", namespaced=False)
DRTP_SERVICES = Resource(DRTP_GROUP, "v1alpha1", "drtpservices", "DRTPService")
DRTP_CONNECTIONS = Resource(DRTP_GROUP, "v1alpha1", "drtpconnections", "DRTPConnection")
DRTP_ACCESS_CONTROL_LISTS = Resource(DRTP_GROUP, "v1alpha1", "drtpaccesscontrollists", "DRTPAccessControlList")

GATEWAY_CLASSES = Resource(GATEWAY_GROUP, "v1", "gatewayclasses", "GatewayClass", namespaced=False)
GATEWAYS = Resource(GATEWAY_GROUP, "v1", "gateways", "Gateway")
LISTENER_SETS = Resource(GATEWAY_GROUP, "v1", "listenersets", "ListenerSet")
HTTP_ROUTES = Resource(GATEWAY_GROUP, "v1", "httproutes", "HTTPRoute")
TCP_ROUTES = Resource(GATEWAY_GROUP, "v1", "tcproutes", "TCPRoute")
UDP_ROUTES = Resource(GATEWAY_GROUP, "v1", "udproutes", "UDPRoute")
TLS_ROUTES = Resource(GATEWAY_GROUP, "v1", "tlsroutes", "TLSRoute")
REFERENCE_GRANTS = Resource(GATEWAY_GROUP, "v1", "referencegrants", "ReferenceGrant")
