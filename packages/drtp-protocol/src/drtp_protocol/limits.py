"""Every number that bounds a connection, with the reason for its value.

Rules: `Limits` is what the two ends exchange (18 bytes on the wire) and is immutable once in force; `Tuning` is one
end's own affair and never sent. The limits in force are the smaller of both ends' in every field.
What must not be here: enforcement. The modules that hold the state enforce.
"""

from __future__ import annotations

import struct
from typing import Final

import attrs

from .errors import InvalidMetadata, RemoteProtocolError

__all__ = [
    "HANDSHAKE_FRAME_SIZE",
    "HARD_MAX_FRAME",
    "LAST_STREAM_ID",
    "OPEN_METADATA_SIZE",
    "Limits",
    "Tuning",
]

HARD_MAX_FRAME: Final = 262_144
"""The largest frame that may be negotiated: a larger one gains nothing and costs neighbours their latency."""

HANDSHAKE_FRAME_SIZE: Final = 8_192
"""Payload bound of HELLO, CHALLENGE, AUTH and WELCOME: a 4 KiB credential and its company fit."""

OPEN_METADATA_SIZE: Final = 4_096
"""Payload bound of OPEN. One frame, no continuation: an unbounded header block is a known class of attacks."""

LAST_STREAM_ID: Final = 2**31 - 2**16
"""Opening this id or a later one starts a drain, so that a long-lived tunnel reconnects before ids run out."""

_WIRE = struct.Struct(">IIHHHHH")


@attrs.frozen(kw_only=True)
class Limits:
    """What one end accepts, in bytes, counts and whole seconds; exchanged in the handshake.

    Attributes:
        base_window: Bytes a stream may send before any WINDOW. 64 KiB: an idle stream commits little memory.
        max_frame: Payload bound of DATA and DATAGRAM. 64 KiB is the knee of the throughput curve.
        max_streams: Streams and flows that may be open at once. A connection pool or a crowd must fit.
        max_pending_opens: Streams that may wait for ACCEPT; the opener queues beyond it.
        max_datagram: The largest datagram; larger ones are dropped and counted.
        idle_timeout: Seconds without traffic after which a stream is reset; 0 never (databases keep idle pools).

    Floors against a peer that asks for tiny frames or windows are in :class:`Tuning`, so that tests may lower them.
    """

    base_window: int = 65_536
    max_frame: int = 65_536
    max_streams: int = 4_096
    max_pending_opens: int = 256
    max_datagram: int = 65_507
    idle_timeout: int = 0

    def __attrs_post_init__(self) -> None:
        """Refuse values that the wire cannot carry or that would allow nothing at all."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidMetadata(f"limit {name}: {value} is outside {low}..{high}")

    def intersect(self, peer: Limits) -> Limits:
        """Return the limits in force between this end and `peer`: the smaller of each; an idle timeout of 0 yields."""
        mine, theirs = self.idle_timeout, peer.idle_timeout
        return Limits(
            base_window=min(self.base_window, peer.base_window),
            max_frame=min(self.max_frame, peer.max_frame),
            max_streams=min(self.max_streams, peer.max_streams),
            max_pending_opens=min(self.max_pending_opens, peer.max_pending_opens),
            max_datagram=min(self.max_datagram, peer.max_datagram),
            idle_timeout=min(mine, theirs) if mine and theirs else mine or theirs,
        )

    def encode(self) -> bytes:
        """Return the 18 bytes of the wire."""
        return _WIRE.pack(
            self.base_window,
            self.max_frame,
            self.max_streams,
            self.max_pending_opens,
            self.max_datagram,
            self.idle_timeout,
            0,
        )

    @classmethod
    def decode(cls, data: bytes) -> Limits:
        """Read the 18 bytes of the wire.

        Raises:
            RemoteProtocolError: wrong size, a set reserved field, or a value out of range.
        """
        if len(data) != _WIRE.size:
            raise RemoteProtocolError(f"limits of {len(data)} bytes, expected {_WIRE.size}")
        window, frame, streams, pending, datagram, idle, reserved = _WIRE.unpack(data)
        if reserved:
            raise RemoteProtocolError(f"limits: reserved field is {reserved}, expected 0")
        try:
            return cls(
                base_window=window,
                max_frame=frame,
                max_streams=streams,
                max_pending_opens=pending,
                max_datagram=datagram,
                idle_timeout=idle,
            )
        except InvalidMetadata as error:
            raise RemoteProtocolError(str(error)) from None


_RANGES: Final = (
    ("base_window", 1, 2**31),
    ("max_frame", 1, HARD_MAX_FRAME),
    ("max_streams", 1, 0xFFFF),
    ("max_pending_opens", 1, 0xFFFF),
    ("max_datagram", 0, 65_507),
    ("idle_timeout", 0, 0xFFFF),
)


@attrs.frozen(kw_only=True)
class Tuning:
    """What one end decides alone. Sizes in bytes, times in seconds.

    Attributes:
        frame_floor: A peer that announces smaller frames is refused: tiny frames cost the sender, not the asker.
        window_floor: The same for windows.
        max_window: How far auto-tuning may widen one stream: 16 MiB fills 1 Gbit/s at 130 ms.
        growth_pool: What the widened windows of one connection may add up to, beyond their base windows.
        send_buffer: Bytes of `send_data` held for one stream; where a shell pauses its reader.
        control_queue: Control frames not yet fetched: OPENs beyond it are refused locally, replies beyond it end the
            connection, because a peer that provokes replies without reading them is a flood.
        datagram_queue: Datagrams waiting for one flow; beyond it the oldest go, since fresh beats stale.
        datagram_total: The same over all flows.
        flow_idle: A UDP flow has no end of its own; without traffic for this long it is reset. 0 never.
        handshake_timeout: From the first byte expected to an authenticated connection.
        handshake_bytes: What an unauthenticated peer may send in total: 16 KiB cost nobody anything.
        keepalive: Silence after which a PING is sent (plus or minus 20 %, fixed by the nonce).
        dead_after: Silence after which the path is dead: a broken path is noticed in 10 s.
        rtt_interval: A PING is sent at least this often on a busy connection too: auto-tuning needs the RTT.
        stall: Bytes waiting without credit for this long: the reader is gone or an attacker (slow-read).
        linger: A half-closed stream without traffic is reset after this; yamux calls it StreamCloseTimeout.
        reap_interval: How often stall, linger and idle are looked at; they are late by at most this.
        expiry_drain: What streams get to finish in when the lease ends.
        exhaustion_drain: The same when stream ids run out.
        calm_burst: Tokens of the calm bucket (edge only); what costs how many is in :mod:`drtp_protocol.calm`.
        calm_refill: Tokens a second that come back.
    """

    frame_floor: int = 1_024
    window_floor: int = 1_024
    max_window: int = 16 * 1024 * 1024
    growth_pool: int = 64 * 1024 * 1024
    send_buffer: int = 256 * 1024
    control_queue: int = 64 * 1024
    datagram_queue: int = 64 * 1024
    datagram_total: int = 1024 * 1024
    flow_idle: float = 120.0
    handshake_timeout: float = 10.0
    handshake_bytes: int = 16 * 1024
    keepalive: float = 5.0
    dead_after: float = 10.0
    rtt_interval: float = 15.0
    stall: float = 120.0
    linger: float = 300.0
    reap_interval: float = 5.0
    expiry_drain: float = 30.0
    exhaustion_drain: float = 300.0
    calm_burst: float = 1_000.0
    calm_refill: float = 200.0
