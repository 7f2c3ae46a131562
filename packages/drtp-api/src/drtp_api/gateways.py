"""What a gateway plugin provides: making exposed services reachable for visitors.

Rules:
- Level-triggered: ``apply`` gets the whole desired state each time, and is idempotent; what is no longer in it
  is removed.
- A result says ``programmed`` only when the data plane has confirmed it.
- Nothing here knows Kubernetes: the controller translates Gateway API objects into these values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs

from drtp_api import resources

__all__ = [
    "Backend",
    "Exposure",
    "ExposureStatus",
    "Gateway",
    "GatewayContext",
    "GatewayFactory",
    "GatewayInfo",
]


@attrs.frozen(kw_only=True)
class Backend:
    """One data port of an edge that carries the service; ``priority`` 0 is used before 1."""

    address: str
    port: int
    ready: bool = True
    priority: int = 0


@attrs.frozen(kw_only=True)
class Exposure:
    """One service as visitors shall see it.

    ``port`` is the public port of a TCP or UDP service and ``None`` for HTTP, which shares the gateway's port
    and is told apart by ``hostnames``. ``allow`` holds CIDRs; ``None`` admits everybody, an empty tuple nobody.
    A service may be seen in several ways: ``route`` names the route of a user that makes this one, and is empty for
    the service's own.
    """

    service: str
    protocol: resources.Protocol
    port: int | None
    hostnames: tuple[str, ...] = ()
    backends: tuple[Backend, ...] = ()
    allow: tuple[str, ...] | None = None
    public_address: str | None = None
    route: str = ""

    @property
    def key(self) -> str:
        """Return what tells it apart from every other exposure; the service's key where it is the service's own."""
        return f"{self.service}@{self.route}" if self.route else self.service


@attrs.frozen(kw_only=True)
class ExposureStatus:
    """What the gateway says of one exposure. ``code`` is an error code of the table when not programmed."""

    programmed: bool
    reason: str = "Programmed"
    message: str = ""
    code: str | None = None


@attrs.frozen(kw_only=True)
class GatewayInfo:
    """How visitors reach the gateway: the host to dial, and the shared HTTP port."""

    host: str
    http_port: int
    pid: int | None = None
    version: str | None = None
    details: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class GatewayContext:
    """What a gateway gets to work with. ``http_port`` 0 means any free one."""

    state_dir: Path
    listen_host: str
    http_port: int


class Gateway(Protocol):
    """Makes services reachable."""

    name: str

    async def start(self, context: GatewayContext) -> GatewayInfo:
        """Start what the gateway needs (a process, a watch) and say how visitors reach it.

        Raises:
            DrtpError: A code of the 5xxx range.
        """
        ...

    async def apply(self, exposures: Sequence[Exposure]) -> Mapping[str, ExposureStatus]:
        """Make exactly these exposures reachable; return the status of each by its key."""
        ...

    async def stop(self) -> None:
        """End what ``start`` began. Idempotent."""
        ...


@runtime_checkable
class GatewayFactory(Protocol):
    """Makes a gateway from its options."""

    config_type: type[Any]

    def __call__(self, config: Any) -> Any:
        """Return a ``Gateway`` or a ``ClusterGateway``; ``config`` is an instance of ``config_type``."""
        ...
