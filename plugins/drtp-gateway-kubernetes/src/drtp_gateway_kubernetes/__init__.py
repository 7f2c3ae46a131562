"""DRTP gateway programmer for clusters that have a gateway implementation, Envoy Gateway above all.

Rules:
- Nothing is programmed here: the controller writes Gateway API objects and this plugin's policies, the implementation
  programs its data plane from them, and what it writes into their status is believed and nothing else.
"""

from __future__ import annotations

from drtp_api.gateways import GatewayFactory
from drtp_api.hooks import hookimpl
from drtp_api.registry import Registry
from drtp_gateway_kubernetes.gateway import KubernetesFactory

__all__ = ["drtp_register_gateways"]


@hookimpl
def drtp_register_gateways(registry: Registry[GatewayFactory]) -> None:
    """Register the gateway ``kubernetes``."""
    registry.register("kubernetes", KubernetesFactory())
