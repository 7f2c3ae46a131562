"""From the first tunnel to ``tunnel_ready``: waits for what must be there, visits the service, and says how far it got.

Rules:
- Ready is said once, and only after a visit arrived at the local service; where that cannot be, ``verified`` tells.
- A fault that the control plane names as final ends the wait at once with its code; any other is waited out.

What must not live here: the visit itself (``verify.py``), and dialling.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

import attrs

from drtp_agent.events import ErrorOccurred, TunnelProgress, TunnelReady
from drtp_agent.verify import Reach, Visit, visit
from drtp_api.errors import DrtpError
from drtp_api.registration import ConnectionView
from drtp_api.resources import Protocol

if TYPE_CHECKING:
    from drtp_agent.agent import Agent

__all__ = ["Readiness"]

ALL_SERVERS_GRACE: Final = 3.0
"""Seconds that the first tunnel waits for the others: ready is said with all of them where they are near."""
FAULT_GRACE: Final = 1.0
"""Seconds for which a final fault must stand: objects settle one after the other."""
RESTRICTED_TRIES: Final = 4
RESTRICTED_GRACE: Final = 2.0
"""Visits, and seconds of them, that an allow-list may turn away before that counts as its doing."""
SILENT_TRIES: Final = 2
"""Visits that the local service may leave unanswered before that counts as its way (it may speak no HTTP)."""
UNROUTABLE_TRIES: Final = 3
"""Visits that may find no way to the public address before that counts as this network's doing."""
MAX_PAUSE: Final = 1.0


@attrs.define(eq=False)
class Readiness:
    """Finds out when one agent's service is ready."""

    agent: Agent
    _since: float = 0.0
    _said: bool = False
    _gateway: int = 0
    _silent: int = 0
    _unroutable: int = 0

    async def run(self) -> None:
        """Announce ready, or fail the agent at its deadline."""
        agent = self.agent
        try:
            async with asyncio.timeout(agent.config.start_timeout):
                await self._wait_for_tunnels()
                view, reach = await self._wait_for_service()
        except TimeoutError:
            fault = agent.view.fault if agent.view is not None else None
            if fault is not None:
                raise DrtpError("DRTP-2017", f"not ready in {agent.config.start_timeout:g} s: {fault.message}",
                                hint=fault.hint) from None  # fmt: skip
            raise DrtpError("DRTP-4007", f"not ready in {agent.config.start_timeout:g} s: {self._missing()}") from None
        while True:
            agent.announce(
                TunnelReady(
                    name=view.service,
                    url=view.url,
                    hostnames=view.hostnames,
                    addresses=view.addresses,
                    servers=agent.connected_servers(),
                    private=view.private,
                    verified=reach.word,
                )
            )
            await self._wait_for_change(view)
            self._said = False
            view, reach = await self._wait_for_service()

    async def _wait_for_tunnels(self) -> None:
        """Wait for the first tunnel, then a moment for the others."""
        loop = asyncio.get_running_loop()
        first: float | None = None
        while True:
            connected, assigned = self.agent.brain.connected, self.agent.brain.assigned
            if connected and len(connected) == len(assigned):
                return
            if connected and first is None:
                first = loop.time()
            if first is not None and loop.time() - first > ALL_SERVERS_GRACE:
                return
            await asyncio.sleep(0.01)

    async def _wait_for_service(self) -> tuple[ConnectionView, Reach]:
        """Wait until the control plane says that the service is programmed, and visit it until it answers."""
        pause = 0.02
        self._since = time.monotonic()
        told: Visit | None = None
        while True:
            view = await self._programmed()
            if view.private:
                return view, Reach.TUNNEL
            if view.addresses[0].protocol is Protocol.UDP:
                return view, Reach.TUNNEL
            result = await visit(self.agent.watches, self.agent.service_key, view, view.addresses[0])
            if (reach := self._judge(result)) is not None:
                if reach is Reach.SERVICE:
                    where = view.url or f"{view.addresses[0].host}:{view.addresses[0].port}"
                    self._progress("verify", "done", f"{where} reaches the local service")
                return view, reach
            if pause > 0.3 and (told is None or told.fault != result.fault):
                told = result
                self._progress("verify", "waiting", result.fault)
            await asyncio.sleep(pause)
            pause = min(MAX_PAUSE, pause * 2)

    def _judge(self, result: Visit) -> Reach | None:
        """Return how far the service is proved, ``None`` to try again."""
        if result.reach is Reach.SERVICE:
            return Reach.SERVICE
        match result.reach:
            case Reach.GATEWAY:
                self._gateway += 1
            case Reach.TUNNEL:
                self._silent += result.fault.startswith("no HTTP")
            case Reach.NOWHERE:
                self._unroutable += result.unroutable
            case _:
                pass
        elapsed = time.monotonic() - self._since
        if self.agent.config.restricted and self._gateway >= RESTRICTED_TRIES and elapsed >= RESTRICTED_GRACE:
            return Reach.GATEWAY
        if self._silent >= SILENT_TRIES or self._unroutable >= UNROUTABLE_TRIES:
            return Reach.TUNNEL
        return None

    async def _programmed(self) -> ConnectionView:
        """Wait until the view says that the service may be visited, or will not be.

        Raises:
            DrtpError: what the control plane says is finally wrong, before ready was said; later it may be mended.
        """
        agent = self.agent
        loop = asyncio.get_running_loop()
        fault_since: float | None = None
        while True:
            agent.view_changed.clear()
            view = agent.view
            if view is not None and (view.private or (view.programmed and view.addresses)):
                if not self._said and not view.private:
                    self._said = True
                    self._progress("gateway", "done", "the gateway is programmed")
                return view
            if view is not None and view.fault is not None and not view.fault.retryable:
                fault_since = loop.time() if fault_since is None else fault_since
                if agent.ready is None and loop.time() - fault_since >= FAULT_GRACE:
                    raise _error(view)
            else:
                fault_since = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAULT_GRACE if fault_since is not None else None):
                    await agent.view_changed.wait()

    async def _wait_for_change(self, told: ConnectionView) -> None:
        """Wait until the service is published, closed or moved; tell of faults meanwhile, each once."""
        last = None
        while True:
            await self.agent.view_changed.wait()
            self.agent.view_changed.clear()
            view = self.agent.view
            if view is None:
                continue
            if view.fault is not None and view.fault != last and not view.fault.retryable:
                self.agent.emit(ErrorOccurred.of(_error(view)))
            last = view.fault
            if (view.private, view.url, view.addresses) != (told.private, told.url, told.addresses):
                return

    def _missing(self) -> str:
        agent = self.agent
        if not agent.brain.connected:
            return "no tunnel server is connected"
        if agent.view is None or not agent.view.programmed:
            return "the gateway is not programmed"
        return "the public address does not lead to the local service"

    def _progress(self, step: str, status: str, message: str) -> None:
        self.agent.emit(TunnelProgress(step=step, status=status, message=message))


def _error(view: ConnectionView) -> DrtpError:
    fault = view.fault
    assert fault is not None
    try:
        return DrtpError(fault.code, fault.message, hint=fault.hint)
    except KeyError:
        return DrtpError("DRTP-2030", f"{fault.code}: {fault.message}", hint=fault.hint)
