"""Deadlines of many things with one patience: one timer for all, constant cost per thing.

Rules:
- Everything in one :class:`Deadlines` waits equally long, so the order of arrival is the order of expiry.
- An item that expired is forgotten before it is reported.

What must not live here: what happens at a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from drtp_api.dataplane.engine import Engine, TimerHandle

__all__ = ["Deadlines"]

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """Items that expire ``timeout`` seconds after they were added.

    Args:
        engine: Gives time and the timer.
        timeout: Seconds.
        on_expired: Called once for each item that was not discarded in time; at most ``timeout / 16`` late.
    """

    __slots__ = ("_due", "_engine", "_on_expired", "_timeout", "_timer")

    def __init__(self, engine: Engine, timeout: float, on_expired: Callable[[T], None]) -> None:
        self._engine = engine
        self._timeout = timeout
        self._on_expired = on_expired
        self._due: dict[T, float] = {}
        self._timer: TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, item: T) -> bool:
        return item in self._due

    def add(self, item: T) -> None:
        """Start the item's time."""
        self._due[item] = self._engine.now() + self._timeout
        if self._timer is None:
            self._timer = self._engine.call_later(self._timeout, self._tick)

    def discard(self, item: T) -> None:
        """Stop the item's time; harmless if it is not running."""
        self._due.pop(item, None)

    def close(self) -> None:
        """Forget everything."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now = self._engine.now()
        expired = []
        for item, due in self._due.items():
            if due > now:
                # A pause between two ticks lets one tick serve many items.
                self._timer = self._engine.call_later(max(due - now, self._timeout / 16), self._tick)
                break
            expired.append(item)
        for item in expired:
            if self._due.pop(item, None) is not None:
                self._on_expired(item)
