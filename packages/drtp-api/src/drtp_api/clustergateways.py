"""What a gateway plugin provides where the cluster has a gateway implementation of its own.

Rules:
- The controller writes the Gateway API objects and the plugin's policies; the implementation programs the data plane
  and says so in their status. The plugin itself programs nothing.
- Everything but ``connect`` is pure: observed objects in, desired objects or a verdict out.
- What the implementation has not confirmed for the present generation is not programmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import attrs

from drtp_api.gateways import Exposure, ExposureStatus
from drtp_api.kube import Key, Kube, Obj, Resource
from drtp_api.resources import Condition

__all__ = ["ClusterGateway", "ClusterInfo", "Observed"]


@attrs.frozen(kw_only=True)
class ClusterInfo:
    """What the cluster serves.

    Attributes:
        implementation_class: The GatewayClass of the shared Gateway; the cluster's administrator made it.
        tcp_routes: TCPRoute at the version served.
        udp_routes: UDPRoute likewise.
        tls_routes: TLSRoute likewise, ``None`` where it is not served.
        grants: ReferenceGrant likewise.
        policies: The kinds that ``policies`` may return, empty where the implementation has none that we know.
    """

    implementation_class: str
    tcp_routes: Resource
    udp_routes: Resource
    tls_routes: Resource | None = None
    grants: Resource | None = None
    policies: tuple[Resource, ...] = ()


@attrs.frozen(kw_only=True)
class Observed:
    """The objects of one exposure as they are; ``None`` where there is none (yet)."""

    gateway: Obj | None
    listener_set: Obj | None
    route: Obj | None
    policies: Sequence[Obj] = ()


@runtime_checkable
class ClusterGateway(Protocol):
    """Knows a cluster's gateway implementation."""

    name: str

    async def connect(self, kube: Kube) -> ClusterInfo:
        """Find out what the cluster serves.

        Raises:
            DrtpError: DRTP-2031 the Gateway API, or a part that is needed, is not installed.
        """
        ...

    def refusal(self, exposure: Exposure) -> ExposureStatus | None:
        """Return why an exposure must not be programmed at all, ``None`` where it may be."""
        ...

    def policies(self, exposure: Exposure, route: Resource, target: Key) -> Sequence[tuple[Resource, Obj]]:
        """Return the policies of an exposure whose route is ``target``; names and specs, no owners."""
        ...

    def judge(self, exposure: Exposure, observed: Observed) -> ExposureStatus:
        """Return what the implementation says of an exposure."""
        ...

    def conditions(self) -> Sequence[Condition]:
        """Return what every DRTPService shall say of this cluster's gateway, as type, status, reason and message."""
        ...
