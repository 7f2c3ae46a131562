"""Envoy listeners: the shared one for HTTP, and one per vended TCP or UDP port.

Rules:
- A TCP allow-list is a filter chain match: a visitor that matches no chain is closed at accept. Never the network RBAC
  filter: it decides at the visitor's first byte, when the service's greeting may have been sent to it already.
- ``enable_reuse_port`` is off, so that a port that anybody else has is an error and not a shared port.
- Nothing is cut for being idle: dead visitors are found by TCP keep-alive.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from drtp_gateway_envoy.networks import NOBODY, Network, group, prefix_range
from drtp_gateway_envoy.options import HTTP_LISTENER, ROUTES, duration, typed

__all__ = ["http_listener", "listener_name", "tcp_listener", "udp_listener"]

TUNNEL_NOT_ONLINE: Final = "tunnel not online\n"
SERVICE_FAILED: Final = "the local service closed the connection without an answer\n"

# Level, name, value of setsockopt on Linux: SO_KEEPALIVE; TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT. Accepted
# sockets inherit them.
_KEEPALIVE: Final = ((1, 9, 1), (6, 4, 30), (6, 5, 10), (6, 6, 3))


def listener_name(protocol: str, port: int) -> str:
    """Return the name of the listener of one public port."""
    return f"{protocol.lower()}-{port}"


def _listener(name: str, host: str, port: int, protocol: str, **fields: Any) -> dict[str, Any]:
    address: dict[str, Any] = {"address": host, "port_value": port, "protocol": protocol}
    if host == "::":
        address["ipv4_compat"] = True
    return typed("config.listener.v3.Listener", name=name, address={"socket_address": address}, **fields)


def _tcp(name: str, host: str, port: int, chains: list[dict[str, Any]]) -> dict[str, Any]:
    options = [
        {"level": level, "name": option, "int_value": value, "state": "STATE_PREBIND"}
        for level, option, value in (_KEEPALIVE if sys.platform == "linux" else ())
    ]
    return _listener(
        name, host, port, "TCP", filter_chains=chains, enable_reuse_port=False, socket_options=options,
        per_connection_buffer_limit_bytes=262_144,
    )  # fmt: skip


def tcp_listener(host: str, port: int, service: str, allow: tuple[Network, ...] | None) -> dict[str, Any]:
    """Return the listener of a TCP service; ``allow`` ``None`` admits everybody, an empty tuple nobody."""
    proxy = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": typed(
            "extensions.filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix=service,
            cluster=service,
            max_connect_attempts=3,
            idle_timeout=duration(0),
        ),
    }
    if allow is None:
        chains: list[dict[str, Any]] = [{"name": "everybody", "filters": [proxy]}]
    else:
        groups = group(allow) or {"nobody": (NOBODY,)}
        chains = [
            {
                "name": name,
                "filter_chain_match": {"source_prefix_ranges": [prefix_range(n) for n in networks]},
                "filters": [proxy],
            }
            for name, networks in groups.items()
        ]
    return _tcp(listener_name("TCP", port), host, port, chains)


def udp_listener(host: str, port: int, service: str, allow: tuple[Network, ...] | None) -> dict[str, Any]:
    """Return the listener of a UDP service; packets from elsewhere than ``allow`` are dropped without an answer."""
    route = {
        "action": {
            "name": "route",
            "typed_config": typed("extensions.filters.udp.udp_proxy.v3.Route", cluster=service),
        }
    }
    matcher: dict[str, Any]
    if allow is None:
        matcher = {"on_no_match": route}
    else:
        ranges = [prefix_range(n) for n in allow] or [prefix_range(NOBODY)]
        matcher = {
            "matcher_tree": {
                "input": {
                    "name": "source",
                    "typed_config": typed("extensions.matching.common_inputs.network.v3.SourceIPInput"),
                },
                "custom_match": {
                    "name": "networks",
                    "typed_config": {
                        "@type": "type.googleapis.com/xds.type.matcher.v3.IPMatcher",
                        "range_matchers": [{"ranges": ranges, "on_match": route}],
                    },
                },
            }
        }
    proxy = {
        "name": "envoy.filters.udp_listener.udp_proxy",
        "typed_config": typed(
            "extensions.filters.udp.udp_proxy.v3.UdpProxyConfig", stat_prefix=service, matcher=matcher,
            idle_timeout=duration(60),
        ),
    }  # fmt: skip
    return _listener(
        listener_name("UDP", port), host, port, "UDP", udp_listener_config={}, listener_filters=[proxy],
        enable_reuse_port=False,
    )  # fmt: skip


def http_listener(host: str, port: int, routes_path: str) -> dict[str, Any]:
    """Return the listener of every HTTP service; its routes are read from ``routes_path``."""
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=HTTP_LISTENER,
        codec_type="AUTO",
        rds={
            "route_config_name": ROUTES,
            "config_source": {"resource_api_version": "V3", "path_config_source": {"path": routes_path}},
        },
        http_filters=[
            {"name": "envoy.filters.http.rbac", "typed_config": typed("extensions.filters.http.rbac.v3.RBAC")},
            {
                "name": "envoy.filters.http.router",
                "typed_config": typed("extensions.filters.http.router.v3.Router", suppress_envoy_headers=True),
            },
        ],
        use_remote_address=True,
        # No visitor is ours for coming from a private address: it may not steer retries and timeouts by headers.
        internal_address_config={},
        strip_trailing_host_dot=True,
        server_header_transformation="PASS_THROUGH",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        http_protocol_options={"accept_http_10": True, "default_host_for_http_10": "unknown", "enable_trailers": True},
        # Streams, server-sent events and long uploads have no end that we could know; a slow header has.
        stream_idle_timeout=duration(0),
        request_timeout=duration(0),
        request_headers_timeout=duration(30),
        # How long an answer of our own lingers so that it is read before the connection goes; a second by default.
        delayed_close_timeout=duration(0.1),
        common_http_protocol_options={"idle_timeout": duration(300)},
        local_reply_config={"mappers": [
            _local_reply(("UH", "UF", "NC", "UO"), 503, TUNNEL_NOT_ONLINE),
            _local_reply(("UC", "UR", "UPE"), 502, SERVICE_FAILED),
        ]},
    )  # fmt: skip
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return _tcp(HTTP_LISTENER, host, port, [chain])


def _local_reply(flags: tuple[str, ...], status: int, text: str) -> dict[str, Any]:
    return {
        "filter": {"response_flag_filter": {"flags": list(flags)}},
        "status_code": status,
        "body": {"inline_string": text},
    }
