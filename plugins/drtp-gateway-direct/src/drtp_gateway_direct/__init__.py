"""DRTP gateway programmer that uses the listeners of the edge itself.

Rules:
- No process and no port of its own: the edge listens, the plugin says what is reachable and where.
"""

from __future__ import annotations

from drtp_api.gateways import GatewayFactory
from drtp_api.hooks import hookimpl
from drtp_api.registry import Registry
from drtp_gateway_direct.gateway import DirectFactory

__all__ = ["drtp_register_gateways"]


@hookimpl
def drtp_register_gateways(registry: Registry[GatewayFactory]) -> None:
    """Register the gateway ``direct``."""
    registry.register("direct", DirectFactory())
