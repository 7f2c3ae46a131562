"""Leader election by Lease: of several controllers one acts.

Rules:
- ``LeaderState`` decides from what is observed, on our own clock: another's lease is expired when *we* have seen no
  renewal for its duration, whatever its times say.
- A leader that cannot renew steps down before anybody else may take over.
What must not enter: what the leader does.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import logging
import time
from collections.abc import Callable
from typing import Any

import attrs

from drtp_api.kube import LEASES, AlreadyExists, Conflict, Kube, KubeError, NotFound, Obj
from drtp_api.resources import SYSTEM_NAMESPACE

__all__ = ["LeaderElection", "LeaderState", "Step"]

_log = logging.getLogger(__name__)

NAME = "drtp-controller"
DURATION_SECONDS = 15
RENEW_SECONDS = 5.0
STEP_DOWN_SECONDS = 10.0
"""A leader without a successful renewal for this long stops: a third less than when others take over."""


class Step(enum.Enum):
    """What to do about the Lease now."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


@attrs.define
class LeaderState:
    """Who leads, as far as we can tell. Times are monotonic seconds."""

    identity: str
    leading: bool = False
    _seen: tuple[str, str] | None = None
    _seen_at: float = 0.0
    _renewed_at: float = 0.0

    def observe(self, lease: Obj | None, now: float) -> Step:
        """Take note of the Lease as it is and return what to do."""
        if lease is None:
            return Step.CREATE
        spec: dict[str, Any] = lease.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        mark = (holder, str(spec.get("renewTime") or ""))
        if mark != self._seen:
            self._seen, self._seen_at = mark, now
        if holder == self.identity:
            return Step.RENEW
        duration = float(spec.get("leaseDurationSeconds") or DURATION_SECONDS)
        return Step.TAKE if not holder or now - self._seen_at >= duration else Step.WAIT

    def written(self, now: float) -> None:
        """Take note that the Lease is ours as of now."""
        self.leading = True
        self._renewed_at = now

    def lost(self, now: float) -> bool:
        """Return whether we led and may not any more."""
        if self.leading and now - self._renewed_at >= STEP_DOWN_SECONDS:
            self.leading = False
            return True
        return False

    def deposed(self) -> bool:
        """Take note that somebody else holds the Lease; return whether we led."""
        was, self.leading = self.leading, False
        return was


class LeaderElection:
    """Runs for leader until cancelled."""

    def __init__(self, kube: Kube, identity: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = LeaderState(identity)
        self.elected = asyncio.Event()
        self.ended = asyncio.Event()
        self._kube = kube
        self._clock = clock

    async def run(self) -> None:
        """Try to lead; return once leadership was had and lost."""
        while True:
            started = self._clock()
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    over = await self._step(started)
            except (KubeError, TimeoutError) as error:
                _log.warning("the leader's lease: %s", error)
                over = False
            if over or self.state.lost(self._clock()):
                self.ended.set()
                return
            await asyncio.sleep(RENEW_SECONDS if self.state.leading else RENEW_SECONDS / 2)

    async def release(self) -> None:
        """Give the lease up, so that a successor need not wait."""
        if not self.state.leading:
            return
        try:
            lease = await self._kube.get(LEASES, NAME, SYSTEM_NAMESPACE)
            if self.state.observe(lease, self._clock()) is Step.RENEW:
                lease["spec"] = {**lease["spec"], "holderIdentity": ""}
                await self._kube.update(LEASES, lease)
        except KubeError as error:
            _log.info("the leader's lease could not be given up: %s", error)

    async def _step(self, now: float) -> bool:
        try:
            lease: Obj | None = await self._kube.get(LEASES, NAME, SYSTEM_NAMESPACE)
        except NotFound:
            lease = None
        step = self.state.observe(lease, now)
        if step is Step.WAIT:
            return self.state.deposed()
        try:
            if lease is None:
                await self._kube.create(LEASES, self._lease({}))
            else:
                await self._kube.update(LEASES, {**lease, **self._lease(lease)})
        except (Conflict, AlreadyExists):
            return False  # somebody was faster; the next look tells who
        self.state.written(now)
        self.elected.set()
        return False

    def _lease(self, present: Obj) -> Obj:
        spec: dict[str, Any] = dict(present.get("spec") or {})
        moment = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if spec.get("holderIdentity") != self.state.identity:
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
            spec["acquireTime"] = moment
        spec |= {
            "holderIdentity": self.state.identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": moment,
        }
        metadata = present.get("metadata") or {"name": NAME, "namespace": SYSTEM_NAMESPACE}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
