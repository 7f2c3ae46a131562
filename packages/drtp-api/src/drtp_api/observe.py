"""Events that observers may tap: what happened to visitors and tunnels, as values.

Rules:
- An observer never changes what happens; one that raises is counted and named, never propagated.
"""

from __future__ import annotations

import attrs

__all__ = ["ObservedEvent", "TunnelDown", "TunnelUp", "VisitorClosed", "VisitorDenied"]


@attrs.frozen(kw_only=True)
class TunnelUp:
    """An agent's tunnel was established."""

    service: str
    server: str
    instance_id: str
    transport: str


@attrs.frozen(kw_only=True)
class TunnelDown:
    """An agent's tunnel ended."""

    service: str
    server: str
    instance_id: str
    reason: str


@attrs.frozen(kw_only=True)
class VisitorDenied:
    """A visitor was refused by an access rule."""

    service: str
    source: str
    rule: str


@attrs.frozen(kw_only=True)
class VisitorClosed:
    """A visitor's connection ended. Sizes in bytes as the visitor sees them, duration in seconds."""

    service: str
    connection_id: str
    source: str
    rule: str
    bytes_in: int
    bytes_out: int
    duration: float
    closed_by: str
    code: str


ObservedEvent = TunnelUp | TunnelDown | VisitorDenied | VisitorClosed
