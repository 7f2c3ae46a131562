"""How long to wait after the n-th failure in a row: full jitter, no I/O, no clock.

Rules: the random number comes from outside, in [0, 1); the same input gives the same delay.
Source: "Exponential Backoff And Jitter", the *full jitter* variant: uniform between a floor and the cap.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Backoff:
    """Full-jitter exponential delays between `initial` and `maximum` seconds."""

    initial: float = 0.2
    maximum: float = 30.0
    factor: float = 2.0

    def delay(self, failures: int, random: float) -> float:
        """Return the seconds to wait after `failures` (1 or more) in a row, for a random number in [0, 1).

        The floor is `initial`, so that a crowd of clients never hammers a server that refuses at once.
        """
        # beyond 2**32 the cap has long been reached; the bound keeps the power from overflowing
        ceiling = min(self.maximum, self.initial * self.factor ** min(failures, 32))
        return self.initial + (ceiling - self.initial) * random
