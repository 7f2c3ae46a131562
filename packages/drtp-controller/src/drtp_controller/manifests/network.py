"""Who may talk to whom in ``drtp-system``: nobody, then what each component needs.

Rules:
- Probes come from the pod's own node, which policies never refuse.
- The API server's address is not known here and policies see it behind its Service: its two usual ports are open.
"""

from __future__ import annotations

from typing import Any

from drtp_api.kube import Obj
from drtp_controller.manifests.common import (
    ADMIN_PORT,
    DATA_PORTS,
    GATEWAY_NAMESPACE_LABEL,
    REGISTRATION_PORT,
    TUNNEL_PORT,
    make,
    selector,
)
from drtp_controller.manifests.controller import runs_gateway
from drtp_controller.manifests.settings import Install
from drtp_controller.rights import Component

__all__ = ["network_documents"]

_API_PORTS = (443, 6443)
_SCRAPER_LABEL = "drtp.datumapis.com/metrics-namespace"


def network_documents(install: Install) -> list[Obj]:
    """Return the policies."""
    policies: dict[str, Obj] = {
        "drtp-default-deny": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        Component.EDGE.value: _edge(install),
        Component.CONTROLLER.value: _controller(install),
    }
    return [make("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec) for name, spec in policies.items()]


def _edge(install: Install) -> Obj:
    gateways = [_namespaces(GATEWAY_NAMESPACE_LABEL)]
    if runs_gateway(install):
        gateways.append({"podSelector": {"matchLabels": selector(Component.CONTROLLER)}})
    return {
        "podSelector": {"matchLabels": selector(Component.EDGE)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"ports": [_port(TUNNEL_PORT)]},
            {"from": gateways, "ports": [_port(*DATA_PORTS)]},
            {"from": [_namespaces(_SCRAPER_LABEL)], "ports": [_port(ADMIN_PORT)]},
        ],
        "egress": [{"ports": [_port(n) for n in _API_PORTS]}],
    }


def _controller(install: Install) -> Obj:
    ingress: list[Obj] = [
        {
            "from": [_namespaces(GATEWAY_NAMESPACE_LABEL), _namespaces(_SCRAPER_LABEL)],
            "ports": [_port(REGISTRATION_PORT)],
        }
    ]
    egress: list[Obj] = [{"ports": [_port(n) for n in _API_PORTS]}]
    if runs_gateway(install):
        ingress.append({"ports": [_port(install.http_port), _port(*install.ports)]})
        edges = {"podSelector": {"matchLabels": selector(Component.EDGE)}}
        egress.append({"to": [edges], "ports": [_port(*DATA_PORTS)]})
    return {
        "podSelector": {"matchLabels": selector(Component.CONTROLLER)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    }


def _port(first: int, last: int | None = None) -> Obj:
    end: dict[str, Any] = {} if last is None else {"endPort": last}
    return {"port": first, **end, "protocol": "TCP"}


def _namespaces(label: str) -> Obj:
    return {"namespaceSelector": {"matchLabels": {label: "true"}}}
