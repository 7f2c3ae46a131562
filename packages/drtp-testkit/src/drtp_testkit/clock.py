"""A clock that moves only when told, for brains that take the time as a parameter or a callable."""

from __future__ import annotations

import attrs

__all__ = ["FakeClock"]


@attrs.define
class FakeClock:
    """Seconds that pass by hand. Call it to read it.

    It starts far from zero, because code that takes "never" for 0 works by accident near zero.
    """

    now: float = 1_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Let time pass and return the new time.

        Raises:
            ValueError: ``seconds`` is negative: monotonic clocks do not go back.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds} s")
        self.now += seconds
        return self.now
