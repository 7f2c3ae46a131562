"""The brain of one visitor, from arrival to access record: no I/O, no clock, no randomness.

Rules:
- Events in, commands out: :meth:`Session.receive` returns the commands that the shell carries out, in order.
- A visitor has at most one open stream. Before the next OPEN the last attempt has ended.
- First bytes are kept until ACCEPT and given to the next attempt; after ACCEPT nothing is ever replayed.
- Each tunnel is tried once. A visitor is given up only when no untried tunnel lives, or its time is over.

What must not live here: sockets, tunnels, access lists. A tunnel is a number here.
"""

from __future__ import annotations

import enum
from typing import Final, assert_never

import attrs

from drtp_api.acl import Decision, Verdict
from drtp_protocol.errors import DialDetail, ErrorCode
from drtp_protocol.metadata import Address

__all__ = [
    "AccessRecord", "AskAcl", "Command", "DeadlinePassed", "Decided", "Event", "Finish", "OpenFailed", "OpenStream",
    "Phase", "ResetStream", "ResetVisitor", "Session", "StreamAccepted", "StreamEnded", "StreamRefused", "TunnelLost",
    "VisitorLeft",
]  # fmt: skip

Tunnels = tuple[int, ...]
"""The live tunnels of the visitor's service in order of preference."""

NOT_PROCESSED: Final = frozenset({ErrorCode.REFUSED, ErrorCode.OVER_CAPACITY, ErrorCode.DRAINING})
"""Codes by which a peer says that it did nothing with the stream, so that another may."""

ELSEWHERE_MAY_WORK: Final = frozenset({DialDetail.CONNECTION_REFUSED, DialDetail.TIMEOUT, DialDetail.UNREACHABLE})
"""Failures to reach the local service that another agent's machine may not have."""


class Phase(enum.Enum):
    """Where a visitor stands."""

    ARRIVED = "arrived"
    DECIDING = "deciding"
    OPENING = "opening"
    SPLICED = "spliced"
    CLOSED = "closed"


# Events. ``early`` are the bytes taken from the visitor so far and not known to be delivered.


@attrs.frozen
class Decided:
    """The access backends answered."""

    decision: Decision
    tunnels: Tunnels


@attrs.frozen
class OpenFailed:
    """The tunnel could not open a stream: it drains, is full, or just ended. Nothing was sent."""

    early: bytes
    tunnels: Tunnels


@attrs.frozen
class StreamAccepted:
    """The agent reached the local service; bytes flow."""


@attrs.frozen
class StreamRefused:
    """The agent reset the stream before it accepted it."""

    code: ErrorCode
    detail: int
    early: bytes
    tunnels: Tunnels


@attrs.frozen
class TunnelLost:
    """The tunnel ended before the stream was accepted."""

    early: bytes
    tunnels: Tunnels


@attrs.frozen
class VisitorLeft:
    """The visitor ended its connection before the stream was accepted."""

    bytes_in: int = 0


@attrs.frozen
class DeadlinePassed:
    """The time for an ACCEPT is over."""


@attrs.frozen
class StreamEnded:
    """The spliced stream is over. Sizes in bytes as the visitor sees them: in is what it sent."""

    bytes_in: int
    bytes_out: int
    closed_by: str
    code: ErrorCode


Event = Decided | OpenFailed | StreamAccepted | StreamRefused | TunnelLost | VisitorLeft | DeadlinePassed | StreamEnded


# Commands


@attrs.frozen
class AskAcl:
    """Ask the access backends; answer with :class:`Decided`."""


@attrs.frozen
class OpenStream:
    """Open a stream on the tunnel, give it the visitor and the bytes taken so far."""

    tunnel: int
    early: bytes


@attrs.frozen
class ResetStream:
    """Give up the stream under way; the visitor's socket comes back."""

    code: ErrorCode


@attrs.frozen
class ResetVisitor:
    """Close the visitor's connection with a real RST, so that it cannot be taken for an answer."""

    code: ErrorCode


@attrs.define(kw_only=True)
class AccessRecord:
    """What is written about one visitor. Times are seconds, sizes bytes as the visitor sees them.

    Every visitor costs one, so it is not frozen (a frozen one takes three times as long to make), and its addresses are
    made readable only by those who write them down.
    """

    connection_id: bytes
    service: str
    source: Address
    rule: str
    outcome: str
    code: ErrorCode
    closed_by: str
    reason: str
    bytes_in: int
    bytes_out: int
    duration: float
    attempts: int
    tunnel: int | None
    decision_latency: float | None
    accept_latency: float | None


@attrs.frozen
class Finish:
    """The visitor is over: forget it and write its record."""

    record: AccessRecord


Command = AskAcl | OpenStream | ResetStream | ResetVisitor | Finish

_NONE: tuple[Command, ...] = ()


@attrs.define(slots=True)
class Session:
    """The state of one visitor.

    Args:
        connection_id: 16 bytes that stand in every log line about this visitor, at both ends.
        service: The service's key.
        source: The visitor's real address.
        arrived: When it was accepted, on the engine's clock.
        early: Bytes that came with it (behind a PROXY header, or an HTTP head that was read for routing).
    """

    connection_id: bytes
    service: str
    source: Address
    arrived: float
    early: bytes = b""
    phase: Phase = Phase.ARRIVED
    rule: str = ""
    tried: tuple[int, ...] = ()
    decided: float = -1.0
    opened: float = -1.0
    accepted: float = -1.0

    @property
    def tunnel(self) -> int | None:
        """The tunnel that carries the visitor, or was tried last."""
        return self.tried[-1] if self.tried else None

    def start(self) -> tuple[Command, ...]:
        """Begin: ask who may enter."""
        assert self.phase is Phase.ARRIVED
        self.phase = Phase.DECIDING
        return (AskAcl(),)

    def receive(self, event: Event, *, now: float) -> tuple[Command, ...]:
        """Take an event and return what to do. Events after the end are ignored: they may already be on their way."""
        if self.phase is Phase.CLOSED:
            return _NONE
        match event:
            case StreamAccepted():
                if self.phase is Phase.OPENING:
                    self.phase = Phase.SPLICED
                    self.accepted = now
                    self.early = b""
                return _NONE
            case StreamEnded(bytes_in, bytes_out, closed_by, code):
                return self._finish("served", code, closed_by, "", now=now, bytes_in=bytes_in, bytes_out=bytes_out)
            case Decided(decision, tunnels):
                return self._decided(decision, tunnels, now)
            case StreamRefused(code, detail, early, tunnels):
                return self._refused(code, detail, early, tunnels, now)
            case OpenFailed(early, tunnels):
                return self._retry(early, tunnels, ErrorCode.REFUSED, "no tunnel takes the stream", now)
            case TunnelLost(early, tunnels):
                if self.phase is not Phase.OPENING:
                    return _NONE
                return self._retry(early, tunnels, ErrorCode.REFUSED, "the tunnel was lost", now)
            case VisitorLeft(bytes_in):
                return self._finish("left", ErrorCode.CANCEL, "visitor", "", now=now, bytes_in=bytes_in)
            case DeadlinePassed():
                return self._deadline(now)
            case _:
                assert_never(event)

    def _decided(self, decision: Decision, tunnels: Tunnels, now: float) -> tuple[Command, ...]:
        if self.phase is not Phase.DECIDING:
            return _NONE
        self.decided = now
        self.rule = decision.rule
        if decision.verdict is not Verdict.ALLOW:
            return (
                ResetVisitor(ErrorCode.DENIED),
                *self._finish("denied", ErrorCode.DENIED, "edge", decision.reason, now=now),
            )
        return self._open(tunnels, ErrorCode.REFUSED, "no live tunnel", now)

    def _refused(self, code: ErrorCode, detail: int, early: bytes, tunnels: Tunnels, now: float) -> tuple[Command, ...]:
        if self.phase is not Phase.OPENING:
            return _NONE
        reason = f"{code.name} {detail}" if detail else code.name
        if code in NOT_PROCESSED or (code is ErrorCode.DIAL_FAILED and detail in ELSEWHERE_MAY_WORK):
            return self._retry(early, tunnels, code, reason, now)
        return (ResetVisitor(code), *self._finish("refused", code, "agent", reason, now=now))

    def _retry(self, early: bytes, tunnels: Tunnels, code: ErrorCode, reason: str, now: float) -> tuple[Command, ...]:
        if self.phase is not Phase.OPENING:
            return _NONE
        self.early = early
        return self._open(tunnels, code, reason, now)

    def _open(self, tunnels: Tunnels, code: ErrorCode, reason: str, now: float) -> tuple[Command, ...]:
        for tunnel in tunnels:
            if tunnel not in self.tried:
                self.phase = Phase.OPENING
                self.tried += (tunnel,)
                self.opened = now
                early, self.early = self.early, b""
                return (OpenStream(tunnel, early),)
        return (ResetVisitor(code), *self._finish("unreachable", code, "edge", reason, now=now))

    def _deadline(self, now: float) -> tuple[Command, ...]:
        match self.phase:
            case Phase.OPENING:
                reset: tuple[Command, ...] = (ResetStream(ErrorCode.CANCEL), ResetVisitor(ErrorCode.DIAL_FAILED))
            case Phase.DECIDING:
                reset = (ResetVisitor(ErrorCode.DENIED),)
            case _:
                return _NONE
        waited = f"no answer in {now - self.arrived:.1f} s"
        return (*reset, *self._finish("unreachable", ErrorCode.DIAL_FAILED, "edge", waited, now=now))

    def _finish(
        self,
        outcome: str,
        code: ErrorCode,
        closed_by: str,
        reason: str,
        *,
        now: float,
        bytes_in: int = 0,
        bytes_out: int = 0,
    ) -> tuple[Command, ...]:
        self.phase = Phase.CLOSED
        self.early = b""
        return (
            Finish(
                AccessRecord(
                    connection_id=self.connection_id,
                    service=self.service,
                    source=self.source,
                    rule=self.rule,
                    outcome=outcome,
                    code=code,
                    closed_by=closed_by,
                    reason=reason,
                    bytes_in=bytes_in,
                    bytes_out=bytes_out,
                    duration=now - self.arrived,
                    attempts=len(self.tried),
                    tunnel=self.tunnel,
                    decision_latency=self.decided - self.arrived if self.decided >= 0 else None,
                    accept_latency=self.accepted - self.opened if self.accepted >= 0 else None,
                )
            ),
        )
