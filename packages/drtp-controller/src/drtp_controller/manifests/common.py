"""What all documents share: names, labels, and the security settings that Pod Security ``restricted`` asks for."""

from __future__ import annotations

from typing import Any, Final

from drtp_api.kube import Obj
from drtp_api.resources import SYSTEM_NAMESPACE
from drtp_controller.manifests.settings import Install, Size
from drtp_controller.rights import Component

__all__ = [
    "ADMIN_PORT",
    "DATA_PORTS",
    "GATEWAY_NAMESPACE_LABEL",
    "REGISTRATION_PORT",
    "SYSTEM_NAMESPACE",
    "TUNNEL_NODE_PORT",
    "TUNNEL_PORT",
    "container_security",
    "field_env",
    "image",
    "labels",
    "make",
    "pod_security",
    "resources",
    "selector",
]

TUNNEL_PORT: Final = 7443
TUNNEL_NODE_PORT: Final = 30743
"""Each node's own port for agents. An agent must reach one very server, so no balancer may stand between them."""
ADMIN_PORT: Final = 9090
REGISTRATION_PORT: Final = 8090
DATA_PORTS: Final = (20000, 29999)
"""Below the range that Linux takes outgoing ports from, so that neither side meets the other."""
GATEWAY_NAMESPACE_LABEL: Final = "drtp.datumapis.com/gateway-namespace"
"""Namespaces with this label set to "true" hold gateways: they alone reach data ports and the registration API."""

_USER: Final = 65532


def make(api_version: str, kind: str, name: str, *, namespace: str | None = SYSTEM_NAMESPACE, **fields: Any) -> Obj:
    """Return a document with our labels; ``namespace`` None makes it cluster-scoped."""
    metadata: Obj = {"name": name, "labels": {"app.kubernetes.io/part-of": "drtp"}}
    if namespace is not None:
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def selector(component: Component) -> dict[str, str]:
    """Return the labels that find a component's pods; they can never change."""
    return {"app.kubernetes.io/name": component.value}


def labels(component: Component) -> dict[str, str]:
    """Return the labels of a component's pods."""
    return {**selector(component), "app.kubernetes.io/part-of": "drtp"}


def image(component: Component, install: Install) -> str:
    """Return the image of a component."""
    return f"{install.image_prefix}{component.value}:{install.version}"


def pod_security() -> Obj:
    """Return the pod's security context. The group lets a process without rights read mounted Secrets."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Obj:
    """Return the container's security context."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def resources(size: Size) -> Obj:
    """Return requests and limits."""
    return {"requests": {"cpu": size.cpu, "memory": size.memory}, "limits": {"memory": size.memory_limit}}


def field_env(name: str, path: str) -> Obj:
    """Return a variable that the downward API fills."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
