"""Where the cluster has a gateway implementation: what is written for it beside a service's own children.

Rules:
- Users' routes name backends that no implementation accepts: each way that they make becomes a listener and a route
  of ours at the shared Gateway, in the service's namespace and owned by it.
- A way that the plugin refuses gets no listener, no route and no policy.
What must not enter: what a particular implementation understands (the plugin's).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from drtp_api.clustergateways import ClusterGateway
from drtp_api.gateways import Exposure
from drtp_api.kube import HTTP_ROUTES, LISTENER_SETS, Key, Obj, Resource
from drtp_api.resources import AccessControlList, Protocol, Service, service_key
from drtp_controller.planners.exposures import allow_list
from drtp_controller.planners.gateway import WAY_LABEL, GatewayConfig, Maker, object_name, service_port
from drtp_controller.planners.service import ServicePlan, Way

__all__ = ["own_exposure", "plan_cluster", "route_resource"]


def own_exposure(service: Service, plan: ServicePlan | None, lists: Sequence[AccessControlList]) -> Exposure:
    """Return what the service itself asks for, as far as policies depend on it."""
    return Exposure(
        service=service_key(service.metadata.namespace or "default", service.metadata.name),
        protocol=service.spec.application.protocol,
        port=plan.port if plan is not None else None,
        hostnames=plan.hostnames if plan is not None else (),
        allow=allow_list(service, lists),
    )


def route_resource(protocol: Protocol, config: GatewayConfig) -> Resource:
    """Return the kind of route for a protocol."""
    match protocol:
        case Protocol.HTTP:
            return HTTP_ROUTES
        case Protocol.TCP:
            return config.tcp_routes
        case Protocol.UDP:
            return config.udp_routes


def plan_cluster(
    service: Service,
    plan: ServicePlan,
    ways: Iterable[Way],
    lists: Sequence[AccessControlList],
    *,
    config: GatewayConfig,
    gateway: ClusterGateway,
) -> list[tuple[Resource, Obj]]:
    """Return the policies of the service's own exposure, and the objects and policies of every other way to it."""
    if service.metadata.deletion_timestamp is not None:
        return []
    maker = Maker(service, config)
    made: list[tuple[Resource, Obj]] = []
    if plan.exposed:
        made += _policies(own_exposure(service, plan, lists), maker, config, gateway, {})
    for way in ways:
        exposure = Exposure(
            service=way.claim.service, route=way.claim.name, protocol=way.claim.protocol, port=way.claim.port,
            hostnames=way.claim.hostnames, allow=allow_list(service, lists),
        )  # fmt: skip
        if gateway.refusal(exposure) is None:
            made += _way(exposure, maker, config, gateway)
    return made


def _way(
    exposure: Exposure, maker: Maker, config: GatewayConfig, gateway: ClusterGateway
) -> Iterator[tuple[Resource, Obj]]:
    name = object_name(maker.owner.metadata.name, exposure.route)
    labels = {WAY_LABEL: name}
    resource, port = route_resource(exposure.protocol, config), service_port(maker.owner)
    if exposure.port is None:
        yield resource, maker.http_route(exposure.hostnames, port, name, labels)
    else:
        yield LISTENER_SETS, maker.listener_set(exposure.protocol, exposure.port, name, labels)
        yield resource, maker.stream_route(resource, exposure.protocol, exposure.port, port, name=name, labels=labels)
    yield from _policies(exposure, maker, config, gateway, labels)


def _policies(
    exposure: Exposure, maker: Maker, config: GatewayConfig, gateway: ClusterGateway, labels: dict[str, str]
) -> Iterator[tuple[Resource, Obj]]:
    name = object_name(maker.owner.metadata.name, exposure.route)
    target = Key(maker.owner.metadata.namespace or "default", name)
    for resource, policy in gateway.policies(exposure, route_resource(exposure.protocol, config), target):
        yield resource, {**policy, "metadata": maker.metadata(policy["metadata"]["name"], labels)}
