"""What may differ between two installations, and the overlays that are shipped.

Rules: a value that every installation shares is not a setting; it is in the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

__all__ = ["OVERLAYS", "Install", "Size"]


@attrs.frozen
class Size:
    """Requests of a container, and the memory that ends it.

    There is no limit on the processor: a throttled edge delays every visitor, and requests share it fairly already.
    """

    cpu: str
    memory: str
    memory_limit: str


@attrs.frozen(kw_only=True)
class Install:
    """One installation.

    Attributes:
        image_prefix: What stands before ``drtp-edge`` and ``drtp-controller``: a registry and path with a final slash.
        version: The images' tag.
        coordinates: Where the edges of this cluster stand.
        city: Code of the city, such as FRA; empty for none.
        edge_nodes: Labels of the nodes that carry an edge; empty for every node.
        advertise: The host that agents dial; by default each node's own address.
        private_ca: Agents trust ``ca.crt`` of the certificate's Secret instead of the system's authorities.
        drain: Seconds for running streams when an edge stops.
        controllers: Replicas, one of which acts.
        spread_zones: Replicas must stand in different zones, and are not evicted for others.
        gateway: The gateway plugin.
        gateway_service: Type of the Service in front of the gateway.
        public_host: The address that visitors are told.
        http_port: The gateway's HTTP port.
        ports: Public ports that are vended, both inclusive; each is a port of the gateway's Service.
        base_domain: The domain of vended host names.
        edge_size: For each edge.
        controller_size: For each controller.
    """

    image_prefix: str = ""
    version: str = "0.1.0"
    coordinates: str = "0,0"
    city: str = ""
    edge_nodes: Mapping[str, str] = attrs.field(factory=dict)
    advertise: str = "$(HOST_IP)"
    private_ca: bool = False
    drain: int = 60
    controllers: int = 2
    spread_zones: bool = False
    gateway: str = "envoy"
    gateway_service: str = "LoadBalancer"
    public_host: str = "gateway.drtp.example"
    http_port: int = 80
    ports: tuple[int, int] = (30100, 30131)
    base_domain: str = "prism.drtp.example"
    edge_size: Size = Size("250m", "256Mi", "1Gi")
    controller_size: Size = Size("250m", "256Mi", "1Gi")

    def asking(self, values: Mapping[str, str | None]) -> Install:
        """Return these settings with the texts that are given instead, by name."""
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        return attrs.evolve(self, **given)


OVERLAYS: Final[Mapping[str, Install]] = {
    "dev": Install(
        controllers=1,
        drain=5,
        private_ca=True,
        gateway_service="NodePort",
        public_host="127.0.0.1",
        http_port=30080,
        base_domain="prism.localhost",
        edge_size=Size("50m", "128Mi", "512Mi"),
        controller_size=Size("50m", "192Mi", "512Mi"),
    ),
    "pop": Install(
        coordinates="50.1109,8.6821",
        city="FRA",
        edge_nodes={"drtp.datumapis.com/edge": "true"},
        drain=300,
        edge_size=Size("1", "512Mi", "4Gi"),
    ),
    "ha": Install(
        controllers=3, spread_zones=True, drain=300, controller_size=Size("500m", "512Mi", "2Gi"),
    ),
}  # fmt: skip
"""``dev``: a throw-away cluster. ``pop``: a point of presence. ``ha``: the control plane over three zones."""
