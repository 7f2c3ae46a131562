"""Watches: which events a watcher gets, without gaps or repetitions.

Rules:
- A watcher has a cursor, the version up to which it has seen everything; it reads the store's history from there.
  There is no queue to overflow: whoever is slow reads older history, whoever is too slow is told to list again.
- An object that enters a selector is ADDED, one that leaves it is DELETED, whatever was done to it.
- Bookmarks carry a version at which nothing is outstanding for this watcher.
What must not enter: encoding, HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import attrs
import msgspec

from drtp_api.kube import Obj, WatchEventType
from drtp_controller.apiserver.selectors import Selector
from drtp_controller.apiserver.store import Collection, LoggedEvent, Record, Store, make_record

BOOKMARK_SECONDS = 30.0
"""Half the real server's minute: an idle watcher stays well within the remembered history."""


@attrs.frozen
class Emission:
    """One event for one watcher; a bookmark has no record."""

    type: WatchEventType
    rv: int
    record: Record | None = None
    ends_initial_events: bool = False


def translate(event: LoggedEvent, namespace: str | None, selector: Selector) -> Emission | None:
    """Return what an event means to a watcher of a namespace and a selector, None when nothing."""
    if namespace is not None and event.record.key.namespace != namespace:
        return None
    was = selector.matches(event.previous)
    if event.type is WatchEventType.DELETED:
        return Emission(WatchEventType.DELETED, event.rv, event.record) if was else None
    if selector.matches(event.record):
        kind = WatchEventType.MODIFIED if was else WatchEventType.ADDED
        return Emission(kind, event.rv, event.record)
    if was and event.previous is not None:
        return Emission(WatchEventType.DELETED, event.rv, _at_version(event.previous, event.rv))
    return None


def _at_version(record: Record, rv: int) -> Record:
    """Return the last state that matched, under the version in which it stopped matching."""
    obj: Obj = record.decode()
    obj["metadata"]["resourceVersion"] = str(rv)
    return make_record(msgspec.json.encode(obj))


@attrs.define
class WatchCursor:
    """Where one watcher stands."""

    store: Store
    collection: Collection
    namespace: str | None
    selector: Selector
    position: int

    def initial(self) -> list[Emission]:
        """Return the present objects as ADDED and stand at the present version."""
        self.position = self.store.revision
        return [
            Emission(WatchEventType.ADDED, record.rv, record)
            for record in self.store.scan(self.collection, self.namespace)
            if self.selector.matches(record)
        ]

    def poll(self) -> list[Emission]:
        """Return what happened since the last call.

        Raises:
            Gone: the history from here on is compacted.
        """
        events = self.store.events_since(self.collection, self.position)
        self.position = self.store.revision
        found = (translate(event, self.namespace, self.selector) for event in events)
        return [emission for emission in found if emission is not None]


async def stream(
    cursor: WatchCursor,
    *,
    from_present: bool,
    mark_initial: bool,
    bookmarks: bool,
    seconds: float,
    clock: Callable[[], float],
) -> AsyncGenerator[Emission, None]:
    """Iterate over a watcher's events until its time is over.

    Args:
        cursor: where to start.
        from_present: send the present objects first.
        mark_initial: close those with a bookmark that says so.
        bookmarks: send bookmarks when nothing else happens, and one at the end.
        seconds: how long.
        clock: monotonic seconds.

    Raises:
        Gone: the watcher has fallen behind the remembered history.
    """
    end = clock() + seconds
    waiter = cursor.store.subscribe(cursor.collection)
    try:
        if from_present:
            for emission in cursor.initial():
                yield emission
        if mark_initial:
            yield Emission(WatchEventType.BOOKMARK, cursor.position, ends_initial_events=True)
        next_bookmark = clock() + BOOKMARK_SECONDS
        while (now := clock()) < end:
            waiter.clear()
            for emission in cursor.poll():
                yield emission
            if bookmarks and now >= next_bookmark:
                yield Emission(WatchEventType.BOOKMARK, cursor.position)
                next_bookmark = now + BOOKMARK_SECONDS
            if waiter.is_set():
                continue  # written while the consumer was busy with what we yielded
            try:
                async with asyncio.timeout(max(0.0, min(end, next_bookmark) - clock())):
                    await waiter.wait()
            except TimeoutError:
                pass  # a bookmark is due, or the end
        if bookmarks:
            for emission in cursor.poll():
                yield emission
            yield Emission(WatchEventType.BOOKMARK, cursor.position)
    finally:
        cursor.store.unsubscribe(cursor.collection, waiter)
