"""Carriers: the ordered byte streams that tunnels run over, and the plain-socket one.

Rules:

- A carrier never blocks and keeps at most one batch of bytes of its own (what encryption already took).
- It tells truth about its end: ``recv_into`` returns 0 only for an end that the peer meant; anything else raises
  :class:`CarrierClosed`.
- ``close`` says goodbye and may linger a moment; ``abort`` leaves no doubt.

What must not live here: frames, handshakes of transports, and the choice of a transport.
"""

import contextlib
from socket import SHUT_WR, socket
from typing import Protocol

import attrs

from drtp_api.dataplane.engine import Engine, Handler, TimerHandle
from drtp_api.dataplane.sockopt import reset_close

LINGER = 2.0
"""Seconds that a closed carrier waits for the peer's end, so that its last frames (GOAWAY) are not cut off by a RST."""

PATIENCE = 10.0
"""Seconds without progress after which a closed carrier gives up sending its last bytes."""


class CarrierClosed(ConnectionError):  # noqa: N818 - a state of the carrier, as everyone here calls it
    """The byte stream ended without the peer's goodbye: reset, truncated, or closed here."""


@attrs.frozen(kw_only=True)
class CarrierInfo:
    """What is known about a carrier once it is established."""

    transport: str
    """The transport's registered name."""
    local: tuple[str, int]
    """Our address and port."""
    peer: tuple[str, int]
    """The peer's address and port."""
    channel_binding: bytes | None = None
    """What ties an authentication proof to this channel; None where the transport has nothing."""
    cb_type: str | None = None
    """How :attr:`channel_binding` was made, as in the IANA registry (``tls-server-end-point``)."""
    tls_version: str | None = None
    """Such as ``TLSv1.3``; None without TLS."""


class Carrier(Protocol):
    """A non-blocking ordered byte stream driven by an engine."""

    @property
    def info(self) -> CarrierInfo:
        """What is known about this carrier."""

    @property
    def pending_bytes(self) -> int:
        """Bytes taken by :meth:`send` that the kernel has not yet taken from the carrier."""

    def start(self, owner: Handler) -> None:
        """Begin to report to ``owner`` by its ``on_io`` and ``on_fault``, as an engine does. Call once."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read what is there, up to the buffer's size, and return how much.

        A short count means that the carrier is dry and will report again; 0 is the peer's orderly end.

        Raises:
            BlockingIOError: nothing is there.
            OSError: the carrier is broken (:class:`CarrierClosed` where the end was not announced).
        """

    def send(self, data: memoryview, /) -> int:
        """Take bytes and return how many; fewer than given means full, and that a report will follow.

        Raises:
            BlockingIOError: full.
            OSError: the carrier is broken.
        """

    def rearm(self, *, read: bool = False, write: bool = False) -> None:
        """Ask for reports again after running dry or full; nothing to do on edge-triggered engines."""

    def close(self, last: bytes = b"") -> None:
        """Send what was taken, then ``last``, say goodbye, close; all of it in the background.

        Nothing is reported any more. Idempotent.
        """

    def abort(self) -> None:
        """Close at once with a reset. Idempotent."""


def _address(value: object) -> tuple[str, int]:
    """Return host and port of what ``getsockname`` gave; a Unix socket's path stands with port 0."""
    if isinstance(value, tuple):
        return str(value[0]), int(value[1])
    return str(value), 0


def socket_addresses(sock: socket) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return the local and the peer address of a connected socket.

    Raises:
        OSError: the socket is not connected (any more).
    """
    return _address(sock.getsockname()), _address(sock.getpeername())


class SocketCarrier:
    """A carrier over a connected non-blocking socket, without encryption.

    Args:
        engine: drives the socket.
        sock: connected; the carrier owns it from now on.
        transport: name for :attr:`info`.
    """

    __slots__ = ("_closed", "_engine", "_info", "_sock", "recv_into", "send")

    pending_bytes = 0
    """Nothing is ever held back here."""

    def __init__(self, engine: Engine, sock: socket, *, transport: str = "tcp") -> None:
        sock.setblocking(False)
        local, peer = socket_addresses(sock)
        self._engine = engine
        self._sock = sock
        self._info = CarrierInfo(transport=transport, local=local, peer=peer)
        self._closed = False
        # The socket's own methods keep the carrier's contract as they are; a wrapper would cost every call.
        self.recv_into = sock.recv_into
        self.send = sock.send

    @property
    def info(self) -> CarrierInfo:
        """What is known about this carrier."""
        return self._info

    def start(self, owner: Handler) -> None:
        """Let the engine report to ``owner`` directly."""
        self._engine.add(self._sock, owner)

    def rearm(self, *, read: bool = False, write: bool = False) -> None:
        """Ask for reports again."""
        self._engine.rearm(self._sock, read=read, write=write)

    def close(self, last: bytes = b"") -> None:
        """Send ``last``, half-close, and linger until the peer ends, too."""
        if not self._closed:
            self._closed = True
            self._engine.remove(self._sock)
            Farewell(self._engine, self._sock, last)

    def abort(self) -> None:
        """Close with a reset."""
        if not self._closed:
            self._closed = True
            self._engine.remove(self._sock)
            reset_close(self._sock)


class Farewell(Handler):
    """Closes a socket without losing its last bytes.

    Closing a socket that has unread bytes resets the connection and may destroy what the peer has not read yet. So
    this sends ``rest`` for as long as the peer takes some of it every :data:`PATIENCE` seconds, half-closes, reads and
    forgets what still comes, and closes at the peer's end or after :data:`LINGER` seconds.
    """

    __slots__ = ("_engine", "_rest", "_sock", "_timer")

    def __init__(self, engine: Engine, sock: socket, rest: bytes = b"") -> None:
        self.scheduled = False
        self._engine = engine
        self._sock = sock
        self._rest = memoryview(rest)
        self._timer: TimerHandle | None = None
        if sock.fileno() >= 0:
            engine.add(sock, self)
            self._flush()

    def on_io(self, readable: bool, writable: bool, hangup: bool) -> None:  # noqa: ARG002
        """Send the rest, discard what comes, finish at the end."""
        if self._sock.fileno() >= 0 and writable and self._rest:
            self._flush()
        if self._sock.fileno() >= 0 and readable:
            self._discard()

    def on_turn(self) -> None:
        """Go on discarding."""
        self.on_io(True, True, False)

    def on_fault(self, error: Exception) -> None:  # noqa: ARG002
        """Close."""
        self._finish()

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._engine.call_later(seconds, self._finish)

    def _flush(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[self._sock.send(self._rest) :]
            self._sock.shutdown(SHUT_WR)
            self._wait(LINGER)
        except BlockingIOError:
            self._engine.rearm(self._sock, write=True)
            self._wait(PATIENCE)
        except OSError:
            self._finish()

    def _discard(self) -> None:
        try:
            if self._sock.recv_into(self._engine.scratch.receive):
                self._engine.schedule(self)
            elif not self._rest:
                self._finish()
            # Else the peer only half-closed: it may still read.
        except BlockingIOError:
            self._engine.rearm(self._sock, read=True)
        except OSError:
            self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._engine.remove(self._sock)
        with contextlib.suppress(OSError):
            self._sock.close()
