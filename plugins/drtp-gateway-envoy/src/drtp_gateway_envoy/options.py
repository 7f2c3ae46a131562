"""The options of the Envoy gateway: what an operator may change, and why each default is what it is.

Rules:
- Envoy's own defaults defeat failover (a dead edge fails every second visitor for seconds): the values here are
  pinned by tests, and changing one is changing a promise.
- Times are seconds.
"""

from __future__ import annotations

import os
from typing import Any, Final

import attrs

__all__ = ["HTTP_LISTENER", "ROUTES", "EnvoyOptions", "duration", "typed"]

HTTP_LISTENER: Final = "http"
"""Name of the listener that all HTTP services share, and the prefix of its statistics."""
ROUTES: Final = "http"
"""Name of the one route configuration."""


@attrs.frozen(kw_only=True)
class EnvoyOptions:
    """Options of the gateway ``envoy``.

    ``connect_timeout`` is what a visitor waits for a black-holed edge before the next one is tried; it must exceed a
    round trip to the farthest edge. ``drain_seconds`` is how long connections live on after their listener, or the
    allow-list entry that admitted them, was removed. ``concurrency`` 0 means one worker on a small machine, else two.
    """

    binary: str | None = None
    concurrency: int = 0
    connect_timeout: float = 0.5
    health_check_interval: float = 1.0
    drain_seconds: int = 5
    start_timeout: float = 20.0
    confirm_timeout: float = 10.0
    max_connections: int = 50_000
    log_level: str = "warning"

    @property
    def workers(self) -> int:
        """How many worker threads Envoy gets."""
        return self.concurrency or (2 if (os.cpu_count() or 1) >= 4 else 1)


def duration(seconds: float) -> str:
    """Return a protobuf duration in JSON form."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def typed(type_name: str, **fields: Any) -> dict[str, Any]:
    """Return a ``google.protobuf.Any`` of a message below ``envoy.``, in JSON form."""
    return {"@type": f"type.googleapis.com/envoy.{type_name}", **fields}
