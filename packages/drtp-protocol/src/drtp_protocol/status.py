"""Values for asking a connection how it is: role, peer, counters.

Rules: snapshots, frozen; asking changes nothing.
What must not be here: anything that the protocol itself needs to decide.
"""

from __future__ import annotations

import enum

import attrs

from .handshake import Capability, Challenge, Hello

__all__ = ["PeerInfo", "Role", "Stats"]


class Role(enum.Enum):
    """Which end of the tunnel this is."""

    AGENT = "agent"
    EDGE = "edge"


@attrs.frozen(kw_only=True)
class PeerInfo:
    """Who is at the other end, by its own words; authenticated once the connection is established.

    Attributes:
        name: The edge's id, or the agent's software.
        capabilities: What the peer announced.
        hello: The agent's HELLO, at the edge.
        challenge: The edge's last CHALLENGE, at the agent.
    """

    name: str
    capabilities: Capability
    hello: Hello | None = None
    challenge: Challenge | None = None


@attrs.frozen(kw_only=True)
class Stats:
    """Counters since the connection began, and what is open now. Sizes in bytes of payload."""

    data_sent: int
    data_received: int
    streams: int
    streams_opened: int
    streams_offered: int
    streams_refused: int
    late_frames: int
    datagrams_sent: int
    datagrams_received: int
    datagrams_dropped: int
    window_promised: int
    delivery_rate: float
    frame_size: int
