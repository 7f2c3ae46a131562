"""Keeps a local copy of one kind: the shell around `ReflectorState`.

Rules:
- Every decision is the state's; this file only lists, watches, sleeps and calls back.
- A callback that raises is logged and does not stop the reflector or the other callbacks.
What must not enter: decisions about when to relist, back off or resume.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import assert_never

from drtp_api.kube.backoff import Backoff
from drtp_api.kube.errors import KubeError
from drtp_api.kube.paging import list_all
from drtp_api.kube.protocol import Kube
from drtp_api.kube.reflector_state import Change, ListObjects, ReflectorState, Wait, WatchObjects
from drtp_api.kube.resource import Key, Obj, Resource

_log = logging.getLogger(__name__)

OnChange = Callable[[Change], None]


class Reflector:
    """A live, read-only cache of one kind, kept by list and watch.

    Usage: `reflector = Reflector(kube, DRTP_SERVICES, on_change=...)`, run `reflector.run()` as a task, wait for
    `reflector.synced`, read `reflector.cache`. Callbacks run in the loop, before the next event is taken.

    Args:
        kube: any client.
        resource: the kind.
        namespace: None for all namespaces.
        on_change: called for every change; more can be added with `subscribe`.
        label_selector: only matching objects are cached.
        field_selector: only matching objects are cached.
        relist_seconds: list again this often although the watch is healthy; None for never.
        backoff: delays after failures.
        clock: monotonic seconds.
        random: numbers in [0, 1).
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        namespace: str | None = None,
        *,
        on_change: OnChange | None = None,
        label_selector: str = "",
        field_selector: str = "",
        relist_seconds: float | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.resource = resource
        self.state = ReflectorState(random=random, backoff=backoff or Backoff(), relist_seconds=relist_seconds)
        self.synced = asyncio.Event()
        self._kube = kube
        self._namespace = namespace
        self._labels = label_selector
        self._fields = field_selector
        self._clock = clock
        self._sleep = sleep
        self._callbacks: list[OnChange] = [on_change] if on_change else []

    @property
    def cache(self) -> Mapping[Key, Obj]:
        """The objects by key, read-only and live; do not change the objects."""
        return self.state.cache

    @property
    def last_error(self) -> BaseException | None:
        """Why the cache is not being refreshed right now, None while it is."""
        return self.state.last_error

    def get(self, name: str, namespace: str = "") -> Obj | None:
        """Return one cached object or None."""
        return self.state.cache.get(Key(namespace, name))

    def subscribe(self, on_change: OnChange) -> None:
        """Call `on_change` for every later change."""
        self._callbacks.append(on_change)

    async def run(self) -> None:
        """List and watch until cancelled; failures of the API never end it."""
        while True:
            action = self.state.next_action(self._clock())
            try:
                match action:
                    case Wait(seconds=seconds):
                        await self._sleep(seconds)
                    case ListObjects():
                        await self._list()
                    case WatchObjects():
                        await self._watch(action)
                        self.state.watch_ended(self._clock())
                    case _:
                        assert_never(action)
            except (KubeError, OSError, ValueError) as error:
                # ValueError: a body that is not JSON, from a proxy in between
                self._failed(error)

    async def _list(self) -> None:
        page = await list_all(
            self._kube,
            self.resource,
            self._namespace,
            label_selector=self._labels,
            field_selector=self._fields,
        )
        for change in self.state.list_received(page, self._clock()):
            self._emit(change)
        self.synced.set()

    async def _watch(self, action: WatchObjects) -> None:
        events = self._kube.watch(
            self.resource,
            self._namespace,
            resource_version=action.resource_version,
            label_selector=self._labels,
            field_selector=self._fields,
            timeout=action.timeout,
        )
        async with aclosing(events) as source:
            async for event in source:
                change = self.state.event_received(event)
                if change is not None:
                    self._emit(change)

    def _failed(self, error: Exception) -> None:
        _log.info("reflector of %s: %s", self.resource.qualified, error)
        self.state.failed(error, self._clock())

    def _emit(self, change: Change) -> None:
        for callback in self._callbacks:
            try:
                callback(change)
            except Exception:
                _log.exception("a change callback of %s failed", self.resource.qualified)
