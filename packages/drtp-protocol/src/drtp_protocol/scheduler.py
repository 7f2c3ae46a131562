"""Who may send next: two lanes of streams, each served in turn.

Rules: a stream that moved little lately is interactive and goes before bulk, so a keystroke does not wait behind a
download; bulk is never starved (every few interactive turns it has one); within a lane each has one frame in turn.
Rings forget lazily: whoever meets a stream that no longer wants to send takes it out.
What must not be here: credit and frames. The connection asks for the head and says what became of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from .limits import HARD_MAX_FRAME
from .stream import Stream

__all__ = ["Lanes"]

INTERACTIVE_BYTES: Final = 32_768
"""A stream that sent more than this within LANE_TIME is bulk: 2.6 Mbit/s."""
LANE_TIME: Final = 0.1
YIELDING_FRAME: Final = 65_536
"""The largest bulk frame while interactive streams are active."""
BULK_EVERY: Final = 8
"""While bulk waits, every eighth turn is its."""


class Lanes:
    """Two rings of streams. Not aware of whether they are pulled or pushed."""

    __slots__ = ("_bulk", "_interactive", "_turns", "interactive_at")

    def __init__(self) -> None:
        self._interactive: deque[Stream] = deque()
        self._bulk: deque[Stream] = deque()
        self._turns = 0
        self.interactive_at = float("-inf")

    def __len__(self) -> int:
        return len(self._interactive) + len(self._bulk)

    def __iter__(self) -> Iterator[Stream]:
        yield from self._interactive
        yield from self._bulk

    def append(self, stream: Stream, now: float) -> None:
        """Put a stream at the end of its lane; the caller knows that it is in none."""
        if stream.burst > INTERACTIVE_BYTES:
            if now - stream.burst_since <= LANE_TIME:
                self._bulk.append(stream)
                return
            stream.burst = 0
        self._interactive.append(stream)

    def head(self) -> deque[Stream] | None:
        """Return the ring whose first stream is next, or None if both are empty."""
        if self._interactive and (self._turns < BULK_EVERY or not self._bulk):
            return self._interactive
        return self._bulk or None

    def rotate(self, ring: deque[Stream], stream: Stream, size: int, now: float) -> None:
        """Move the first stream of `ring`, which just sent `size` bytes, to the end of the lane it belongs to."""
        ring.popleft()
        if ring is self._interactive:
            self._turns += 1
            self.interactive_at = now
        else:
            self._turns = 0
        elapsed = now - stream.burst_since
        if elapsed > LANE_TIME:  # halve, so that a steady stream does not turn interactive for a moment each time
            stream.burst = stream.burst // 2 if elapsed < 2 * LANE_TIME else 0
            stream.burst_since = now
        stream.burst += size
        (self._bulk if stream.burst > INTERACTIVE_BYTES else self._interactive).append(stream)

    def frame_cap(self, ring: deque[Stream], now: float) -> int:
        """Return the largest frame that a stream of `ring` should send: bulk yields while others are interactive."""
        if ring is self._bulk and now - self.interactive_at < LANE_TIME:
            return YIELDING_FRAME
        return HARD_MAX_FRAME

    def clear(self) -> None:
        """Forget all."""
        self._interactive.clear()
        self._bulk.clear()
