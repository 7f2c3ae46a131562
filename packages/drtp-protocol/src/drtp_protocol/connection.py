"""The public face of the state machine: :class:`Connection`.

Rules: what a shell may call is here or inherited from the layers below (`core.py` lists them); inspection is O(1) and
changes nothing.
What must not be here: anything that a layer could own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from .errors import ErrorCode, InvalidMetadata, WrongState
from .events import Event
from .flow import Budget, RttEstimate
from .frames import FrameType, Report, serialize_payload
from .handshake import Capability, Challenge, Hello, Welcome
from .incoming import Incoming
from .limits import Limits, Tuning
from .states import ConnectionInput, ConnectionState
from .status import PeerInfo, Role, Stats
from .stream import StreamInfo

__all__ = ["Connection"]


class Connection(Incoming):
    """One DRTP/1 connection, with no I/O. Not thread-safe.

    A shell drives it in five steps:

    1. **Receive.** Hand what the carrier gives to :meth:`receive_data`, its end to :meth:`receive_eof`. Neither raises
       for what the peer did.
    2. **Handle events.** Drain :meth:`events` after every step, this one first: answer AuthRequired with
       :meth:`authenticate`, AuthReceived with :meth:`accept` or :meth:`reject`, StreamOpened with
       :meth:`accept_stream` or :meth:`reset_stream`; pass DataReceived on before the next `receive_data`, whose call
       ends the life of its view, and :meth:`acknowledge` the bytes when they left your hands.
    3. **Send.** While :attr:`wants_write`, send :meth:`data_to_send`. Then, if you pull, loop over :meth:`next_send`:
       read at most `allowance` bytes into `buffer[8:]`, :meth:`commit`, send `buffer[:8 + size]`; a dry socket is
       `want_send(id, False)`. Stop both when the carrier is full: what is not asked for does not queue.
    4. **Mind the time.** Call :meth:`handle_timeout` when :meth:`next_timeout` is reached, then go to 2.
    5. **Close.** When :attr:`close_after_send` is true and step 3 has sent all, close the carrier.

    Exceptions are :class:`LocalProtocolError`: you misused a call, nothing changed. Every `now` is seconds as float, of
    one clock that never goes back; all times handed out are of that clock.

    Attributes:
        role: Which end this is.
        state: Where it is in `CONNECTION_TRANSITIONS`.
        limits: In force; before WELCOME those that this end announced.
        tuning: This end's own numbers.
        dead_after: Seconds of silence that mean death; the edge may stretch it in WELCOME.
    """

    __slots__ = ()

    def __init__(
        self,
        role: Role,
        *,
        now: float,
        nonce: bytes,
        hello: Hello | None = None,
        challenge: Challenge | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        tuning: Tuning = Tuning(),  # noqa: B008 - frozen
        budget: Budget | None = None,
    ) -> None:
        """Make one end; an agent has its first bytes to send at once.

        Args:
            role: Which end.
            now: Seconds.
            nonce: 32 fresh random bytes.
            hello: For an agent; its nonce and limits are replaced by those given here.
            challenge: For an edge; likewise.
            limits: What this end accepts.
            tuning: This end's own numbers.
            budget: What all connections of the process share; None for no bound beyond the limits.

        Raises:
            InvalidMetadata: the nonce is not 32 bytes, or the message of the role is missing.
        """
        if (hello is not None) is not (role is Role.AGENT) or (challenge is not None) is not (role is Role.EDGE):
            raise InvalidMetadata("an agent begins with a Hello, an edge with a Challenge")
        if hello is not None:
            hello = attrs.evolve(hello, nonce=nonce, limits=limits)
        if challenge is not None:
            challenge = attrs.evolve(challenge, nonce=nonce, limits=limits)
        super().__init__(
            role,
            now=now,
            nonce=nonce,
            hello=hello,
            challenge=challenge,
            limits=limits,
            tuning=tuning,
            budget=budget,
        )
        if role is Role.AGENT:
            self._say_hello()

    # -- events --------------------------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """Return the oldest event and remove it, or None."""
        return self._events.popleft() if self._events else None

    def events(self) -> Iterator[Event]:
        """Drain the events, including those that come while you handle one."""
        events = self._events
        while events:
            yield events.popleft()

    # -- the connection ------------------------------------------------------------------------------------------

    def go_away(
        self,
        code: ErrorCode = ErrorCode.DRAINING,
        *,
        drain: float,
        retry_after: float = 0,
        alternates: Sequence[str] = (),
        reason: str = "",
        now: float,
    ) -> None:
        """Announce the end: the peer opens nothing new, streams may finish, then the connection closes.

        Without a stream, or with a `drain` of 0, it closes at once. A second call may shorten the time.

        Args:
            code: Why.
            drain: Seconds that open streams have.
            retry_after: Seconds in which the peer should not come back.
            alternates: Edges to dial instead, "host:port".
            reason: For the peer's log, at most 256 bytes.
            now: Seconds.

        Raises:
            WrongState: closed, or not established and `drain` is not 0.
            InvalidMetadata: reason or alternates are too long.
        """
        if self.state is ConnectionState.CLOSED:
            raise WrongState("cannot go away: the connection is closed")
        if drain <= 0:
            self._now = now
            self._terminate(code, reason or "this end went away")
            return
        self._require(ConnectionInput.SEND_GOAWAY, "go away")
        self._drain(code, drain, retry_after=retry_after, alternates=tuple(alternates), reason=reason, now=now)

    def report(self, report: Report, *, now: float) -> bool:
        """Tell the edge about the origins (agent); False if it is less than a second since the last one.

        Raises:
            WrongState: not established, not an agent, or the capability is not in force.
        """
        self._require(ConnectionInput.SEND_REPORT, "report")
        if self.role is not Role.AGENT or not self._capabilities() & Capability.REPORT:
            raise WrongState("cannot report: only an agent may, with the capability REPORT")
        if now - self._report_at < _REPORT_INTERVAL:
            return False
        payload = serialize_payload(report)[3]
        self._report_at = now
        self._write(FrameType.REPORT, 0, payload)
        return True

    @property
    def close_after_send(self) -> bool:
        """Whether the connection is over: send what `data_to_send` has and close the carrier."""
        return self.state is ConnectionState.CLOSED

    # -- inspection ----------------------------------------------------------------------------------------------

    @property
    def established(self) -> bool:
        """Whether both ends are authenticated and the connection is not over."""
        return self._established

    @property
    def peer(self) -> PeerInfo | None:
        """Who is at the other end, by its own words; None before it spoke."""
        if self.role is Role.EDGE:
            hello = self._hello
            return None if hello is None else PeerInfo(name=hello.agent, capabilities=hello.capabilities, hello=hello)
        challenge = self._challenge
        if challenge is None:
            return None
        return PeerInfo(name=challenge.edge_id, capabilities=challenge.capabilities, challenge=challenge)

    @property
    def welcome(self) -> Welcome | None:
        """The WELCOME in force; None before there is one."""
        return self._welcome

    @property
    def capabilities(self) -> Capability:
        """What both ends can do."""
        return self._capabilities()

    @property
    def rtt(self) -> RttEstimate | None:
        """Round-trip time; None before the first PING came back."""
        return self._rtt

    @property
    def stats(self) -> Stats:
        """Counters, as a snapshot."""
        return Stats(
            data_sent=self._data_sent,
            data_received=self._data_received,
            streams=len(self._streams),
            streams_opened=self._streams_opened,
            streams_offered=self._streams_offered,
            streams_refused=self._streams_refused,
            late_frames=self._late_frames,
            datagrams_sent=self._datagrams_sent,
            datagrams_received=self._datagrams_received,
            datagrams_dropped=self._datagrams_dropped,
            window_promised=len(self._streams) * self.limits.base_window + self._growth,
            delivery_rate=self._rate.bytes_per_second,
            frame_size=self._rate.frame,
        )

    def stream_info(self, stream_id: int) -> StreamInfo:
        """Return a snapshot of a stream.

        Raises:
            NoSuchStream: it is idle or closed.
        """
        return self._stream(stream_id).info()

    @property
    def stream_ids(self) -> tuple[int, ...]:
        """The ids of all open streams and flows, oldest first."""
        return tuple(self._streams)


_REPORT_INTERVAL = 1.0
