"""Every bound of the edge daemon in one place, each with the reason for its value.

Rules:
- A limit that is met is counted under its field's name (``drtp_limit_hits_total{limit=}``) and never passed silently.
- The wire's own limits (frames, windows, streams) are ``drtp_protocol.limits``; these here are the process's.

What must not live here: enforcement.
"""

from __future__ import annotations

import resource
from collections import Counter
from typing import Any

import attrs

__all__ = ["FD_RESERVE", "EdgeLimits", "LimitHits", "descriptor_ceiling"]

FD_RESERVE = 256
"""Descriptors kept free for the control plane, logs and tunnels: a crowd of visitors must not lock the operator out."""


def descriptor_ceiling(reserve: int = FD_RESERVE) -> int:
    """Return the descriptor number from which on visitors are turned away.

    The kernel gives out the lowest free number, so the number of a new socket tells how many are in use.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 2**31
    return max(soft - reserve, soft // 2)


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    del instance
    if value <= 0:
        raise ValueError(f"{attribute.name} must be greater than 0, not {value}")


@attrs.frozen(kw_only=True)
class EdgeLimits:
    """What one edge process admits. Times are seconds.

    Attributes:
        tunnels: Established tunnels. Measured: 10,000 idle TLS tunnels take about 310 MB.
        unauthenticated: Carriers that have not finished the DRTP handshake. They cost memory and signature checks for
            peers that proved nothing yet.
        hello_timeout: From carrier to established tunnel; the core's own bound for the handshake is the same.
        visitors: Visitor connections of any state.
        pending_visitors: Visitors whose stream was not accepted yet. Each may hold ``base_window`` bytes for a replay,
            so this times 64 KiB bounds that memory: 256 MiB.
        pending_per_service: The same for one service, so that one stalled agent cannot use up the edge.
        proxy_header_timeout: For the gateway's PROXY header; the gateway sends it with its first packet.
        http_head_timeout: For the head of a visitor's first request in direct mode (slowloris).
        http_head_size: Bytes of that head; h11's own default, which fits every browser.
        accept_timeout: From a visitor's arrival to the agent's ACCEPT, retries included. An agent gives its local dial
            5 s, so two attempts fit.
        port_reservation: For how long a data port stays its service's own after the last tunnel went.
        drain: For running streams when the daemon stops.
        descriptors: Numbers from here on are not given to visitors; see :data:`FD_RESERVE`.
    """

    tunnels: int = attrs.field(default=10_000, validator=_positive)
    unauthenticated: int = attrs.field(default=1_000, validator=_positive)
    hello_timeout: float = attrs.field(default=10.0, validator=_positive)
    visitors: int = attrs.field(default=100_000, validator=_positive)
    pending_visitors: int = attrs.field(default=4_096, validator=_positive)
    pending_per_service: int = attrs.field(default=2_048, validator=_positive)
    proxy_header_timeout: float = attrs.field(default=5.0, validator=_positive)
    http_head_timeout: float = attrs.field(default=10.0, validator=_positive)
    http_head_size: int = attrs.field(default=16_384, validator=_positive)
    accept_timeout: float = attrs.field(default=10.0, validator=_positive)
    port_reservation: float = attrs.field(default=30.0, validator=_positive)
    drain: float = 60.0
    descriptors: int = attrs.field(factory=descriptor_ceiling)


@attrs.define
class LimitHits:
    """How often each limit was met since the start."""

    counts: Counter[str] = attrs.field(factory=Counter)

    def hit(self, limit: str) -> None:
        """Count one."""
        self.counts[limit] += 1
