"""The one timer of a tunnel: it wakes the core at its next deadline.

Rules: a deadline that moves later costs nothing, because the timer is left to fire early and looks again; only one that
moves earlier is set anew.
What must not live here: what is due at a deadline; the core knows.
"""

from collections.abc import Callable

from drtp_api.dataplane.engine import Engine, TimerHandle
from drtp_protocol import Connection

_SLACK = 0.001


class Alarm:
    """Calls a core's ``handle_timeout`` when it is due.

    Args:
        engine: keeps the time.
        connection: the core.
        on_due: called after the core did what was due; it may have events and something to send.
    """

    __slots__ = ("_at", "_connection", "_engine", "_handle", "_on_due")

    def __init__(self, engine: Engine, connection: Connection, on_due: Callable[[], None]) -> None:
        self._engine = engine
        self._connection = connection
        self._on_due = on_due
        self._handle: TimerHandle | None = None
        self._at = 0.0

    def arm(self) -> None:
        """Look at the deadline; call this whenever the core did something."""
        deadline = self._connection.next_timeout()
        if deadline is None:
            return
        if self._handle is not None:
            if self._at <= deadline + _SLACK:
                return
            self._handle.cancel()
        self._at = deadline
        self._handle = self._engine.call_later(max(0.0, deadline - self._engine.now()), self._fire)

    def cancel(self) -> None:
        """Forget the deadline."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        now = self._engine.now()
        deadline = self._connection.next_timeout()
        if deadline is not None and deadline <= now:
            self._connection.handle_timeout(now=now)
            self._on_due()
        self.arm()
