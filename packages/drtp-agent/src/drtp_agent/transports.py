"""The transports of this agent, loaded when a server offers them: start-up pays for what is used.

Rules:
- The entry point of a transport plugin is tried by the transport's name first; only where that finds nothing is
  everything loaded.
- A missing transport is no fault by itself: another endpoint may do.

What must not live here: choosing between endpoints.
"""

from __future__ import annotations

import attrs

from drtp_api.errors import DrtpError
from drtp_api.plugins import load_plugins
from drtp_api.transports import Transport

__all__ = ["Transports"]


@attrs.define
class Transports:
    """Transports by registered name."""

    _made: dict[str, Transport | None] = attrs.field(factory=dict)

    def get(self, name: str) -> Transport | None:
        """Return the transport, ``None`` where no plugin provides it."""
        if name not in self._made:
            self._made[name] = self._load(name)
        return self._made[name]

    def require(self, name: str) -> Transport:
        """Return the transport.

        Raises:
            DrtpError: DRTP-6001; no plugin provides it.
        """
        transport = self.get(name)
        if transport is None:
            raise DrtpError("DRTP-6001", f"no plugin provides the transport {name!r}")
        return transport

    @staticmethod
    def _load(name: str) -> Transport | None:
        for only in ({name}, None):
            registry = load_plugins(only=only).transports
            if any(entry.name == name for entry in registry):
                made: Transport = registry.create(name)
                return made
        return None
