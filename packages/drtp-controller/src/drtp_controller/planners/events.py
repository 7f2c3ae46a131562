"""What people are told when something happened: differences of our objects as Kubernetes Events.

Rules:
- An event is a difference between two versions of one object; no difference, no event.
- Reasons are stable words that people filter by and programs may match; messages are for reading.
- ``EventBook`` counts repetitions instead of writing them anew, and a noisy object is silenced, not the others.
What must not enter: I/O, clocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import attrs

from drtp_api.kube import Obj
from drtp_api.resources import (
    API_VERSION,
    ClientStatus,
    Condition,
    Connection,
    Metadata,
    Server,
    ServerBinding,
    Service,
)
from drtp_controller.planners.conditions import find, parse_time, timestamp
from drtp_controller.planners.servers import is_online

__all__ = [
    "COMPONENT", "EventBook", "Happening", "Subject", "connection_events", "server_events", "service_events",
]  # fmt: skip

COMPONENT = "drtp-controller"
NORMAL, WARNING = "Normal", "Warning"

BURST = 25
"""Events of one reason that one object may have at once: the burst of client-go's spam filter."""
REFILL_SECONDS = 60.0
"""After a burst, one more each minute."""
REMEMBERED = 4096
"""Events whose count is kept; a forgotten one that repeats is read from the API again."""

_CONFLICTS = {"PortTaken": "PortConflict", "PortForbidden": "PortConflict", "HostnameTaken": "HostnameConflict"}


@attrs.frozen
class Subject:
    """The object that an event is about."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    api_version: str = API_VERSION

    @classmethod
    def of(cls, kind: str, metadata: Metadata) -> Subject:
        """Return the subject that one of our objects is."""
        return cls(kind, metadata.name, metadata.namespace or "", metadata.uid or "")


@attrs.frozen
class Happening:
    """One thing that happened to an object."""

    subject: Subject
    reason: str
    message: str
    type: str = NORMAL


def server_events(old: Server | None, new: Server) -> Iterator[Happening]:
    """Yield what happened to a server."""
    subject = Subject.of("DRTPServer", new.metadata)
    was = old is not None and is_online(old)
    before = find(old.status.conditions, "Ready") if old is not None else None
    ready = find(new.status.conditions, "Ready")
    draining = is_online(new) and ready is not None and ready.reason == "Draining"
    if draining and (before is None or before.reason != "Draining"):
        yield Happening(subject, "ServerDraining", "takes no new agents; those it has move where there is room")
    elif is_online(new) and not draining and (not was or (before is not None and before.reason == "Draining")):
        yield Happening(subject, "ServerReady", "heartbeats arrive")
    elif was and not is_online(new):
        yield Happening(subject, "ServerLost", ready.message if ready else "no heartbeat", WARNING)
    yield from _clock_events(subject, old, new)


def _clock_events(subject: Subject, old: Server | None, new: Server) -> Iterator[Happening]:
    clock = find(new.status.conditions, "ClockInSync")
    past = find(old.status.conditions, "ClockInSync") if old is not None else None
    if clock is not None and clock.status == "False" and _said(clock) != _said(past):
        yield Happening(subject, "ClockSkewed", clock.message, WARNING)


def service_events(old: Service | None, new: Service) -> Iterator[Happening]:
    """Yield what happened to a service."""
    subject = Subject.of("DRTPService", new.metadata)
    status, before = new.status, (old.status if old is not None else None)
    protocol = new.spec.application.protocol.value
    if status.external_port is not None and (before is None or before.external_port != status.external_port):
        yield Happening(subject, "PortVended", f"public {protocol} port {status.external_port}")
    name = status.canonical_hostname
    if name is not None and (before is None or before.canonical_hostname != name):
        yield Happening(subject, "HostnameVended", f"public host name {name}")
    for kind in ("Accepted", "Programmed"):
        past = find(before.conditions, kind) if before is not None else None
        found = find(status.conditions, kind)
        if found is not None and _said(found) != _said(past):
            yield from _service_condition(subject, found, past)


def _service_condition(subject: Subject, found: Condition, past: Condition | None) -> Iterator[Happening]:
    if found.status == "True":
        if found.type == "Programmed" and (past is None or past.status != "True"):
            yield Happening(subject, "ServiceProgrammed", "the gateway sends visitors to it")
    elif found.reason in _CONFLICTS:
        yield Happening(subject, _CONFLICTS[found.reason], found.message, WARNING)
    elif found.type == "Programmed" and found.message.startswith("DRTP-"):
        yield Happening(subject, "ServiceNotProgrammed", found.message, WARNING)
    elif found.reason == "NotExposed" and past is not None and past.status == "True":
        yield Happening(subject, "ServiceWithdrawn", "no longer reachable from outside")


def connection_events(old: Connection | None, new: Connection) -> Iterator[Happening]:
    """Yield what happened to a connection."""
    subject = Subject.of("DRTPConnection", new.metadata)
    if new.spec.servers and (old is None or old.spec.servers != new.spec.servers):
        chosen = ", ".join(f"{a.name} ({a.role.value})" for a in new.spec.servers)
        yield Happening(subject, "ServersAssigned", chosen)
    assigned = find(new.status.conditions, "ServersAssigned")
    past = find(old.status.conditions, "ServersAssigned") if old is not None else None
    if assigned is not None and assigned.status == "False" and _said(assigned) != _said(past):
        yield Happening(subject, "NoServerAvailable", assigned.message, WARNING)
    bindings = {b.name: b for b in old.status.servers} if old is not None else {}
    for binding in new.status.servers:
        was = _up(bindings.get(binding.name))
        if _up(binding) and not was:
            yield Happening(subject, "ConnectionConnected", f"the tunnel to {binding.name} is up")
        elif was and not _up(binding):
            yield Happening(subject, "ConnectionLost", f"the tunnel to {binding.name} is down", WARNING)


def _up(binding: ServerBinding | None) -> bool:
    return binding is not None and binding.client_status is ClientStatus.CONNECTED


def _said(found: Condition | None) -> tuple[str, str, str] | None:
    return (found.status, found.reason, found.message) if found is not None else None


@attrs.define
class _Entry:
    happening: Happening
    first: float
    last: float
    count: int
    stored: bool


@attrs.define
class _Bucket:
    tokens: float
    at: float


@attrs.define
class EventBook:
    """What was told and how often, what has still to be written. Times are seconds since the Unix epoch."""

    _entries: dict[str, _Entry] = attrs.field(factory=dict)
    _pending: dict[str, None] = attrs.field(factory=dict)
    _buckets: dict[tuple[str, str, str, str], _Bucket] = attrs.field(factory=dict)
    dropped: int = 0

    def record(self, happening: Happening, now: float) -> bool:
        """Take note of a happening; return whether something is to be written."""
        if not self._spend(happening, now):
            self.dropped += 1
            return False
        name = event_name(happening)
        entry = self._entries.pop(name, None)
        if entry is None:
            entry = _Entry(happening, now, now, 0, stored=False)
        entry.count, entry.last = entry.count + 1, now
        self._entries[name] = entry  # the youngest last
        self._pending[name] = None
        while len(self._entries) > REMEMBERED:
            forgotten = next(iter(self._entries))
            del self._entries[forgotten]
            self._pending.pop(forgotten, None)
        return True

    def next_write(self) -> tuple[Obj, bool] | None:
        """Return an Event to write and whether it is stored already; ``None`` when everything is written."""
        while self._pending:
            name = next(iter(self._pending))
            del self._pending[name]
            entry = self._entries[name]
            stored, entry.stored = entry.stored, True
            return event_object(entry.happening, entry.first, entry.last, entry.count), stored
        return None

    def found(self, obj: Obj) -> Obj:
        """Add what the API has of an event to what we know; return the event as it shall be.

        Another controller before us told the same, and we are going on counting.
        """
        entry = self._entries.get(obj["metadata"]["name"])
        count = int(obj.get("count") or 1)
        if entry is None:
            return {"count": count + 1}
        entry.count += count
        return {"count": entry.count, "lastTimestamp": timestamp(entry.last)}

    def adopt(self, obj: Obj) -> None:
        """Take over an event that the API has from before, to go on counting it and to let it expire."""
        involved = obj.get("involvedObject") or {}
        subject = Subject(
            str(involved.get("kind", "")), str(involved.get("name", "")), str(involved.get("namespace") or ""),
            str(involved.get("uid") or ""), str(involved.get("apiVersion", "")),
        )  # fmt: skip
        happening = Happening(subject, obj.get("reason", ""), obj.get("message", ""), obj.get("type", NORMAL))
        last = parse_time(obj.get("lastTimestamp")) or 0.0
        first = parse_time(obj.get("firstTimestamp")) or last
        entry = _Entry(happening, first, last, int(obj.get("count") or 1), stored=True)
        self._entries.setdefault(obj["metadata"]["name"], entry)

    def lost(self, obj: Obj) -> None:
        """Take note that the API no longer has an event: the next one begins anew."""
        self._entries.pop(obj["metadata"]["name"], None)

    def expired(self, now: float, lifetime: float) -> list[tuple[str, str]]:
        """Forget the events that are older than ``lifetime`` and return their namespaces and names."""
        old = [name for name, e in self._entries.items() if now - e.last > lifetime and name not in self._pending]
        return [(self._entries.pop(name).happening.subject.namespace or "default", name) for name in old]

    def _spend(self, happening: Happening, now: float) -> bool:
        subject = happening.subject
        # by reason: strangers who are refused must not silence what happens to the service itself
        key = (subject.kind, subject.namespace, subject.name, happening.reason)
        bucket = self._buckets.pop(key, None) or _Bucket(BURST, now)
        bucket.tokens = min(BURST, bucket.tokens + max(0.0, now - bucket.at) / REFILL_SECONDS)
        bucket.at = now
        self._buckets[key] = bucket
        while len(self._buckets) > REMEMBERED:
            del self._buckets[next(iter(self._buckets))]
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def event_name(happening: Happening) -> str:
    """Return the name of an event: the same for every repetition of the same happening."""
    subject = happening.subject
    text = f"{subject.kind}\0{subject.uid}\0{happening.type}\0{happening.reason}\0{happening.message}"
    return f"{subject.name[:230]}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def event_object(happening: Happening, first: float, last: float, count: int) -> Obj:
    """Return the Event of a happening."""
    subject = happening.subject
    involved: dict[str, Any] = {"apiVersion": subject.api_version, "kind": subject.kind, "name": subject.name}
    if subject.namespace:
        involved["namespace"] = subject.namespace
    if subject.uid:
        involved["uid"] = subject.uid
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": event_name(happening), "namespace": subject.namespace or "default"},
        "involvedObject": involved,
        "type": happening.type,
        "reason": happening.reason,
        "message": happening.message[:1024],
        "count": count,
        "firstTimestamp": timestamp(first),
        "lastTimestamp": timestamp(last),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }
