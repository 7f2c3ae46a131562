"""Which tunnel servers are there: from their heartbeats to ``Ready`` and ``health``.

Rules:
- A heartbeat counts when *we* see the Lease change: a server whose clock is wrong is not thereby dead. Only the
  first sight of a Lease trusts its ``renewTime``, because a restarted controller has nothing else.
- The server itself may report less than full health or ``Draining``; the controller overrules it only when the
  heartbeats end, and takes that back when they return.
- *Online* means heartbeats arrive. Online but draining keeps its tunnels and gets no new ones.
"""

from __future__ import annotations

import attrs

from drtp_api.resources import Condition, Server, ServerStatus
from drtp_controller.planners.conditions import condition, find, merge_conditions

__all__ = ["DEFAULT_LEASE_SECONDS", "SKEW_SECONDS", "LeaseBook", "has_room", "is_online", "plan_server"]

DEFAULT_LEASE_SECONDS = 30.0
"""Used where a Lease does not say; two and a half of the edge's usual heartbeats."""

SKEW_SECONDS = 30.0
"""A clock that is off by more refuses valid grants, whose leeway is a minute for both sides together."""

OFFLINE = "AgentOffline"
READY = "ServerReady"


@attrs.define
class _Heartbeat:
    renew_time: float
    seen_at: float
    duration: float
    skew: float | None = None


@attrs.define
class LeaseBook:
    """When each server's Lease was last renewed, by our own clock. Times are seconds since the Unix epoch."""

    _beats: dict[str, _Heartbeat] = attrs.field(factory=dict)

    def observe(self, name: str, renew_time: float | None, duration: float, now: float) -> None:
        """Take note of a Lease as it is now."""
        if renew_time is None:
            return
        known = self._beats.get(name)
        if known is None:
            self._beats[name] = _Heartbeat(renew_time, min(renew_time, now), duration)
        elif known.renew_time != renew_time:
            self._beats[name] = _Heartbeat(renew_time, now, duration, skew=renew_time - now)

    def skewed(self, name: str) -> bool | None:
        """Return whether the server's clock is off ours; ``None`` until a renewal was seen as it happened."""
        beat = self._beats.get(name)
        return None if beat is None or beat.skew is None else abs(beat.skew) > SKEW_SECONDS

    def forget(self, name: str) -> None:
        """Take note that a Lease is gone."""
        self._beats.pop(name, None)

    def expires_at(self, name: str) -> float | None:
        """Return when the server is taken for dead unless it renews; ``None`` if it never did."""
        beat = self._beats.get(name)
        return None if beat is None else beat.seen_at + beat.duration

    def alive(self, name: str, now: float) -> bool:
        """Return whether the server renewed in time."""
        expires = self.expires_at(name)
        return expires is not None and now < expires

    def next_expiry(self, now: float) -> tuple[float, tuple[str, ...]]:
        """Return the earliest expiry that lies ahead, and the servers that have expired by now."""
        times = {name: beat.seen_at + beat.duration for name, beat in self._beats.items()}
        ahead = [t for t in times.values() if t > now]
        return (min(ahead, default=float("inf")), tuple(sorted(n for n, t in times.items() if t <= now)))


def is_online(server: Server) -> bool:
    """Return whether the server's heartbeats arrive, as its status says."""
    ready = find(server.status.conditions, "Ready")
    return ready is not None and (ready.status == "True" or ready.reason == "Draining")


def has_room(server: Server) -> bool:
    """Return whether the server may be given one more agent."""
    return (
        is_online(server)
        and not server.spec.unschedulable
        and server.status.connections < server.spec.capacity.connections
        and bool(server.spec.endpoints)
        and server.metadata.deletion_timestamp is None
    )


def plan_server(server: Server, *, alive: bool, skewed: bool | None = None, now: float) -> ServerStatus:
    """Return the status that the server shall have. ``skewed`` is ``None`` while its clock is not known."""
    status = server.status
    ready = find(status.conditions, "Ready")
    was_offline = ready is None or ready.reason == OFFLINE or ready.status == "Unknown"
    if not alive:
        wanted = condition("Ready", False, OFFLINE, "no heartbeat within the lease's duration")
        health = 0
    elif server.spec.unschedulable:
        wanted = condition("Ready", False, "Draining", "takes no new agents")
        health = 100 if was_offline else status.health
    elif ready is None or was_offline or ready.reason == "Draining":
        wanted, health = condition("Ready", True, READY), 100
    else:
        wanted, health = ready, status.health
    conditions = merge_conditions(
        status.conditions,
        (condition("Accepted", True, "Accepted"), wanted, *_clock(skewed, find(status.conditions, "ClockInSync"))),
        generation=server.metadata.generation or 0,
        now=now,
    )
    return attrs.evolve(status, health=health, conditions=conditions)


def _clock(skewed: bool | None, told: Condition | None) -> tuple[Condition, ...]:
    """Return what to say of the server's clock: nothing as long as it was never wrong."""
    if skewed is None or (not skewed and told is None):
        return ()
    if not skewed:
        return (condition("ClockInSync", True, "ClockInSync"),)
    # without the number of seconds: it is another one with each heartbeat
    text = f"DRTP-2004 its clock is more than {SKEW_SECONDS:.0f} s off ours: it will refuse valid grants; set the clock"
    return (condition("ClockInSync", False, "ClockSkewed", text),)
