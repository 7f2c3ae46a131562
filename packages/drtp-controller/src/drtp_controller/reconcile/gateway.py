"""Keeps a gateway plugin at the desired state: the whole list of exposures, whenever it changed.

Rules:
- One ``apply`` at a time; changes that arrive meanwhile are one next ``apply``.
- An exposure that is not programmed is tried again with growing pauses; a quiet, programmed gateway is left alone.
- A gateway that raises has programmed nothing new; what it said before stays true until it says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from drtp_api.errors import DrtpError
from drtp_api.gateways import Exposure, ExposureStatus, Gateway
from drtp_api.kube import Backoff
from drtp_controller.planners.connection import Applied

__all__ = ["GatewayRuntime"]

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.005
"""The objects of one service arrive one by one within this time; they shall be one ``apply``."""
RETRY = Backoff(initial=0.25, maximum=10.0)


class GatewayRuntime:
    """Drives one gateway. ``compute`` returns what is desired now, ``on_changed`` hears which answers changed.

    ``rereads`` is for a gateway whose answers depend on more than the exposures: it is asked after every change.
    """

    def __init__(
        self,
        gateway: Gateway,
        compute: Callable[[], list[Exposure]],
        on_changed: Callable[[Sequence[str]], None],
        *,
        rereads: bool = False,
    ) -> None:
        self.applied: dict[str, Applied] = {}
        self.applies = 0
        self._gateway = gateway
        self._rereads = rereads
        self._compute = compute
        self._on_changed = on_changed
        self._dirty = asyncio.Event()
        self._last: list[Exposure] | None = None
        self._failures = 0

    def touch(self) -> None:
        """Look again soon: something changed."""
        self._dirty.set()

    async def run(self) -> None:
        """Apply until cancelled."""
        while True:
            retry = await self._wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._dirty.clear()
            exposures = self._compute()
            if exposures != self._last:
                self._failures = 0
            elif not retry and not self._rereads:
                continue
            await self._apply_these(exposures)

    async def apply_once(self) -> None:
        """Apply what is desired now, before ``run`` begins."""
        self._dirty.clear()
        await self._apply_these(self._compute())

    async def _apply_these(self, exposures: list[Exposure]) -> None:
        self._last = exposures
        self._take(exposures, await self._apply(exposures))

    async def _wait(self) -> bool:
        """Wait for a change, or for the time to try again; return whether it was the latter."""
        delay = RETRY.delay(self._failures, 1.0) if self._failures else None
        try:
            async with asyncio.timeout(delay):
                await self._dirty.wait()
        except TimeoutError:
            return True
        return False

    async def _apply(self, exposures: Sequence[Exposure]) -> Mapping[str, ExposureStatus]:
        self.applies += 1
        try:
            return await self._gateway.apply(exposures)
        except DrtpError as error:
            _log.warning("the gateway refused: %s", error)
            return {
                e.key: ExposureStatus(programmed=False, reason="GatewayFailed", message=error.message, code=error.code)
                for e in exposures
            }
        except Exception as error:
            _log.exception("the gateway plugin %s failed", self._gateway.name)
            message = f"{type(error).__name__}: {error}"
            return {
                e.key: ExposureStatus(programmed=False, reason="GatewayFailed", message=message, code="DRTP-6003")
                for e in exposures
            }

    def _take(self, exposures: Sequence[Exposure], answers: Mapping[str, ExposureStatus]) -> None:
        missing = ExposureStatus(programmed=False, reason="Pending", message="the gateway did not say")
        fresh = {e.key: Applied(e, answers.get(e.key, missing)) for e in exposures}
        changed = [k for k in fresh.keys() | self.applied.keys() if fresh.get(k) != self.applied.get(k)]
        self.applied = fresh
        self._failures = self._failures + 1 if any(not a.status.programmed for a in fresh.values()) else 0
        self._on_changed(sorted(changed))
