"""One agent: the supervisor's hands. It registers, dials, watches, checks, and tells its user what happened.

Rules:
- The supervisor hears events and commands; each command is one method here, none of which decides anything.
- Commands run outside the callbacks that caused them, one after the other, so nothing is torn down under its own feet.
- Whoever listens to events is called synchronously and in order.

What must not live here: reading options, printing, signals.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, assert_never

import attrs

from drtp_agent import decisions as d
from drtp_agent.config import AgentConfig, Outcome
from drtp_agent.control import VERSION, ControlPlane
from drtp_agent.dialler import DialFailure, Dialler, LocalService
from drtp_agent.events import (
    AgentEvent,
    ConnectedServer,
    ErrorOccurred,
    TunnelDegraded,
    TunnelProgress,
    TunnelReady,
    TunnelRecovered,
    TunnelStopped,
)
from drtp_agent.presence import check_target
from drtp_agent.readiness import Readiness
from drtp_agent.state import AgentState, CachedRegistration, Identity
from drtp_agent.streams import StreamWatches
from drtp_agent.supervisor import Supervisor
from drtp_agent.target import Target, target_of_application
from drtp_agent.transports import Transports
from drtp_agent.tunnels import TunnelLink
from drtp_agent.watching import Watcher
from drtp_api.dataplane.engine import Engine, TimerHandle, create_engine
from drtp_api.errors import DrtpError
from drtp_api.registration import (
    ConnectionView,
    RegisterRequest,
    RegisterResponse,
    TunnelEndpoint,
    TunnelServer,
)
from drtp_api.resources import service_key
from drtp_protocol import Budget

__all__ = ["Agent"]

BUDGET: Final = 256 * 1024 * 1024
"""Bytes that all tunnels of an agent may promise to receive together: four full growth pools."""
DIAL_FAULT_GAP: Final = 10.0
"""Seconds between two reports of an absent local service: visitors may come by the hundred."""
FAREWELL_TIMEOUT: Final = 1.0
"""Seconds that closed tunnels wait for their servers' last word, so that ours is not cut off by a reset."""
GOODBYE_TIMEOUT: Final = 3.0
"""Seconds that a clean stop waits for the control plane."""


class Agent:
    """Serves one service until it is stopped.

    Args:
        config: What to serve.
        control: The registration API.
        state: This name's state, locked.
        listener: Called with each event.
        rng: For jitter.
    """

    def __init__(
        self,
        config: AgentConfig,
        control: ControlPlane,
        state: AgentState,
        listener: Callable[[AgentEvent], None],
        *,
        rng: random.Random | None = None,
    ) -> None:
        self.config = config
        self.control = control
        self.state = state
        self.identity: Identity = state.new_identity(unix_time=time.time())
        self.registration: RegisterResponse | None = None
        self.view: ConnectionView | None = None
        self.view_changed = asyncio.Event()
        self.links: dict[int, TunnelLink] = {}
        self.budget = Budget(BUDGET)
        self.watches = StreamWatches()
        self.transports = Transports()
        self.ready: TunnelReady | None = None
        self._listener = listener
        self._random = rng or random.SystemRandom()
        self._services: dict[str, LocalService] = {}
        self._servers: dict[str, TunnelServer] = {}
        self._queue: deque[d.Occurrence] = deque()
        self._scheduled = False
        self._begun = False
        self._timer: TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: asyncio.Future[Outcome]
        self._last_dial_fault = float("-inf")
        self._watcher: Watcher | None = None

    # For its user

    async def run(self) -> Outcome:
        """Serve until stopped, superseded, revoked or failed; the outcome's error is already told as an event."""
        loop = asyncio.get_running_loop()
        self._finished = loop.create_future()
        self.engine: Engine = create_engine(loop, spin_us=self.config.spin_us)
        self.dialler = Dialler(self.engine, self._services)
        try:
            if self.config.transport != "auto":
                self.transports.require(self.config.transport)
            if self.config.target is not None:
                await self._use_target(self.config.target)
            self._begin()
            outcome = await self._finished
        except DrtpError as error:
            outcome = Outcome(reason="failed", error=error)
        finally:
            await self._clear_up()
        if outcome.error is not None:
            self.emit(ErrorOccurred.of(outcome.error))
        if outcome.reason in {"stopped", "failed"}:
            await self._say_goodbye()
        self.emit(TunnelStopped(reason=outcome.reason))
        return outcome

    def stop(self, *, drain: float) -> None:
        """Stop; visitors have ``drain`` seconds to finish. A second call may shorten that."""
        self.tell(d.StopRequested(drain))

    def emit(self, event: AgentEvent) -> None:
        """Tell the user."""
        self._listener(event)

    # For tunnels

    @property
    def service_key(self) -> str:
        """The service's key on the wire."""
        return service_key(self.config.service.namespace, self.config.service.name)

    def server(self, name: str) -> TunnelServer | None:
        """Return the newest word on a server."""
        return self._servers.get(name)

    def tell(self, event: d.Occurrence) -> None:
        """Tell the supervisor, as soon as whatever runs now is done."""
        self._queue.append(event)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._work)

    def dial_failed(self, failure: DialFailure) -> None:
        """Tell the user that visitors find the local service absent, not more often than makes sense."""
        now = self.engine.now()
        if now - self._last_dial_fault >= DIAL_FAULT_GAP:
            self._last_dial_fault = now
            address = failure.service.target.address
            self.emit(ErrorOccurred.of(DrtpError("DRTP-4001", f"a visitor came, but {address}: {failure.reason}")))

    # For the checks

    def connected_servers(self) -> tuple[ConnectedServer, ...]:
        """Return the servers whose tunnels are up, the preferred one first."""
        by_name = {link.server_name: link for link in self.links.values() if link.established}
        found = []
        for name in self.brain.connected:
            server, link = self._servers.get(name), by_name.get(name)
            if server is not None and link is not None:
                found.append(link.describe(server))
        return tuple(found)

    def announce(self, ready: TunnelReady) -> None:
        """Tell the user that the service is ready."""
        self.ready = ready
        self.emit(ready)
        self.tell(d.ReadyAnnounced())

    def fail(self, error: DrtpError) -> None:
        """Give up."""
        if not self._finished.done():
            self._finished.set_result(Outcome(reason="failed", error=error))

    def show(self, view: ConnectionView) -> None:
        """Take a newer view of the connection."""
        self.view = view
        self.view_changed.set()

    def newest_grant(self) -> str | None:
        """Return a grant to show to the control plane."""
        return next((s.grant for s in self._servers.values()), None)

    # The supervisor

    def _begin(self) -> None:
        cached = self._cached()
        now, awake = self.engine.now(), _awake()
        self.brain = Supervisor(
            now=now,
            awake=awake,
            random=self._random.random,
            cached=tuple(s.name for s in cached.servers) if cached is not None else (),
            policy=self.config.policy,
        )
        if cached is not None:
            self._servers = {s.name: s for s in cached.servers}
            self.view = cached.connection
        self._begun = True
        self.tell(d.Started())
        self.spawn(Readiness(self).run())

    def _work(self) -> None:
        """Feed the supervisor and obey it."""
        self._scheduled = False
        if not self._begun:
            return  # what was told so far is heard first when it begins
        while self._queue and not self._finished.done():
            event = self._queue.popleft()
            for command in self.brain.handle(event, now=self.engine.now()):
                self._obey(command)
        self._arm()

    def _on_timer(self) -> None:
        self._timer = None
        for command in self.brain.handle_timeout(now=self.engine.now(), awake=_awake()):
            self._obey(command)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.brain.next_timeout()
        if deadline is not None and not self._finished.done():
            self._timer = self.engine.call_later(max(0.0, deadline - self.engine.now()), self._on_timer)

    def _obey(self, command: d.Command) -> None:
        match command:
            case d.Register():
                self.spawn(self._register())
            case d.RenewGrants():
                self.spawn(self._renew())
            case d.Dial(tunnel, server):
                link = TunnelLink(tunnel, server, self, self._allows)
                self.links[tunnel] = link
                link.dial()
            case d.Connected(server, tunnel):
                known, link_up = self._servers.get(server), self.links.get(tunnel)
                if known is not None and link_up is not None:
                    text = f"tunnel server {known.name} ({known.city})"
                    self.emit(TunnelProgress(step="connect", status="done", message=text))
            case d.Ping(tunnel):
                if (probed := self.links.get(tunnel)) is not None:
                    probed.ping()
            case d.Drain(tunnel, drain):
                if (leaving := self.links.get(tunnel)) is not None:
                    leaving.drain(drain)
            case d.Abort(tunnel):
                if (cut := self.links.get(tunnel)) is not None:
                    cut.abort()
            case d.Degraded(missing):
                self.emit(TunnelDegraded(servers=self.connected_servers(), missing=missing))
            case d.Recovered():
                self.emit(TunnelRecovered(servers=self.connected_servers()))
            case d.Fault(code, message, hint):
                self.emit(ErrorOccurred.of(DrtpError(code, message or None, hint=hint or None)))
            case d.Finish(reason, code, message, hint):
                error = None if code is None else DrtpError(code, message or None, hint=hint or None)
                if not self._finished.done():
                    quiet = reason in {"stopped", "superseded"}
                    self._finished.set_result(Outcome(reason=reason, error=None if quiet else error))
            case _:
                assert_never(command)

    # The control plane

    async def _register(self) -> None:
        config = self.config
        request = RegisterRequest(
            service=config.service,
            public_key=self.identity.public_key_text,
            instance_id=self.identity.instance_id.hex(),
            epoch=self.identity.epoch,
            definition=config.definition,
            secret=config.secret,
            version=VERSION,
        )
        try:
            response = await self.control.register(request)
            if not self._services:
                await self._learn_target(response)
            self.state.save_registration(
                CachedRegistration(response=response, saved_at=time.time(), registration_url=self.control.url)
            )
        except DrtpError as error:
            if error.code == "DRTP-4006":
                self._finish_superseded()
                return
            self.tell(d.RegistrationFailed(error.code, error.message, error.hint, error.retryable))
            return
        self.registration = response
        self._servers = {s.name: s for s in response.servers}
        self.show(response.connection)
        name = response.connection.service
        self.emit(TunnelProgress(step="register", status="done", message=f"registered as {name}"))
        self._follow(response.connection)
        self.tell(d.Registered(tuple(s.name for s in response.servers), response.expires_in_seconds))

    async def _renew(self) -> None:
        view = self.view
        assert view is not None
        try:
            grants = await self.control.renew(view.namespace, view.name, self.identity, unix_time=time.time())
            if self.registration is not None:
                self.registration = attrs.evolve(
                    self.registration, servers=grants.servers, expires_in_seconds=grants.expires_in_seconds
                )
                self.state.save_registration(
                    CachedRegistration(
                        response=self.registration, saved_at=time.time(), registration_url=self.control.url
                    )
                )
        except DrtpError as error:
            self.tell(d.RegistrationFailed(error.code, error.message, error.hint, error.retryable))
            return
        self._servers = {s.name: s for s in grants.servers}
        self.tell(d.Registered(tuple(s.name for s in grants.servers), grants.expires_in_seconds))

    def _follow(self, view: ConnectionView) -> None:
        """Watch the connection object from now on."""
        if self._watcher is None:
            self._watcher = Watcher(self, view.namespace, view.name)
            self.spawn(self._watcher.run())

    async def _say_goodbye(self) -> None:
        """Delete the connection, so that its place is free at once; the service stays."""
        grant, view = self.newest_grant(), self.view
        if self.registration is None or grant is None or view is None:
            return
        try:
            async with asyncio.timeout(GOODBYE_TIMEOUT):
                await self.control.revoke(view.namespace, view.name, grant)
        except (DrtpError, TimeoutError):
            return  # it is gone already, or its tunnels' end will free the place
        self.state.forget_registration()

    def _finish_superseded(self) -> None:
        if not self._finished.done():
            self._finished.set_result(Outcome(reason="superseded"))

    def _cached(self) -> RegisterResponse | None:
        """Return the last registration if it is for this control plane."""
        cached = self.state.load_registration()
        if cached is None or cached.registration_url != self.control.url:
            return None
        if cached.response.connection.service != self.config.service.name:
            return None
        if not self._services and cached.response.application is not None:
            target = target_of_application(cached.response.application)
            if target is not None:
                self._serve(target)
        return cached.response if self._services else None

    # The target

    async def _use_target(self, target: Target) -> None:
        self._serve(target)
        if self.config.check_target:
            await check_target(target)
            self.emit(TunnelProgress(step="target", status="done", message=f"{target.address} answers"))

    async def _learn_target(self, response: RegisterResponse) -> None:
        """Take the target from the service's definition.

        Raises:
            DrtpError: DRTP-1004 it names none; DRTP-4001 nothing listens there.
        """
        target = target_of_application(response.application) if response.application is not None else None
        if target is None:
            raise DrtpError("DRTP-1004", f"the service {self.config.service.name} does not say what to serve",
                            hint="Name a TARGET beside --service.")  # fmt: skip
        await self._use_target(target)

    def _serve(self, target: Target) -> None:
        key = self.service_key
        self._services[key] = LocalService(key=key, target=target, proxy_protocol=self.config.proxy_protocol)

    def _allows(self, endpoint: TunnelEndpoint) -> bool:
        return self.config.transport in {"auto", endpoint.transport}

    # Parts

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside; what it raises ends the agent with its words."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, DrtpError):
            self.fail(error)
        elif not self._finished.done():
            self._finished.set_exception(error)

    async def _clear_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self.links.values():
            link.abort()
        deadline = self.engine.now() + FAREWELL_TIMEOUT
        while self.engine.watched and self.engine.now() < deadline:  # noqa: ASYNC110 - engines have no event for it
            await asyncio.sleep(0.005)
        self.engine.close()


def _awake() -> float:
    """Seconds of a clock that also runs while the machine sleeps."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if boot is None else time.clock_gettime(boot)
