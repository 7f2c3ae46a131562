from __future__ import annotations

from drtp_api.kube import (
    Change,
    Gone,
    Key,
    ObjectList,
    ReflectorState,
    Unavailable,
    WatchEvent,
    WatchEventType,
)
from drtp_api.kube.reflector_state import ListObjects, Wait, WatchObjects

A = Key("default", "a")


def thing(name: str = "a", version: str = "1", uid: str = "u"):
    return {"metadata": {"namespace": "default", "name": name, "resourceVersion": version, "uid": uid}}


def state(**options):
    return ReflectorState(random=lambda: 0.5, **options)


def listed(*objects, version: str = "1", **options):
    made = state(**options)
    assert made.next_action(0.0) == ListObjects()
    made.list_received(ObjectList(list(objects), version), 0.0)
    return made


def event(kind: str, obj):
    return WatchEvent(WatchEventType(kind), obj)


def test_it_lists_first_and_watches_from_the_version_of_the_list():
    reflector = listed(thing(), version="7")
    assert reflector.synced
    assert reflector.next_action(0.0) == WatchObjects("7", 270.0)


def test_the_first_list_reports_every_object():
    reflector = state()
    changes = reflector.list_received(ObjectList([thing("a"), thing("b")], "5"), 0.0)
    assert [(c.key.name, c.old is None, c.new is None) for c in changes] == [
        ("a", True, False),
        ("b", True, False),
    ]


def test_an_event_changes_the_cache_and_is_reported_with_what_was_before():
    old, new = thing(version="1"), thing(version="2")
    reflector = listed(old)
    assert reflector.event_received(event("MODIFIED", new)) == Change(A, old, new)
    assert reflector.cache[A] == new
    assert reflector.event_received(event("DELETED", thing(version="3"))) == Change(A, new, None)
    assert A not in reflector.cache


def test_a_repeated_event_is_not_reported():
    reflector = listed(thing(version="4"), version="4")
    assert reflector.event_received(event("ADDED", thing(version="4"))) is None


def test_a_deletion_of_something_unknown_is_not_reported():
    assert listed().event_received(event("DELETED", thing())) is None


def test_a_bookmark_moves_the_version_and_nothing_else():
    reflector = listed(thing(version="4"), version="4")
    assert reflector.event_received(event("BOOKMARK", {"metadata": {"resourceVersion": "99"}})) is None
    reflector.watch_ended(300.0)
    assert reflector.next_action(300.0) == WatchObjects("99", 270.0)


def test_a_clean_end_resumes_at_once_without_a_list():
    reflector = listed(thing(), version="5")
    reflector.next_action(0.0)
    reflector.watch_ended(280.0)
    assert isinstance(reflector.next_action(280.0), WatchObjects)
    assert reflector.relists == 1
    assert reflector.resumes == 1


def test_a_watch_that_ends_at_once_is_not_repeated_at_once():
    reflector = listed(thing())
    reflector.next_action(10.0)
    reflector.watch_ended(10.1)
    assert isinstance(reflector.next_action(10.1), Wait)


def test_a_version_that_is_gone_leads_to_a_list_at_once():
    reflector = listed(thing())
    reflector.next_action(10.0)
    reflector.failed(Gone("too old"), 20.0)
    assert reflector.next_action(20.0) == ListObjects()


def test_a_list_that_is_gone_is_not_repeated_in_a_tight_loop():
    reflector = state()
    reflector.next_action(0.0)
    reflector.failed(Gone("too old"), 0.0)
    assert isinstance(reflector.next_action(0.0), Wait)


def test_a_network_error_waits_and_then_resumes_where_it_was():
    reflector = listed(thing(), version="5")
    reflector.next_action(0.0)
    reflector.failed(Unavailable("no route"), 50.0)
    assert reflector.last_error is not None
    wait = reflector.next_action(50.0)
    assert isinstance(wait, Wait)
    assert 0.2 <= wait.seconds <= 0.4
    assert reflector.next_action(50.5) == WatchObjects("5", 270.0)


def test_waits_grow_while_it_fails_and_start_over_after_success():
    reflector = state()
    now, waits = 0.0, []
    for _ in range(12):
        reflector.next_action(now)
        reflector.failed(Unavailable("down"), now)
        action = reflector.next_action(now)
        assert isinstance(action, Wait)
        waits.append(action.seconds)
        now += action.seconds + 0.001
    assert waits[:5] == sorted(waits[:5])
    assert 10 < waits[-1] <= 30
    reflector.next_action(now)
    reflector.list_received(ObjectList([], "1"), now)
    assert reflector.last_error is None
    reflector.next_action(now)
    reflector.failed(Unavailable("down"), now)
    action = reflector.next_action(now)
    assert isinstance(action, Wait)
    assert action.seconds <= 0.4


def test_the_server_may_ask_for_a_longer_wait():
    reflector = state()
    reflector.next_action(0.0)
    reflector.failed(Unavailable("busy", details={"retryAfterSeconds": 7}), 0.0)
    assert reflector.next_action(0.0) == Wait(7.0)


def test_a_relist_reports_only_what_differs():
    reflector = listed(thing("a", "1"), thing("b", "2"), version="2")
    changes = reflector.list_received(ObjectList([thing("b", "2"), thing("c", "9")], "9"), 1.0)
    assert [(c.key.name, c.new is None) for c in changes] == [("a", True), ("c", False)]
    assert reflector.list_received(ObjectList([thing("b", "2"), thing("c", "9")], "10"), 2.0) == []


def test_an_object_of_the_same_version_but_another_uid_is_a_change():
    reflector = listed(thing(uid="old"))
    assert len(reflector.list_received(ObjectList([thing(uid="new")], "1"), 1.0)) == 1


def test_a_relist_interval_bounds_the_watch():
    reflector = listed(thing(), relist_seconds=60.0)
    assert reflector.next_action(20.0) == WatchObjects("1", 40.0)
    reflector.watch_ended(60.0)
    assert reflector.next_action(60.0) == ListObjects()


def test_the_cache_cannot_be_changed_from_outside():
    reflector = listed(thing())
    assert not hasattr(reflector.cache, "__setitem__")
