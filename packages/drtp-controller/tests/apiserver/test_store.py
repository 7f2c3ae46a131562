from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap

import pytest

from drtp_api.kube import Gone, Key, Unavailable, WatchEventType
from drtp_controller.apiserver.store import Collection, Store

THINGS = Collection("example.com", "things")
OTHERS = Collection("example.com", "others")


def thing(name="a", namespace="default", uid="", labels=None, owners=(), **more):
    metadata = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}"}
    if labels:
        metadata["labels"] = labels
    if owners:
        metadata["ownerReferences"] = [{"uid": owner} for owner in owners]
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": metadata, **more}


def names(records):
    return [record.key.name for record in records]


def test_versions_are_given_in_order_over_all_kinds(store):
    versions = [store.put(THINGS, thing()).rv, store.put(OTHERS, thing()).rv, store.put(THINGS, thing("b")).rv]
    assert versions == [2, 3, 4]
    assert store.revision == 4
    assert store.get(THINGS, Key("default", "a")).decode()["metadata"]["resourceVersion"] == "2"


def test_objects_and_versions_survive_a_restart(tmp_path):
    first = Store(tmp_path / "s")
    first.put(THINGS, thing(labels={"x": "y"}, owners=["o"], spec={"n": 1}))
    first.put(THINGS, thing("gone"))
    first.remove(THINGS, thing("gone"))
    first.close()
    second = Store(tmp_path / "s")
    record = second.get(THINGS, Key("default", "a"))
    assert (record.decode()["spec"], record.labels, record.owners) == ({"n": 1}, {"x": "y"}, ("o",))
    assert names(second.scan(THINGS)) == ["a"]
    assert second.revision == 4
    assert second.put(THINGS, thing("next")).rv == 5
    assert second.owned_by("o") == [(THINGS, Key("default", "a"))]
    second.close()


def test_events_can_be_read_from_any_remembered_version_also_after_a_restart(tmp_path):
    store = Store(tmp_path / "s")
    store.put(THINGS, thing(spec=1))
    store.put(OTHERS, thing())
    store.put(THINGS, thing(spec=2))
    store.remove(THINGS, thing(spec=2))
    expected = [(2, "ADDED", None), (4, "MODIFIED", 1), (5, "DELETED", 2)]
    for rv in range(1, 6):
        wanted = [event for event in expected if event[0] > rv]
        for reader in (store,):
            found = reader.events_since(THINGS, rv)
            assert [(e.rv, e.type.value, e.previous.decode()["spec"] if e.previous else None) for e in found] == wanted
    store.close()
    store = Store(tmp_path / "s")
    found = store.events_since(THINGS, 2)
    assert [(e.rv, e.type.value) for e in found] == [(4, "MODIFIED"), (5, "DELETED")]
    assert found[0].previous.decode()["spec"] == 1
    store.close()


def test_events_beyond_the_memory_are_read_from_the_file(store, monkeypatch):
    for number in range(1_500):
        store.put(THINGS, thing(spec=number))
    found = store.events_since(THINGS, 1)
    assert [event.rv for event in found] == list(range(2, 1_502))
    late = store.events_since(THINGS, 1_400)
    assert [event.rv for event in late] == list(range(1_401, 1_502))


def test_compacted_and_future_versions_are_gone(tmp_path):
    store = Store(tmp_path / "s")
    for number in range(10):
        store.put(THINGS, thing(spec=number))
    store.compact(keep=4)
    assert store.compacted == 7
    assert [event.rv for event in store.events_since(THINGS, 7)] == [8, 9, 10, 11]
    with pytest.raises(Gone, match="too old resource version: 6"):
        store.events_since(THINGS, 6)
    with pytest.raises(Gone):
        store.events_since(THINGS, 12)
    store.close()
    store = Store(tmp_path / "s")
    assert store.compacted == 7
    with pytest.raises(Gone):
        store.events_since(THINGS, 6)
    store.close()


def test_history_is_bounded_without_being_asked(tmp_path):
    store = Store(tmp_path / "s", history=100)
    for number in range(1_100):
        store.put(THINGS, thing(spec=number))
    assert store.compacted > 500
    (count,) = store._db.execute("select count(*) from events").fetchone()
    assert count < 700
    store.close()


def test_a_snapshot_is_the_past_as_it_was(store):
    store.put(THINGS, thing("a", spec=1))
    store.put(THINGS, thing("b", spec=1))
    then = store.revision
    store.put(THINGS, thing("a", spec=2))
    store.remove(THINGS, thing("b", spec=1))
    store.put(THINGS, thing("c", spec=1))
    past = store.snapshot(THINGS, None, then)
    assert [(r.key.name, r.decode()["spec"]) for r in past] == [("a", 1), ("b", 1)]
    assert names(store.snapshot(THINGS, None, store.revision)) == ["a", "c"]
    assert store.snapshot(THINGS, "elsewhere", then) == []


def test_scans_are_ordered_and_keep_to_their_namespace(store):
    for namespace, name in (("b", "x"), ("a", "z"), ("a", "y")):
        store.put(THINGS, thing(name, namespace, uid=namespace + name))
    assert [tuple(r.key) for r in store.scan(THINGS)] == [("a", "y"), ("a", "z"), ("b", "x")]
    assert names(store.scan(THINGS, "a")) == ["y", "z"]
    assert store.scan(OTHERS) == []


def test_owners_are_indexed_through_changes(store):
    store.put(THINGS, thing("child", owners=["one", "two"]))
    assert store.owned_by("one") == [(THINGS, Key("default", "child"))]
    store.put(THINGS, thing("child", owners=["two"]))
    assert store.owned_by("one") == []
    assert store.owners() == ["two"]
    store.remove(THINGS, thing("child", owners=["two"]))
    assert store.owners() == []
    assert store.find_uid("uid-child") is None


def test_a_subscriber_is_woken_by_its_kind_only(store):
    waiter = store.subscribe(THINGS)
    store.put(OTHERS, thing())
    assert not waiter.is_set()
    store.put(THINGS, thing())
    assert waiter.is_set()
    waiter.clear()
    store.unsubscribe(THINGS, waiter)
    store.put(THINGS, thing("b"))
    assert not waiter.is_set()


def test_the_file_is_private(tmp_path):
    store = Store(tmp_path / "s")
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    store.close()


def test_a_second_process_cannot_open_the_file(tmp_path):
    store = Store(tmp_path / "s")
    with pytest.raises(Unavailable, match="cannot be opened"):
        Store(tmp_path / "s")
    store.close()


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "s").write_text("this is not a database, it is a long enough text" * 50)
    with pytest.raises(Unavailable, match="cannot be opened"):
        Store(tmp_path / "s")


def test_a_disk_that_refuses_leaves_everything_as_it_was(store):
    store.put(THINGS, thing(spec=1))
    store._db.set_authorizer(
        lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_INSERT else sqlite3.SQLITE_OK
    )
    with pytest.raises(Unavailable, match="cannot be written"):
        store.put(THINGS, thing(spec=2))
    store._db.set_authorizer(None)
    assert store.get(THINGS, Key("default", "a")).decode()["spec"] == 1
    assert store.revision == 2
    assert store.put(THINGS, thing(spec=3)).rv == 3


WRITER = """
import sys
from pathlib import Path
from drtp_controller.apiserver.store import Collection, Store
store = Store(Path(sys.argv[1]))
for number in range(10_000):
    name = f"n{number}"
    obj = {"apiVersion": "v1", "kind": "T", "metadata": {"name": name, "uid": name}}
    record = store.put(Collection("", "ts"), obj)
    sys.stdout.write(f"{record.rv}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("after", [1, 500, 3_000])
def test_no_acknowledged_write_is_lost_when_the_process_is_killed(tmp_path, after):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "s")], stdout=subprocess.PIPE, text=True
    )
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged > after:
            os.kill(process.pid, signal.SIGKILL)
            break
    rest = process.communicate()[0].split()
    acknowledged = int(rest[-1]) if rest else acknowledged
    store = Store(tmp_path / "s")
    # one more may have been committed whose acknowledgement was not written any more
    assert store.revision in {acknowledged, acknowledged + 1}
    assert store.count(Collection("", "ts")) == store.revision - 1
    assert [e.type for e in store.events_since(Collection("", "ts"), 1)] == [WatchEventType.ADDED] * (
        store.revision - 1
    )
    store.close()
