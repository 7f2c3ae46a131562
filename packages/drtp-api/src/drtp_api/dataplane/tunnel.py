"""A tunnel: one protocol core driven over one carrier, and the sockets joined to its streams.

Rules:

- The core decides, the tunnel moves. Everything it learns from the core arrives as an event; everything it does with
  bytes happens in one of the engine's two shared buffers.
- Reading follows credit: a socket is read only when the core names its stream, straight behind the gap for the header.
  Control frames go first. When the carrier is full nothing is read at all.
- One turn moves at most :data:`TURN_SIZE` bytes each way, then others have their turn.
- Losing the carrier resets every joined socket; a visitor never sees a clean end of a stream that was cut.

What must not live here: who may connect, where to dial, when to retry. That is for the handler.
"""

import contextlib
from collections.abc import Sequence
from socket import socket

from drtp_api.dataplane.alarm import Alarm
from drtp_api.dataplane.carrier import Carrier
from drtp_api.dataplane.conduct import Held, TunnelHandler, TunnelLost, ending
from drtp_api.dataplane.engine import Engine, Handler
from drtp_api.dataplane.sender import YIELD_SIZE, Sender
from drtp_api.dataplane.splice import ClosedBy, Splice, StreamSummary
from drtp_protocol import (
    Connection,
    ConnectionTerminated,
    DataReceived,
    ErrorCode,
    Event,
    LocalProtocolError,
    NoSuchStream,
    OpenMetadata,
    Protocol,
    Role,
    StreamAccepted,
    StreamClosed,
    StreamOpened,
    StreamReset,
    WrongState,
)

TURN_SIZE = 256 * 1024
"""Bytes read from sockets in one turn of one tunnel."""

PACK_SIZE = 64 * 1024
"""Assembled bytes that are worth a system call of their own; fewer wait for more within the same turn."""

__all__ = ["PACK_SIZE", "TURN_SIZE", "StreamSummary", "Tunnel", "TunnelHandler", "TunnelLost"]


class Tunnel(Handler):
    """Drives one :class:`drtp_protocol.Connection` over one carrier; the same at both ends.

    Args:
        engine: the engine that drives carrier and sockets.
        carrier: established, not started.
        connection: the core, of either role, fresh.
        handler: told of everything that needs a decision.
        turn_size: bytes read from sockets in one turn.
        pack_size: assembled bytes that are sent without waiting for more.
    """

    __slots__ = (
        "_alarm",
        "_attention",
        "_carrier",
        "_closed",
        "_draining_events",
        "_failure",
        "_handler",
        "_hangup",
        "_held",
        "_level",
        "_readable",
        "_sender",
        "_started",
        "_streams",
        "connection",
        "engine",
        "error",
    )

    def __init__(
        self,
        engine: Engine,
        carrier: Carrier,
        connection: Connection,
        handler: TunnelHandler,
        *,
        turn_size: int = TURN_SIZE,
        pack_size: int = PACK_SIZE,
    ) -> None:
        self.scheduled = False
        self.engine = engine
        self.error: Exception | None = None
        """Why the tunnel ended, once it has; None while it lives and after an orderly end."""
        self.connection = connection
        """The core. After calling a method of it that has something to send, call :meth:`wake`."""
        self._level = not engine.edge_triggered
        """Whether the engine must be asked again after running dry; tested where asking in vain would cost a call."""
        self._attention = True
        """Whether somebody else may have made events in the core."""
        self._carrier = carrier
        self._handler = handler
        self._streams: dict[int, Splice] = {}
        self._held: dict[int, Held | None] = {}
        self._sender = Sender(
            self, engine, carrier, connection, self._streams, turn_size=turn_size, pack_size=pack_size
        )
        self._readable = False
        self._hangup = False
        self._started = False
        self._closed = False
        self._draining_events = False
        self._failure: OSError | None = None
        self._alarm = Alarm(engine, connection, self.wake)

    # What is known

    @property
    def carrier(self) -> Carrier:
        """The carrier, for its :attr:`Carrier.info`."""
        return self._carrier

    @property
    def closed(self) -> bool:
        """Whether the tunnel is over."""
        return self._closed

    @property
    def stream_count(self) -> int:
        """Streams attached to sockets now."""
        return len(self._streams)

    @property
    def backlog_bytes(self) -> int:
        """Bytes assembled or encrypted that the carrier has not taken."""
        return self._sender.waiting_bytes

    def leftover_bytes(self, stream_id: int) -> int:
        """Return how many bytes of a stream wait for its socket; never more than its window."""
        if (splice := self._streams.get(stream_id)) is not None:
            return 0 if splice.leftover is None else len(splice.leftover)
        held = self._held.get(stream_id)
        return 0 if held is None else len(held.data)

    def unaccepted(self) -> list[int]:
        """Return the streams opened here that the peer has not accepted: those :meth:`detach` gives back."""
        return [number for number, splice in self._streams.items() if splice.opener and not splice.accepted]

    # Commands

    def start(self) -> None:
        """Begin: the carrier reports from now on, and what the core wants to say first is sent. Call once."""
        if self._started:
            raise RuntimeError("a tunnel starts once")
        self._started = True
        self._carrier.start(self)
        self.engine.schedule(self)

    def wake(self) -> None:
        """Look at the core again: it has something to send, or an event, or another deadline."""
        if not self._closed:
            self._attention = True
            self.engine.schedule(self)

    def open(self, metadata: OpenMetadata) -> int:
        """Open a stream and return its identifier.

        Raises:
            LocalProtocolError: the core cannot open one now (limits, drain, not established).
        """
        stream_id = self.connection.open_stream(metadata, now=self.engine.now())
        if metadata.protocol is Protocol.TCP:
            self._held[stream_id] = None
        if not self.scheduled:
            self.engine.schedule(self)
        return stream_id

    def attach(
        self,
        stream_id: int,
        sock: socket,
        *,
        connecting: bool = False,
        early: bytes = b"",
        preface: bytes = b"",
        retain: bool = False,
        watched: bool = False,
    ) -> None:
        """Join a stream and a non-blocking socket; the tunnel owns the socket from now on.

        A stream that the peer opened is accepted as soon as the socket is connected, unless :meth:`accept` was called.

        Args:
            stream_id: opened by :meth:`open` or by the peer.
            sock: connected, or connecting (see ``connecting``).
            connecting: the connection is under way; failure is reported by :meth:`TunnelHandler.on_connect_failed`.
            early: bytes for the peer ahead of what the socket has, such as what was read to look at it.
            preface: bytes for the socket ahead of what the peer sends, such as a PROXY header.
            retain: keep a copy of what is sent until the peer accepts, for :meth:`detach`.
            watched: the engine watches the socket already; its handler is replaced.

        Raises:
            WrongState: the stream is over, never was, or is attached already. The socket is still yours then.
        """
        if self._closed or stream_id not in self._held:
            raise WrongState(f"stream {stream_id}: over, unknown or attached; a socket cannot be attached")
        now = self.engine.now()
        opener = (stream_id & 1) == (self.connection.role is Role.AGENT)
        splice = Splice(self, stream_id, sock, opener=opener, now=now)
        held = self._held.pop(stream_id)
        if early:
            splice.early = memoryview(early)
        if retain:
            splice.retained = bytearray()
        if preface:
            splice.leftover = bytearray(preface)
            splice.uncredited = len(preface)
        if held is not None and held.data:
            splice.leftover = held.data if splice.leftover is None else splice.leftover + held.data
        if held is not None:
            splice.accepted = held.accepted
        splice.connecting = connecting
        self._streams[stream_id] = splice
        if watched:
            self.engine.replace(sock, splice)
        else:
            self.engine.add(sock, splice)
        if held is not None and held.fin:
            splice.receive_fin()
        if not connecting:
            self.socket_connected(splice)
            if watched or early:
                # Its report went to an earlier handler, or there is something to send for certain.
                splice.wanted = True
                self.connection.want_send(stream_id)
        if not self.scheduled:
            self.engine.schedule(self)

    def accept(self, stream_id: int) -> None:
        """Accept a stream that the peer opened before its socket is connected, or a flow, which has none.

        Raises:
            LocalProtocolError: the core does not know it, or it is accepted already.
        """
        self.connection.accept_stream(stream_id)
        if (splice := self._streams.get(stream_id)) is not None:
            splice.accepted = True
        elif stream_id in self._held:
            held = self._held[stream_id] or Held()
            held.accepted = True
            self._held[stream_id] = held
        self.wake()

    def reset(self, stream_id: int, code: ErrorCode, detail: int = 0, reason: str = "") -> None:
        """Reset a stream, and its socket if one is attached. Harmless when the stream is over."""
        with contextlib.suppress(LocalProtocolError):
            self.connection.reset_stream(stream_id, code, detail, reason)
        self._held.pop(stream_id, None)
        if (splice := self._streams.get(stream_id)) is not None:
            self._end(splice, "reset", code=code, detail=detail, reason=reason)
        self.wake()

    def detach(self, stream_id: int) -> tuple[socket, bytes]:
        """Take a socket back from a stream that the peer has not accepted, to try elsewhere.

        Returns:
            The socket, which the engine no longer watches, and the bytes already read from it, to be given to
            :meth:`attach` as ``early``.

        Raises:
            WrongState: not attached, not retained, accepted, or something was delivered to the socket.
        """
        splice = self._streams.get(stream_id)
        if splice is None or splice.retained is None or splice.accepted or splice.to_socket:
            raise WrongState(f"stream {stream_id}: only an attached, retained, unaccepted stream can be detached")
        del self._streams[stream_id]
        splice.dead = True
        self.engine.remove(splice.sock)
        with contextlib.suppress(LocalProtocolError):
            self.connection.reset_stream(stream_id, ErrorCode.CANCEL)
        self.wake()
        return splice.sock, bytes(splice.retained) + (b"" if splice.early is None else bytes(splice.early))

    def go_away(
        self,
        code: ErrorCode = ErrorCode.DRAINING,
        *,
        drain: float,
        retry_after: float = 0,
        alternates: Sequence[str] = (),
    ) -> None:
        """Announce the end: nothing new is opened, and streams have ``drain`` seconds to finish."""
        self.connection.go_away(
            code, drain=drain, retry_after=retry_after, alternates=alternates, now=self.engine.now()
        )
        self.wake()

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """End at once but politely: announce it, reset what is attached, say goodbye on the carrier. Idempotent."""
        if self._closed:
            return
        with contextlib.suppress(LocalProtocolError):
            self.connection.go_away(code, drain=0, now=self.engine.now())
        self._terminate(None)

    def abort(self) -> None:
        """End at once with resets everywhere. Idempotent."""
        if not self._closed:
            self._sender.failed = True
            self._terminate(ConnectionAbortedError("the tunnel was aborted here"))

    # From the engine and the carrier

    def on_io(self, readable: bool, writable: bool, hangup: bool) -> None:  # noqa: ARG002
        """Read what the carrier has; sending is tried in any case."""
        if self._closed:
            return
        if hangup:
            self._hangup = True
        if readable:
            self._receive()
        if not self.scheduled and not self._closed:
            self.engine.schedule(self)

    def on_turn(self) -> None:
        """Read on if there is more, then send what there is."""
        if self._closed:
            return
        if self._readable:
            self._receive()
            if self._closed:
                return
        if self._sender.pump() or self._readable:
            self.engine.schedule(self)
        if self._attention or self.connection.close_after_send:
            self._attention = False
            self._dispatch(self.engine.now())
            if self._closed:
                return
            if self.connection.close_after_send and not self._sender.waiting_bytes:
                self._terminate(None)
        self._alarm.arm()

    def on_fault(self, error: Exception) -> None:
        """End: this tunnel is broken, others are not."""
        if not self._closed:
            self._sender.failed = True
            self._terminate(error)

    # Receiving

    def _receive(self) -> None:
        """Read one buffer from the carrier and deal with what it means."""
        view = self.engine.scratch.receive
        now = self.engine.now()
        if now < self._sender.interactive_until:
            view = view[:YIELD_SIZE]
        try:
            size = self._carrier.recv_into(view)
        except BlockingIOError:
            self._readable = False
            if self._sender.failed:
                self._lost(ConnectionResetError("the carrier failed while sending"))
            elif self._level:
                self._carrier.rearm(read=True)
            return
        except OSError as error:
            self._lost(error)
            return
        if not size:
            self._lost(None)
            return
        self.connection.receive_data(view[:size], now=now)
        if size < len(view) and not self._hangup:
            self._readable = False
            if self._level:
                self._carrier.rearm(read=True)
        else:
            self._readable = True
        self._dispatch(now)

    def _dispatch(self, now: float) -> None:
        """Act on every event of the core."""
        if self._draining_events:
            return
        self._draining_events = True
        try:
            next_event = self.connection.next_event
            streams = self._streams
            while (event := next_event()) is not None:
                if type(event) is DataReceived:
                    splice = streams.get(event.stream_id)
                    if splice is None:
                        self._hold(event)
                        continue
                    if event.data:
                        splice.deliver(event.data, now)
                    if event.fin and not splice.dead:
                        splice.receive_fin()
                elif type(event) is StreamClosed:
                    self._held.pop(event.stream_id, None)
                else:
                    self._act(event)
                if self._closed:
                    return
        finally:
            self._draining_events = False

    def _act(self, event: Event) -> None:
        match event:
            case StreamOpened():
                if event.metadata.protocol is Protocol.TCP:
                    self._held[event.stream_id] = None
                self._tell(event)
            case StreamReset():
                self._reset_by_peer(event)
            case StreamAccepted():
                if (splice := self._streams.get(event.stream_id)) is not None:
                    splice.accepted = True
                    splice.retained = None
                self._tell(event)
            case ConnectionTerminated():
                self._tell(event)
                self._terminate(ending(event) or self._failure)
            case _:
                self._tell(event)

    def _tell(self, event: Event) -> None:
        """Tell the handler of an event; contain what it raises. What it has done may need to be sent."""
        if not self.scheduled:
            self.engine.schedule(self)
        try:
            self._handler.on_tunnel_event(self, event)
        except Exception as error:
            self._report(error)
            stream_id: int | None = getattr(event, "stream_id", None)
            if isinstance(event, StreamOpened) and stream_id is not None:
                self.reset(stream_id, ErrorCode.INTERNAL)

    def _report(self, error: Exception) -> None:
        self.engine.loop.call_exception_handler({"message": "a tunnel's handler raised", "exception": error})

    def _hold(self, event: DataReceived) -> None:
        """Keep bytes of a stream whose socket is still being found; its window bounds them.

        Bytes that the core announced before it learned that their stream was reset here are nobody's.
        """
        if event.stream_id not in self._held:
            return
        held = self._held[event.stream_id]
        if held is None:
            held = self._held[event.stream_id] = Held()
        held.data += event.data
        held.fin = event.fin

    def _reset_by_peer(self, event: StreamReset) -> None:
        self._held.pop(event.stream_id, None)
        splice = self._streams.get(event.stream_id)
        if splice is None or (splice.opener and not splice.accepted):
            self._tell(event)
            if self._streams.get(event.stream_id) is not splice:
                return
        if splice is not None and not splice.dead:
            self._end(splice, "reset", code=event.code, detail=event.detail, reason=event.reason, by_peer=event.remote)

    # From splices

    def sending_failed(self) -> None:
        """Read what the peer said before the carrier stopped taking bytes: its reason may be there."""
        self._readable = True
        self.engine.schedule(self)

    def fin_sent(self, splice: Splice) -> None:
        """Note that the socket's end went to the peer."""
        splice.fin_sent = True
        splice.wanted = False
        if not splice.fin_received:
            splice.first_fin = "local"
        elif splice.leftover is None:
            self.stream_finished(splice)

    def bytes_left(self, stream_id: int, size: int) -> None:
        """Return credit for bytes that a socket took after refusing them first."""
        self.connection.acknowledge(stream_id, size, now=self.engine.now())
        self.engine.schedule(self)

    def socket_connected(self, splice: Splice) -> None:
        """Accept the stream, now that its socket is connected."""
        splice.connected = self.engine.now()
        if self._level:
            # A report that came while it was connecting was not used.
            self.engine.rearm(splice.sock, read=True)
        if not splice.opener and not splice.accepted:
            splice.accepted = True
            # The opener may have reset it already: the core knows, and its event is on the way to us.
            try:  # noqa: SIM105 - suppress() costs more than the call, for every connection
                self.connection.accept_stream(splice.stream_id)
            except NoSuchStream:
                pass
            if not self.scheduled:
                self.engine.schedule(self)
        if splice.leftover is not None:
            splice.flush()
        elif splice.fin_received:
            splice.receive_fin()

    def connect_failed(self, splice: Splice, error: OSError) -> None:
        """Let the handler say why, and make sure that the stream ends."""
        try:
            self._handler.on_connect_failed(self, splice.stream_id, error)
        except Exception as fault:
            self._report(fault)
        if not splice.dead:
            self.reset(splice.stream_id, ErrorCode.DIAL_FAILED, 0, error.strerror or "")

    def socket_failed(self, splice: Splice, error: OSError) -> None:
        """Reset a stream whose socket was reset or timed out."""
        if splice.dead:
            return
        if splice.connecting:
            self.connect_failed(splice, error)
            return
        with contextlib.suppress(LocalProtocolError):
            self.connection.reset_stream(splice.stream_id, ErrorCode.CANCEL)
        self._end(splice, "reset", code=ErrorCode.CANCEL, reason=error.strerror or "")
        self.engine.schedule(self)

    def stream_finished(self, splice: Splice) -> None:
        """Close a socket after both directions ended well."""
        self._end(splice, splice.first_fin)

    def _end(
        self,
        splice: Splice,
        closed_by: ClosedBy,
        *,
        code: ErrorCode = ErrorCode.NO_ERROR,
        detail: int = 0,
        reason: str = "",
        by_peer: bool = False,
    ) -> None:
        """Close a splice's socket and tell the handler how it went."""
        self._streams.pop(splice.stream_id, None)
        splice.close(reset=closed_by in {"reset", "tunnel"})
        summary = splice.summary(
            closed_by, self.engine.now(), code=code, detail=detail, reason=reason, reset_by_peer=by_peer
        )
        try:
            self._handler.on_stream_closed(self, splice.stream_id, summary)
        except Exception as error:
            self._report(error)

    # The end

    def _lost(self, error: OSError | None) -> None:
        """Let the core judge the carrier's end, and end."""
        if self._closed:
            return
        self._readable = False
        self._sender.failed = True
        self._failure = error
        self.connection.receive_eof(now=self.engine.now())
        self._dispatch(self.engine.now())
        if not self._closed:
            self._terminate(error)

    def _terminate(self, error: Exception | None) -> None:
        """End the tunnel once: last frames, the handler, the sockets, the carrier."""
        if self._closed:
            return
        self._closed = True
        self.error = error
        self._alarm.cancel()
        last = self._sender.finish()
        try:
            self._handler.on_tunnel_closed(self, error)
        except Exception as fault:
            self._report(fault)
        for splice in list(self._streams.values()):
            if splice.fin_sent and splice.fin_received:
                # Whole, and only waiting for its socket to take the rest; it needs no tunnel any more.
                continue
            self._end(splice, "tunnel", code=ErrorCode.INTERNAL, reason="the tunnel was lost")
        self._held.clear()
        if self._sender.failed:
            self._carrier.abort()
        else:
            self._carrier.close(last)
