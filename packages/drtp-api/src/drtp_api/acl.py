"""What an ACL backend provides: a decision about one visitor. How decisions combine is ours, not a plugin's.

Rules:
- Deny overrides; an error or a timeout of any backend denies; when all abstain the default decides.
- A decision always names the rule that made it.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import attrs

from drtp_api.resources import AccessControlList, Service

__all__ = [
    "DECISION_TIMEOUT",
    "AclBackend",
    "AclBackendFactory",
    "Decision",
    "Verdict",
    "Visitor",
    "combine",
    "decide_all",
    "normalise_ip",
]

DECISION_TIMEOUT = 0.25
"""Seconds that one backend may take; longer denies, because an open door is worse than a shut one."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def normalise_ip(address: str) -> IPAddress:
    """Return the address; an IPv4 address mapped into IPv6 becomes IPv4.

    Raises:
        ValueError: It is not an IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


@attrs.frozen(kw_only=True)
class Visitor:
    """What is known of a visitor when it is decided whether it may connect."""

    service: Service
    lists: tuple[AccessControlList, ...]
    source: IPAddress
    source_port: int


class Verdict(enum.Enum):
    """What one backend says."""

    ALLOW = "allow"
    DENY = "deny"
    ABSTAIN = "abstain"


@attrs.frozen
class Decision:
    """A verdict and the rule that made it."""

    verdict: Verdict
    rule: str
    reason: str = ""


class AclBackend(Protocol):
    """Decides whether a visitor may connect."""

    name: str

    def decide(self, visitor: Visitor) -> Decision | asyncio.Future[Decision]:
        """Return the decision, or a future of it where the answer must be fetched.

        A backend that can answer at once returns the decision itself: it is on the path of every connection.
        """
        ...

    async def aclose(self) -> None:
        """Release what the backend holds. Idempotent."""
        ...


@runtime_checkable
class AclBackendFactory(Protocol):
    """Makes an ACL backend from its options."""

    config_type: type[Any]

    def __call__(self, config: Any) -> AclBackend:
        """Return the backend; ``config`` is an instance of ``config_type``."""
        ...


def combine(decisions: Sequence[Decision], *, default: Verdict = Verdict.ALLOW) -> Decision:
    """Return the one decision of many: deny overrides, then allow, else the default."""
    for wanted in (Verdict.DENY, Verdict.ALLOW):
        for decision in decisions:
            if decision.verdict is wanted:
                return decision
    return Decision(default, "default", "no list applies to the service")


def decide_all(backends: Sequence[AclBackend], visitor: Visitor) -> Decision | asyncio.Future[Decision]:
    """Ask every backend and combine; a future only if some backend needs one.

    A backend that raises or takes longer than :data:`DECISION_TIMEOUT` denies.
    """
    decisions: list[Decision] = []
    waiting: list[tuple[AclBackend, asyncio.Future[Decision]]] = []
    for backend in backends:
        try:
            answer = backend.decide(visitor)
        except Exception as error:
            answer = Decision(Verdict.DENY, f"{_name(backend)}/error", f"{type(error).__name__}: {error}")
        if isinstance(answer, asyncio.Future):
            waiting.append((backend, answer))
        else:
            decisions.append(_checked(backend, answer))
    if not waiting:
        return combine(decisions)
    return asyncio.ensure_future(_gather(decisions, waiting))


def _name(backend: AclBackend) -> str:
    return str(getattr(backend, "name", None) or type(backend).__name__)


def _checked(backend: AclBackend, answer: object) -> Decision:
    """Return the answer if it is a decision; anything else, which the types forbid but a plugin may do, denies."""
    if isinstance(answer, Decision) and isinstance(answer.verdict, Verdict):
        return answer
    return Decision(Verdict.DENY, f"{_name(backend)}/error", f"answered with {type(answer).__name__}, not a decision")


async def _gather(decisions: list[Decision], waiting: list[tuple[AclBackend, asyncio.Future[Decision]]]) -> Decision:
    futures = [future for _, future in waiting]
    try:
        await asyncio.wait(futures, timeout=DECISION_TIMEOUT)
        for backend, future in waiting:
            name = _name(backend)
            if not future.done():
                decisions.append(Decision(Verdict.DENY, f"{name}/timeout", f"no answer in {DECISION_TIMEOUT} s"))
            elif future.cancelled() or future.exception() is not None:
                cause = "cancelled" if future.cancelled() else repr(future.exception())
                decisions.append(Decision(Verdict.DENY, f"{name}/error", cause))
            else:
                decisions.append(_checked(backend, future.result()))
        return combine(decisions)
    finally:
        # Also when the visitor left meanwhile and nobody waits for the decision any more.
        for future in futures:
            future.cancel()
