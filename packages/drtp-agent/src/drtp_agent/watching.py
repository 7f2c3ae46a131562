"""Follows the connection object at the control plane: server-sent events, and polling where they do not get through.

Rules:
- An outage is no event: the last view stays until a newer one comes.
- A revocation is told to the supervisor, which decides.

What must not live here: what a view means.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import attrs

from drtp_agent.decisions import RegistrationFailed
from drtp_api.errors import DrtpError

if TYPE_CHECKING:
    from drtp_agent.agent import Agent

__all__ = ["Watcher"]

POLL_INTERVAL: Final = 2.0
MAX_DELAY: Final = 30.0


@attrs.define(eq=False)
class Watcher:
    """Follows one connection for an agent."""

    agent: Agent
    namespace: str
    name: str

    async def run(self) -> None:
        """Follow until cancelled, or revoked."""
        failures = 0
        while True:
            seen = False
            try:
                async for view in self.agent.control.events(self.namespace, self.name, self._grant()):
                    seen = True
                    failures = 0
                    self.agent.show(view)
            except DrtpError as error:
                if self._revoked(error):
                    return
            if not seen and not await self._poll():
                return
            failures += 1
            await asyncio.sleep(min(MAX_DELAY, 0.25 * 2.0**failures) if not seen else 0.25)

    async def _poll(self) -> bool:
        """Look once without events, and return whether to go on."""
        try:
            self.agent.show(await self.agent.control.view(self.namespace, self.name, self._grant()))
        except DrtpError as error:
            return not self._revoked(error)
        await asyncio.sleep(POLL_INTERVAL)
        return True

    def _revoked(self, error: DrtpError) -> bool:
        if error.code != "DRTP-2010":
            return False
        self.agent.tell(RegistrationFailed(error.code, error.message, error.hint, error.retryable))
        return True

    def _grant(self) -> str:
        return self.agent.newest_grant() or ""
