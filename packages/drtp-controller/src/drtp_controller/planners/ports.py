"""Public ports: who owns which. One port of one protocol never has two owners.

Rules:
- What an owner has it keeps until it is deleted or asks for another; a port that was given back rests before
  somebody else gets it, because visitors may still hold the old address.
- Vending starts at a place derived from the owner's name, so that a lost state gives mostly the same ports again.
- Whether the machine can bind a port is asked through ``is_free``; the answer for an owned port is not asked.
What must not enter: sockets, time.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable

import attrs

from drtp_api.errors import DrtpError
from drtp_api.resources import Protocol

__all__ = ["IsFree", "PortAllocator", "PortState", "shown_owner"]

REST_SECONDS = 60.0
"""A released port is not vended to another owner for this long."""
REJECT_SECONDS = 300.0
"""A port that the gateway could not bind is not vended for this long."""


class PortState(enum.Enum):
    """What a bind on the port would say."""

    FREE = "free"
    TAKEN = "taken"
    FORBIDDEN = "forbidden"


IsFree = Callable[[Protocol, int], PortState]

_Slot = tuple[Protocol, int]


def shown_owner(owner: str) -> str:
    """Return an owner as people read it: services are keys, everything else brings its kind."""
    return f"the {owner}" if " " in owner else f"the service {owner}"


@attrs.define
class PortAllocator:
    """The ports of one gateway. ``first`` and ``last`` bound vended ports only, both inclusive."""

    first: int
    last: int
    is_free: IsFree
    _owners: dict[_Slot, str] = attrs.field(factory=dict)
    _slots: dict[str, _Slot] = attrs.field(factory=dict)
    _resting: dict[_Slot, float] = attrs.field(factory=dict)

    def observe(self, owner: str, protocol: Protocol, port: int) -> None:
        """Take note of a port that an owner's status names already; the first owner keeps it."""
        slot = (protocol, port)
        if self._owners.get(slot, owner) == owner and owner not in self._slots:
            self._take(owner, slot)

    def owners(self) -> tuple[str, ...]:
        """Return everybody who has a port."""
        return tuple(self._slots)

    def owned(self, owner: str) -> int | None:
        """Return the port of an owner."""
        slot = self._slots.get(owner)
        return slot[1] if slot is not None else None

    def check(self, owner: str, protocol: Protocol, port: int) -> None:
        """Prove that the owner could have this port.

        Raises:
            DrtpError: DRTP-2011 taken; DRTP-2012 forbidden.
        """
        slot = (protocol, port)
        holder = self._owners.get(slot)
        if holder == owner:
            return
        if holder is not None:
            raise DrtpError("DRTP-2011", f"{protocol.value} port {port} belongs to {shown_owner(holder)}")
        match self.is_free(protocol, port):
            case PortState.TAKEN:
                raise DrtpError("DRTP-2011", f"{protocol.value} port {port} is in use by another program")
            case PortState.FORBIDDEN:
                raise DrtpError("DRTP-2012", f"the gateway may not listen on {protocol.value} port {port}")
            case PortState.FREE:
                return

    def allocate(self, owner: str, protocol: Protocol, requested: int, now: float) -> int:
        """Return the owner's port: the requested one, or with 0 the one it has or a new one.

        Raises:
            DrtpError: DRTP-2011, DRTP-2012 as :meth:`check`; DRTP-2011 also when the range is used up.
        """
        slot = self._slots.get(owner)
        if slot is not None and slot[0] is protocol and requested in {0, slot[1]}:
            return slot[1]
        if requested:
            self.check(owner, protocol, requested)
            port = requested
        else:
            port = self._vend(owner, protocol, now)
        self.release(owner, now)
        self._take(owner, (protocol, port))
        return port

    def reject(self, owner: str, now: float) -> None:
        """Take a port back that the gateway could not bind; it is not vended again for a while."""
        slot = self._slots.pop(owner, None)
        if slot is not None:
            del self._owners[slot]
            self._resting[slot] = now + REJECT_SECONDS

    def release(self, owner: str, now: float) -> None:
        """Take back what an owner has."""
        slot = self._slots.pop(owner, None)
        if slot is not None:
            del self._owners[slot]
            self._resting[slot] = now + REST_SECONDS

    def _take(self, owner: str, slot: _Slot) -> None:
        self._owners[slot] = owner
        self._slots[owner] = slot
        self._resting.pop(slot, None)

    def _vend(self, owner: str, protocol: Protocol, now: float) -> int:
        self._resting = {s: until for s, until in self._resting.items() if until > now}
        size = self.last - self.first + 1
        digest = hashlib.sha256(f"{protocol.value} {owner}".encode()).digest()
        start = int.from_bytes(digest[:8], "big") % size
        for step in range(size):
            port = self.first + (start + step) % size
            slot = (protocol, port)
            if slot in self._owners or slot in self._resting:
                continue
            if self.is_free(protocol, port) is PortState.FREE:
                return port
        raise DrtpError("DRTP-2011", f"every {protocol.value} port from {self.first} to {self.last} is in use")
