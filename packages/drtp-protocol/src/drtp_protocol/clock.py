"""Timers: handshake, keepalive, lease, drain, and the reaper of idle streams.

Rules: time is only what the caller says it is; `next_timeout` is an attribute that may be early and never late, so that
receiving a frame costs no timer work; a path is dead only if a PING went unanswered, so a process that slept or hung
does not kill a living connection.
What must not be here: what a frame means.
"""

from __future__ import annotations

from .core import Core
from .errors import ErrorCode
from .events import LeaseExpiring, RttMeasured, StreamReset
from .flow import RttEstimate
from .frames import FrameType, GoAway, reset_payload, serialize
from .handshake import Welcome
from .states import ConnectionInput, ConnectionState, StreamInput, StreamState
from .status import Role
from .stream import Stream

__all__ = ["Clock"]

_MAX_MS = 2**32 - 1


class Clock(Core):
    """What happens because time passes."""

    __slots__ = ()

    def next_timeout(self) -> float | None:
        """Return when to call :meth:`handle_timeout`, on the clock of `now`; None: never.

        May change with every other call; may be earlier than anything is due, never later.
        """
        return self._deadline

    def handle_timeout(self, *, now: float) -> None:
        """Do what is due. Calling it early is harmless."""
        if self.state is ConnectionState.CLOSED:
            return
        self._now = now
        if not self._established:
            if now >= self._handshake_deadline:
                message = f"no authenticated connection within {self.tuning.handshake_timeout:g} s"
                self._terminate(ErrorCode.IDLE_TIMEOUT, message, answer=self.state is not ConnectionState.PREFACE)
            else:
                self._deadline = self._handshake_deadline
            return
        if self._drain_deadline is not None and now >= self._drain_deadline:
            self._terminate(ErrorCode.DRAINING, f"{len(self._streams)} streams did not finish in the time to drain")
            return
        if self._ping_outstanding:
            if now >= self._dead_at():
                silence = now - self._last_received
                self._terminate(ErrorCode.IDLE_TIMEOUT, f"the path is dead: no byte for {silence:.1f} s")
                return
        elif now >= self._ping_at():
            self.ping(now=now)
        self._handle_lease(now)
        if self._reap_at is not None and now >= self._reap_at:
            self._reap(now)
        self._arm()

    def ping(self, *, now: float) -> None:
        """Ask the peer for a sign of life; RttMeasured follows. Does nothing while one PING is unanswered.

        Raises:
            WrongState: the connection is not established.
        """
        self._require(ConnectionInput.SEND_PING, "ping")
        self._now = now
        if self._ping_outstanding:
            return
        self._ping_count += 1
        self._ping_outstanding = True
        self._last_ping = now
        self._write(FrameType.PING, 0, self._ping_count.to_bytes(8, "big"))
        self._arm()

    def _on_ping_answer(self, payload: bytes) -> bool:
        """Measure the round trip; False if it answers nothing that was asked."""
        if not self._ping_outstanding or payload != self._ping_count.to_bytes(8, "big"):
            return False
        self._ping_outstanding = False
        sample = max(0.0, self._now - self._last_ping)
        self._rtt = RttEstimate.first(sample) if self._rtt is None else self._rtt.updated(sample)
        self._events.append(RttMeasured(sample, self._rtt.smoothed))
        self._arm()  # the next PING is due before the death that was being waited for
        return True

    def _ping_at(self) -> float:
        return min(self._last_received + self._keepalive, self._last_ping + self.tuning.rtt_interval)

    def _dead_at(self) -> float:
        """Return when silence means death: long after the last byte, and long enough after asking for one."""
        patience = max(self.dead_after - self._keepalive, self._keepalive / 2)
        return max(self._last_received + self.dead_after, self._last_ping + patience)

    def _arm(self) -> None:
        """Set the deadline to the earliest timer."""
        if not self._established:
            return
        deadline = self._dead_at() if self._ping_outstanding else self._ping_at()
        for due in (self._drain_deadline, self._lease_warning, self._lease_deadline, self._reap_at):
            if due is not None and due < deadline:
                deadline = due
        self._deadline = deadline

    def _establish(self, welcome: Welcome, now: float) -> None:
        """Start the timers of an authenticated connection, from WELCOME; also for a renewed lease."""
        self._welcome = welcome
        self._established = True
        if welcome.keepalive is not None:
            self._keepalive = welcome.keepalive[0] / 1000 * self._jitter
            self.dead_after = welcome.keepalive[1] / 1000
        if welcome.lease and self.role is Role.EDGE:
            self._lease_warning = now + welcome.lease * 2 / 3
            self._lease_deadline = now + welcome.lease
        else:
            self._lease_warning = self._lease_deadline = None
        self._arm()

    def _handle_lease(self, now: float) -> None:
        if self._lease_deadline is not None and now >= self._lease_deadline:
            self._drain(ErrorCode.AUTH_EXPIRED, self.tuning.expiry_drain, reason="the lease is over", now=now)
        elif self._lease_warning is not None and now >= self._lease_warning and self._lease_deadline is not None:
            self._lease_warning = None
            self._events.append(LeaseExpiring(self._lease_deadline))

    # -- draining ------------------------------------------------------------------------------------------------

    def _drain(
        self,
        code: ErrorCode,
        drain: float,
        *,
        retry_after: float = 0.0,
        alternates: tuple[str, ...] = (),
        reason: str = "",
        now: float,
    ) -> None:
        """Send GOAWAY and let streams finish; a later call may only shorten the time."""
        frame = GoAway(
            last_id=self._processed(),
            code=code,
            retry_after_ms=min(_MAX_MS, round(retry_after * 1000)),
            drain_ms=max(1, min(_MAX_MS, round(drain * 1000))),
            reason=reason,
            alternates=alternates,
        )
        self._control += serialize(frame)  # refuses what cannot be sent before anything changed
        self._move(ConnectionInput.SEND_GOAWAY)
        self._goaway_sent = True
        self._told_last_id = frame.last_id
        self._stop_leasing(now + drain)
        if not self._streams:
            self._terminate(ErrorCode.NO_ERROR, "no streams to wait for after GOAWAY")

    def _stop_leasing(self, deadline: float) -> None:
        """Let the time to drain replace the lease."""
        self._lease_warning = self._lease_deadline = None
        if self._drain_deadline is None or deadline < self._drain_deadline:
            self._drain_deadline = deadline
        self._arm()

    # -- the reaper ----------------------------------------------------------------------------------------------

    def _reap(self, now: float) -> None:
        """Reset streams that stalled or were idle for too long. Looks at all of them, every few seconds."""
        for stream in list(self._streams.values()):
            verdict = self._verdict(stream, now)
            if verdict is not None:
                self._reset(stream, *verdict)
                if not self._established:  # that was the last stream of a drain
                    return
        self._reap_at = now + self.tuning.reap_interval if self._streams else None

    def _verdict(self, stream: Stream, now: float) -> tuple[ErrorCode, str] | None:
        """Return why a stream should be reset, or None."""
        tuning = self.tuning
        if stream.stalled_since >= 0 and now - stream.stalled_since >= tuning.stall:
            return ErrorCode.STALLED, f"the peer gave no credit for {now - stream.stalled_since:.0f} s"
        idle = now - stream.active
        limit: float = self.limits.idle_timeout
        if stream.is_flow:
            limit = min(limit, tuning.flow_idle) if limit and tuning.flow_idle else limit or tuning.flow_idle
        elif stream.state in _HALF_CLOSED:
            limit = min(limit, tuning.linger) if limit else tuning.linger
        if limit and idle >= limit and not stream.pending:
            return ErrorCode.IDLE_TIMEOUT, f"no byte for {idle:.0f} s"
        return None

    def _reset(self, stream: Stream, code: ErrorCode, reason: str) -> None:
        """Reset a stream by this end's own decision and tell the shell."""
        self._write(FrameType.RESET, stream.stream_id, reset_payload(code, 0, reason))
        self._events.append(StreamReset(stream.stream_id, code, 0, reason, remote=False))
        self._close(stream, StreamInput.SEND_RESET)

    def _close(self, stream: Stream, moved: StreamInput) -> None:
        """Close a stream by RESET, sent or received, and drop it."""
        pending = stream.pending
        if moved is StreamInput.SEND_RESET:
            self._expect_late_frames(stream)
        stream.move(moved)
        self._forget(stream, pending=pending)


_HALF_CLOSED = frozenset({StreamState.HALF_CLOSED_LOCAL, StreamState.HALF_CLOSED_REMOTE})
