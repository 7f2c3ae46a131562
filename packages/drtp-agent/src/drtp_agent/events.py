"""What an agent tells its user: one frozen object per thing that happened.

Rules:
- The dict forms (:func:`to_dict`) are a contract with scripts that read ``-o json``; fields are added, never renamed.
- An event says what is true now, for people and programs alike; how it is shown is the command's affair.

What must not live here: deciding that something happened.
"""

from __future__ import annotations

from typing import Any, Self

import attrs

from drtp_api.errors import DrtpError
from drtp_api.resources import Address
from drtp_api.wire import to_wire

__all__ = [
    "AgentEvent", "ConnectedServer", "ErrorOccurred", "TunnelDegraded", "TunnelProgress", "TunnelReady",
    "TunnelRecovered", "TunnelStopped", "to_dict",
]  # fmt: skip


@attrs.frozen(kw_only=True)
class ConnectedServer:
    """A server whose tunnel is up."""

    name: str
    city: str
    transport: str
    rtt_milliseconds: int | None = None


@attrs.frozen(kw_only=True)
class TunnelProgress:
    """A step on the way to ready. ``status`` is ``done`` or ``waiting``."""

    step: str
    status: str
    message: str


@attrs.frozen(kw_only=True)
class TunnelReady:
    """The service answers. ``verified``: service, tunnel, edge or gateway; how far the check went."""

    name: str
    url: str | None
    hostnames: tuple[str, ...]
    addresses: tuple[Address, ...]
    servers: tuple[ConnectedServer, ...]
    private: bool
    verified: str


@attrs.frozen(kw_only=True)
class TunnelDegraded:
    """Fewer servers are connected than were assigned; the service is still reachable unless none is left."""

    servers: tuple[ConnectedServer, ...]
    missing: tuple[str, ...]


@attrs.frozen(kw_only=True)
class TunnelRecovered:
    """All assigned servers are connected again."""

    servers: tuple[ConnectedServer, ...]


@attrs.frozen(kw_only=True)
class ErrorOccurred:
    """Something went wrong that the user can know of; the agent goes on unless ``tunnel_stopped`` follows."""

    code: str
    message: str
    hint: str
    retryable: bool = False

    @classmethod
    def of(cls, error: DrtpError) -> Self:
        """Return the event of a coded error."""
        return cls(code=error.code, message=error.message, hint=error.hint, retryable=error.retryable)


@attrs.frozen(kw_only=True)
class TunnelStopped:
    """The end. ``reason``: stopped, superseded, revoked, failed or command."""

    reason: str


AgentEvent = (
    TunnelProgress | TunnelReady | TunnelDegraded | TunnelRecovered | ErrorOccurred | TunnelStopped
)  # fmt: skip

_TYPES: dict[type[Any], str] = {
    TunnelProgress: "tunnel_progress",
    TunnelReady: "tunnel_ready",
    TunnelDegraded: "tunnel_degraded",
    TunnelRecovered: "tunnel_recovered",
    ErrorOccurred: "error",
    TunnelStopped: "tunnel_stopped",
}


def to_dict(event: AgentEvent) -> dict[str, Any]:
    """Return the JSON form: ``type`` and every field in camelCase, also where it is empty."""
    wire = to_wire(event)
    form: dict[str, Any] = {"type": _TYPES[type(event)]}
    for field in attrs.fields(type(event)):
        value = getattr(event, field.name)
        form[field.name] = wire.get(field.name, [] if isinstance(value, tuple) else value)
    return form
