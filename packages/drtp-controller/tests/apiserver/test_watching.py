"""The decisions of a watch, and its stream with a clock that the test moves."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from drtp_api.kube import Gone, WatchEventType
from drtp_controller.apiserver.selectors import parse_selector
from drtp_controller.apiserver.store import Collection, LoggedEvent, make_record
from drtp_controller.apiserver.watching import BOOKMARK_SECONDS, WatchCursor, stream, translate

THINGS = Collection("", "things")
YES = parse_selector("show=yes", "")
ANY = parse_selector("", "")


def thing(name="a", show=None, namespace="ns"):
    labels = {"labels": {"show": show}} if show else {}
    return {"apiVersion": "v1", "kind": "T", "metadata": {"name": name, "namespace": namespace, "uid": name, **labels}}


def record(show=None, rv=1):
    obj = thing(show=show)
    obj["metadata"]["resourceVersion"] = str(rv)
    return make_record(msgspec.json.encode(obj))


@pytest.mark.parametrize(
    ("kind", "before", "after", "expected"),
    [
        ("ADDED", None, "yes", "ADDED"),
        ("ADDED", None, "no", None),
        ("MODIFIED", "no", "yes", "ADDED"),
        ("MODIFIED", "yes", "yes", "MODIFIED"),
        ("MODIFIED", "yes", "no", "DELETED"),
        ("MODIFIED", "no", "no", None),
        ("DELETED", "yes", "yes", "DELETED"),
        ("DELETED", "no", "no", None),
    ],
)
def test_events_are_told_from_the_watchers_point_of_view(kind, before, after, expected):
    event = LoggedEvent(9, WatchEventType(kind), record(after, 9), record(before) if before else None)
    emission = translate(event, None, YES)
    assert (emission.type.value if emission else None) == expected
    if expected == "DELETED" and kind == "MODIFIED":
        last = emission.record.decode()["metadata"]
        assert (last["labels"], last["resourceVersion"]) == ({"show": "yes"}, "9")


def test_other_namespaces_are_not_seen():
    event = LoggedEvent(9, WatchEventType.ADDED, record("yes", 9), None)
    assert translate(event, "ns", YES) is not None
    assert translate(event, "other", YES) is None


def test_a_cursor_sees_each_event_once(store):
    cursor = WatchCursor(store, THINGS, None, ANY, store.revision)
    store.put(THINGS, thing("a"))
    assert [e.rv for e in cursor.poll()] == [2]
    assert cursor.poll() == []
    store.put(THINGS, thing("b"))
    assert [e.rv for e in cursor.poll()] == [3]


def test_a_cursor_that_fell_behind_the_history_says_so(store):
    cursor = WatchCursor(store, THINGS, None, ANY, store.revision)
    for _ in range(3):
        store.put(THINGS, thing("a"))
    store.compact(keep=1)
    with pytest.raises(Gone):
        cursor.poll()


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_an_idle_watch_sends_bookmarks_at_the_present_version(store):
    clock = Clock()

    async def main():
        cursor = WatchCursor(store, THINGS, None, ANY, store.revision)
        options = {"from_present": False, "mark_initial": False, "bookmarks": True, "seconds": 100.0, "clock": clock}
        async with aclosing(stream(cursor, **options)) as emissions:
            waiting = asyncio.ensure_future(anext(emissions))
            await asyncio.sleep(0)
            store.put(Collection("", "others"), thing())
            clock.now = BOOKMARK_SECONDS
            store.put(THINGS, thing("x"))
            first, second = await waiting, await anext(emissions)
            assert (first.type, first.rv) == (WatchEventType.ADDED, 3)
            assert (second.type, second.rv, second.record) == (WatchEventType.BOOKMARK, 3, None)

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_watch_that_ends_leaves_a_bookmark_to_resume_from(store):
    clock = Clock()

    async def main():
        cursor = WatchCursor(store, THINGS, None, ANY, store.revision)
        options = {"from_present": True, "mark_initial": True, "bookmarks": True, "seconds": 5.0, "clock": clock}
        found = []
        async for emission in stream(cursor, **options):
            found.append(emission)
            if emission.ends_initial_events:
                clock.now = 10.0
                store.put(THINGS, thing("late"))
        assert [(e.type.value, e.rv) for e in found] == [("BOOKMARK", 1), ("ADDED", 2), ("BOOKMARK", 2)]
        assert not store._waiters[THINGS]

    asyncio.run(asyncio.wait_for(main(), 10))


def test_nothing_is_missed_while_the_consumer_is_busy(store):
    async def main():
        cursor = WatchCursor(store, THINGS, None, ANY, store.revision)
        options = {"from_present": True, "mark_initial": False, "bookmarks": False, "seconds": 60.0, "clock": Clock()}
        seen = []
        store.put(THINGS, thing("n0"))
        async with aclosing(stream(cursor, **options)) as emissions:
            async for emission in emissions:
                seen.append(emission.record.key.name)
                if len(seen) == 5:
                    break
                store.put(THINGS, thing(f"n{len(seen)}"))
        assert seen == ["n0", "n1", "n2", "n3", "n4"]

    asyncio.run(asyncio.wait_for(main(), 10))
