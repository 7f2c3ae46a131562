"""The supervisor's language: what it hears and what it commands.

Rules:
- Occurrences are past participles, commands are imperatives; all are frozen values.
- A tunnel is a number here; its shell knows the sockets.

What must not live here: behaviour.
"""

from __future__ import annotations

import attrs

from drtp_protocol import ErrorCode

__all__ = [
    "Abort", "Command", "Connected", "Degraded", "Dial", "Drain", "Fault", "Finish", "GoingAway", "Occurrence", "Ping",
    "ReadyAnnounced", "Recovered", "Register", "Registered", "RegistrationFailed", "RenewGrants", "Started",
    "StopRequested", "TunnelDown", "TunnelUp",
]  # fmt: skip


@attrs.frozen
class Fault:
    """Tell the user of an error; the agent goes on."""

    code: str
    message: str
    hint: str


# Occurrences


@attrs.frozen
class Started:
    """The agent begins."""


@attrs.frozen
class Registered:
    """The control plane answered, to a registration or a renewal. ``expires_in`` is seconds."""

    servers: tuple[str, ...]
    expires_in: float


@attrs.frozen
class RegistrationFailed:
    """The control plane refused or did not answer."""

    code: str
    message: str
    hint: str
    retryable: bool


@attrs.frozen
class TunnelUp:
    """The handshake with a server is done."""

    tunnel: int


@attrs.frozen
class GoingAway:
    """A server announced that it goes away; the tunnel's streams may finish."""

    tunnel: int
    code: ErrorCode
    drain: float = 0.0
    retry_after: float = 0.0
    alternates: tuple[str, ...] = ()


@attrs.frozen
class TunnelDown:
    """A tunnel is over, or was never built. ``fault`` is what to tell the user, if anything."""

    tunnel: int
    code: ErrorCode | None = None
    fault: Fault | None = None


@attrs.frozen
class ReadyAnnounced:
    """The user was told that the service is ready."""


@attrs.frozen
class StopRequested:
    """The user wants to stop; streams have ``drain`` seconds."""

    drain: float


Occurrence = (
    Started
    | Registered
    | RegistrationFailed
    | TunnelUp
    | GoingAway
    | TunnelDown
    | ReadyAnnounced
    | StopRequested
)  # fmt: skip


# Commands


@attrs.frozen
class Register:
    """Register with the control plane."""


@attrs.frozen
class RenewGrants:
    """Renew the grants of the connection, and learn of other servers."""


@attrs.frozen
class Dial:
    """Build a tunnel to a server."""

    tunnel: int
    server: str


@attrs.frozen
class Connected:
    """Note that a server's tunnel serves now."""

    server: str
    tunnel: int


@attrs.frozen
class Ping:
    """Probe a tunnel at once; the core's keepalive ends it if nothing comes back."""

    tunnel: int


@attrs.frozen
class Drain:
    """Announce the end of a tunnel to its server; streams have ``drain`` seconds."""

    tunnel: int
    drain: float


@attrs.frozen
class Abort:
    """End a tunnel now; unknown numbers are ignored."""

    tunnel: int


@attrs.frozen
class Degraded:
    """Tell the user that servers are missing."""

    missing: tuple[str, ...]


@attrs.frozen
class Recovered:
    """Tell the user that all servers are connected again."""


@attrs.frozen
class Finish:
    """End the agent. ``reason``: stopped, superseded, revoked or failed; ``code`` is of the error table."""

    reason: str
    code: str | None
    message: str
    hint: str


Command = (
    Register | RenewGrants | Dial | Connected | Ping | Drain | Abort | Degraded | Recovered | Fault | Finish
)  # fmt: skip
