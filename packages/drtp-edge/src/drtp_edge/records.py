"""Access records: one line per visitor, at a bounded rate.

Rules:
- A key (service and outcome) writes at most :data:`RATE` lines a second; what was left out is counted in the next line.
- Who, which rule, how many bytes, how long, who ended it and why; never a byte of what was said.

What must not live here: metrics, and where the lines go.
"""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from drtp_edge.session import AccessRecord

__all__ = ["RATE", "AccessLog", "RateLimiter"]

RATE = 10
"""Lines a second and key: enough to see what happens, too few to fill a disk during an attack."""

_KEYS = 4096


class Log(Protocol):
    """The part of structlog's logger that is used here."""

    def info(self, event: str, **values: Any) -> Any:
        """Write a line."""

    def warning(self, event: str, **values: Any) -> Any:
        """Write a line that wants to be looked at."""


@attrs.define
class RateLimiter:
    """Lets the first ``rate`` events of each key pass in every second."""

    rate: int = RATE
    _windows: dict[tuple[str, str], list[float]] = attrs.field(factory=dict)

    def admit(self, key: tuple[str, str], now: float) -> int | None:
        """Return how many events of the key were left out before this one, or None to leave it out, too."""
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= _KEYS:
                self._windows.clear()
            window = self._windows[key] = [now, 0, 0]
        if now - window[0] >= 1.0:
            window[0] = now
            window[1] = 0
        if window[1] >= self.rate:
            window[2] += 1
            return None
        window[1] += 1
        left_out, window[2] = int(window[2]), 0
        return left_out


@attrs.define
class AccessLog:
    """Writes access records."""

    log: Log
    limiter: RateLimiter = attrs.field(factory=RateLimiter)

    def write(self, record: AccessRecord, *, agent: str | None, now: float) -> None:
        """Write the record, or count it. ``agent`` is the instance that served, if one did."""
        left_out = self.limiter.admit((record.service, record.outcome), now)
        if left_out is None:
            return
        values: dict[str, Any] = {
            "connection_id": record.connection_id.hex(),
            "service": record.service,
            "source": str(record.source),
            "outcome": record.outcome,
            "rule": record.rule,
            "bytes_in": record.bytes_in,
            "bytes_out": record.bytes_out,
            "duration": round(record.duration, 6),
            "closed_by": record.closed_by,
            "code": record.code.name,
            "attempts": record.attempts,
        }
        if record.accept_latency is not None:
            values["accept_latency"] = round(record.accept_latency, 6)
        if record.reason:
            values["reason"] = record.reason
        if agent is not None:
            values["agent"] = agent
        if left_out:
            values["similar_left_out"] = left_out
        self.log.info("access", **values)
