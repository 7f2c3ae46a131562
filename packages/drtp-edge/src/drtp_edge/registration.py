"""The edge's side of the control plane: what it writes, what it watches. Everything else goes on without it.

Rules:
- Level-triggered: a write says what holds now, is tried again until it succeeded, and later knowledge replaces it.
- Nothing on the data path waits for the API, and no failure of it ends anything.
- Counts are written at most once in :data:`STATUS_INTERVAL` seconds.

What must not live here: the shape of objects (``objects``), and what a change means for tunnels (``edge``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import attrs

from drtp_api.errors import DrtpError
from drtp_api.grants import GrantVerifier
from drtp_api.kube import (
    CONFIG_MAPS,
    DRTP_ACCESS_CONTROL_LISTS,
    DRTP_CONNECTIONS,
    DRTP_SERVERS,
    DRTP_SERVICES,
    LEASES,
    NAMESPACES,
    AlreadyExists,
    Backoff,
    Change,
    Conflict,
    Key,
    Kube,
    KubeError,
    NotFound,
    Reflector,
    WorkQueue,
)
from drtp_api.resources import SYSTEM_NAMESPACE
from drtp_edge.catalog import Catalog
from drtp_edge.objects import BindingFacts, ServerFacts, lease_object, server_object, server_status, with_binding
from drtp_edge.records import Log

__all__ = ["HEARTBEAT", "STATUS_INTERVAL", "Facts", "Registration"]

HEARTBEAT = 10.0
"""Seconds between heartbeats: a third of the lease."""

STATUS_INTERVAL = 5.0
"""Seconds between two writes of the DRTPServer's status."""

KEY_SET = "drtp-grant-keys"

_UNREACHABLE_AFTER = 25.0
"""Seconds without a successful heartbeat that count as an outage: two heartbeats and some."""


class Facts(Protocol):
    """What the edge knows of itself."""

    def server_facts(self) -> ServerFacts:
        """Return what to write into the DRTPServer."""

    def binding_facts(self, connection: str) -> BindingFacts:
        """Return what to write into the status of a DRTPConnection."""

    def connection_deleted(self, connection: str) -> None:
        """Cut the tunnels of a deleted DRTPConnection."""

    def carried_connections(self) -> tuple[str, ...]:
        """Return the connections of all live tunnels."""

    def catalog_changed(self) -> None:
        """Look at services and roles again."""


@attrs.define(kw_only=True, eq=False)
class Registration:
    """Registers one edge, keeps its heartbeat, and mirrors what it needs.

    Args:
        kube: Any client.
        name: The DRTPServer's name.
        facts: What to write.
        catalog: Filled from the watches.
        verifier: Gets the key set.
        log: For what operators want to know.
        clock: Seconds since the Unix epoch.
    """

    kube: Kube
    name: str
    facts: Facts
    catalog: Catalog
    verifier: GrantVerifier
    log: Log
    clock: Callable[[], float] = time.time
    synced: asyncio.Event = attrs.field(factory=asyncio.Event)
    """Set once the key set and all watched kinds were read."""
    registered: asyncio.Event = attrs.field(factory=asyncio.Event)
    """Set once the DRTPServer was written."""
    last_contact: float = 0.0
    write_error: str = ""
    _acquired: float = 0.0
    _keys: asyncio.Event = attrs.field(factory=asyncio.Event)
    _dirty: asyncio.Event = attrs.field(factory=asyncio.Event)
    _urgent: asyncio.Event = attrs.field(factory=asyncio.Event)
    _queue: WorkQueue[str] = attrs.field(init=False)
    _reflectors: tuple[Reflector, ...] = ()
    _writing: bool = False
    _failing: set[str] = attrs.field(factory=set)
    _tasks: list[asyncio.Task[None]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Prepare the watches."""
        self._queue = WorkQueue(backoff=Backoff(initial=0.2, maximum=10.0), on_error=self._write_failed)
        self._reflectors = (
            Reflector(self.kube, DRTP_SERVICES, on_change=self._service),
            Reflector(self.kube, DRTP_ACCESS_CONTROL_LISTS, on_change=self._list),
            Reflector(self.kube, DRTP_CONNECTIONS, on_change=self._connection),
            Reflector(
                self.kube,
                CONFIG_MAPS,
                SYSTEM_NAMESPACE,
                field_selector=f"metadata.name={KEY_SET}",
                on_change=self._key_set,
            ),
        )

    # Life

    def watch(self) -> None:
        """Begin to mirror; :attr:`synced` says when everything is there."""
        self.last_contact = self.clock()
        for reflector in self._reflectors:
            self._spawn(reflector.run())
        self._spawn(self._sync())

    def announce(self) -> None:
        """Begin to write: the DRTPServer, its heartbeat, and the entries of connections."""
        self._acquired = self.clock()
        self._spawn(self._heartbeats())
        self._spawn(self._server())
        self._spawn(self._queue.run(self._write_binding, workers=4))
        self._spawn(self._audit())
        for key in self.catalog.connections():
            self._queue.add(key)

    async def close(self) -> None:
        """Stop; what was not written stays unwritten."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    # What others tell

    def server_changed(self, *, urgent: bool = False) -> None:
        """Write the DRTPServer soon; at once if it is urgent."""
        self._dirty.set()
        if urgent:
            self._urgent.set()

    def connection_changed(self, connection: str) -> None:
        """Write our entry of a connection's status."""
        if connection:
            self._queue.add(connection)

    async def flush(self, timeout: float) -> None:
        """Wait until everything was written, at most ``timeout`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._dirty.is_set() or self._writing:  # noqa: ASYNC110 - only a drain waits here
                    await asyncio.sleep(0.02)
                await self._queue.join()

    # What the policy asks

    def revoked(self, connection: str, issued_at: float) -> bool:
        """Return whether a grant of that connection, made at that time, was withdrawn."""
        return self.catalog.revoked(connection, issued_at)

    def outage(self, now: float) -> float:
        """Return for how many seconds the control plane has been out of reach; 0 while it answers."""
        silent = now - self.last_contact
        return silent if silent > _UNREACHABLE_AFTER else 0.0

    @property
    def trouble(self) -> str:
        """What keeps us from knowing or writing what we must, for the log; empty while all is well."""
        if self.write_error:
            return self.write_error
        for reflector in self._reflectors:
            if reflector.last_error is not None:
                return str(reflector.last_error)
        return "" if self._keys.is_set() else f"ConfigMap {SYSTEM_NAMESPACE}/{KEY_SET} has no key set yet"

    # Watching

    async def _sync(self) -> None:
        for reflector in self._reflectors:
            await reflector.synced.wait()
        await self._keys.wait()
        self.synced.set()

    def _service(self, change: Change) -> None:
        if change.new is not None:
            self.catalog.put_service(change.new)
        else:
            self.catalog.remove_service(str(change.key))
        self.facts.catalog_changed()

    def _list(self, change: Change) -> None:
        if change.new is not None:
            self.catalog.put_list(change.new)
        else:
            self.catalog.remove_list(str(change.key))

    def _connection(self, change: Change) -> None:
        key = str(change.key)
        gone = change.new is None or (
            change.old is not None and change.old["metadata"].get("uid") != change.new["metadata"].get("uid")
        )
        if gone:
            self.catalog.remove_connection(key, self.clock())
            self.facts.connection_deleted(key)
        if change.new is not None:
            self.catalog.put_connection(change.new)
            self._queue.add(key)
        self.facts.catalog_changed()

    def _key_set(self, change: Change) -> None:
        if change.new is None:
            # Keys that were good stay good: someone who deletes the ConfigMap by mistake must not stop every agent.
            self.log.warning("key_set_missing", configmap=str(change.key))
            return
        try:
            self.verifier.load_keys(json.loads(change.new.get("data", {}).get("jwks.json", "")))
        except (DrtpError, ValueError) as error:
            self.log.warning("key_set_faulty", configmap=str(change.key), error=str(error))
            return
        self._keys.set()

    async def _audit(self) -> None:
        """Cut tunnels whose connection was deleted while nobody watched: before our start, or between two lists."""
        connections = self._reflectors[2]
        seen: set[str] = set()
        while True:
            await asyncio.sleep(HEARTBEAT)
            if not connections.synced.is_set() or connections.last_error is not None:
                continue
            missing = {key for key in self.facts.carried_connections() if self.catalog.connection(key) is None}
            for key in missing & seen:
                self.catalog.remove_connection(key, self.clock())
                self.facts.connection_deleted(key)
            seen = missing

    # Writing

    async def _heartbeats(self) -> None:
        while True:
            started = time.monotonic()
            try:
                await self._beat()
            except (KubeError, OSError, ValueError) as error:
                self._failed("heartbeat", error)
            else:
                self.last_contact = self.clock()
                self._worked("heartbeat")
            await asyncio.sleep(max(1.0, HEARTBEAT - (time.monotonic() - started)))

    async def _beat(self) -> None:
        lease = lease_object(self.facts.server_facts(), acquired=self._acquired, now=self.clock())
        try:
            await self.kube.merge_patch(LEASES, self.name, {"spec": lease["spec"]}, SYSTEM_NAMESPACE)
        except NotFound:
            await self._create_lease(lease)

    async def _create_lease(self, lease: dict[str, Any]) -> None:
        try:
            await self.kube.create(LEASES, lease, SYSTEM_NAMESPACE)
        except AlreadyExists:
            return
        except NotFound:
            with contextlib.suppress(AlreadyExists):
                await self.kube.create(NAMESPACES, {"metadata": {"name": SYSTEM_NAMESPACE}})
            await self.kube.create(LEASES, lease, SYSTEM_NAMESPACE)

    async def _server(self) -> None:
        failures = 0
        self._dirty.set()
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            self._urgent.clear()
            self._writing = True
            try:
                await self._write_server()
            except Conflict:
                # The controller wrote the status meanwhile: read again.
                self._dirty.set()
                await asyncio.sleep(0.05)
                continue
            except (KubeError, OSError, ValueError) as error:
                self._failed("server", error)
                failures += 1
                self._dirty.set()
                await asyncio.sleep(min(10.0, 0.2 * 2 ** min(failures, 6)))
                continue
            finally:
                self._writing = False
            failures = 0
            self._worked("server")
            self.registered.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_INTERVAL):
                    await self._urgent.wait()

    async def _write_server(self) -> None:
        facts = self.facts.server_facts()
        try:
            current = await self.kube.get(DRTP_SERVERS, self.name)
        except NotFound:
            current = await self.kube.create(DRTP_SERVERS, server_object(facts, None))
        wanted = server_object(facts, current)
        if wanted["spec"] != current.get("spec") or wanted["metadata"] != current["metadata"]:
            current = await self.kube.update(DRTP_SERVERS, wanted)
        generation = current["metadata"].get("generation") or 0
        status = server_status(facts, current.get("status"), generation=generation, now=self.clock())
        if status != current.get("status"):
            await self.kube.update_status(DRTP_SERVERS, {**current, "status": status})

    async def _write_binding(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        cached = self._reflectors[2].cache.get(Key(namespace, name))
        facts = self.facts.binding_facts(key)
        if cached is not None and with_binding(cached, self.name, facts) is None:
            return
        try:
            current = await self.kube.get(DRTP_CONNECTIONS, name, namespace)
        except NotFound:
            return
        # Read again: the request took time, and the last word counts.
        status = with_binding(current, self.name, self.facts.binding_facts(key))
        if status is not None:
            with contextlib.suppress(NotFound):
                await self.kube.update_status(DRTP_CONNECTIONS, {**current, "status": status})

    def _write_failed(self, key: str, error: Exception) -> None:
        if not isinstance(error, KubeError) or error.http_code != 409:
            self.log.warning("status_not_written", connection=key, error=str(error))

    def _failed(self, what: str, error: Exception) -> None:
        self.write_error = f"{what}: {error}"
        if what not in self._failing:
            self._failing.add(what)
            self.log.warning("control_plane_write_failed", what=what, error=str(error))

    def _worked(self, what: str) -> None:
        self.write_error = ""
        if what in self._failing:
            self._failing.discard(what)
            self.log.info("control_plane_write_works_again", what=what)
