"""One stream joined to one socket: what arrives goes to the socket, what the socket has goes into frames.

Rules:

- There is no buffer between the two. Only bytes that the socket refused are kept, and the stream's window bounds them,
  because credit returns for bytes that left and for nothing else.
- Ends are translated faithfully: FIN to half-close and back, RST to RESET and back. A truncated stream must never look
  like a whole one.
- A splice asks its tunnel to act; it never calls the tunnel's handler and never touches the carrier.

What must not live here: frames, scheduling, and retrying elsewhere.
"""

from errno import ENOTCONN
from socket import SHUT_WR, socket
from typing import TYPE_CHECKING, Literal

import attrs

from drtp_api.dataplane.engine import Handler
from drtp_api.dataplane.sockopt import arm_reset, orderly_close, pending_error, reset_close
from drtp_protocol.errors import ErrorCode

if TYPE_CHECKING:
    from drtp_api.dataplane.tunnel import Tunnel

ClosedBy = Literal["local", "peer", "reset", "tunnel"]


@attrs.define(kw_only=True)
class StreamSummary:
    """How an attached stream went; directions are the visitor's. Frozen by custom only: every stream makes one."""

    stream_id: int
    bytes_in: int
    """Bytes that the visitor sent."""
    bytes_out: int
    """Bytes that were delivered towards the visitor."""
    started: float
    """When the socket was attached, on the engine's clock."""
    connected: float | None
    """When the socket was connected; None if it never was."""
    ended: float
    closed_by: ClosedBy
    """Who ended it: the local socket or the peer by an orderly close (whoever was first), a reset by either, or the
    loss of the tunnel."""
    code: ErrorCode
    """NO_ERROR after an orderly close."""
    detail: int = 0
    reason: str = ""
    reset_by_peer: bool = False


class Splice(Handler):
    """The join of one stream and one socket; made by :meth:`Tunnel.attach`."""

    __slots__ = (
        "accepted",
        "connected",
        "connecting",
        "dead",
        "early",
        "fin_received",
        "fin_sent",
        "first_fin",
        "from_socket",
        "hangup",
        "leftover",
        "opener",
        "retained",
        "sock",
        "started",
        "stream_id",
        "to_socket",
        "tunnel",
        "uncredited",
        "wanted",
    )

    def __init__(self, tunnel: "Tunnel", stream_id: int, sock: socket, *, opener: bool, now: float) -> None:
        arm_reset(sock)
        self.scheduled = False
        self.tunnel = tunnel
        self.stream_id = stream_id
        self.sock = sock
        self.opener = opener
        """Whether this end opened the stream, so that the visitor is at the socket."""
        self.accepted = False
        self.connecting = False
        self.dead = False
        self.hangup = False
        """The peer of the socket has ended or failed: a short read does not mean dry."""
        self.wanted = False
        """The core was told that bytes wait."""
        self.fin_sent = False
        self.fin_received = False
        self.first_fin: ClosedBy = "local"
        self.leftover: bytearray | None = None
        """Bytes that the socket refused; None when there are none, which the hot path tests."""
        self.uncredited = 0
        """How many of the leftover's first bytes did not come from the peer and give no credit back."""
        self.early: memoryview | None = None
        """Bytes for the peer ahead of what the socket has."""
        self.retained: bytearray | None = None
        """A copy of what was sent to the peer, until it accepts."""
        self.from_socket = 0
        self.to_socket = 0
        self.started = now
        self.connected: float | None = None

    # From the engine

    def on_io(self, readable: bool, writable: bool, hangup: bool) -> None:
        """Note what changed; reading waits for the tunnel's turn."""
        if self.dead:
            return
        if hangup:
            self.hangup = True
            if self.wanted or self.fin_sent:
                # Nobody will read soon, so ask; otherwise the next read tells.
                error = pending_error(self.sock)
                if error is not None:
                    self.tunnel.socket_failed(self, error)
                    return
        if writable:
            if self.connecting and not self._finish_connecting():
                return
            if self.leftover is not None:
                self.flush()
        if readable and not self.wanted and not self.fin_sent and not self.connecting:
            self.wanted = True
            tunnel = self.tunnel
            tunnel.connection.want_send(self.stream_id)
            if not tunnel.scheduled:
                tunnel.engine.schedule(tunnel)

    def on_fault(self, error: Exception) -> None:
        """Reset the stream: its handler is broken, its neighbours are not."""
        if not self.dead:
            self.tunnel.reset(self.stream_id, ErrorCode.INTERNAL, reason=type(error).__name__)

    def _finish_connecting(self) -> bool:
        """Tell whether the socket is connected by now; tell the tunnel whether that went well."""
        error = pending_error(self.sock)
        if error is None:
            try:
                self.sock.getpeername()
            except OSError as absent:
                if absent.errno == ENOTCONN:
                    # A report meant for an earlier owner of the descriptor's number.
                    self.tunnel.engine.rearm(self.sock, write=True)
                    return False
                error = absent
        if error is not None:
            self.tunnel.connect_failed(self, error)
            return False
        self.connecting = False
        self.tunnel.socket_connected(self)
        return not self.dead

    # Towards the socket

    def deliver(self, data: memoryview, now: float) -> None:
        """Send what the peer sent to the socket, and keep what the socket refuses."""
        if self.leftover is not None:
            self.leftover += data
            return
        if self.connecting:
            self.leftover = bytearray(data)
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.tunnel.socket_failed(self, error)
            return
        if sent:
            self.to_socket += sent
            self.tunnel.connection.acknowledge(self.stream_id, sent, now=now)
        if sent != len(data):
            self.leftover = bytearray(data[sent:])
            self.tunnel.engine.rearm(self.sock, write=True)

    def flush(self) -> None:
        """Send what the socket refused before."""
        left = self.leftover
        if left is None or self.connecting:
            return
        try:
            sent = self.sock.send(left)
        except BlockingIOError:
            self.tunnel.engine.rearm(self.sock, write=True)
            return
        except OSError as error:
            self.tunnel.socket_failed(self, error)
            return
        credit = sent
        if self.uncredited:
            credit = max(0, sent - self.uncredited)
            self.uncredited = max(0, self.uncredited - sent)
        self.to_socket += credit
        if sent == len(left):
            self.leftover = None
        else:
            del left[:sent]
            self.tunnel.engine.rearm(self.sock, write=True)
        if self.fin_received:
            if self.leftover is None:
                self._half_close()
        elif credit:
            self.tunnel.bytes_left(self.stream_id, credit)

    def receive_fin(self) -> None:
        """Half-close the socket once everything before the end has left."""
        self.fin_received = True
        if not self.fin_sent:
            self.first_fin = "peer"
        if self.leftover is None and not self.connecting:
            self._half_close()

    def _half_close(self) -> None:
        if self.fin_sent:
            self.tunnel.stream_finished(self)
            return
        try:
            self.sock.shutdown(SHUT_WR)
        except OSError as error:
            self.tunnel.socket_failed(self, error)

    # Towards the peer

    def take_early(self, room: memoryview) -> int:
        """Move early bytes into ``room`` and return how many."""
        early = self.early
        assert early is not None
        size = min(len(early), len(room))
        room[:size] = early[:size]
        self.early = early[size:] if size < len(early) else None
        return size

    # The end

    def close(self, *, reset: bool) -> None:
        """Close the socket, with an RST where the stream did not end well."""
        self.dead = True
        self.leftover = self.early = self.retained = None
        self.tunnel.engine.remove(self.sock, closing=True)
        if reset:
            reset_close(self.sock)
        else:
            orderly_close(self.sock)

    def summary(
        self,
        closed_by: ClosedBy,
        now: float,
        *,
        code: ErrorCode = ErrorCode.NO_ERROR,
        detail: int = 0,
        reason: str = "",
        reset_by_peer: bool = False,
    ) -> StreamSummary:
        """Return how it went."""
        inwards, outwards = self.from_socket, self.to_socket
        if not self.opener:
            inwards, outwards = outwards, inwards
        return StreamSummary(
            stream_id=self.stream_id,
            bytes_in=inwards,
            bytes_out=outwards,
            started=self.started,
            connected=self.connected,
            ended=now,
            closed_by=closed_by,
            code=code,
            detail=detail,
            reason=reason,
            reset_by_peer=reset_by_peer,
        )
