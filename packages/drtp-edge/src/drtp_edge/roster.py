"""The live tunnels by service, and which of two agents of one instance stays: pure state, no I/O.

Rules:
- Of one instance and service only the newest epoch lives: a newcomer supersedes at once, a latecomer is turned away.
- An epoch once seen is remembered after its tunnel went, so that the ghost of an older process stays out.
- A draining tunnel carries its streams and gets no new ones.

What must not live here: connections and sockets. A tunnel is a number here.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

import attrs

from drtp_edge.policy import Admission

__all__ = ["Entered", "Entry", "Roster", "TooOld"]

_REMEMBERED = 65_536
"""Epochs kept; an entry is about 200 bytes, and agents that were away longest are forgotten first."""


@attrs.define(kw_only=True)
class Entry:
    """One established tunnel."""

    id: int
    admission: Admission
    since: float
    draining: bool = False


@attrs.frozen
class Entered:
    """The tunnel is in. ``superseded`` are older processes of the instance, ``replaced`` older tunnels of this one."""

    superseded: tuple[int, ...]
    replaced: tuple[int, ...]


@attrs.frozen
class TooOld:
    """A newer process of the same instance was here; the newcomer must go."""

    newest: int


@attrs.define
class Roster:
    """The established tunnels of one edge. Every change costs the same however many there are."""

    _entries: dict[int, Entry] = attrs.field(factory=dict)
    _live: dict[str, tuple[int, ...]] = attrs.field(factory=dict)
    _by_service: dict[str, dict[int, Entry]] = attrs.field(factory=dict)
    _by_connection: dict[str, dict[int, Entry]] = attrs.field(factory=dict)
    _by_instance: dict[bytes, dict[int, Entry]] = attrs.field(factory=dict)
    _epochs: OrderedDict[tuple[bytes, str], int] = attrs.field(factory=OrderedDict)
    _turn: itertools.count[int] = attrs.field(factory=itertools.count)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, tunnel: int) -> bool:
        return tunnel in self._entries

    def get(self, tunnel: int) -> Entry | None:
        """Return the tunnel's entry, None once it is gone."""
        return self._entries.get(tunnel)

    def entries(self) -> tuple[Entry, ...]:
        """Return every tunnel."""
        return tuple(self._entries.values())

    def services(self) -> tuple[str, ...]:
        """Return the services that have a tunnel which takes visitors."""
        return tuple(self._live)

    def serves(self, service: str) -> bool:
        """Return whether a service has a tunnel which takes visitors."""
        return service in self._live

    def of_service(self, service: str) -> tuple[Entry, ...]:
        """Return the tunnels of a service, draining ones included."""
        return tuple(self._by_service.get(service, {}).values())

    def of_connection(self, connection: str) -> tuple[Entry, ...]:
        """Return the tunnels of a connection, draining ones included."""
        return tuple(self._by_connection.get(connection, {}).values())

    def connections(self) -> tuple[str, ...]:
        """Return the connections that have a tunnel."""
        return tuple(key for key in self._by_connection if key)

    def candidates(self, service: str) -> tuple[int, ...]:
        """Return the service's tunnels that take visitors; where there are several they take turns at being first."""
        tunnels = self._live.get(service, ())
        if len(tunnels) < 2:
            return tunnels
        start = next(self._turn) % len(tunnels)
        return tunnels[start:] + tunnels[:start]

    def enter(self, tunnel: int, admission: Admission, now: float) -> Entered | TooOld:
        """Take in an authenticated tunnel, unless a newer process of its instance was here."""
        for service in admission.services:
            newest = self._epochs.get((admission.instance, service), -1)
            if newest > admission.epoch:
                return TooOld(newest)
        superseded: list[int] = []
        replaced: list[int] = []
        for other in self._by_instance.get(admission.instance, {}).values():
            if not set(other.admission.services).isdisjoint(admission.services):
                (superseded if other.admission.epoch < admission.epoch else replaced).append(other.id)
                other.draining = True
        entry = Entry(id=tunnel, admission=admission, since=now)
        self._entries[tunnel] = entry
        for index, keys in self._indices(admission):
            for key in keys:
                index.setdefault(key, {})[tunnel] = entry
        for service in admission.services:
            self._remember((admission.instance, service), admission.epoch)
            self._refresh(service)
        for number in (*superseded, *replaced):
            for service in self._entries[number].admission.services:
                self._refresh(service)
        return Entered(tuple(superseded), tuple(replaced))

    def renew(self, tunnel: int, admission: Admission) -> None:
        """Take note that a tunnel authenticated again, for the same services."""
        if (entry := self._entries.get(tunnel)) is not None:
            entry.admission = admission

    def drain(self, tunnel: int) -> None:
        """Give the tunnel no more visitors."""
        if (entry := self._entries.get(tunnel)) is not None and not entry.draining:
            entry.draining = True
            for service in entry.admission.services:
                self._refresh(service)

    def leave(self, tunnel: int) -> Entry | None:
        """Forget a tunnel that ended and return what it was."""
        entry = self._entries.pop(tunnel, None)
        if entry is None:
            return None
        for index, keys in self._indices(entry.admission):
            for key in keys:
                members = index[key]
                del members[tunnel]
                if not members:
                    del index[key]
        for service in entry.admission.services:
            self._refresh(service)
        return entry

    def _indices(self, admission: Admission) -> tuple[tuple[dict[Any, dict[int, Entry]], tuple[Any, ...]], ...]:
        return (
            (self._by_service, admission.services),
            (self._by_connection, (admission.connection,)),
            (self._by_instance, (admission.instance,)),
        )

    def _refresh(self, service: str) -> None:
        """Note anew which tunnels of a service take visitors."""
        live = tuple(entry.id for entry in self._by_service.get(service, {}).values() if not entry.draining)
        if live:
            self._live[service] = live
        else:
            self._live.pop(service, None)

    def _remember(self, key: tuple[bytes, str], epoch: int) -> None:
        self._epochs[key] = epoch
        self._epochs.move_to_end(key)
        while len(self._epochs) > _REMEMBERED:
            self._epochs.popitem(last=False)
