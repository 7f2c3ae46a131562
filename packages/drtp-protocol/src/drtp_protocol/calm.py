"""The calm bucket: tokens that an agent pays for frames which cost the edge work and move nothing.

Rules: the edge holds one per connection, the agent none: visitors cause opens and resets, so an agent that closed its
tunnel over them would hand any visitor a kill switch. Whatever an honest agent must send is free: the RESET that
answers our OPEN, and what was on its way when we reset a stream.
What must not be here: what happens when the bucket is empty.

=========================================  ======
a frame                                    tokens
=========================================  ======
RESET of a stream that the agent opened    2
an agent's OPEN that is refused            2
WINDOW that grants almost nothing          2
PING                                       1
REPORT, more than one a second             1
a frame for a closed stream, unexpected    1
an extension that is ignored               1
16 KiB of DATA                             gives 1
=========================================  ======
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "COST_EXTENSION",
    "COST_LATE",
    "COST_PING",
    "COST_REFUSAL",
    "COST_REPORT",
    "COST_RESET",
    "COST_TINY_WINDOW",
    "CalmBucket",
]

COST_RESET: Final = 2
COST_REFUSAL: Final = 2
COST_TINY_WINDOW: Final = 2
COST_PING: Final = 1
COST_REPORT: Final = 1
COST_LATE: Final = 1
COST_EXTENSION: Final = 1
BYTES_PER_TOKEN: Final = 16_384


class CalmBucket:
    """A token bucket whose refill is time and useful bytes."""

    __slots__ = ("_burst", "_refill", "_tokens", "_updated", "_useful")

    def __init__(self, burst: float, refill: float, *, now: float) -> None:
        self._burst = burst
        self._refill = refill
        self._tokens = burst
        self._updated = now
        self._useful = 0

    def charge(self, cost: float, *, useful: int, now: float) -> bool:
        """Take tokens.

        Args:
            cost: How many.
            useful: DATA bytes received on the connection so far; what came since the last charge refills.
            now: Seconds.

        Returns:
            False if there were too few; none are taken then.
        """
        gained = (now - self._updated) * self._refill + (useful - self._useful) / BYTES_PER_TOKEN
        self._updated = now
        self._useful = useful
        self._tokens = min(self._burst, self._tokens + gained)
        if cost > self._tokens:
            return False
        self._tokens -= cost
        return True
