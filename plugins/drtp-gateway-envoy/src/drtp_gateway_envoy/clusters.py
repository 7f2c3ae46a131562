"""Envoy clusters and endpoints: where visitors of a service are sent, and how dead edges are found out.

Rules:
- Endpoints stand in the cluster itself. Endpoints in a file of their own for each service (EDS) cost Envoy an inotify
  instance each, and with the 129th, the common limit of a user, it aborts. A changed cluster is swapped when its first
  health checks are done, and connections made through the old one live on.
- An edge that is not ready is left out: when it comes back Envoy checks it at once, while a listed one waits its turn.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from drtp_api.gateways import Backend
from drtp_api.resources import Protocol
from drtp_gateway_envoy.options import EnvoyOptions, duration, typed

__all__ = ["TLV_SERVICE", "TLV_UNIQUE_ID", "cluster"]

TLV_UNIQUE_ID: Final = 0x05
"""PROXY v2 ``PP2_TYPE_UNIQUE_ID``: the gateway's id of the visitor's connection."""
TLV_SERVICE: Final = 0xE0
"""PROXY v2 custom type: the service key, so that an edge can refuse visitors meant for another service's port."""

MANY: Final = 1_000_000
"""Envoy's circuit breakers default to 1,024 connections and 3 retries a service; limits are the edge's business."""
KEEP_ALIVE: Final = 4.0
"""Seconds an idle HTTP connection is kept: below the 5 s of common servers, so that ours ends first and no request
meets a closing connection. PROXY v2 ties a connection to one visitor, who may be gone, so longer would pile them up."""


def _health_check(options: EnvoyOptions) -> dict[str, Any]:
    interval = duration(options.health_check_interval)
    return {
        # A new cluster is used when each backend was checked once: one that swallows must not hold it up for long.
        "timeout": duration(options.connect_timeout),
        "interval": interval,
        # Envoy asks a cluster without traffic once a minute by default: the first visitor after a fault would find it.
        "no_traffic_interval": interval,
        "no_traffic_healthy_interval": interval,
        "unhealthy_interval": duration(options.health_check_interval / 4),
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "tcp_health_check": {},
    }


def _outlier_detection(protocol: Protocol) -> dict[str, Any]:
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 1,
        "enforcing_consecutive_local_origin_failure": 100,
        "interval": "1s",
        "base_ejection_time": "5s",
        "max_ejection_time": "5s",
        # For HTTP, Envoy takes a reset by the local service for a failure of the edge: were all edges ejected for
        # it, one crash of the service would take the tunnel offline. For TCP only failed connects count.
        "max_ejection_percent": 50 if protocol is Protocol.HTTP else 100,
        # What the service answers says nothing of the edge.
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_failure_percentage": 0,
        "enforcing_failure_percentage_local_origin": 0,
    }


def _proxy_v2(service: str, run_id: str) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.upstream_proxy_protocol",
        "typed_config": typed(
            "extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
            config={
                "version": "V2",
                "added_tlvs": [
                    {
                        "type": TLV_UNIQUE_ID,
                        "format_string": {"text_format_source": {"inline_string": f"{run_id}-%CONNECTION_ID%"}},
                    },
                    {"type": TLV_SERVICE, "value": base64.b64encode(service.encode()).decode()},
                ],
            },
            transport_socket={
                "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": typed("extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
            },
        ),
    }


def cluster(
    name: str,
    service: str,
    protocol: Protocol,
    backends: Sequence[Backend],
    *,
    run_id: str,
    options: EnvoyOptions,
    refuser: int | None = None,
) -> dict[str, Any]:
    """Return the cluster of one exposure of a service with its ready backends.

    ``refuser`` is a port on loopback that stands in for them where a TCP service has none.

    Raises:
        ValueError: A backend's address is not an IP address.
    """
    if refuser is not None and protocol is Protocol.TCP and not any(b.ready for b in backends):
        backends = (Backend(address="127.0.0.1", port=refuser),)
    thresholds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), MANY)
    message: dict[str, Any] = typed(
        "config.cluster.v3.Cluster",
        name=name,
        type="STATIC",
        connect_timeout=duration(options.connect_timeout),
        load_assignment={"cluster_name": name, "endpoints": _endpoints(backends, protocol)},
        common_lb_config={"healthy_panic_threshold": {"value": 0}},
        circuit_breakers={"thresholds": [thresholds]},
    )
    if protocol is Protocol.UDP:
        return message
    message |= {
        "health_checks": [_health_check(options)],
        "outlier_detection": _outlier_detection(protocol),
        "transport_socket": _proxy_v2(service, run_id),
        "per_connection_buffer_limit_bytes": 262_144,
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 15, "keepalive_interval": 5}
        },
    }
    if protocol is Protocol.HTTP:
        message["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http_protocol_options": {}},
                common_http_protocol_options={"idle_timeout": duration(KEEP_ALIVE)},
            )
        }
    return message


def _endpoints(backends: Sequence[Backend], protocol: Protocol) -> list[dict[str, Any]]:
    ready = sorted({b for b in backends if b.ready}, key=lambda b: (b.priority, b.address, b.port))
    localities = []
    # Priorities must be 0, 1, 2 without a gap, also when every backend of one is away.
    for rank, priority in enumerate(sorted({b.priority for b in ready})):
        hosts = [_host(b, protocol) for b in ready if b.priority == priority]
        localities.append({"priority": rank, "locality": {"zone": f"p{rank}"}, "lb_endpoints": hosts})
    return localities


def _host(backend: Backend, protocol: Protocol) -> dict[str, Any]:
    socket_address = {
        "protocol": "UDP" if protocol is Protocol.UDP else "TCP",
        "address": str(ipaddress.ip_address(backend.address)),
        "port_value": backend.port,
    }
    return {"endpoint": {"address": {"socket_address": socket_address}}}
