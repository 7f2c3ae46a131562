"""What an agent is told before it begins, and what it says at its end.

Rules: values only; a secret never shows in a representation.
What must not live here: options of commands, and defaults that depend on the environment.
"""

from __future__ import annotations

import attrs

from drtp_agent.supervisor import Policy
from drtp_agent.target import Target
from drtp_api.errors import DrtpError
from drtp_api.registration import ServiceDefinition, ServiceName

__all__ = ["AgentConfig", "Outcome"]


@attrs.frozen(kw_only=True)
class AgentConfig:
    """What to serve, and how.

    ``target`` absent: the service's definition says it. ``definition`` absent: the service exists. Times are seconds.
    """

    service: ServiceName
    target: Target | None = None
    definition: ServiceDefinition | None = None
    secret: str | None = attrs.field(default=None, repr=False)
    proxy_protocol: str | None = None
    transport: str = "auto"
    restricted: bool = False
    """Whether visitors are restricted to networks, so that a check from here may be refused."""
    check_target: bool = True
    spin_us: int | None = 0
    """Microseconds that the engine polls before it sleeps: 0 in somebody else's program, ``None`` chooses."""
    start_timeout: float = 60.0
    policy: Policy = Policy()


@attrs.frozen(kw_only=True)
class Outcome:
    """How an agent ended. ``error`` is set unless it was stopped or superseded."""

    reason: str
    error: DrtpError | None = None
