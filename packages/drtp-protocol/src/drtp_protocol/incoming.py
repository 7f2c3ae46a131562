"""What a connection receives: the parser and the handler of each frame.

Rules: a header is judged when it is seen, never after its payload was waited for; DATA streams through as views of the
caller's buffer, only headers, control frames and cut datagrams are kept between calls; whatever the peer does wrong
ends in one place as `_terminate`, after the events that came before it.
What must not be here: the shells' calls.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from .calm import COST_EXTENSION, COST_LATE, COST_PING, COST_REFUSAL, COST_REPORT, COST_RESET, COST_TINY_WINDOW
from .core import LATE_FRAME_COST, Buffer
from .errors import ErrorCode, RemoteProtocolError
from .events import (
    DatagramReceived,
    DataReceived,
    GoAwayReceived,
    ReportReceived,
    StreamAccepted,
    StreamOpened,
    StreamReset,
)
from .frames import (
    FLAG,
    HEADER,
    HEADER_SIZE,
    MAX_STREAM_ID,
    Accept,
    Extension,
    FrameType,
    GoAway,
    Ping,
    Report,
    Reset,
    Window,
    check_header,
    parse_payload,
    reset_payload,
)
from .greeting import Greeting
from .handshake import PREFACE, Auth, Capability, Challenge, Hello, Welcome
from .limits import OPEN_METADATA_SIZE
from .metadata import OpenMetadata
from .states import CONNECTION_TRANSITIONS, ConnectionInput, ConnectionState, StreamInput
from .status import Role
from .stream import Stream

__all__ = ["Incoming"]

_unpack_from: Final = HEADER.unpack_from
_unpack_window: Final = struct.Struct(">Q").unpack_from
_WINDOW_WORD: Final = FrameType.WINDOW << 24 | 8
_ACCEPT_WORD: Final = FrameType.ACCEPT << 24
_LARGEST_OPEN: Final = HEADER_SIZE + OPEN_METADATA_SIZE


class Incoming(Greeting):
    """The calls by which a shell hands in bytes."""

    __slots__ = ()

    def receive_data(self, data: Buffer, *, now: float) -> None:
        """Take bytes from the carrier; events follow. Never raises for what the peer did.

        Args:
            data: Any number of bytes. Views of it are in the events, so leave it unchanged until they are handled.
            now: Seconds, on any clock that never goes back.
        """
        if self.state is ConnectionState.CLOSED:
            return
        self._now = self._last_received = now
        try:
            self._parse(data if type(data) is memoryview else memoryview(data), now)
        except RemoteProtocolError as fault:
            self._terminate(fault.code, str(fault), error=fault)

    def receive_eof(self, *, now: float) -> None:
        """Say that the carrier ended or broke; ConnectionTerminated follows if it was not said before."""
        self._now = now
        if self.state is ConnectionState.DRAINING:
            code = ErrorCode.DRAINING if self._streams else ErrorCode.NO_ERROR
        else:
            code = ErrorCode.CANCEL
        self._terminate(code, "the carrier ended", remote=True, answer=False)

    # -- the parser ----------------------------------------------------------------------------------------------

    def _parse(self, view: memoryview, now: float) -> None:
        position = 0
        end = len(view)
        if not end:
            return
        if self._left:
            position = self._continue_data(view, end)
        elif self._partial or self.state is ConnectionState.PREFACE:
            position = self._continue_partial(view, end)
        streams = self._streams
        append = self._events.append
        max_frame = self._max_frame
        while end - position >= 8:
            word, ident = _unpack_from(view, position)
            if word >> 24 == 0x12:
                # A FIN has the flag in `ident`, so it is not found here; nor is anything that is wrong.
                length = word & 0xFFFFFF
                stream = streams.get(ident)
                if stream is None or not stream.can_receive or not 0 < length <= max_frame:
                    position = self._slow_data(word, ident, view, position + 8, end)
                    continue
                received = stream.received + length
                if received > stream.recv_limit:
                    raise self._window_exceeded(stream, length)
                stream.received = received
                stream.active = now
                self._data_received += length
                position += 8
                stop = position + length
                if stop <= end:
                    append(DataReceived(ident, view[position:stop], False))
                    position = stop
                    continue
                if position < end:
                    append(DataReceived(ident, view[position:], False))
                self._left = stop - end
                self._current = stream
                self._current_fin = False
                return
            if word == _WINDOW_WORD and end - position >= 16:
                stream = streams.get(ident)
                if stream is not None:
                    self._on_window(stream, _unpack_window(view, position + 8)[0])
                    position += 16
                    continue
            elif word == _ACCEPT_WORD:
                stream = streams.get(ident)
                if stream is not None:
                    self._on_accept(stream)
                    position += 8
                    continue
            elif word >> 24 == 0x10 and self._established and 0 < ident < FLAG:
                stop = position + 8 + (word & 0xFFFFFF)
                if stop <= end and stop - position <= _LARGEST_OPEN:
                    self._on_open(ident, bytes(view[position + 8 : stop]))
                    position = stop
                    continue
            stop = self._check(word, ident, position)
            if stop > end:
                self._partial += view[position:]
                self._need = stop - position
                return
            self._dispatch(word >> 24, ident, view[position:stop])
            if self.state is ConnectionState.CLOSED:
                return
            max_frame = self._max_frame
            position = stop
        if position < end:
            self._partial += view[position:]
            self._need = 0

    def _continue_partial(self, view: memoryview, end: int) -> int:
        """Complete the preface, header or control frame of the last call; return where to go on."""
        partial = self._partial
        position = 0
        if self.state is ConnectionState.PREFACE:
            position = min(end, len(PREFACE) - len(partial))
            partial += view[:position]
            if not PREFACE.startswith(partial):
                partial.clear()
                self._terminate(ErrorCode.PROTOCOL_ERROR, "no DRTP preface", error=_no_preface(), answer=False)
                return end
            if len(partial) == len(PREFACE):
                partial.clear()
                self._handshake_bytes = len(PREFACE)
                self._move(ConnectionInput.RECV_PREFACE)
            return position
        if not self._need:
            position = min(end, HEADER_SIZE - len(partial))
            partial += view[:position]
            if len(partial) < HEADER_SIZE:
                return position
            word, ident = _unpack_from(partial)
            if word >> 24 == FrameType.DATA:
                partial.clear()
                return self._slow_data(word, ident, view, position, end)
            self._need = self._check(word, ident, 0)
        stop = min(end, position + self._need - len(partial))
        partial += view[position:stop]
        if len(partial) == self._need:
            frame = bytes(partial)
            partial.clear()
            self._need = 0
            word, ident = _unpack_from(frame)
            self._dispatch(word >> 24, ident, memoryview(frame))
            if self.state is ConnectionState.CLOSED:
                return end
        return stop

    def _check(self, word: int, ident: int, position: int) -> int:
        """Judge the header of a frame that is not DATA; return where the frame ends."""
        kind = word >> 24
        length = word & 0xFFFFFF
        check_header(kind, length, ident >= FLAG, ident & MAX_STREAM_ID, self._max_frame)
        moved = _INPUTS.get(kind, ConnectionInput.RECV_STREAM_FRAME)
        if (self.state, moved) not in CONNECTION_TRANSITIONS or _ONLY_TO.get(kind, self.role) is not self.role:
            name = FrameType(kind).name if kind in _INPUTS else f"extension {kind:#04x}"
            raise RemoteProtocolError(f"{name} in state {self.state.value} at the {self.role.value}")
        if not self._established:
            self._count_handshake(length)
        return position + HEADER_SIZE + length

    def _count_handshake(self, length: int) -> None:
        self._handshake_bytes += HEADER_SIZE + length
        if self._handshake_bytes > self.tuning.handshake_bytes:
            message = f"{self._handshake_bytes} bytes before authentication, at most {self.tuning.handshake_bytes}"
            raise RemoteProtocolError(message, ErrorCode.FRAME_SIZE)

    def _dispatch(self, kind: int, ident: int, frame: memoryview) -> None:
        """Read a complete frame whose header passed, and act on it."""
        match kind:
            case FrameType.OPEN:
                self._on_open(ident, bytes(frame[HEADER_SIZE:]))
            case FrameType.DATAGRAM:
                self._on_datagram(ident, frame[HEADER_SIZE:])
            case _:
                parsed = parse_payload(kind, ident >= FLAG, ident & MAX_STREAM_ID, bytes(frame[HEADER_SIZE:]))
                match parsed:
                    case Hello():
                        self._on_hello(parsed, bytes(frame))
                    case Challenge():
                        self._on_challenge(parsed, bytes(frame))
                    case _:
                        _HANDLERS[type(parsed)](self, parsed)

    # -- DATA ----------------------------------------------------------------------------------------------------

    def _continue_data(self, view: memoryview, end: int) -> int:
        """Pass on the rest of the frame that the last call began; return where to go on."""
        size = min(self._left, end)
        self._left -= size
        stream = self._current
        if stream is not None and stream.can_receive:  # else reset by this end meanwhile
            stream.active = self._now
            fin = self._current_fin and not self._left
            self._events.append(DataReceived(stream.stream_id, view[:size], fin))
            if fin:
                self._finish(stream, StreamInput.RECV_FIN)
        if not self._left:
            self._current = None
        return end if self.state is ConnectionState.CLOSED else size

    def _slow_data(self, word: int, ident: int, view: memoryview, position: int, end: int) -> int:
        """Take a DATA frame that ends its direction, is cut inside its header, is late, or is wrong.

        `position` is behind the header; returns where to go on.
        """
        length = word & 0xFFFFFF
        stream_id = ident & MAX_STREAM_ID
        fin = ident >= FLAG
        stream = self._streams.get(stream_id)
        if fin and not length and stream is not None and stream.can_receive:
            # How nearly all streams end: nothing to judge, because who can receive may receive FIN.
            stream.active = self._now
            self._events.append(DataReceived(stream_id, view[:0], True))
            self._finish(stream, StreamInput.RECV_FIN)
            return end if self.state is ConnectionState.CLOSED else position
        check_header(FrameType.DATA, length, fin, stream_id, self._max_frame)
        if not self._established:
            raise RemoteProtocolError(f"DATA in state {self.state.value}")
        size = min(length, end - position)
        if stream is None:
            self._late(stream_id, length, "DATA")
        else:
            self._judge_data(stream, length, fin)
            stream.received += length
            stream.active = self._now
            self._data_received += length
            whole = size == length
            if size or whole:
                self._events.append(DataReceived(stream_id, view[position : position + size], fin and whole))
            if fin and whole:
                self._finish(stream, StreamInput.RECV_FIN)
        self._left = length - size
        self._current = stream if self._left else None
        self._current_fin = fin
        return end if self.state is ConnectionState.CLOSED else position + size

    def _judge_data(self, stream: Stream, length: int, fin: bool) -> None:
        if stream.is_flow:
            raise RemoteProtocolError(f"stream {stream.stream_id}: DATA on a flow")
        if not stream.allows(StreamInput.RECV_FIN if fin else StreamInput.RECV_DATA):
            raise RemoteProtocolError(f"stream {stream.stream_id}: DATA in state {stream.state.value}")
        if stream.received + length > stream.recv_limit:
            raise self._window_exceeded(stream, length)

    def _window_exceeded(self, stream: Stream, length: int) -> RemoteProtocolError:
        excess = stream.received + length - stream.recv_limit
        message = f"stream {stream.stream_id}: DATA of {length} bytes exceeds the window by {excess}"
        return RemoteProtocolError(message, ErrorCode.FLOW_CONTROL)

    def _late(self, stream_id: int, length: int, name: str) -> None:
        """Drop a frame for a closed stream; it is free while it may have crossed our RESET.

        Raises:
            RemoteProtocolError: the stream is idle, or the calm bucket empty.
        """
        if self._is_idle(stream_id):
            raise RemoteProtocolError(f"stream {stream_id}: {name} for an idle stream")
        self._late_frames += 1
        cost = max(length, LATE_FRAME_COST)
        if self._late_allowance >= cost:
            self._late_allowance -= cost
        else:
            self._charge(COST_LATE, f"stream {stream_id}: {name} after its end")

    # -- frames of streams ---------------------------------------------------------------------------------------

    def _on_open(self, stream_id: int, payload: bytes) -> None:
        if self._is_local(stream_id):
            raise RemoteProtocolError(f"stream {stream_id}: OPEN with an id of the {self.role.value}'s")
        if self.role is Role.EDGE and not self._capabilities() & Capability.AGENT_OPEN:
            raise RemoteProtocolError(f"stream {stream_id}: OPEN by an agent without the capability")
        if stream_id <= self._last_remote_id:
            raise RemoteProtocolError(f"stream {stream_id}: OPEN after stream {self._last_remote_id}: ids must grow")
        if self._goaway_received:
            raise RemoteProtocolError(f"stream {stream_id}: OPEN after GOAWAY")
        try:
            metadata = OpenMetadata.decode(payload)
        except RemoteProtocolError as fault:
            if fault.code is not ErrorCode.UNSUPPORTED:
                raise
            self._refuse(stream_id, ErrorCode.UNSUPPORTED, str(fault))
            return
        if self._goaway_sent:  # it crossed our GOAWAY; the opener knows from its last id
            self._last_remote_id = stream_id
        elif self._remote_count >= self.limits.max_streams:
            self._refuse(stream_id, ErrorCode.REFUSED, f"{self._remote_count} streams are open")
        elif self._remote_pending >= self.limits.max_pending_opens:
            self._refuse(stream_id, ErrorCode.REFUSED, f"{self._remote_pending} streams wait for an answer")
        elif not self._binds(metadata.service):
            self._refuse(stream_id, ErrorCode.REFUSED, "the service is not bound to this tunnel")
        elif not self._budget.acquire(self.limits.base_window):
            self._refuse(stream_id, ErrorCode.OVER_CAPACITY, "the budget for windows is used up")
        else:
            self._add(Stream(stream_id, metadata.protocol, self.limits.base_window, local=False, now=self._now))
            self._events.append(StreamOpened(stream_id, metadata))

    def _refuse(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        """Answer an OPEN with RESET; the stream never existed here."""
        self._charge(COST_REFUSAL, f"stream {stream_id}: OPEN that is refused")
        self._last_remote_id = stream_id
        self._streams_refused += 1
        self._late_allowance += self.limits.base_window
        self._reply(FrameType.RESET, stream_id, reset_payload(code, 0, reason))

    def _on_late_accept(self, frame: Accept) -> None:
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            self._late(frame.stream_id, 0, "ACCEPT")
        else:
            self._on_accept(stream)

    def _on_accept(self, stream: Stream) -> None:
        if not stream.move(StreamInput.RECV_ACCEPT):
            raise RemoteProtocolError(f"stream {stream.stream_id}: ACCEPT in state {stream.state.value}")
        stream.active = self._now
        self._answered(stream)
        self._events.append(StreamAccepted(stream.stream_id))

    def _on_late_window(self, frame: Window) -> None:
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            self._late(frame.stream_id, 0, "WINDOW")
        else:
            self._on_window(stream, frame.limit)

    def _on_window(self, stream: Stream, limit: int) -> None:
        grown = limit - stream.send_limit
        if grown <= 0:
            raise RemoteProtocolError(
                f"stream {stream.stream_id}: WINDOW of {limit} after {stream.send_limit}: must grow"
            )
        if stream.is_flow or not stream.allows(StreamInput.RECV_WINDOW):
            kind = "a flow" if stream.is_flow else f"state {stream.state.value}"
            raise RemoteProtocolError(f"stream {stream.stream_id}: WINDOW in {kind}")
        if grown < self.limits.base_window // 4:
            self._charge(COST_TINY_WINDOW, f"stream {stream.stream_id}: WINDOW that grants {grown} bytes")
        stream.send_limit = limit
        stream.stalled_since = -1.0
        if stream.queued:
            self._push_ready(stream)
        elif stream.wanted and not stream.pulling:
            stream.pulling = True
            self._pull.append(stream, self._now)

    def _on_reset(self, frame: Reset) -> None:
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            self._late(frame.stream_id, 0, "RESET")
            return
        if not stream.local:  # the RESET that answers our OPEN is paid for by it
            self._charge(COST_RESET, f"stream {frame.stream_id}: RESET")
        code = ErrorCode.from_wire(frame.code)
        self._events.append(StreamReset(frame.stream_id, code, frame.detail, frame.reason, remote=True))
        self._close(stream, StreamInput.RECV_RESET)

    def _on_datagram(self, flow_id: int, data: memoryview) -> None:
        flow = self._streams.get(flow_id)
        if flow is None:
            self._late(flow_id, len(data), "DATAGRAM")
            return
        if not flow.is_flow or not flow.allows(StreamInput.RECV_DATA):
            kind = f"state {flow.state.value}" if flow.is_flow else "a TCP stream"
            raise RemoteProtocolError(f"stream {flow_id}: DATAGRAM in {kind}")
        flow.active = self._now
        self._datagrams_received += 1
        if len(data) > self.limits.max_datagram:
            self._datagrams_dropped += 1
            return
        self._events.append(DatagramReceived(flow_id, data))

    # -- frames of the connection --------------------------------------------------------------------------------

    def _on_ping(self, frame: Ping) -> None:
        if not frame.ack:
            self._charge(COST_PING, "PING")
            self._reply(FrameType.PING, FLAG, frame.data)
        elif not self._on_ping_answer(frame.data):
            raise RemoteProtocolError(f"PING answer {frame.data.hex()} to nothing that was asked")

    def _on_goaway(self, frame: GoAway) -> None:
        code = ErrorCode.from_wire(frame.code)
        ends_now = not frame.drain_ms or not self._established
        if frame.last_id > self._last_local_id:
            raise RemoteProtocolError(f"GOAWAY: last id {frame.last_id}, opened up to {self._last_local_id}")
        if self._goaway_received and frame.last_id > self._goaway_last_id:
            raise RemoteProtocolError(f"GOAWAY: last id {frame.last_id} after {self._goaway_last_id}: must not grow")
        self._goaway_received = True
        self._goaway_last_id = frame.last_id
        drain = 0.0 if ends_now else frame.drain_ms / 1000
        retry_after = frame.retry_after_ms / 1000
        self._events.append(GoAwayReceived(code, drain, retry_after, frame.alternates, frame.reason))
        if self._established:
            self._move(ConnectionInput.RECV_GOAWAY)
            self._give_back(frame.last_id)
        if ends_now:
            self._terminate(code, frame.reason or "the peer ended the connection", remote=True, answer=False)
        else:
            # The peer ends it; this is for a peer that forgets to.
            self._stop_leasing(self._now + drain + self.dead_after)

    def _give_back(self, last_id: int) -> None:
        """Reset the streams that the peer will not process; they may be retried elsewhere."""
        for stream in [stream for stream in self._streams.values() if stream.local and stream.stream_id > last_id]:
            message = "the peer went away before it processed the stream"
            self._events.append(StreamReset(stream.stream_id, ErrorCode.REFUSED, 0, message, remote=True))
            self._close(stream, StreamInput.RECV_RESET)

    def _on_report(self, frame: Report) -> None:
        if not self._capabilities() & Capability.REPORT:
            raise RemoteProtocolError("REPORT without the capability")
        if self._now - self._report_at < 1.0:
            self._charge(COST_REPORT, "REPORT")
        self._report_at = self._now
        self._events.append(ReportReceived(frame))

    def _on_extension(self, frame: Extension) -> None:
        self._charge(COST_EXTENSION, f"extension {frame.kind:#04x}")


def _no_preface() -> RemoteProtocolError:
    return RemoteProtocolError("no DRTP preface")


_INPUTS: Final[dict[int, ConnectionInput]] = {
    FrameType.HELLO: ConnectionInput.RECV_HELLO,
    FrameType.CHALLENGE: ConnectionInput.RECV_CHALLENGE,
    FrameType.AUTH: ConnectionInput.RECV_AUTH,
    FrameType.WELCOME: ConnectionInput.RECV_WELCOME,
    FrameType.OPEN: ConnectionInput.RECV_STREAM_FRAME,
    FrameType.ACCEPT: ConnectionInput.RECV_STREAM_FRAME,
    FrameType.WINDOW: ConnectionInput.RECV_STREAM_FRAME,
    FrameType.RESET: ConnectionInput.RECV_STREAM_FRAME,
    FrameType.DATAGRAM: ConnectionInput.RECV_STREAM_FRAME,
    FrameType.PING: ConnectionInput.RECV_PING,
    FrameType.GOAWAY: ConnectionInput.RECV_GOAWAY,
    FrameType.REPORT: ConnectionInput.RECV_REPORT,
}

_ONLY_TO: Final[dict[int, Role]] = {
    FrameType.HELLO: Role.EDGE,
    FrameType.CHALLENGE: Role.AGENT,
    FrameType.AUTH: Role.EDGE,
    FrameType.WELCOME: Role.AGENT,
    FrameType.REPORT: Role.EDGE,
}

_HANDLERS: Final[dict[type, Callable[[Incoming, Any], None]]] = {
    Auth: Incoming._on_auth,
    Welcome: Incoming._on_welcome,
    Accept: Incoming._on_late_accept,
    Window: Incoming._on_late_window,
    Reset: Incoming._on_reset,
    Ping: Incoming._on_ping,
    GoAway: Incoming._on_goaway,
    Report: Incoming._on_report,
    Extension: Incoming._on_extension,
}
