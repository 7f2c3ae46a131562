"""The gateway ``direct``: the edge that holds a service's primary tunnel listens for visitors itself.

Rules:
- A service is programmed when an edge has reported the public address it listens on, not before.
- The plugin owns one decision: the HTTP port that the edges share, one of them at a time.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from drtp_api.errors import DrtpError
from drtp_api.gateways import Exposure, ExposureStatus, GatewayContext, GatewayInfo

__all__ = ["DirectFactory", "DirectGateway", "DirectOptions"]

_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
_PENDING: Final = ExposureStatus(programmed=False, reason="Pending", message="no edge listens for the service yet")


@attrs.frozen(kw_only=True)
class DirectOptions:
    """The gateway ``direct`` has no options."""


class DirectGateway:
    """Says what the edges have made reachable."""

    name = "direct"

    async def start(self, context: GatewayContext) -> GatewayInfo:
        """Choose the HTTP port: the one asked for, or a free one.

        Raises:
            DrtpError: DRTP-5003; the port cannot be bound.
        """
        family = socket.AF_INET6 if ":" in context.listen_host else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                # As the edges will: a port that only lingers from an earlier run is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((context.listen_host, context.http_port))
                port: int = probe.getsockname()[1]
        except OSError as error:
            raise DrtpError("DRTP-5003", f"HTTP port {context.http_port}: {error.strerror or error}") from error
        return GatewayInfo(host=_WILDCARDS.get(context.listen_host, context.listen_host), http_port=port)

    async def apply(self, exposures: Sequence[Exposure]) -> Mapping[str, ExposureStatus]:
        """Return what the edges have reported."""
        return {e.key: _status(e) for e in exposures}

    async def stop(self) -> None:
        """Do nothing: nothing was started."""


def _status(exposure: Exposure) -> ExposureStatus:
    if not exposure.public_address:
        return _PENDING
    return ExposureStatus(programmed=True, message=f"an edge listens on {exposure.public_address}")


class DirectFactory:
    """Makes the gateway ``direct``."""

    config_type = DirectOptions

    def __call__(self, config: DirectOptions) -> DirectGateway:
        """Return the gateway."""
        del config
        return DirectGateway()
