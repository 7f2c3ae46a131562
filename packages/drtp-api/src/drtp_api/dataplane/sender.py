"""The sending half of a tunnel: control frames, then frames filled straight from sockets, packed into few system calls.

Rules:

- The core names the stream and the allowance; the payload is read behind an 8-byte gap into the engine's send buffer
  and the core writes the header into the gap. Nothing is copied unless the carrier refuses it.
- What the carrier refuses is kept, and then nothing is read until it has gone: the sockets hold back, not
  this process.
- A turn reads a bounded number of bytes, and few where small frames show that somebody waits for answers.

What must not live here: receiving, the handler, and the end of the tunnel.
"""

from typing import TYPE_CHECKING

from drtp_api.dataplane.carrier import Carrier
from drtp_api.dataplane.engine import Engine
from drtp_api.dataplane.splice import Splice
from drtp_protocol import Connection

if TYPE_CHECKING:
    from drtp_api.dataplane.tunnel import Tunnel

HEADER_SIZE = 8
SMALL_FRAME = 16 * 1024
"""Frames shorter than this are not bulk: a pack with one of them leaves soon, without waiting to be full."""

YIELD_TIME = 0.1
"""Seconds after a small frame in which this tunnel counts as interactive; the core's lanes use the same."""

YIELD_SIZE = 64 * 1024
"""Bytes moved each way in one turn of an interactive tunnel: a keystroke waits for a turn here and at the other end."""

CONTROL_SIZE = 64 * 1024
"""Control bytes fetched from the core at once; its own queue is not longer."""


class Sender:
    """Sends for one tunnel; made by it.

    Args:
        tunnel: told of streams that end here.
        engine: lends the buffer.
        carrier: takes the bytes.
        connection: the core.
        streams: the tunnel's splices by stream.
        turn_size: bytes read from sockets in one turn.
        pack_size: assembled bytes that are sent without waiting for more, where a small frame is among them.
    """

    __slots__ = (
        "_backlog",
        "_carrier",
        "_conn",
        "_engine",
        "_level",
        "_pack_size",
        "_streams",
        "_tunnel",
        "_turn_size",
        "failed",
        "interactive_until",
    )

    def __init__(
        self,
        tunnel: "Tunnel",
        engine: Engine,
        carrier: Carrier,
        connection: Connection,
        streams: dict[int, Splice],
        *,
        turn_size: int,
        pack_size: int,
    ) -> None:
        self._tunnel = tunnel
        self._engine = engine
        self._level = not engine.edge_triggered
        self._carrier = carrier
        self._conn = connection
        self._streams = streams
        self._turn_size = turn_size
        self._pack_size = pack_size
        self._backlog: memoryview | None = None
        self.failed = False
        """Whether the carrier takes nothing any more."""
        self.interactive_until = 0.0
        """When turns may be long again."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the carrier refused, and those that it took and still holds."""
        return self._carrier.pending_bytes + (0 if self._backlog is None else len(self._backlog))

    def pump(self) -> bool:
        """Send what may be sent in one turn, and tell whether more is left that could go at once."""
        if self.failed or ((self._backlog is not None or self._carrier.pending_bytes) and not self._unblocked()):
            return False
        conn = self._conn
        now = self._engine.now()
        buffer = self._engine.scratch.send
        capacity = len(buffer)
        streams = self._streams
        budget = self._turn_size
        full = capacity - SMALL_FRAME
        if now < self.interactive_until:
            budget = min(budget, YIELD_SIZE)
            full = self._pack_size
        position = 0
        while True:
            control = conn.data_to_send(CONTROL_SIZE, now=now)
            if control:
                if position + len(control) > capacity:
                    if not self._transmit(buffer[:position]):
                        self._keep(control)
                        return False
                    position = 0
                if len(control) > capacity:
                    if not self._transmit(memoryview(control)):
                        return False
                else:
                    buffer[position : position + len(control)] = control
                    position += len(control)
            filled = False
            small = bool(control)
            while budget > 0 and (ready := conn.next_send(now)) is not None:
                stream_id, allowance = ready
                splice = streams.get(stream_id)
                if splice is None:
                    conn.want_send(stream_id, False)
                    continue
                filled = True
                end = position + HEADER_SIZE + allowance
                if end > capacity:
                    if position:
                        if not self._transmit(buffer[:position]):
                            return False
                        position = 0
                        continue
                    end = capacity
                size = self._fill(splice, buffer[position:end])
                if size:
                    position += size
                    budget -= size
                    if size < SMALL_FRAME <= allowance:
                        small = True
                        self.interactive_until = now + YIELD_TIME
                    if position >= (self._pack_size if small else full):
                        if not self._transmit(buffer[:position]):
                            return False
                        position = 0
                        small = False
            # Filling may have made control frames (a reset, say), which go before any further frame.
            if budget <= 0 or not (control or filled) or not conn.wants_write:
                break
        if position and not self._transmit(buffer[:position]):
            return False
        return budget <= 0

    def finish(self) -> bytes:
        """Return all that is still owed to the peer: what the carrier refused, then the core's last words."""
        if self.failed:
            return b""
        backlog = b"" if self._backlog is None else bytes(self._backlog)
        self._backlog = None
        return backlog + self._conn.data_to_send(CONTROL_SIZE, now=self._engine.now())

    def _fill(self, splice: Splice, frame: memoryview) -> int:
        """Make one frame from a socket's bytes and return its size, 0 if there is none."""
        conn = self._conn
        room = frame[HEADER_SIZE:]
        fin = dry = False
        size = 0
        try:
            if splice.early is not None:
                size = splice.take_early(room)
            else:
                size = splice.sock.recv_into(room)
                if not size:
                    fin = True
                elif size < len(room):
                    if splice.hangup:
                        # The end is next; if it is there already it travels with the bytes.
                        more = splice.sock.recv_into(room[size:])
                        fin = not more
                        size += more
                    else:
                        dry = True
        except BlockingIOError:
            dry = True
        except OSError as error:
            self._tunnel.socket_failed(splice, error)
            return 0
        if dry:
            splice.wanted = False
            conn.want_send(splice.stream_id, False)
            if self._level:
                self._engine.rearm(splice.sock, read=True)
            if not size:
                return 0
        if splice.retained is not None:
            splice.retained += room[:size]
        conn.commit(splice.stream_id, size, frame, fin)
        splice.from_socket += size
        if fin:
            self._tunnel.fin_sent(splice)
        return HEADER_SIZE + size

    def _transmit(self, data: memoryview) -> bool:
        """Give bytes to the carrier, keep a copy of what it refuses, and tell whether it may take more."""
        try:
            sent = self._carrier.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._fail()
            return False
        if sent != len(data):
            self._backlog = memoryview(bytes(data[sent:]))
        elif not self._carrier.pending_bytes:
            return True
        self._carrier.rearm(write=True)
        return False

    def _keep(self, control: bytes) -> None:
        """Put control frames behind a backlog; they were fetched and cannot be given back."""
        self._backlog = memoryview(control if self._backlog is None else bytes(self._backlog) + control)

    def _unblocked(self) -> bool:
        """Tell whether the carrier takes bytes, after giving it what it refused before."""
        backlog = self._backlog
        if backlog is None:
            return not self._carrier.pending_bytes
        try:
            sent = self._carrier.send(backlog)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._fail()
            return False
        if sent != len(backlog):
            self._backlog = backlog[sent:]
            self._carrier.rearm(write=True)
            return False
        self._backlog = None
        return not self._carrier.pending_bytes

    def _fail(self) -> None:
        self.failed = True
        self._backlog = None
        self._tunnel.sending_failed()
