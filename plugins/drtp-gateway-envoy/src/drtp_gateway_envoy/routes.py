"""Envoy routes: which service a host name belongs to, who may ask it, and what is tried again.

Rules:
- Retries never repeat what a service may have acted on: a request goes to another edge when it was not sent, and, for
  GET and HEAD alone, when the connection broke before an answer.
- The port in ``Host`` is ignored for matching and left as it is: services build redirects and check origins with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from drtp_gateway_envoy.networks import Network, prefix_range
from drtp_gateway_envoy.options import ROUTES, duration, typed

__all__ = ["route_configuration", "virtual_host"]

RBAC: Final = "envoy.filters.http.rbac"
RETRY_ALWAYS: Final = "connect-failure,refused-stream,reset-before-request"
UNKNOWN: Final = "no such tunnel\n"


def _route(service: str, retry_on: str) -> dict[str, Any]:
    return {
        "cluster": service,
        "timeout": duration(0),
        "idle_timeout": duration(0),
        "retry_policy": {
            "retry_on": retry_on,
            "num_retries": 2,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
                }
            ],
            "host_selection_retry_max_attempts": 3,
            "retry_back_off": {"base_interval": duration(0.01), "max_interval": duration(0.1)},
        },
    }


def _access(allow: tuple[Network, ...]) -> dict[str, Any]:
    principals = [{"remote_ip": prefix_range(network)} for network in allow]
    # ALLOW without a policy admits nobody.
    policies = {"allow": {"permissions": [{"any": True}], "principals": principals}} if principals else {}
    return typed(
        "extensions.filters.http.rbac.v3.RBACPerRoute", rbac={"rules": {"action": "ALLOW", "policies": policies}}
    )


def virtual_host(service: str, hostnames: tuple[str, ...], allow: tuple[Network, ...] | None) -> dict[str, Any]:
    """Return the virtual host of one service; ``allow`` ``None`` admits everybody, an empty tuple nobody."""
    safe_method = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
    host: dict[str, Any] = {
        "name": service,
        "domains": list(hostnames),
        "routes": [
            {"match": {"prefix": "/", "headers": [safe_method]}, "route": _route(service, f"{RETRY_ALWAYS},reset")},
            {"match": {"prefix": "/"}, "route": _route(service, RETRY_ALWAYS)},
        ],
    }
    if allow is not None:
        host["typed_per_filter_config"] = {RBAC: _access(allow)}
    return host


def route_configuration(hosts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the one route configuration: every virtual host, and an answer for unknown names."""
    unknown = {
        "name": "unknown",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": {"inline_string": UNKNOWN}}}],
    }
    return typed(
        "config.route.v3.RouteConfiguration",
        name=ROUTES,
        virtual_hosts=[*hosts, unknown],
        ignore_port_in_host_matching=True,
        validate_clusters=False,
        # A visitor's own claim of where it comes from is replaced: nothing in front of this gateway is trusted.
        request_headers_to_add=[
            {
                "header": {"key": "x-forwarded-for", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
        request_headers_to_remove=["x-envoy-external-address", "x-envoy-internal"],
    )
