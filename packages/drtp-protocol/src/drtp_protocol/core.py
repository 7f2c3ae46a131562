"""The state that all parts of a connection share, and the few ways in which it changes.

A connection is one object in layers, each a class of one module: `Core` (here) <- `Clock` (timers) <- `Outgoing` (what
is sent) <- `Greeting` (the handshake) <- `Incoming` (what is received) <- `Connection`. One object, because every frame
touches most of it and calls are what the hot path costs.

Rules: control bytes are complete frames, in order; there is one way to end a connection (`_terminate`) and one to
forget a stream (`_forget`), so nothing is released twice or not at all.
What must not be here: reading or making particular frames.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from .calm import CalmBucket
from .errors import ErrorCode, NoSuchStream, ProtocolError, RemoteProtocolError, WrongState
from .events import ConnectionTerminated, Event
from .flow import Budget, DeliveryRate, RttEstimate
from .frames import HEADER, MAX_GOAWAY_REASON, GoAway, serialize
from .handshake import Capability, Challenge, Hello, Transcript, Welcome
from .limits import Limits, Tuning
from .scheduler import Lanes
from .states import CONNECTION_TRANSITIONS, ConnectionInput, ConnectionState
from .status import Role
from .stream import Stream

__all__ = ["Buffer", "Core"]

Buffer: TypeAlias = bytes | bytearray | memoryview

_ESTABLISHED: Final = frozenset(
    {ConnectionState.OPEN, ConnectionState.REAUTH, ConnectionState.REWELCOME, ConnectionState.DRAINING}
)
MAY_OPEN: Final = _ESTABLISHED - {ConnectionState.DRAINING}


class Core:
    """Attributes and the changes that concern all of them. Private: use :class:`drtp_protocol.Connection`."""

    __slots__ = (
        "__weakref__",
        "_budget",
        "_calm",
        "_calm_paid",
        "_challenge",
        "_control",
        "_current",
        "_current_fin",
        "_data_received",
        "_data_sent",
        "_datagram_bytes",
        "_datagrams_dropped",
        "_datagrams_received",
        "_datagrams_sent",
        "_deadline",
        "_drain_deadline",
        "_edge_proof",
        "_established",
        "_events",
        "_goaway_last_id",
        "_goaway_received",
        "_goaway_sent",
        "_growth",
        "_handshake_bytes",
        "_handshake_deadline",
        "_hello",
        "_hello_bytes",
        "_jitter",
        "_keepalive",
        "_last_local_id",
        "_last_ping",
        "_last_received",
        "_last_remote_id",
        "_late_allowance",
        "_late_frames",
        "_lease_deadline",
        "_lease_warning",
        "_left",
        "_limits",
        "_local_count",
        "_local_pending",
        "_max_frame",
        "_need",
        "_now",
        "_partial",
        "_ping_count",
        "_ping_outstanding",
        "_provoked",
        "_pull",
        "_push",
        "_rate",
        "_reap_at",
        "_remote_count",
        "_remote_pending",
        "_report_at",
        "_ring",
        "_rtt",
        "_streams",
        "_streams_offered",
        "_streams_opened",
        "_streams_refused",
        "_told_last_id",
        "_transcript",
        "_welcome",
        "dead_after",
        "limits",
        "role",
        "state",
        "tuning",
    )

    def __init__(
        self,
        role: Role,
        *,
        now: float,
        nonce: bytes,
        hello: Hello | None,
        challenge: Challenge | None,
        limits: Limits,
        tuning: Tuning,
        budget: Budget | None,
    ) -> None:
        self.role = role
        self.tuning = tuning
        self.limits = limits
        self.state = ConnectionState.PREFACE
        self._limits = limits  # our own, as announced
        self._hello = hello
        self._challenge = challenge
        self._welcome: Welcome | None = None
        self._hello_bytes = b""
        self._transcript: Transcript | None = None
        self._edge_proof: bytes | None = None
        self._budget = Budget() if budget is None else budget
        self._growth = 0
        self._calm = CalmBucket(tuning.calm_burst, tuning.calm_refill, now=now) if role is Role.EDGE else None

        self._now = now
        self._established = False
        self._events: deque[Event] = deque()
        self._control = bytearray()
        self._provoked = 0

        self._streams: dict[int, Stream] = {}
        self._last_local_id = 0
        self._last_remote_id = 0
        self._local_count = self._remote_count = 0
        self._local_pending = self._remote_pending = 0
        self._pull = Lanes()
        self._push = Lanes()
        self._ring: deque[Stream] | None = None  # whose head next_send named last
        self._rate = DeliveryRate(limits.max_frame)
        self._max_frame = limits.max_frame
        self._goaway_sent = self._goaway_received = False
        self._goaway_last_id = 0  # what the peer told
        self._told_last_id: int | None = None  # what we told

        self._partial = bytearray()
        self._need = 0
        self._left = 0
        self._current: Stream | None = None
        self._current_fin = False
        self._handshake_bytes = 0

        self._jitter = 0.8 + 0.4 * int.from_bytes(nonce[:2], "big") / 0xFFFF
        self._keepalive = tuning.keepalive * self._jitter
        self.dead_after = tuning.dead_after
        self._last_received = now
        self._last_ping = now
        self._ping_count = 0
        self._ping_outstanding = False
        self._rtt: RttEstimate | None = None
        self._handshake_deadline = now + tuning.handshake_timeout
        self._drain_deadline: float | None = None
        self._lease_warning: float | None = None
        self._lease_deadline: float | None = None
        self._reap_at: float | None = None
        self._report_at = float("-inf")
        self._deadline: float | None = self._handshake_deadline

        self._data_sent = self._data_received = 0
        self._datagrams_sent = self._datagrams_received = self._datagrams_dropped = 0
        self._datagram_bytes = 0
        self._streams_opened = self._streams_offered = self._streams_refused = 0
        self._late_frames = 0
        self._late_allowance = 0

    # -- the connection ------------------------------------------------------------------------------------------

    def _move(self, moved: ConnectionInput) -> None:
        """Follow the table; the caller knows that it has the transition."""
        self.state = CONNECTION_TRANSITIONS[self.state, moved]

    def _require(self, moved: ConnectionInput, what: str) -> None:
        """Refuse a call that the table does not allow now."""
        if (self.state, moved) not in CONNECTION_TRANSITIONS:
            raise WrongState(f"cannot {what}: the connection is in state {self.state.value}")

    def _write(self, kind: int, stream_id: int, payload: bytes = b"") -> None:
        """Queue a control frame; the flag may be part of `stream_id`."""
        self._control += HEADER.pack(kind << 24 | len(payload), stream_id) + payload

    def _reply(self, kind: int, stream_id: int, payload: bytes = b"") -> None:
        """Queue a control frame that the peer provoked.

        Raises:
            RemoteProtocolError: the peer provokes and does not read.
        """
        self._provoked += 8 + len(payload)
        if self._provoked > self.tuning.control_queue:
            message = f"{self._provoked} bytes of replies wait unread, at most {self.tuning.control_queue} may"
            raise RemoteProtocolError(message, ErrorCode.ENHANCE_YOUR_CALM)
        self._write(kind, stream_id, payload)

    def _processed(self) -> int:
        """Return the last id for GOAWAY; streams that crossed the first GOAWAY do not raise it."""
        return self._last_remote_id if self._told_last_id is None else self._told_last_id

    def _charge(self, cost: int, what: str) -> None:
        """Take calm tokens; free for an agent.

        Raises:
            RemoteProtocolError: the bucket is empty.
        """
        calm = self._calm
        if calm is not None and not calm.charge(cost, useful=self._data_received, now=self._now):
            raise RemoteProtocolError(f"too many frames that move nothing, last: {what}", ErrorCode.ENHANCE_YOUR_CALM)

    def _terminate(
        self,
        code: ErrorCode,
        reason: str,
        *,
        error: ProtocolError | None = None,
        remote: bool = False,
        answer: bool = True,
    ) -> None:
        """End the connection and every stream with it.

        Args:
            code: Why.
            reason: For the log; told to the peer only once it is authenticated.
            error: The peer's fault, if it was one.
            remote: Whether the peer ended it.
            answer: Whether a GOAWAY goes out.
        """
        if self.state is ConnectionState.CLOSED:
            return
        if answer:
            told = reason.encode(errors="replace")[:MAX_GOAWAY_REASON].decode(errors="ignore")
            frame = GoAway(last_id=self._processed(), code=code, reason=told if self._established else "")
            self._control += serialize(frame)
        else:
            self._control.clear()
        self._move(ConnectionInput.RECV_CLOSE if remote else ConnectionInput.SEND_CLOSE)
        for stream in self._streams.values():
            self._budget.release(stream.window)
            stream.discard()
        self._streams.clear()
        self._pull.clear()
        self._push.clear()
        self._partial.clear()
        self._left = self._growth = self._datagram_bytes = 0
        self._local_count = self._remote_count = self._local_pending = self._remote_pending = 0
        self._current = None
        self._established = False
        self._deadline = None
        self._events.append(ConnectionTerminated(code, reason, error, remote))

    # -- streams -------------------------------------------------------------------------------------------------

    def _is_local(self, stream_id: int) -> bool:
        """Whether this end opens streams with such an id: agents odd, edges even."""
        return (stream_id & 1) == (self.role is Role.AGENT)

    def _is_idle(self, stream_id: int) -> bool:
        """Whether no stream with this id was ever opened. An id that is not idle and not in the table is closed."""
        return stream_id > (self._last_local_id if self._is_local(stream_id) else self._last_remote_id)

    def _stream(self, stream_id: int) -> Stream:
        """Return a stream for a call of the shell.

        Raises:
            NoSuchStream: it is idle or closed.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            state = "idle" if self._is_idle(stream_id) else "closed"
            raise NoSuchStream(f"stream {stream_id} is {state}")
        return stream

    def _known_closed(self, stream_id: int) -> None:
        """Let a call for a closed stream pass: the shell could not know yet.

        Raises:
            NoSuchStream: the stream is idle.
        """
        if self._is_idle(stream_id):
            raise NoSuchStream(f"stream {stream_id} is idle")

    def _add(self, stream: Stream) -> None:
        """Take a new stream in; its window is already promised."""
        self._streams[stream.stream_id] = stream
        if stream.local:
            self._last_local_id = stream.stream_id
            self._local_count += 1
            self._local_pending += 1
            self._streams_opened += 1
        else:
            self._last_remote_id = stream.stream_id
            self._remote_count += 1
            self._remote_pending += 1
            self._streams_offered += 1
        if self._reap_at is None:
            self._reap_at = self._now + self.tuning.reap_interval
            if self._deadline is None or self._reap_at < self._deadline:
                self._deadline = self._reap_at

    def _answered(self, stream: Stream) -> None:
        """Note that a stream no longer waits for ACCEPT."""
        if stream.local:
            self._local_pending -= 1
        else:
            self._remote_pending -= 1

    def _forget(self, stream: Stream, *, pending: bool) -> None:
        """Drop a closed stream; `pending` tells whether it never saw its ACCEPT."""
        del self._streams[stream.stream_id]
        if pending:
            self._answered(stream)
        if stream.local:
            self._local_count -= 1
        else:
            self._remote_count -= 1
        self._growth -= stream.window - self.limits.base_window
        self._budget.release(stream.window)
        if stream.is_flow:
            self._datagram_bytes -= stream.queued
        stream.discard()
        if self._goaway_sent and not self._streams:
            self._terminate(ErrorCode.NO_ERROR, "all streams finished after GOAWAY")

    def _expect_late_frames(self, stream: Stream) -> None:
        """Let what is on its way for a stream that we reset pass without tokens: its credit, and some WINDOWs."""
        self._late_allowance += max(0, stream.recv_limit - stream.received) + _LATE_CONTROL
        if stream.is_flow:
            self._late_allowance += self.tuning.datagram_queue

    def _capabilities(self) -> Capability:
        """Return what both ends can do."""
        if self._hello is None or self._challenge is None:
            return Capability.NONE
        return self._hello.capabilities & self._challenge.capabilities


_LATE_CONTROL: Final = 1_024
LATE_FRAME_COST: Final = 16
"""What a late frame takes from the allowance at least: its header is half of that."""
