"""The gateway ``kubernetes``: the cluster's own implementation programs, this plugin knows how to talk to it.

Rules:
- What is served is asked once, when the controller begins to lead; a definition that is installed later needs a
  restart of the controller.
- A UDP service with an allow-list is not exposed: nobody in front of the edge could hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import attrs
from msgspec import Meta

from drtp_api.clustergateways import ClusterInfo, Observed
from drtp_api.errors import DrtpError
from drtp_api.gateways import Exposure, ExposureStatus
from drtp_api.kube import (
    GATEWAYS,
    HTTP_ROUTES,
    LISTENER_SETS,
    REFERENCE_GRANTS,
    TCP_ROUTES,
    TLS_ROUTES,
    UDP_ROUTES,
    Key,
    Kube,
    Obj,
    Resource,
)
from drtp_api.kube.discovery import served
from drtp_api.resources import Condition, Protocol
from drtp_gateway_kubernetes.judge import judge
from drtp_gateway_kubernetes.policies import BACKEND_TRAFFIC_POLICIES, SECURITY_POLICIES, plan_policies

__all__ = ["KubernetesFactory", "KubernetesGateway", "KubernetesOptions"]

_STREAMS: Final = ("v1", "v1alpha2")
"""TCPRoute and UDPRoute are v1 since Gateway API 1.6 and v1alpha2 before, alike in what is used here."""


@attrs.frozen(kw_only=True)
class KubernetesOptions:
    """Options of the gateway ``kubernetes``.

    Attributes:
        implementation_class: The GatewayClass of the shared Gateway, made by whoever installed the implementation.
        cidrs_per_rule: Prefixes in one rule of a SecurityPolicy; Datum's platform admits 5, Envoy Gateway any number.
    """

    implementation_class: str = "envoy-gateway"
    cidrs_per_rule: Annotated[int, Meta(ge=1, le=10_000)] = 100


class KubernetesGateway:
    """Knows Envoy Gateway, and gets along with implementations that it does not know."""

    name = "kubernetes"

    def __init__(self, options: KubernetesOptions) -> None:
        self.options = options
        self._policies: tuple[Resource, ...] = ()

    async def connect(self, kube: Kube) -> ClusterInfo:
        """Find out what the cluster serves.

        Raises:
            DrtpError: DRTP-2031; Gateway API 1.5 or newer is not installed.
        """
        for kind in (GATEWAYS, HTTP_ROUTES, LISTENER_SETS):
            await _needed(kube, kind, ("v1",))
        kinds = (BACKEND_TRAFFIC_POLICIES, SECURITY_POLICIES)
        found = [await served(kube, kind, ("v1alpha1",)) for kind in kinds]
        # one without the other is another product's, or an installation half done
        self._policies = kinds if all(found) else ()
        return ClusterInfo(
            implementation_class=self.options.implementation_class,
            tcp_routes=await _needed(kube, TCP_ROUTES, _STREAMS),
            udp_routes=await _needed(kube, UDP_ROUTES, _STREAMS),
            tls_routes=await served(kube, TLS_ROUTES),
            grants=await served(kube, REFERENCE_GRANTS, ("v1", "v1beta1")),
            policies=self._policies,
        )

    def refusal(self, exposure: Exposure) -> ExposureStatus | None:
        """Return why an exposure must not be programmed: its allow-list could not be held."""
        if exposure.protocol is not Protocol.UDP or exposure.allow is None:
            return None
        return ExposureStatus(
            programmed=False,
            reason="UDPACLUnsupported",
            message="no gateway policy can hold an allow-list for UDP, and its packets reach the edge without the "
            "visitor's address; remove the allow-list, or serve by TCP",
            code="DRTP-5005",
        )

    def policies(self, exposure: Exposure, route: Resource, target: Key) -> Sequence[tuple[Resource, Obj]]:
        """Return Envoy Gateway's policies for an exposure, nothing where it is not installed."""
        if not self._policies:
            return ()
        return plan_policies(exposure, route, target, cidrs_per_rule=self.options.cidrs_per_rule)

    def judge(self, exposure: Exposure, observed: Observed) -> ExposureStatus:
        """Return what the implementation says of an exposure."""
        refusal = self.refusal(exposure)
        if refusal is not None:
            return refusal
        needed = self.policies(exposure, TCP_ROUTES, Key("", ""))
        return judge(exposure, observed, len(needed))

    def conditions(self) -> Sequence[Condition]:
        """Return whether the gateway holds allow-lists, or the edge alone."""
        if self._policies:
            return (Condition(type="ACLProgrammed", status="True", reason="Programmed"),)
        return (
            Condition(
                type="ACLProgrammed",
                status="False",
                reason="UnsupportedByGatewayClass",
                message="the cluster does not serve gateway.envoyproxy.io: the edge alone enforces allow-lists, and "
                "sees visitors' addresses only if the gateway is set to send PROXY protocol v2",
            ),
        )


async def _needed(kube: Kube, resource: Resource, versions: Sequence[str]) -> Resource:
    found = await served(kube, resource, versions)
    if found is None:
        raise DrtpError(
            "DRTP-2031",
            f"the API does not serve {resource.qualified}",
            hint="Install the Gateway API, 1.6 or newer; with 1.5, its experimental channel.",
        )
    return found


class KubernetesFactory:
    """Makes the gateway ``kubernetes``."""

    config_type = KubernetesOptions

    def __call__(self, config: KubernetesOptions) -> KubernetesGateway:
        """Return the gateway; nothing is asked yet."""
        return KubernetesGateway(config)
