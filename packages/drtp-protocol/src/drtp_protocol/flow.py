"""Flow-control arithmetic: the budget, the growth of windows, round-trip time and delivery rate.

Rules: credit is an absolute limit, so that it only ever grows and one invariant holds (`sent <= limit`); it returns
when bytes were consumed, never when they arrived; a window grows only out of a bounded pool and never shrinks; there
is no window for the whole connection, because mutually untrusting visitors share one, and a few stalled ones would
stop all.
What must not be here: frames, streams, events.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["Budget", "DeliveryRate", "RttEstimate"]

UNLIMITED: Final = 2**63

MIN_GROWTH_TIME: Final = 0.0005
"""A window whose half was consumed in less grows whatever the RTT: a short path's RTT is as coarse as the clock."""

SMALL_FRAME: Final = 16_384
"""What a sender uses until it knows better: 13 ms of a 10 Mbit/s line."""
FRAME_TIME: Final = 0.002
"""A frame should leave within this time, so that a neighbour's small one need not wait longer."""
SAMPLE_TIME: Final = 0.02
_SAMPLE_BYTES: Final = 1024 * 1024


class Budget:
    """Bytes that all connections of a process may promise to receive together. Give one to many connections."""

    __slots__ = ("total", "used")

    def __init__(self, total: int = UNLIMITED) -> None:
        self.total = total
        self.used = 0

    def acquire(self, size: int) -> bool:
        """Promise `size` bytes; False, and nothing promised, if that exceeds the total."""
        if self.used + size > self.total:
            return False
        self.used += size
        return True

    def release(self, size: int) -> None:
        """Take a promise back."""
        self.used -= size


@attrs.frozen
class RttEstimate:
    """Round-trip time in seconds, smoothed as in RFC 6298."""

    latest: float
    smoothed: float
    variation: float
    minimum: float

    @classmethod
    def first(cls, sample: float) -> RttEstimate:
        """Return the estimate that one sample gives."""
        return cls(sample, sample, sample / 2, sample)

    def updated(self, sample: float) -> RttEstimate:
        """Return the estimate that a further sample gives."""
        variation = 0.75 * self.variation + 0.25 * abs(self.smoothed - sample)
        return RttEstimate(sample, 0.875 * self.smoothed + 0.125 * sample, variation, min(self.minimum, sample))


class DeliveryRate:
    """How fast the carrier takes bytes, and the frame size that follows from it.

    Only time in which something was ready to be sent counts: an idle application is not a slow path. The caller sets
    `started` when it begins to send (-1.0 while it does not) and adds to `size`; this keeps the hot path free of calls.
    """

    __slots__ = ("_busy", "_rate", "frame", "largest", "size", "started")

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.frame = min(SMALL_FRAME, largest)
        self.size = 0
        self.started = -1.0
        self._busy = 0.0
        self._rate = 0.0

    @property
    def bytes_per_second(self) -> float:
        """The estimate, 0.0 while there is none."""
        return self._rate

    def pause(self, now: float) -> None:
        """Note that nothing is left to send."""
        self._busy += max(0.0, now - self.started)
        self.started = -1.0
        if self._busy >= SAMPLE_TIME or self.size >= _SAMPLE_BYTES:
            self._sample()

    def proceed(self, now: float) -> None:
        """Take a sample; to be called when SAMPLE_TIME has passed since `started`."""
        self._busy += now - self.started
        self.started = now
        self._sample()

    def _sample(self) -> None:
        rate = self.size / max(self._busy, 1e-4)
        self._rate = (3 * self._rate + rate) / 4 if self._rate else rate
        self.size = 0
        self._busy = 0.0
        self.frame = min(self.largest, max(SMALL_FRAME, int(self._rate * FRAME_TIME)))
