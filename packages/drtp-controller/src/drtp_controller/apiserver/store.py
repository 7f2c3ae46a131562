"""Objects and their history in one SQLite file: the only durable state of the embedded API server.

Rules:
- One process, one thread, one writer; the file is locked for as long as it is open.
- A write is acknowledged after its transaction is committed: killing the process loses nothing acknowledged.
- Every write makes one event with the next resource version; watchers read events by version, never by queue, so
  a slow watcher costs no memory and a watch can resume after a restart.
- Objects are kept in memory as encoded JSON with the few fields that selectors and owners need.
What must not enter: the meaning of objects (schemas, metadata rules, authorization), HTTP.
"""

from __future__ import annotations

import asyncio
import bisect
import os
import sqlite3
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import attrs
import msgspec

from drtp_api.kube import Gone, Key, Obj, Unavailable, WatchEventType

HISTORY_EVENTS = 10_000
"""How many events are kept for resuming watches and for pages of a list; etcd compacts every five minutes, which
for a control plane this size is less."""
_MEMORY_EVENTS = 1_000
"""Per kind; a watcher further behind reads SQLite."""
_COMPACT_EVERY = 512

_SCHEMA = """
create table if not exists meta (key text primary key, value integer not null) without rowid;
create table if not exists objects (
  grp text not null, plural text not null, namespace text not null, name text not null,
  rv integer not null, body blob not null,
  primary key (grp, plural, namespace, name)) without rowid;
create table if not exists events (
  rv integer primary key, grp text not null, plural text not null,
  type text not null, body blob not null, previous blob);
"""


class Collection(NamedTuple):
    """A kind as it is stored: group and plural, whatever the version."""

    group: str
    plural: str


@attrs.frozen
class Record:
    """One stored object: its JSON and what is looked up without decoding it."""

    key: Key
    rv: int
    raw: bytes
    uid: str
    api_version: str
    labels: Mapping[str, str]
    owners: tuple[str, ...]
    """The uids of the owners."""

    def decode(self) -> Obj:
        """Return a fresh copy of the object."""
        obj: Obj = msgspec.json.decode(self.raw)
        return obj


@attrs.frozen
class LoggedEvent:
    """One entry of the history; `previous` is the object before a change or a deletion."""

    rv: int
    type: WatchEventType
    record: Record
    previous: Record | None


class _Ref(msgspec.Struct):
    uid: str = ""


class _Metadata(msgspec.Struct):
    name: str
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = "0"  # noqa: N815 - the wire's own name
    labels: dict[str, str] | None = None
    ownerReferences: list[_Ref] | None = None  # noqa: N815 - the wire's own name


class _Head(msgspec.Struct):
    apiVersion: str  # noqa: N815 - the wire's own name
    metadata: _Metadata


_decode_head = msgspec.json.Decoder(_Head).decode


def make_record(raw: bytes) -> Record:
    """Return the record of an encoded object, reading only the head of it."""
    head = _decode_head(raw)
    metadata = head.metadata
    return Record(
        key=Key(metadata.namespace, metadata.name),
        rv=int(metadata.resourceVersion),
        raw=raw,
        uid=metadata.uid,
        api_version=head.apiVersion,
        labels=metadata.labels or {},
        owners=tuple(ref.uid for ref in metadata.ownerReferences or ()),
    )


class Store:
    """The objects of every kind, and the events of the recent past.

    Args:
        path: the database file, made with mode 0600.
        history: how many events to keep.
        survive_power_loss: sync every write to the disk (about a hundred times slower); without it a write survives
            the death of the process, but a power cut may undo the last moments, consistently.

    Raises:
        Unavailable: the file cannot be opened, or another process has it open.
    """

    def __init__(self, path: Path, *, history: int = HISTORY_EVENTS, survive_power_loss: bool = False) -> None:
        self._path = path
        self._history = history
        self._objects: defaultdict[Collection, dict[Key, Record]] = defaultdict(dict)
        self._recent: defaultdict[Collection, deque[LoggedEvent]] = defaultdict(lambda: deque(maxlen=_MEMORY_EVENTS))
        self._by_uid: dict[str, tuple[Collection, Key]] = {}
        self._owned: defaultdict[str, set[tuple[Collection, Key]]] = defaultdict(set)
        self._order: dict[Collection, list[Key]] = {}
        self._waiters: defaultdict[Collection, set[asyncio.Event]] = defaultdict(set)
        self._db = self._open("FULL" if survive_power_loss else "NORMAL")
        self._compacted = self._meta("compacted")
        self._revision = 0
        self._load()
        self._memory_from = self._revision

    @property
    def revision(self) -> int:
        """The resource version of the latest write."""
        return self._revision

    @property
    def compacted(self) -> int:
        """Events up to this version are forgotten."""
        return self._compacted

    def close(self) -> None:
        """Close the file; later calls fail."""
        self._db.close()

    # reading

    def get(self, collection: Collection, key: Key) -> Record | None:
        """Return one object or None."""
        return self._objects[collection].get(key)

    def scan(self, collection: Collection, namespace: str | None = None) -> list[Record]:
        """Return the objects of a namespace (None: of all) ordered by key."""
        records = self._objects[collection]
        keys = self._sorted_keys(collection)
        if namespace is not None:
            # the least key after all of a namespace's is that of the name no object can have
            start, end = Key(namespace, ""), Key(namespace + "\0", "")
            keys = keys[bisect.bisect_left(keys, start) : bisect.bisect_left(keys, end)]
        return [records[key] for key in keys]

    def _sorted_keys(self, collection: Collection) -> list[Key]:
        # kept until an object comes or goes: changes are far more frequent
        keys = self._order.get(collection)
        if keys is None:
            keys = self._order[collection] = sorted(self._objects[collection])
        return keys

    def count(self, collection: Collection) -> int:
        """Return how many objects a kind has."""
        return len(self._objects[collection])

    def collections(self) -> list[Collection]:
        """Return the kinds that have objects."""
        return [collection for collection, records in self._objects.items() if records]

    def find_uid(self, uid: str) -> tuple[Collection, Key] | None:
        """Return where the object of a uid is, None when there is none."""
        return self._by_uid.get(uid)

    def owned_by(self, uid: str) -> list[tuple[Collection, Key]]:
        """Return the objects that name this uid as an owner, in a stable order."""
        return sorted(self._owned.get(uid, ()))

    def owners(self) -> list[str]:
        """Return every uid that some object names as an owner."""
        return [uid for uid, children in self._owned.items() if children]

    def snapshot(self, collection: Collection, namespace: str | None, rv: int) -> list[Record]:
        """Return the objects as they were at a version, by undoing what happened since.

        Raises:
            Gone: the events since then are no longer all there.
        """
        if rv == self._revision:
            return self.scan(collection, namespace)
        past = {record.key: record for record in self.scan(collection, namespace)}
        for event in reversed(self.events_since(collection, rv)):
            if namespace is not None and event.record.key.namespace != namespace:
                continue
            if event.previous is None:
                past.pop(event.record.key, None)
            else:
                past[event.record.key] = event.previous
        return [past[key] for key in sorted(past)]

    def events_since(self, collection: Collection, rv: int) -> list[LoggedEvent]:
        """Return the events of a kind after a version, oldest first.

        Raises:
            Gone: that version is compacted, or is not a version of this store (its file was replaced).
        """
        if rv < self._compacted or rv > self._revision:
            raise Gone(f"too old resource version: {rv} ({self._compacted})")
        recent = self._recent[collection]
        # a full ring may have dropped events; its first one tells from where on it is complete
        memory_from = recent[0].rv - 1 if len(recent) == _MEMORY_EVENTS else self._memory_from
        if rv >= memory_from:
            found: deque[LoggedEvent] = deque()
            for event in reversed(recent):
                if event.rv <= rv:
                    break
                found.appendleft(event)
            return list(found)
        return self._events_from_file(collection, rv)

    def subscribe(self, collection: Collection) -> asyncio.Event:
        """Return an event that is set after every write to a kind; give it back with `unsubscribe`."""
        waiter = asyncio.Event()
        self._waiters[collection].add(waiter)
        return waiter

    def unsubscribe(self, collection: Collection, waiter: asyncio.Event) -> None:
        """Forget a subscription."""
        self._waiters[collection].discard(waiter)

    # writing

    def put(self, collection: Collection, obj: Obj) -> Record:
        """Write an object under the next resource version, which is set in it, and return its record.

        Raises:
            Unavailable: the disk refused; nothing changed.
        """
        rv = self._revision + 1
        obj["metadata"]["resourceVersion"] = str(rv)
        record = make_record(msgspec.json.encode(obj))
        previous = self._objects[collection].get(record.key)
        kind = WatchEventType.MODIFIED if previous else WatchEventType.ADDED
        self._commit(collection, LoggedEvent(rv, kind, record, previous))
        return record

    def remove(self, collection: Collection, obj: Obj) -> Record:
        """Remove an object; the event carries its last state under the next resource version.

        Raises:
            Unavailable: the disk refused; nothing changed.
        """
        rv = self._revision + 1
        obj["metadata"]["resourceVersion"] = str(rv)
        record = make_record(msgspec.json.encode(obj))
        previous = self._objects[collection][record.key]
        self._commit(collection, LoggedEvent(rv, WatchEventType.DELETED, record, previous))
        return record

    def compact(self, keep: int) -> None:
        """Forget all but the last `keep` events."""
        upto = self._revision - keep
        if upto <= self._compacted:
            return
        with self._transaction():
            self._db.execute("delete from events where rv <= ?", (upto,))
            self._db.execute("insert or replace into meta values ('compacted', ?)", (upto,))
        self._compacted = upto

    def _commit(self, collection: Collection, event: LoggedEvent) -> None:
        record, previous = event.record, event.previous
        key = record.key
        with self._transaction():
            self._db.execute(
                "insert into events values (?, ?, ?, ?, ?, ?)",
                (event.rv, *collection, event.type.value, record.raw, previous.raw if previous else None),
            )
            if event.type is WatchEventType.DELETED:
                self._db.execute(
                    "delete from objects where grp = ? and plural = ? and namespace = ? and name = ?",
                    (*collection, *key),
                )
            else:
                self._db.execute(
                    "insert or replace into objects values (?, ?, ?, ?, ?, ?)",
                    (*collection, *key, event.rv, record.raw),
                )
        self._revision = event.rv
        if previous is not None:
            self._unindex(collection, previous)
        if event.type is not WatchEventType.MODIFIED:
            self._order.pop(collection, None)
        if event.type is WatchEventType.DELETED:
            del self._objects[collection][key]
        else:
            self._index(collection, record)
        self._recent[collection].append(event)
        for waiter in self._waiters[collection]:
            waiter.set()
        if event.rv % _COMPACT_EVERY == 0:
            self.compact(self._history)

    def _index(self, collection: Collection, record: Record) -> None:
        self._objects[collection][record.key] = record
        self._by_uid[record.uid] = (collection, record.key)
        for uid in record.owners:
            self._owned[uid].add((collection, record.key))

    def _unindex(self, collection: Collection, record: Record) -> None:
        self._by_uid.pop(record.uid, None)
        for uid in record.owners:
            children = self._owned[uid]
            children.discard((collection, record.key))
            if not children:
                del self._owned[uid]

    # the file

    def _open(self, synchronous: str) -> sqlite3.Connection:
        try:
            # made by us first: SQLite would use the umask, and the file holds secrets
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            db = sqlite3.connect(self._path, isolation_level=None, timeout=1.0)
            db.execute("pragma locking_mode = exclusive")
            db.execute("pragma journal_mode = wal")
            db.execute(f"pragma synchronous = {synchronous}")
            db.executescript("begin exclusive;" + _SCHEMA + "commit;")
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(f"the state file {self._path} cannot be opened: {error}") from error
        return db

    def _meta(self, key: str) -> int:
        row = self._db.execute("select value from meta where key = ?", (key,)).fetchone()
        return int(row[0]) if row else 0

    def _load(self) -> None:
        rows: Iterable[tuple[str, str, bytes]] = self._db.execute("select grp, plural, body from objects")
        for group, plural, body in rows:
            self._index(Collection(group, plural), make_record(body))
        last = self._db.execute("select max(rv) from events").fetchone()[0]
        # version 0 means "any" to clients and 1 is what an empty store lists as
        self._revision = max(last or 0, self._compacted, 1)

    def _events_from_file(self, collection: Collection, rv: int) -> list[LoggedEvent]:
        rows = self._db.execute(
            "select rv, type, body, previous from events where rv > ? and grp = ? and plural = ? order by rv",
            (rv, *collection),
        )
        return [
            LoggedEvent(number, WatchEventType(kind), make_record(body), make_record(past) if past else None)
            for number, kind, body, past in rows
        ]

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """One write transaction: committed at the end of the block, rolled back when the block raises."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._run("begin immediate")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None:
            self._run("commit")
            return
        if self._db.in_transaction:
            self._db.execute("rollback")
        if isinstance(error, sqlite3.Error):
            raise Unavailable(f"the state file cannot be written: {error}") from error

    def _run(self, statement: str) -> None:
        try:
            self._db.execute(statement)
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise Unavailable(f"the state file cannot be written: {error}") from error
