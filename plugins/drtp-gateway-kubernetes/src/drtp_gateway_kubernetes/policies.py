"""Envoy Gateway's policies for one exposure: who may come, and how visitors' addresses reach the edge.

Rules:
- A SecurityPolicy always has ``spec.authorization``: one without it, on a TCPRoute, crashed Envoy Gateway before
  1.7.4 and 1.8.1 (CVE-2026-53719).
- Long allow-lists are cut into rules; the first that matches admits, so that the cuts change nothing.
- UDP has neither: no policy of Envoy Gateway targets a UDPRoute's visitors, and PROXY protocol needs a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from drtp_api.gateways import Exposure
from drtp_api.kube import GATEWAY_GROUP, Key, Obj, Resource
from drtp_api.resources import Protocol

__all__ = ["BACKEND_TRAFFIC_POLICIES", "ENVOY_GROUP", "SECURITY_POLICIES", "plan_policies"]

ENVOY_GROUP: Final = "gateway.envoyproxy.io"
SECURITY_POLICIES: Final = Resource(ENVOY_GROUP, "v1alpha1", "securitypolicies", "SecurityPolicy")
BACKEND_TRAFFIC_POLICIES: Final = Resource(ENVOY_GROUP, "v1alpha1", "backendtrafficpolicies", "BackendTrafficPolicy")


def plan_policies(
    exposure: Exposure, route: Resource, target: Key, *, cidrs_per_rule: int
) -> list[tuple[Resource, Obj]]:
    """Return the policies of an exposure, without owners."""
    if exposure.protocol is Protocol.UDP:
        return []
    made = [(BACKEND_TRAFFIC_POLICIES, _policy(BACKEND_TRAFFIC_POLICIES, target, route, _traffic()))]
    if exposure.allow is not None:
        spec = {"authorization": _authorization(exposure.allow, cidrs_per_rule)}
        made.append((SECURITY_POLICIES, _policy(SECURITY_POLICIES, target, route, spec)))
    return made


def _policy(resource: Resource, target: Key, route: Resource, spec: dict[str, Any]) -> Obj:
    reference = {"group": GATEWAY_GROUP, "kind": route.kind, "name": target.name}
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": target.name, "namespace": target.namespace},
        "spec": {"targetRefs": [reference], **spec},
    }


def _traffic() -> dict[str, Any]:
    return {
        "proxyProtocol": {"version": "V2"},
        # both edges carry the service at once: with Envoy's panic threshold half of the visitors would go on to a dead
        # one; an edge counts as dead after two seconds
        "healthCheck": {
            "panicThreshold": 0,
            "active": {
                "type": "TCP",
                "tcp": {},
                "interval": "1s",
                "timeout": "1s",
                "unhealthyThreshold": 2,
                "healthyThreshold": 1,
            },
        },
    }


def _authorization(allow: Sequence[str], size: int) -> dict[str, Any]:
    cuts = [list(allow[i : i + size]) for i in range(0, len(allow), size)]
    rules = [
        {"name": f"allow-{number}", "action": "Allow", "principal": {"clientCIDRs": cut}}
        for number, cut in enumerate(cuts)
    ]
    return {"defaultAction": "Deny", "rules": rules}
