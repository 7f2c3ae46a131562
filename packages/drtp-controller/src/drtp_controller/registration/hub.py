"""Wakes those who watch a connection when something they see may have changed.

Rules:
- A wake-up says only "look again": the watcher compares what it sees with what it last sent.
- A slow watcher costs one flag, never a queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from drtp_api.kube import Key
from drtp_api.resources import Connection, Server, Service
from drtp_controller.reconcile.controller import Controller

__all__ = ["Hub"]


class Hub:
    """Flags of the watchers, by connection. ``closed`` is set when the server stops."""

    def __init__(self, controller: Controller) -> None:
        self.closed = False
        self._flags: dict[Key, set[asyncio.Event]] = {}
        self._caches = controller.caches
        self._caches.connections.subscribe(self._connection)
        self._caches.services.subscribe(self._service)
        self._caches.servers.subscribe(self._server)

    @contextmanager
    def watch(self, key: Key) -> Iterator[asyncio.Event]:
        """Return a flag that is set on every change until the block ends."""
        flag = asyncio.Event()
        flags = self._flags.setdefault(key, set())
        flags.add(flag)
        try:
            yield flag
        finally:
            flags.discard(flag)
            if not flags and self._flags.get(key) is flags:
                del self._flags[key]

    def close(self) -> None:
        """Wake everybody for the last time."""
        self.closed = True
        for flags in self._flags.values():
            for flag in flags:
                flag.set()

    def _wake(self, key: Key) -> None:
        for flag in self._flags.get(key, ()):
            flag.set()

    def _connection(self, key: Key, _old: Connection | None, _new: Connection | None) -> None:
        self._wake(key)

    def _service(self, key: Key, _old: Service | None, _new: Service | None) -> None:
        for connection in self._caches.connections_of(key.namespace, key.name):
            self._wake(Key(key.namespace, connection.metadata.name))

    def _server(self, key: Key, old: Server | None, new: Server | None) -> None:
        if old is not None and new is not None and old.status.conditions == new.status.conditions:
            return
        for where in list(self._flags):
            connection = self._caches.connections.objects.get(where)
            if connection is not None and any(a.name == key.name for a in connection.spec.servers):
                self._wake(where)
