"""Which data port a service gets: stable while it lives, reserved a while after. No I/O; the clock is passed in.

Rules:
- A service gets the number it had last, if it may be had.
- A number stays its last owner's for ``reservation`` seconds, closed, so that a gateway that still knows it meets a
  refused connection and never another service.

What must not live here: sockets.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import attrs

__all__ = ["PortBook", "PortRange"]


@attrs.frozen
class PortRange:
    """The numbers to choose from, both ends included; ``PortRange(0, 0)`` leaves the choice to the kernel."""

    first: int = 0
    last: int = 0

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """Read ``A-B`` or ``0``.

        Raises:
            ValueError: it is neither, or out of bounds.
        """
        first, dash, last = text.partition("-")
        low = int(first)
        high = int(last) if dash else low
        if (low, high) != (0, 0) and not 1 <= low <= high <= 65_535:
            raise ValueError(f"{text!r} is neither 0 nor a range of ports from 1 to 65535")
        return cls(low, high)

    def __len__(self) -> int:
        return self.last - self.first + 1 if self.first else 0


@attrs.define
class PortBook:
    """The data ports of one edge.

    Args:
        range: Where to vend from.
        reservation: Seconds that a released number stays its owner's.
    """

    range: PortRange
    reservation: float
    _held: dict[int, str] = attrs.field(factory=dict)
    _last: dict[str, tuple[int, float]] = attrs.field(factory=dict)

    def candidates(self, service: str, now: float) -> Iterator[int]:
        """Yield the numbers to try for a service, the best first; 0 means: whatever the kernel gives.

        Check what the kernel gave with :meth:`may_use`.
        """
        last = self._last.get(service)
        if last is not None and self.may_use(last[0], service, now):
            yield last[0]
        if not len(self.range):
            # The kernel may give a number that is reserved; then it is asked again.
            yield from [0] * 8
            return
        # Two edges on one machine, and one edge after a restart, begin at the same place for a service.
        offset = zlib.crc32(service.encode()) % len(self.range)
        for step in range(len(self.range)):
            port = self.range.first + (offset + step) % len(self.range)
            if port != (last[0] if last else 0) and self.may_use(port, service, now):
                yield port

    def may_use(self, port: int, service: str, now: float) -> bool:
        """Return whether the service may listen on the number."""
        if port in self._held:
            return False
        return not any(
            number == port and owner != service and now < until for owner, (number, until) in self._last.items()
        )

    def take(self, port: int, service: str) -> None:
        """Take note that the service listens on the number."""
        self._held[port] = service
        self._last[service] = (port, float("inf"))

    def release(self, service: str, now: float) -> None:
        """Take note that the service listens no more; the number stays reserved."""
        last = self._last.get(service)
        if last is None or self._held.get(last[0]) != service:
            return
        del self._held[last[0]]
        self._last[service] = (last[0], now + self.reservation)
        if len(self._last) > 4096:
            self._last = {s: v for s, v in self._last.items() if v[1] > now}
