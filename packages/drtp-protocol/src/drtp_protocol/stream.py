"""One stream or flow: its state, its two limits, what waits to be sent.

Rules: a stream is moved only through the table; `can_receive` and `can_send` follow from its state and are kept as
plain booleans because every DATA frame asks for them; a closed stream keeps nothing alive.
What must not be here: the connection, frames, events.
"""

from __future__ import annotations

from collections import deque

import attrs

from .metadata import Protocol
from .states import STREAM_TRANSITIONS, StreamInput, StreamState

__all__ = ["Stream", "StreamInfo"]

_RECEIVING = frozenset({StreamState.OFFERED, StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL})
_SENDING = frozenset({StreamState.OPENING, StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE})


@attrs.frozen(kw_only=True)
class StreamInfo:
    """A snapshot of one stream for humans and metrics. Sizes in bytes."""

    stream_id: int
    protocol: Protocol
    state: StreamState
    local: bool
    sent: int
    send_limit: int
    received: int
    receive_limit: int
    consumed: int
    window: int
    queued: int


class Stream:
    """The mutable state of one stream.

    Attributes:
        stream_id: Its id.
        is_flow: Whether it carries datagrams.
        local: Whether this end opened it.
        state: Where it is in the table.
        can_receive: Whether DATA may come.
        can_send: Whether DATA may go.
        received: Bytes announced by the headers of DATA frames.
        consumed: Bytes acknowledged by the shell.
        recv_limit: What the peer may send in total.
        update_at: The next WINDOW is due when `consumed` reaches this.
        window: Present width.
        granted_at: When the last credit was given.
        sent: Bytes handed out in DATA frames.
        send_limit: What the peer takes in total.
        wanted: The shell has bytes to be pulled.
        pulling: In the pull ring.
        pushing: In the push ring.
        queue: Bytes of `send_data`, or datagrams.
        queued: Their size.
        fin_queued: FIN follows the queue.
        starved: `send_capacity` was 0 and StreamWritable is owed.
        carry: Bytes of an unfinished turn, whose frame was cut to what a call of `data_to_send` may return.
        burst: Bytes sent since `burst_since`, which decides the lane.
        burst_since: When the count began.
        active: When a byte last moved either way.
        stalled_since: Since when bytes wait without credit; -1.0 if they do not.
    """

    __slots__ = (
        "active",
        "burst",
        "burst_since",
        "can_receive",
        "can_send",
        "carry",
        "consumed",
        "fin_queued",
        "granted_at",
        "is_flow",
        "local",
        "pulling",
        "pushing",
        "queue",
        "queued",
        "received",
        "recv_limit",
        "send_limit",
        "sent",
        "stalled_since",
        "starved",
        "state",
        "stream_id",
        "update_at",
        "wanted",
        "window",
    )

    def __init__(self, stream_id: int, protocol: Protocol, window: int, *, local: bool, now: float) -> None:
        self.stream_id = stream_id
        self.is_flow = protocol is Protocol.UDP
        self.local = local
        self.state = StreamState.IDLE
        self.received = self.consumed = self.sent = 0
        self.window = self.recv_limit = self.send_limit = window
        self.update_at = window - window // 2
        self.granted_at = self.burst_since = self.active = now
        self.wanted = self.pulling = self.pushing = self.fin_queued = self.starved = False
        self.queue: deque[memoryview] | None = None  # most streams are pulled and never need one
        self.queued = 0
        self.burst = self.carry = 0
        self.stalled_since = -1.0
        self.move(StreamInput.SEND_OPEN if local else StreamInput.RECV_OPEN)

    def move(self, moved: StreamInput) -> bool:
        """Follow the table; False, and nothing changed, if it has no such transition."""
        state = STREAM_TRANSITIONS.get((self.state, moved))
        if state is None:
            return False
        self.state = state
        self.can_receive = state in _RECEIVING and not self.is_flow
        self.can_send = state in _SENDING
        return True

    def allows(self, moved: StreamInput) -> bool:
        """Whether the table has the transition."""
        return (self.state, moved) in STREAM_TRANSITIONS

    @property
    def pending(self) -> bool:
        """Whether ACCEPT is awaited."""
        return self.state in _PENDING

    def discard(self) -> None:
        """Forget everything that waited; the rings drop the stream when they meet it."""
        self.wanted = self.fin_queued = self.starved = self.can_receive = self.can_send = False
        self.queue = None
        self.queued = 0

    def info(self) -> StreamInfo:
        """Return a snapshot."""
        return StreamInfo(
            stream_id=self.stream_id,
            protocol=Protocol.UDP if self.is_flow else Protocol.TCP,
            state=self.state,
            local=self.local,
            sent=self.sent,
            send_limit=self.send_limit,
            received=self.received,
            receive_limit=self.recv_limit,
            consumed=self.consumed,
            window=self.window,
            queued=self.queued,
        )


_PENDING = frozenset({StreamState.OPENING, StreamState.OPENING_FIN, StreamState.OFFERED, StreamState.OFFERED_FIN})
