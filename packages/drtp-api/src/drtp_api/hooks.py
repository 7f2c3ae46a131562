"""The hooks of entry-point group ``drtp.plugins.v1``. Hooks register factories once, at start-up.

Rules:
- A hook implementation calls ``registry.register(name, factory)`` and returns nothing.
- Nothing is active because it is installed: daemons pick plugins by configured name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from drtp_api.acl import AclBackendFactory
    from drtp_api.gateways import GatewayFactory
    from drtp_api.observe import ObservedEvent
    from drtp_api.pickers import PickerFactory
    from drtp_api.registry import Registry
    from drtp_api.transports import TransportFactory

__all__ = ["GROUP", "PROJECT", "Hooks", "hookimpl", "hookspec"]

PROJECT: Final = "drtp"
GROUP: Final = "drtp.plugins.v1"
"""The entry-point group; its version is the plugin API's major version."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """The specification of every hook."""

    @hookspec
    def drtp_register_transports(self, registry: Registry[TransportFactory]) -> None:
        """Register how agent and edge get an ordered byte stream."""

    @hookspec
    def drtp_register_acl_backends(self, registry: Registry[AclBackendFactory]) -> None:
        """Register who decides which visitors may connect."""

    @hookspec
    def drtp_register_pickers(self, registry: Registry[PickerFactory]) -> None:
        """Register which servers an agent gets."""

    @hookspec
    def drtp_register_gateways(self, registry: Registry[GatewayFactory]) -> None:
        """Register how services become publicly reachable."""

    @hookspec
    def drtp_observe(self, event: ObservedEvent) -> None:
        """Take note of an event; must return at once."""
