"""Runs reconcilers over a `WorkQueueState`: the shell with tasks and timers.

Rules: every decision is the state's; a worker's exception delays its key and is reported, never lost.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from drtp_api.kube.backoff import Backoff
from drtp_api.kube.errors import Conflict
from drtp_api.kube.workqueue_state import WorkQueueState

_log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

CONFLICT_BACKOFF = Backoff(initial=0.05, maximum=5.0)
"""A conflict means our cache is stale; the watch event that mends it is on its way, so look again soon."""


class WorkQueue(Generic[K]):
    """A key-deduplicating queue: one worker per key at a time, per-key back-off, delayed adds.

    Usage: `queue.add(key)` from reflector callbacks, `await queue.run(reconcile, workers=4)` as a task.
    """

    def __init__(
        self,
        *,
        backoff: Backoff | None = None,
        on_error: Callable[[K, Exception], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.state: WorkQueueState[K] = WorkQueueState(backoff) if backoff else WorkQueueState()
        self.runs = 0
        self._on_error = on_error
        self._clock = clock
        self._random = random
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, key: K) -> None:
        """Make a key wait for a worker; a key that waits already is not added twice."""
        self.state.add(key)
        self._notify()

    def add_after(self, key: K, delay: float) -> None:
        """Add a key after `delay` seconds; of several delays for one key the earliest counts."""
        self.state.add_after(key, delay, self._clock())
        self._notify()

    async def join(self) -> None:
        """Wait until nothing waits and nothing is in work; delayed keys are not waited for."""
        await self._idle.wait()

    async def run(self, reconcile: Callable[[K], Awaitable[float | None]], *, workers: int = 4) -> None:
        """Work until cancelled.

        Args:
            reconcile: called with a key; a number it returns adds the key again after so many seconds.
            workers: how many keys are worked on at once.
        """
        running: set[asyncio.Task[None]] = set()

        def finished(task: asyncio.Task[None]) -> None:
            # only now is the worker free; waking the loop earlier would find none
            running.discard(task)
            self._changed.set()

        try:
            while True:
                self._changed.clear()
                while len(running) < workers and (key := self.state.next_key(self._clock())) is not None:
                    task = asyncio.create_task(self._work(key, reconcile))
                    running.add(task)
                    task.add_done_callback(finished)
                await self._wait()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _wait(self) -> None:
        due = self.state.next_due()
        timeout = None if due is None else max(0.0, due - self._clock())
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            pass  # a delayed key is due; the loop takes it

    async def _work(self, key: K, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        self.runs += 1
        try:
            again = await reconcile(key)
        except Conflict:
            self.state.failed(key, self._clock(), self._random(), backoff=CONFLICT_BACKOFF)
        except asyncio.CancelledError:
            self.state.interrupted(key)
            raise
        except Exception as error:
            delay = self.state.failed(key, self._clock(), self._random())
            _log.warning("work on %s failed, next try in %.1f s: %s", key, delay, error)
            if self._on_error is not None:
                self._on_error(key, error)
        else:
            if again is not None:
                self.state.add_after(key, again, self._clock())
            self.state.succeeded(key)
        finally:
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        if self.state.idle:
            self._idle.set()
        else:
            self._idle.clear()
