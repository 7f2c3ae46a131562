"""The brain of a work queue: which key may be worked on now. No I/O, no clock, no randomness of its own.

Rules:
- A key waits at most once; adding it again while it waits changes nothing.
- A key is worked on by one worker at a time; added while busy, it runs once more afterwards.
- Failures delay only their own key, exponentially; success forgets them.
What must not enter: asyncio, time, random, what a key means.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

import attrs

from drtp_api.kube.backoff import Backoff

K = TypeVar("K", bound=Hashable)


@attrs.define
class WorkQueueState(Generic[K]):
    """Keys waiting, keys in work, keys delayed."""

    backoff: Backoff = attrs.field(factory=lambda: Backoff(initial=0.1, maximum=60.0))
    _ready: deque[K] = attrs.field(factory=deque, init=False)
    _dirty: set[K] = attrs.field(factory=set, init=False)
    _busy: set[K] = attrs.field(factory=set, init=False)
    _failures: dict[K, int] = attrs.field(factory=dict, init=False)
    _delayed: list[tuple[float, int, K]] = attrs.field(factory=list, init=False)
    _due: dict[K, float] = attrs.field(factory=dict, init=False)
    _order: itertools.count[int] = attrs.field(factory=itertools.count, init=False)

    def __len__(self) -> int:
        """Keys that wait for a worker now; delayed and busy ones are not counted."""
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in work; delayed keys may exist."""
        return not self._dirty and not self._busy

    @property
    def delayed(self) -> int:
        """How many keys wait for their time."""
        return len(self._due)

    def add(self, key: K) -> None:
        """Make a key wait for a worker."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._busy:
            self._ready.append(key)

    def add_after(self, key: K, delay: float, now: float) -> None:
        """Add a key after `delay` seconds; of several delays for one key the earliest counts."""
        if delay <= 0:
            self.add(key)
            return
        due = now + delay
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._delayed, (due, next(self._order), key))

    def next_key(self, now: float) -> K | None:
        """Take the next key to work on, None when nothing is ready."""
        self._release_due(now)
        if not self._ready:
            return None
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._busy.add(key)
        return key

    def next_due(self) -> float | None:
        """When the earliest delayed key becomes ready (absolute seconds), None without one."""
        while self._delayed and self._due.get(self._delayed[0][2]) != self._delayed[0][0]:
            heapq.heappop(self._delayed)  # overtaken by an earlier delay of the same key
        return self._delayed[0][0] if self._delayed else None

    def succeeded(self, key: K) -> None:
        """Give a key back after success."""
        self._failures.pop(key, None)
        self._give_back(key)

    def failed(self, key: K, now: float, random: float, *, backoff: Backoff | None = None) -> float:
        """Give a key back after a failure and return the delay before its next run, in seconds.

        Args:
            key: the key that was worked on.
            now: the present, seconds.
            random: a number in [0, 1).
            backoff: delays for this kind of failure, the queue's own without it.
        """
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = (backoff or self.backoff).delay(self._failures[key], random)
        self.add_after(key, delay, now)
        self._give_back(key)
        return delay

    def interrupted(self, key: K) -> None:
        """Give a key back whose work was cut short: it waits again, and nothing is counted."""
        self.add(key)
        self._give_back(key)

    def failures(self, key: K) -> int:
        """How many times in a row this key has failed."""
        return self._failures.get(key, 0)

    def _give_back(self, key: K) -> None:
        self._busy.discard(key)
        if key in self._dirty:
            self._ready.append(key)

    def _release_due(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, _, key = heapq.heappop(self._delayed)
            del self._due[key]
            self.add(key)
