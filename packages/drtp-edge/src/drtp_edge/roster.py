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
    """The established tunnels of one edge."""

    _entries: dict[int, Entry] = attrs.field(factory=dict)
    _by_service: dict[str, tuple[int, ...]] = attrs.field(factory=dict)
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
        return tuple(self._by_service)

    def candidates(self, service: str) -> tuple[int, ...]:
        """Return the service's tunnels that take visitors; where there are several they take turns at being first."""
        tunnels = self._by_service.get(service, ())
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
        for entry in self._entries.values():
            old = entry.admission
            if old.instance == admission.instance and set(old.services) & set(admission.services):
                (superseded if old.epoch < admission.epoch else replaced).append(entry.id)
        self._entries[tunnel] = Entry(id=tunnel, admission=admission, since=now)
        for service in admission.services:
            key = (admission.instance, service)
            self._epochs[key] = admission.epoch
            self._epochs.move_to_end(key)
        while len(self._epochs) > _REMEMBERED:
            self._epochs.popitem(last=False)
        for other in (*superseded, *replaced):
            self._entries[other].draining = True
        self._index()
        return Entered(tuple(superseded), tuple(replaced))

    def renew(self, tunnel: int, admission: Admission) -> None:
        """Take note that a tunnel authenticated again."""
        if (entry := self._entries.get(tunnel)) is not None:
            entry.admission = admission

    def drain(self, tunnel: int) -> None:
        """Give the tunnel no more visitors."""
        if (entry := self._entries.get(tunnel)) is not None and not entry.draining:
            entry.draining = True
            self._index()

    def leave(self, tunnel: int) -> Entry | None:
        """Forget a tunnel that ended and return what it was."""
        entry = self._entries.pop(tunnel, None)
        if entry is not None:
            self._index()
        return entry

    def _index(self) -> None:
        by_service: dict[str, tuple[int, ...]] = {}
        for entry in self._entries.values():
            if not entry.draining:
                for service in entry.admission.services:
                    by_service[service] = (*by_service.get(service, ()), entry.id)
        self._by_service = by_service
