"""DRTP gateway programmer for a local Envoy, driven by files.

Rules:
- ``render`` and ``judge`` decide and are pure; ``publish``, ``admin``, ``process`` and ``gateway`` act.
- Visitors' connections that an edit does not concern survive it.
"""

from __future__ import annotations

from drtp_api.gateways import GatewayFactory
from drtp_api.hooks import hookimpl
from drtp_api.registry import Registry

__all__ = ["drtp_register_gateways"]


@hookimpl
def drtp_register_gateways(registry: Registry[GatewayFactory]) -> None:
    """Register the gateway ``envoy``."""
    # Late: `drtp plugins list` shall not import an HTTP client.
    from drtp_gateway_envoy.gateway import EnvoyFactory

    registry.register("envoy", EnvoyFactory())
