"""What a connection sends: opening and ending streams, credit, and the one scheduler behind pull and push.

Rules: control frames go before data and are never cut; DATA is made at the last moment, so that what waits is the
shell's sockets and not a queue here; nothing is sent without credit; a stream without credit or bytes leaves its ring
and costs nothing until a WINDOW or the shell brings it back.
What must not be here: reading frames, deciding when the peer is dead.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

from .clock import Clock
from .core import MAY_OPEN, Buffer
from .errors import (
    ErrorCode,
    InvalidMetadata,
    LocalProtocolError,
    SendBufferFull,
    StreamLimitReached,
    WrongState,
)
from .events import StreamClosed, StreamWritable
from .flow import MIN_GROWTH_TIME, SAMPLE_TIME
from .frames import FLAG, HEADER, HEADER_SIZE, FrameType, reset_payload
from .handshake import Capability
from .limits import LAST_STREAM_ID
from .metadata import OpenMetadata
from .scheduler import YIELDING_FRAME
from .states import ConnectionState, StreamInput, StreamState
from .status import Role
from .stream import Stream

__all__ = ["Outgoing"]

_DATA: Final = FrameType.DATA << 24
_DATAGRAM: Final = FrameType.DATAGRAM << 24
_WINDOW_WORD: Final = FrameType.WINDOW << 24 | 8
_pack_window: Final = struct.Struct(">IIQ").pack
_pack_into: Final = HEADER.pack_into
_pack: Final = HEADER.pack


class Outgoing(Clock):
    """The calls by which a shell sends."""

    __slots__ = ()

    # -- opening and ending --------------------------------------------------------------------------------------

    def open_stream(self, metadata: OpenMetadata, *, now: float) -> int:
        """Open a stream, or a flow if the metadata says UDP, and return its id.

        DATA may follow at once, up to the base window; StreamAccepted or StreamReset tells what the peer makes of it.

        Raises:
            WrongState: not established, draining, or this end may not open.
            StreamLimitReached: the peer's limit, the pending limit, the budget (code OVER_CAPACITY) or the ids.
            SendBufferFull: the carrier does not take the control frames that already wait.
            InvalidMetadata: it exceeds 4 KiB, or names a service that WELCOME does not bind.
        """
        if self.state not in MAY_OPEN:
            raise WrongState(f"cannot open a stream: the connection is in state {self.state.value}")
        if self.role is Role.AGENT and not self._capabilities() & Capability.AGENT_OPEN:
            raise WrongState("cannot open a stream: an agent may only with the capability AGENT_OPEN")
        if self._local_count >= self.limits.max_streams:
            raise StreamLimitReached(f"{self._local_count} streams are open", ErrorCode.REFUSED)
        if self._local_pending >= self.limits.max_pending_opens:
            raise StreamLimitReached(f"{self._local_pending} streams wait for ACCEPT", ErrorCode.REFUSED)
        stream_id = self._last_local_id + 2 if self._last_local_id else 1 + (self.role is Role.EDGE)
        payload = metadata.encode()
        if not self._binds(metadata.service):
            raise InvalidMetadata(f"service {metadata.service!r} is not among WELCOME's bindings")
        if len(self._control) + len(payload) > self.tuning.control_queue:
            raise SendBufferFull(f"{len(self._control)} bytes of control frames wait", ErrorCode.OVER_CAPACITY)
        if not self._budget.acquire(self.limits.base_window):
            raise StreamLimitReached("the budget for windows is used up", ErrorCode.OVER_CAPACITY)
        self._now = now
        self._write(FrameType.OPEN, stream_id, payload)
        self._add(Stream(stream_id, metadata.protocol, self.limits.base_window, local=True, now=now))
        if stream_id + 2 > LAST_STREAM_ID:
            self._drain(ErrorCode.DRAINING, self.tuning.exhaustion_drain, reason="stream ids are used up", now=now)
        return stream_id

    def _binds(self, service: str) -> bool:
        """Whether WELCOME names the service; bindings are few, so a scan is cheap."""
        assert self._welcome is not None  # nobody may open before it
        for binding in self._welcome.bindings:  # noqa: SIM110 - any() would cost a generator for every stream
            if binding.service == service:
                return True
        return False

    def accept_stream(self, stream_id: int) -> None:
        """Tell the opener that its stream is served.

        Raises:
            NoSuchStream: it is idle or closed.
            WrongState: this end opened it, or it is accepted already.
        """
        stream = self._stream(stream_id)
        if not stream.move(StreamInput.SEND_ACCEPT):
            raise WrongState(f"stream {stream_id}: cannot accept in state {stream.state.value}")
        self._answered(stream)
        self._write(FrameType.ACCEPT, stream_id)
        if stream.consumed >= stream.update_at:
            self._grant(stream)

    def reset_stream(self, stream_id: int, code: ErrorCode, detail: int = 0, reason: str = "") -> None:
        """End a stream or flow in both directions, now. Does nothing if it is closed already.

        Args:
            stream_id: The stream.
            code: Why. NO_ERROR is how a flow ends well.
            detail: With DIAL_FAILED a :class:`DialDetail`; 0..65535.
            reason: For the peer's log, cut after 120 bytes.

        Raises:
            NoSuchStream: it is idle.
            InvalidMetadata: `detail` is out of range.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            self._known_closed(stream_id)
            return
        self._write(FrameType.RESET, stream_id, reset_payload(code, detail, reason))
        self._close(stream, StreamInput.SEND_RESET)

    def _finish(self, stream: Stream, moved: StreamInput) -> None:
        """Move a stream by FIN, sent or received; drop it if that closes it."""
        stream.move(moved)
        if stream.state is StreamState.CLOSED:
            self._events.append(StreamClosed(stream.stream_id))
            self._forget(stream, pending=False)

    # -- credit --------------------------------------------------------------------------------------------------

    def acknowledge(self, stream_id: int, size: int, *, now: float) -> None:
        """Say that bytes of DataReceived left your hands; the peer gets credit for them. Closed streams are ignored.

        Raises:
            NoSuchStream: it is idle.
            LocalProtocolError: more than was received.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            self._known_closed(stream_id)
            return
        consumed = stream.consumed + size
        if size < 0 or consumed > stream.received:
            raise LocalProtocolError(f"stream {stream_id}: {consumed} bytes acknowledged of {stream.received} received")
        stream.consumed = consumed
        if consumed >= stream.update_at:
            self._now = now
            self._grant(stream)

    def _grant(self, stream: Stream) -> None:
        """Send WINDOW, and widen the window if half of it took less than two round trips (auto-tuning)."""
        if not stream.allows(StreamInput.SEND_WINDOW):
            return
        now = self._now
        window = stream.window
        if (
            self._rtt is not None
            and now - stream.granted_at < max(2 * self._rtt.smoothed, MIN_GROWTH_TIME)
            and window < self.tuning.max_window
        ):
            growth = min(window, self.tuning.max_window - window)
            if self._growth + growth <= self.tuning.growth_pool and self._budget.acquire(growth):
                self._growth += growth
                stream.window = window = window + growth
        stream.granted_at = now
        stream.recv_limit = limit = stream.consumed + window
        stream.update_at = limit - window // 2
        self._control += _pack_window(_WINDOW_WORD, stream.stream_id, limit)

    # -- pull: the shell fills frames ----------------------------------------------------------------------------

    def want_send(self, stream_id: int, wanted: bool = True) -> None:
        """Say whether you have bytes of a stream to be pulled. Closed streams are ignored.

        Raises:
            NoSuchStream: it is idle.
            WrongState: it is a flow, or its FIN was sent.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            self._known_closed(stream_id)
            return
        if wanted and not stream.wanted:
            if stream.is_flow or stream.fin_queued or not stream.can_send:
                raise WrongState(f"stream {stream_id}: cannot send DATA in state {stream.state.value}")
            stream.wanted = True
            if not stream.pulling and not stream.queued:
                stream.pulling = True
                self._pull.append(stream, self._now)
        elif not wanted:
            stream.wanted = False
            if not stream.queued:
                stream.stalled_since = -1.0

    def next_send(self, now: float) -> tuple[int, int] | None:
        """Return (stream id, bytes it may send now) of the stream whose turn it is, or None.

        Read at most that many bytes behind an 8-byte gap and :meth:`commit` them, or say `want_send(id, False)` if the
        socket is dry. Until you do either, the same stream is returned. None while control frames wait: send
        `data_to_send` first (`wants_write`), because an ACCEPT must go before the stream's bytes.
        """
        self._now = now
        rate = self._rate
        if self._control:
            return None
        lanes = self._pull
        while (ring := lanes.head()) is not None:
            stream = ring[0]
            if stream.wanted and not stream.queued:
                credit = stream.send_limit - stream.sent
                if credit > 0:
                    if rate.started < 0:
                        rate.started = now
                    elif now - rate.started >= SAMPLE_TIME:
                        rate.proceed(now)
                    self._ring = ring
                    frame = rate.frame
                    if frame > YIELDING_FRAME:
                        frame = min(frame, lanes.frame_cap(ring, now))
                    return stream.stream_id, min(credit, frame)
                stream.stalled_since = now
            ring.popleft()
            stream.pulling = False
        if rate.started >= 0:
            rate.pause(now)
        return None

    def commit(self, stream_id: int, size: int, buffer: bytearray | memoryview, fin: bool = False) -> None:
        """Make a frame of `size` bytes that are at `buffer[8:]`: write its header into `buffer[:8]` and charge it.

        Send `buffer[:8 + size]` next, before anything else. With `fin` the direction ends; then `size` may be 0, and
        StreamClosed may follow: look at the events.

        Raises:
            NoSuchStream: it is idle or closed.
            LocalProtocolError: more than credit or the frame size allow, or nothing to send.
            WrongState: it is a flow, its FIN was sent, or bytes of `send_data` wait.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._stream(stream_id)
        if not stream.can_send or stream.queued or stream.fin_queued or stream.is_flow:
            raise WrongState(f"stream {stream_id}: cannot commit in state {stream.state.value}, {stream.queued} queued")
        sent = stream.sent + size
        if size < 0 or sent > stream.send_limit or size > self._max_frame or not (size or fin):
            room = min(stream.send_limit - stream.sent, self._max_frame)
            raise LocalProtocolError(f"stream {stream_id}: commit of {size} bytes, expected 1..{room}")
        _pack_into(buffer, 0, _DATA | size, stream_id | FLAG if fin else stream_id)
        stream.sent = sent
        now = stream.active = self._now
        self._data_sent += size
        self._rate.size += size
        if fin:
            stream.wanted = False
            self._finish(stream, StreamInput.SEND_FIN)
            return
        ring = self._ring
        if ring and ring[0] is stream:
            self._pull.rotate(ring, stream, size, now)

    # -- push: the shell hands bytes over ------------------------------------------------------------------------

    def send_capacity(self, stream_id: int) -> int:
        """Return how many bytes `send_data` takes now; 0 for a stream that is idle, closed or finished.

        After a 0 of a live stream, StreamWritable tells when there is room again.
        """
        stream = self._streams.get(stream_id)
        if stream is None or not stream.can_send or stream.fin_queued or stream.is_flow:
            return 0
        return max(0, self.tuning.send_buffer - stream.queued)

    def send_data(self, stream_id: int, data: Buffer, *, fin: bool = False) -> None:
        """Queue bytes of a stream; `fin` ends the direction after them.

        Raises:
            NoSuchStream: it is idle or closed.
            WrongState: it is a flow, or its direction ended.
            SendBufferFull: more than `send_capacity`.
            LocalProtocolError: no bytes and no `fin`.
        """
        stream = self._stream(stream_id)
        if not stream.can_send or stream.fin_queued or stream.is_flow:
            raise WrongState(f"stream {stream_id}: cannot send DATA in state {stream.state.value}")
        size = len(data)
        if not size and not fin:
            raise LocalProtocolError(f"stream {stream_id}: no bytes and no FIN")
        room = self.tuning.send_buffer - stream.queued
        if size > room:
            raise SendBufferFull(f"stream {stream_id}: {size} bytes, {room} fit", ErrorCode.OVER_CAPACITY)
        if size:
            if stream.queue is None:
                stream.queue = deque()
            stream.queue.append(memoryview(bytes(data)))
            stream.queued += size
        if fin:
            stream.fin_queued = True
            stream.wanted = stream.starved = False
        elif stream.queued >= self.tuning.send_buffer:
            stream.starved = True
        self._push_ready(stream)

    def _push_ready(self, stream: Stream) -> None:
        if not stream.pushing:
            stream.pushing = True
            self._push.append(stream, self._now)

    def send_datagram(self, flow_id: int, data: Buffer, *, now: float) -> bool:
        """Queue a datagram; False if it was dropped because it is too large.

        Beyond the queue's bounds the oldest are dropped and counted: fresh beats stale.

        Raises:
            NoSuchStream: the flow is idle or closed.
            WrongState: it is no flow, or not yet accepted by this end.
        """
        flow = self._stream(flow_id)
        if not flow.is_flow or not flow.can_send:
            raise WrongState(f"flow {flow_id}: cannot send a datagram in state {flow.state.value}")
        self._now = now
        size = len(data)
        if size > min(self.limits.max_datagram, self._max_frame, self.tuning.datagram_queue):
            self._datagrams_dropped += 1
            return False
        if flow.queue is None:
            flow.queue = deque()
        while flow.queue and flow.queued + size + _DATAGRAM_COST > self.tuning.datagram_queue:
            self._drop_oldest(flow)
        while self._datagram_bytes and self._datagram_bytes + size + _DATAGRAM_COST > self.tuning.datagram_total:
            self._drop_oldest(self._waiting_longest(flow))
        flow.queue.append(memoryview(bytes(data)))
        flow.queued += size + _DATAGRAM_COST
        self._datagram_bytes += size + _DATAGRAM_COST
        self._push_ready(flow)
        return True

    def _drop_oldest(self, flow: Stream) -> None:
        queue = flow.queue
        assert queue
        size = len(queue.popleft()) + _DATAGRAM_COST
        flow.queued -= size
        self._datagram_bytes -= size
        self._datagrams_dropped += 1

    def _waiting_longest(self, flow: Stream) -> Stream:
        """Return a flow with datagrams, the one whose turn is next: its oldest has waited longest."""
        if flow.queue:
            return flow
        return next(other for other in self._push if other.is_flow and other.queue)

    # -- bytes out -----------------------------------------------------------------------------------------------

    @property
    def wants_write(self) -> bool:
        """Whether `data_to_send` may have bytes. Pulled streams do not count: ask `next_send`."""
        return bool(self._control) or bool(self._push)

    def data_to_send(self, max_bytes: int = 65_536, *, now: float) -> bytes:
        """Return bytes for the carrier: all control frames, then frames of `send_data` and datagrams; empty if none.

        Frames are whole: control frames are never cut, so they may exceed `max_bytes`; so may a single datagram that
        would not fit otherwise. Send the result before any frame made by a later `commit`.
        """
        self._now = now
        if not self._push:
            if not self._control:
                return b""
            data = bytes(self._control)
            self._control.clear()
            self._provoked = 0
            return data
        out = self._control
        self._control = bytearray()
        self._provoked = 0
        max_bytes = max(max_bytes, HEADER_SIZE + 1)
        lanes = self._push
        while (ring := lanes.head()) is not None and len(out) < max_bytes:
            stream = ring[0]
            room = max_bytes - len(out)
            if stream.is_flow:
                size = self._take_datagrams(stream, room, out)
            else:
                size = self._take_data(stream, min(room - HEADER_SIZE, lanes.frame_cap(ring, now)), out)
            if size < 0:  # does not fit behind what is there
                break
            if (
                self.state is ConnectionState.CLOSED
            ):  # its FIN was the last of a drain; what ended the connection goes out next
                break
            if stream.carry:  # the rest of its turn comes with the next call, and this part of it counts
                stream.burst += size
                break
            if (stream.queue or stream.fin_queued) and size:
                lanes.rotate(ring, stream, size, now)
                continue
            ring.popleft()
            stream.pushing = False
            if stream.wanted and not stream.pulling and not stream.queued:
                stream.pulling = True
                self._pull.append(stream, now)
        if self._control:
            out += self._control
            self._control.clear()
        return bytes(out)

    def _take_data(self, stream: Stream, room: int, out: bytearray) -> int:
        """Append one DATA frame of at most `room` bytes; return its size, 0 if it cannot go, -1 if nothing fits.

        A frame that is cut to `room` leaves `carry`: else a stream whose turns fall on the ends of calls would get less
        than its share.
        """
        queue = stream.queue
        credit = stream.send_limit - stream.sent
        size = min(stream.queued, credit, max(1, self._rate.frame - stream.carry))
        if not size and not (stream.fin_queued and not stream.queued):
            if stream.queued and stream.stalled_since < 0:
                stream.stalled_since = self._now
            stream.carry = 0
            return 0
        if room < 1 and (size or room < 0):
            return -1
        stream.carry = stream.carry + room if room < size else 0
        size = min(size, room)
        fin = stream.fin_queued and size == stream.queued
        out += _pack(_DATA | size, stream.stream_id | FLAG if fin else stream.stream_id)
        left = size
        while left:
            assert queue
            chunk = queue[0]
            if len(chunk) > left:
                out += chunk[:left]
                queue[0] = chunk[left:]
                left = 0
            else:
                out += queue.popleft()
                left -= len(chunk)
        stream.queued -= size
        stream.sent += size
        stream.active = self._now
        self._data_sent += size
        if fin:
            stream.fin_queued = False
            self._finish(stream, StreamInput.SEND_FIN)
        elif stream.starved and stream.queued <= self.tuning.send_buffer // 2:
            stream.starved = False
            self._events.append(StreamWritable(stream.stream_id))
        return size

    def _take_datagrams(self, flow: Stream, room: int, out: bytearray) -> int:
        """Append datagrams of one flow, up to a small frame's worth; return their size, -1 if the next does not fit."""
        queue = flow.queue
        taken = 0
        while queue and taken < _DATAGRAM_TURN:
            data = queue[0]
            size = len(data)
            if HEADER_SIZE + size > room - taken and (taken or out):
                return taken or -1
            out += _pack(_DATAGRAM | size, flow.stream_id)
            out += data
            queue.popleft()
            flow.queued -= size + _DATAGRAM_COST
            self._datagram_bytes -= size + _DATAGRAM_COST
            self._datagrams_sent += 1
            taken += HEADER_SIZE + size
        flow.active = self._now
        return taken


_DATAGRAM_COST: Final = 32
"""What a queued datagram counts beside its bytes: empty ones take memory too."""
_DATAGRAM_TURN: Final = 16_384
