"""Writes Events: a queue beside the reconciles, so that telling never delays doing.

Rules:
- Differences of what the caches hold are told, and only once the caches are full: a restart is silent.
- An event that cannot be written after a few tries is lost; nothing waits for it.
What must not enter: decisions about what is worth telling.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from drtp_api.kube import EVENTS, AlreadyExists, Conflict, Key, Kube, KubeError, NotFound, Obj, Unavailable, key_of
from drtp_api.resources import Connection, Server, Service
from drtp_controller.planners.events import (
    COMPONENT,
    EventBook,
    Happening,
    connection_events,
    server_events,
    service_events,
)
from drtp_controller.reconcile.caches import Caches

__all__ = ["Recorder"]

_log = logging.getLogger(__name__)

TRIES = 3
RETRY_SECONDS = 1.0
LIFETIME_SECONDS = 3600.0
"""How long a Kubernetes API server keeps events by default."""
SWEEP_SECONDS = 300.0


class Recorder:
    """Tells what happens, as Events.

    Args:
        kube: Where they are written.
        clock: Seconds since the Unix epoch.
        sweep: Whether we must delete old events ourselves, because this API server keeps them for ever.
    """

    def __init__(self, kube: Kube, *, clock: Callable[[], float], sweep: bool = False) -> None:
        self.book = EventBook()
        self.writes = 0
        self._kube = kube
        self._clock = clock
        self._sweep = sweep
        self._waiting = asyncio.Event()

    def attach(self, caches: Caches, ready: asyncio.Event) -> None:
        """Tell of every difference in the caches from the moment on that ``ready`` is set."""

        def server(_: Key, old: Server | None, new: Server | None) -> None:
            if new is not None and ready.is_set():
                self.record(server_events(old, new))

        def service(_: Key, old: Service | None, new: Service | None) -> None:
            if new is not None and ready.is_set():
                self.record(service_events(old, new))

        def connection(_: Key, old: Connection | None, new: Connection | None) -> None:
            if new is not None and ready.is_set():
                self.record(connection_events(old, new))

        caches.servers.subscribe(server)
        caches.services.subscribe(service)
        caches.connections.subscribe(connection)

    def record(self, happenings: Iterable[Happening]) -> None:
        """Tell of these happenings soon."""
        for happening in happenings:
            if self.book.record(happening, self._clock()):
                self._waiting.set()

    async def run(self) -> None:
        """Write until cancelled."""
        if self._sweep:
            await self._adopt()
        while True:
            try:
                async with asyncio.timeout(SWEEP_SECONDS if self._sweep else None):
                    await self._waiting.wait()
            except TimeoutError:
                await self._remove_old()
            self._waiting.clear()
            while (work := self.book.next_write()) is not None:
                await self._write(*work)

    async def _write(self, event: Obj, stored: bool) -> None:
        for attempt in range(TRIES):
            try:
                await self._put(event, stored)
            except KubeError as error:
                if attempt == TRIES - 1 or not isinstance(error, Unavailable | Conflict):
                    _log.info("the event %s is lost: %s", event["reason"], error)
                    return
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _put(self, event: Obj, stored: bool) -> None:
        self.writes += 1
        namespace, name = key_of(event)
        if stored:
            change = {"count": event["count"], "lastTimestamp": event["lastTimestamp"]}
            try:
                await self._kube.merge_patch(EVENTS, name, change, namespace)
            except NotFound:
                self.book.lost(event)  # the API server let it expire
            else:
                return
        try:
            await self._kube.create(EVENTS, event, namespace)
        except AlreadyExists:
            present = await self._kube.get(EVENTS, name, namespace)
            await self._kube.merge_patch(EVENTS, name, self.book.found(present), namespace)

    async def _adopt(self) -> None:
        with contextlib.suppress(KubeError):
            for event in (await self._kube.list(EVENTS)).items:
                if event.get("reportingComponent") == COMPONENT:
                    self.book.adopt(event)
        await self._remove_old()

    async def _remove_old(self) -> None:
        now = self._clock()
        for namespace, name in self.book.expired(now, LIFETIME_SECONDS):
            with contextlib.suppress(KubeError):
                await self._kube.delete(EVENTS, name, namespace)
