"""What a transport plugin provides: carriers, the ordered byte streams that tunnels run over.

Rules:
- A transport authenticates the *edge* (TLS) and hands over a connected carrier; it never looks at DRTP frames.
- ``dial`` and ``listen`` are coroutines that may take time; a carrier itself never blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import attrs

from drtp_api.dataplane.carrier import Carrier
from drtp_api.dataplane.engine import Engine

__all__ = ["DialTarget", "ListenConfig", "Transport", "TransportFactory", "TransportListener"]


@attrs.frozen(kw_only=True)
class DialTarget:
    """Where an agent dials, and whom it expects there.

    ``ca_pem`` is the PEM bundle to trust; ``None`` means the system's roots. ``tls`` may be switched off only by
    benchmarks and tests; the daemons never do.
    """

    address: str
    port: int
    server_name: str
    ca_pem: str | None = None
    tls: bool = True


@attrs.frozen(kw_only=True)
class ListenConfig:
    """Where an edge listens for agents, and with which certificate.

    Times are seconds. ``handshakes`` bounds the handshakes under way at once; more wait in the kernel's backlog.
    """

    host: str
    port: int
    certificate_file: str | None = None
    key_file: str | None = None
    handshake_timeout: float = 5.0
    handshakes: int = 256
    tls: bool = True


class TransportListener(Protocol):
    """A listening transport."""

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that agents dial."""
        ...

    async def close(self) -> None:
        """Stop accepting; carriers already handed over live on. Idempotent."""
        ...


class Transport(Protocol):
    """A way to carry DRTP between agent and edge."""

    name: str

    async def dial(self, engine: Engine, target: DialTarget, *, timeout: float) -> Carrier:
        """Connect to an edge within ``timeout`` seconds and return the carrier.

        Raises:
            DrtpError: DRTP-4002 unreachable or timed out; DRTP-4003 the edge cannot be trusted.
        """
        ...

    async def listen(
        self, engine: Engine, config: ListenConfig, on_carrier: Callable[[Carrier], None]
    ) -> TransportListener:
        """Listen for agents; each one that finished the transport's handshake goes to ``on_carrier``.

        Raises:
            DrtpError: DRTP-3001 cannot listen; DRTP-3002 the certificate cannot be used.
        """
        ...


@runtime_checkable
class TransportFactory(Protocol):
    """Makes a transport from its options."""

    config_type: type[Any]

    def __call__(self, config: Any) -> Transport:
        """Return the transport; ``config`` is an instance of ``config_type``."""
        ...
