"""The agent's brain: which servers to dial and when, what to do when one goes away, and when to give up.

Rules:
- Events in, commands out; the clock and a random source are passed in. Nothing here touches a socket.
- Every assigned server is kept connected: the others carry visitors while one is replaced.
- A going-away server is replaced *before* its streams end: dial first, let the old tunnel finish by itself.
- Back-off has full jitter, so that the agents of a lost edge do not come back as one wave.
- Superseded means that a newer process of this identity serves: stop for good, never fight.

What must not live here: how a grant is asked for, how a carrier is dialled, what a person is shown.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import assert_never

import attrs

from drtp_agent import decisions as d
from drtp_agent.decisions import Command, Occurrence
from drtp_protocol import ErrorCode

__all__ = ["Policy", "Supervisor"]


@attrs.frozen(kw_only=True)
class Policy:
    """The supervisor's numbers, in seconds unless their name says otherwise."""

    base_delay: float = 0.5
    """Upper bound of the first retry's delay; it doubles with each failure."""
    max_delay: float = 30.0
    """Bound of the delay: a path that came back is used again within this time."""
    stable_after: float = 10.0
    """A tunnel that lived this long makes the next loss a first failure again."""
    unreachable_patience: float = 3.0
    """How long a first start waits for a control plane that cannot be reached at all."""
    start_patience: float = 30.0
    """How long a first start waits for a control plane that answers, but has no server yet."""
    control_base: float = 1.0
    control_max: float = 30.0
    renew_fraction: float = 0.5
    """Part of a grant's life after which it is renewed: half leaves the other half for an outage."""
    refresh_gap: float = 2.0
    """Least time between two refreshes that servers asked for."""
    lonely_refresh: float = 15.0
    """With no tunnel up for this long, ask whether other servers were assigned."""
    sleep_jump: float = 3.0
    """Difference of the two clocks that means the machine slept."""
    drain: float = 30.0
    """Time that streams have on a server that is no longer assigned."""
    tick: float = 5.0
    """Longest time between two looks at the clocks."""


_FATAL_FOR_SERVER = frozenset({ErrorCode.AUTH_FAILED, ErrorCode.AUTH_EXPIRED})
_REFUSALS = frozenset({ErrorCode.AUTH_FAILED, ErrorCode.VERSION, ErrorCode.UNSUPPORTED, ErrorCode.OVER_CAPACITY})
_SLOW = frozenset({ErrorCode.VERSION, ErrorCode.UNSUPPORTED})
_GONE = frozenset({"DRTP-2005", "DRTP-2006", "DRTP-2008", "DRTP-2031"})
"""What the control plane answers for a connection that it no longer knows or allows."""
_REVOKED = "DRTP-2010"
_TAKEN = "DRTP-2007"
_UNREACHABLE = frozenset({"DRTP-2001", "DRTP-2002"})


class _Phase(enum.Enum):
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    OVER = "over"


@attrs.define
class _Server:
    """One assigned server."""

    name: str
    failures: int = 0
    retry_at: float | None = None
    tunnel: int | None = None
    up_since: float | None = None
    told: str | None = None
    """The error that the user knows of, until the server is up again."""

    @property
    def up(self) -> bool:
        return self.up_since is not None


@attrs.define
class Supervisor:
    """Decides for one agent.

    Args:
        now: Monotonic seconds.
        awake: Seconds of a clock that also runs while the machine sleeps.
        random: Draws from [0, 1).
        cached: Names of the servers of the last registration, if its answer was kept.
        policy: The numbers.
    """

    now: float
    awake: float
    random: Callable[[], float]
    cached: tuple[str, ...] = ()
    policy: Policy = Policy()

    _looked_at: float = attrs.field(init=False)
    _phase: _Phase = _Phase.STARTING
    _servers: dict[str, _Server] = attrs.field(factory=dict)
    _draining: set[int] = attrs.field(factory=set)
    _next_tunnel: int = 1
    _started_at: float = 0.0
    _registered: bool = False
    _registering: bool = False
    _renewing: bool = False
    _revoked: bool = False
    _control_failures: int = 0
    _control_at: float | None = None
    _renew_at: float | None = None
    _refreshed_at: float = float("-inf")
    _lonely_since: float = 0.0
    _stop_at: float | None = None
    _announced: bool = False
    _degraded: bool = False

    @_looked_at.default
    def _(self) -> float:
        return self.now

    # What is known

    @property
    def over(self) -> bool:
        """Whether :class:`Finish` was commanded; nothing more will be."""
        return self._phase is _Phase.OVER

    @property
    def assigned(self) -> tuple[str, ...]:
        """The assigned servers, in order of preference."""
        return tuple(self._servers)

    @property
    def connected(self) -> tuple[str, ...]:
        """The servers whose tunnel is up and not going away, in order of preference: the first is the primary."""
        return tuple(s.name for s in self._servers.values() if s.up)

    def next_timeout(self) -> float | None:
        """Return when :meth:`handle_timeout` wants to be called, or ``None`` once it is over."""
        if self._phase is _Phase.OVER:
            return None
        times = [s.retry_at for s in self._servers.values()]
        times += [self._control_at, self._renew_at, self._stop_at, self._looked_at + self.policy.tick]
        return min(t for t in times if t is not None)

    # Time in

    def handle_timeout(self, *, now: float, awake: float) -> list[Command]:
        """Do what is due, and notice that the machine slept."""
        if self._phase is _Phase.OVER:
            return []
        commands: list[Command] = []
        passed = now - self._looked_at
        slept = (awake - self.awake) - passed > self.policy.sleep_jump
        stalled = passed > self.policy.tick + self.policy.sleep_jump
        self._looked_at, self.awake = now, awake
        self.now = max(self.now, now)
        if slept or stalled:
            commands += self._woke()
        if self._phase is _Phase.STOPPING:
            return commands + self._stop_due()
        if self._control_at is not None and now >= self._control_at:
            self._control_at = None
            commands += self._ask()
        if self._renew_at is not None and now >= self._renew_at:
            self._renew_at = None
            commands += self._renew()
        for server in self._servers.values():
            if server.retry_at is not None and now >= server.retry_at:
                commands.append(self._dial(server))
        if not self.connected and self._servers and now - self._lonely_since >= self.policy.lonely_refresh:
            self._lonely_since = now
            commands += self._refresh()
        return commands

    # Events in

    def handle(self, event: Occurrence, *, now: float) -> list[Command]:
        """Take an event and return what to do about it, in order."""
        self.now = max(self.now, now)
        if self._phase is _Phase.OVER:
            return []
        match event:
            case d.Started():
                self._started_at = self._lonely_since = self.now
                return self._ask()
            case d.Registered():
                return self._on_registered(event)
            case d.RegistrationFailed():
                return self._on_registration_failed(event)
            case d.TunnelUp():
                return self._on_up(event)
            case d.GoingAway():
                return self._on_going_away(event)
            case d.TunnelDown():
                return self._on_down(event)
            case d.ReadyAnnounced():
                self._announced = True
                return self._status()
            case d.StopRequested():
                return self._on_stop(event)
            case _:
                assert_never(event)

    # Control plane

    def _ask(self) -> list[Command]:
        """Ask the control plane: for grants of a known connection, else to register."""
        if self._registered or self._revoked:
            return self._renew()
        if self._registering:
            return []
        self._registering = True
        return [d.Register()]

    def _renew(self) -> list[Command]:
        if self._renewing or self._registering:
            return []
        self._renewing = True
        self._refreshed_at = self.now
        return [d.RenewGrants()]

    def _refresh(self) -> list[Command]:
        """Ask again soon, because a server gave reason to; not more often than ``refresh_gap``."""
        if self._control_at is not None:
            return []
        if self.now - self._refreshed_at >= self.policy.refresh_gap:
            return self._ask()
        self._control_at = self._refreshed_at + self.policy.refresh_gap
        return []

    def _on_registered(self, event: d.Registered) -> list[Command]:
        if self._phase is not _Phase.STARTING and self._phase is not _Phase.SERVING:
            return []
        self._phase = _Phase.SERVING
        self._registered = True
        self._registering = self._renewing = self._revoked = False
        self._control_failures = 0
        self._control_at = None
        spread = 0.9 + 0.2 * self.random()
        self._renew_at = self.now + max(1.0, event.expires_in * self.policy.renew_fraction * spread)
        return self._assign(event.servers) + self._status()

    def _on_registration_failed(self, event: d.RegistrationFailed) -> list[Command]:
        self._registering = self._renewing = False
        if self._phase is _Phase.STOPPING:
            return []
        if event.code == _REVOKED or (self._revoked and not event.retryable):
            return self._finish("revoked", _REVOKED, event.message, event.hint)
        if self._registered and event.code in _GONE:
            # The control plane lost the connection (or was set up anew): register as if for the first time.
            self._registered = False
            return self._ask()
        starting = self._phase is _Phase.STARTING
        if not event.retryable and (starting or (not self._registered and event.code in _GONE | {_TAKEN})):
            return self._finish("failed", event.code, event.message, event.hint)
        commands: list[Command] = []
        if starting and self.cached:
            starting = False
            self._phase = _Phase.SERVING
            commands += self._assign(self.cached)
        if starting:
            limits = self.policy
            patience = limits.unreachable_patience if event.code in _UNREACHABLE else limits.start_patience
            if self.now - self._started_at >= patience:
                return self._finish("failed", event.code, event.message, event.hint)
        elif self._control_failures == 0:
            commands.append(d.Fault(event.code, event.message, event.hint))
        base = self.policy.base_delay if starting else self.policy.control_base
        self._control_at = self.now + self._jitter(self._control_failures, base, self.policy.control_max)
        self._control_failures += 1
        return commands

    def _assign(self, names: Iterable[str]) -> list[Command]:
        """Take over an assignment: drop servers that left, dial those that came; the others keep their back-off."""
        commands: list[Command] = []
        old, self._servers = self._servers, {}
        for name in names:
            known = old.pop(name, None)
            server = self._servers[name] = known or _Server(name)
            if known is None:
                commands.append(self._dial(server))
        for server in old.values():
            if server.tunnel is None:
                continue
            self._draining.add(server.tunnel)
            commands.append(d.Drain(server.tunnel, self.policy.drain) if server.up else d.Abort(server.tunnel))
        return commands

    # Tunnels

    def _dial(self, server: _Server) -> Command:
        server.retry_at = None
        server.up_since = None
        server.tunnel = self._next_tunnel
        self._next_tunnel += 1
        return d.Dial(server.tunnel, server.name)

    def _by_tunnel(self, tunnel: int) -> _Server | None:
        return next((s for s in self._servers.values() if s.tunnel == tunnel), None)

    def _on_up(self, event: d.TunnelUp) -> list[Command]:
        server = self._by_tunnel(event.tunnel)
        if server is None or self._phase is _Phase.STOPPING:
            return [d.Abort(event.tunnel)]
        server.up_since = self.now
        server.told = None
        return [d.Connected(server.name, event.tunnel), *self._status()]

    def _on_going_away(self, event: d.GoingAway) -> list[Command]:
        server = self._by_tunnel(event.tunnel)
        if server is None or self._phase is _Phase.STOPPING:
            return []
        if event.code is ErrorCode.SUPERSEDED:
            return self._superseded()
        self._draining.add(event.tunnel)
        self._lose(server, event.code, event.retry_after)
        commands: list[Command] = []
        for name in event.alternates:
            other = self._servers.get(name)
            if other is not None and other.tunnel is None and other.name != server.name:
                commands.append(self._dial(other))
        return commands + self._reason(event.code) + self._refresh() + self._status()

    def _on_down(self, event: d.TunnelDown) -> list[Command]:
        was_draining = event.tunnel in self._draining
        self._draining.discard(event.tunnel)
        server = self._by_tunnel(event.tunnel)
        if self._phase is _Phase.STOPPING:
            if server is not None:
                server.tunnel = server.up_since = None
            return self._stop_due()
        if was_draining or server is None:
            return []
        if event.code is ErrorCode.SUPERSEDED:
            return self._superseded()
        self._lose(server, event.code, 0.0)
        return self._complain(server, event) + self._reason(event.code) + self._status()

    def _lose(self, server: _Server, code: ErrorCode | None, retry_after: float) -> None:
        """Plan when to dial a server again."""
        if server.up_since is not None and self.now - server.up_since >= self.policy.stable_after:
            server.failures = 0
        if self.connected == (server.name,):
            self._lonely_since = self.now
        server.tunnel = server.up_since = None
        if code in _SLOW:
            server.failures = max(server.failures, 6)
        delay = self._jitter(server.failures, self.policy.base_delay, self.policy.max_delay)
        server.failures += 1
        server.retry_at = self.now + max(delay, retry_after)

    def _complain(self, server: _Server, event: d.TunnelDown) -> list[Command]:
        """Tell the user why a server is not connected, once until that changes."""
        fault = event.fault
        if fault is None and event.code in _REFUSALS and server.failures > 1:
            # A first refusal may be a grant that just ran out; the refresh under way mends that.
            assert event.code is not None
            fault = d.Fault("DRTP-4004", f"the server {server.name} refuses: {event.code.name}", event.code.advice)
        if fault is None or fault.code == server.told:
            return []
        server.told = fault.code
        return [fault]

    def _reason(self, code: ErrorCode | None) -> list[Command]:
        """Ask the control plane where a server's reason says that the grant is at fault."""
        if code is ErrorCode.REVOKED:
            self._revoked = True
            return self._refresh()
        if code in _FATAL_FOR_SERVER:
            return self._refresh()
        return []

    def _jitter(self, failures: int, base: float, bound: float) -> float:
        return min(bound, base * 2.0 ** min(failures, 16)) * self.random()

    def _woke(self) -> list[Command]:
        """After a sleep nothing is trusted: probe what seems up, dial what waits."""
        commands: list[Command] = []
        for server in self._servers.values():
            if server.up and server.tunnel is not None:
                commands.append(d.Ping(server.tunnel))
            elif server.retry_at is not None:
                server.retry_at = self.now
        if self._phase is _Phase.SERVING:
            commands += self._refresh()
        return commands

    def _status(self) -> list[Command]:
        """Say that fewer servers are connected than assigned, or that all are again."""
        if not self._announced or self._phase is not _Phase.SERVING:
            return []
        missing = tuple(s.name for s in self._servers.values() if not s.up)
        if bool(missing) == self._degraded:
            return []
        self._degraded = bool(missing)
        return [d.Degraded(missing)] if missing else [d.Recovered()]

    # The end

    def _superseded(self) -> list[Command]:
        """Stop for good. Only a server's current tunnel says so truly: an older one is superseded by our own redial."""
        return self._finish("superseded", "DRTP-4006", "", "")

    def _on_stop(self, event: d.StopRequested) -> list[Command]:
        self._phase = _Phase.STOPPING
        self._stop_at = self.now + event.drain
        self._control_at = self._renew_at = None
        commands: list[Command] = []
        for server in self._servers.values():
            server.retry_at = None
            if server.tunnel is None or server.tunnel in self._draining:
                continue
            if server.up and event.drain > 0:
                commands.append(d.Drain(server.tunnel, event.drain))
            else:
                commands.append(d.Abort(server.tunnel))
                server.tunnel = server.up_since = None
        return commands + self._stop_due()

    def _stop_due(self) -> list[Command]:
        alive = any(s.tunnel is not None for s in self._servers.values()) or bool(self._draining)
        if alive and self._stop_at is not None and self.now < self._stop_at:
            return []
        return self._finish("stopped", None, "", "")

    def _finish(self, reason: str, code: str | None, message: str, hint: str) -> list[Command]:
        self._phase = _Phase.OVER
        live = [s.tunnel for s in self._servers.values() if s.tunnel is not None]
        commands: list[Command] = [d.Abort(tunnel) for tunnel in sorted({*live, *self._draining})]
        self._servers.clear()
        self._draining.clear()
        return [*commands, d.Finish(reason, code, message, hint)]
