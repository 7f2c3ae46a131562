"""The gateway of a cluster, as the runtime of gateways drives it: every ``apply`` reads what the implementation says.

Rules:
- Only caches are read; nothing is written here.
What must not enter: judgements (the plugin's), the planning of objects (planners).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drtp_api.clustergateways import ClusterGateway, Observed
from drtp_api.gateways import Exposure, ExposureStatus, GatewayContext, GatewayInfo
from drtp_api.kube import LISTENER_SETS, Key, Obj, Reflector, Resource
from drtp_controller.planners.cluster import route_resource
from drtp_controller.planners.gateway import GatewayConfig, object_name
from drtp_controller.reconcile.caches import Caches

__all__ = ["ClusterReader"]


class ClusterReader:
    """A gateway that is programmed by somebody else.

    Args:
        gateway: The plugin.
        config: Names of the shared objects, versions of the routes.
        caches: What is there.
        gateways: Every Gateway.
    """

    def __init__(self, gateway: ClusterGateway, config: GatewayConfig, caches: Caches, gateways: Reflector) -> None:
        self.name = gateway.name
        self.plugin = gateway
        self._config = config
        self._caches = caches
        self._gateways = gateways

    async def start(self, context: GatewayContext) -> GatewayInfo:
        """Say what is known of the front; its address is in the Gateway's status once there is one."""
        return GatewayInfo(host=self.address() or "", http_port=context.http_port)

    async def stop(self) -> None:
        """Do nothing: nothing was started."""

    async def apply(self, exposures: Sequence[Exposure]) -> Mapping[str, ExposureStatus]:
        """Return what the implementation says of each exposure."""
        return {e.key: self.plugin.judge(e, self._observed(e)) for e in exposures}

    def address(self) -> str | None:
        """Return the first address of the shared Gateway."""
        addresses = ((self._shared() or {}).get("status") or {}).get("addresses") or ()
        return next((str(a["value"]) for a in addresses if a.get("value")), None)

    def _shared(self) -> Obj | None:
        return self._gateways.cache.get(Key(self._config.namespace, self._config.gateway_name))

    def _observed(self, exposure: Exposure) -> Observed:
        namespace, _, service = exposure.service.partition("/")
        key = Key(namespace, object_name(service, exposure.route))
        found = [self._cached(kind, key) for kind in self._config.policies]
        return Observed(
            gateway=self._shared(),
            listener_set=self._cached(LISTENER_SETS, key),
            route=self._cached(route_resource(exposure.protocol, self._config), key),
            policies=[p for p in found if p is not None],
        )

    def _cached(self, resource: Resource, key: Key) -> Obj | None:
        return self._caches.children[resource].reflector.cache.get(key)
