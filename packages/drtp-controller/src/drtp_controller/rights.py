"""What the edge and the controller may do with the Kubernetes API, and why: the one table of permissions.

Rules:
- A line is here because a call in the code needs it; the reason says which. No wildcards.
- The RBAC objects of an installation, the roles of the embedded API server, and the guide's tables are made from it.
- ``create`` stands alone: a name cannot limit it, because no object has one yet when it is asked for.
What must not enter: the rights of people, and anything that asks an API.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from drtp_api.kube import DRTP_GROUP, GATEWAY_GROUP
from drtp_api.resources import SYSTEM_NAMESPACE

__all__ = ["RIGHTS", "USER_NAMESPACE", "Component", "Right", "rights_of"]

USER_NAMESPACE: Final = "default"
"""Where services are defined unless an operator decides otherwise."""

_COORDINATION: Final = "coordination.k8s.io"
_DISCOVERY: Final = "discovery.k8s.io"


class Component(enum.StrEnum):
    """Who acts: the name of its service account, its roles and its pods."""

    EDGE = "drtp-edge"
    CONTROLLER = "drtp-controller"


@attrs.frozen(kw_only=True)
class Right:
    """Verbs on resources of one group.

    Attributes:
        namespace: Only there; None for everywhere and for kinds without a namespace.
        names: Only these objects; empty for all.
        why: What needs it, as the guide says it.
    """

    component: Component
    verbs: tuple[str, ...]
    group: str
    resources: tuple[str, ...]
    namespace: str | None = None
    names: tuple[str, ...] = ()
    why: str


def _edge(
    verbs: str, group: str, resources: str, why: str, *, namespace: str | None = None, names: tuple[str, ...] = ()
) -> Right:
    return Right(
        component=Component.EDGE, verbs=tuple(verbs.split()), group=group, resources=tuple(resources.split()),
        namespace=namespace, names=names, why=why,
    )  # fmt: skip


def _controller(
    verbs: str, group: str, resources: str, why: str, *, namespace: str | None = None, names: tuple[str, ...] = ()
) -> Right:
    return attrs.evolve(
        _edge(verbs, group, resources, why, namespace=namespace, names=names), component=Component.CONTROLLER
    )


RIGHTS: Final[tuple[Right, ...]] = (
    _edge("get create update", DRTP_GROUP, "drtpservers", "registers itself, and corrects what it registered"),
    _edge("update", DRTP_GROUP, "drtpservers/status", "reports its tunnels, its health and that it drains"),
    _edge(
        "list watch", DRTP_GROUP, "drtpservices drtpconnections drtpaccesscontrollists",
        "knows which services, agents and allow-lists it serves, also while the API is away",
    ),
    _edge("get", DRTP_GROUP, "drtpconnections", "reads a connection again before it writes its own entry"),
    _edge("update", DRTP_GROUP, "drtpconnections/status", "says which agents are connected, and at which data port"),
    _edge("create patch", _COORDINATION, "leases", "heartbeats every ten seconds", namespace=SYSTEM_NAMESPACE),
    _edge(
        "list watch", "", "configmaps", "gets the public keys that agents' grants are checked with",
        namespace=SYSTEM_NAMESPACE, names=("drtp-grant-keys",),
    ),
    _controller("list watch", DRTP_GROUP, "drtpservers", "picks servers for agents, and notices those that are gone"),
    _controller("update", DRTP_GROUP, "drtpservers/status", "marks a server unhealthy when its heartbeats end"),
    _controller(
        "get list watch create update", DRTP_GROUP, "drtpservices",
        "reads services, and writes those that `datumctl serve` defines or publishes",
    ),
    _controller(
        "update patch", DRTP_GROUP, "drtpservices/status", "gives a service its port, host name, addresses and secret"
    ),
    _controller(
        "update", DRTP_GROUP, "drtpservices/finalizers",
        "makes children that block their owner's deletion, where the API server asks for this right",
    ),
    _controller(
        "get list watch create update patch delete", DRTP_GROUP, "drtpconnections",
        "registers agents, gives them other servers, and revokes them",
    ),
    _controller("update", DRTP_GROUP, "drtpconnections/status", "says whether a connection is programmed and ready"),
    _controller("list watch", DRTP_GROUP, "drtpaccesscontrollists", "programs the gateway's line of access control"),
    _controller("get create patch", GATEWAY_GROUP, "gatewayclasses gateways", "keeps the Gateway all services share"),
    _controller(
        "list watch", GATEWAY_GROUP, "gateways tlsroutes referencegrants",
        "finds users' Gateways of its class and routes that lead to services, and what may name what",
    ),
    _controller(
        "list watch create patch delete", "gateway.envoyproxy.io", "securitypolicies backendtrafficpolicies",
        "gives each route its allow-list and PROXY protocol, where Envoy Gateway is the cluster's gateway",
    ),
    _controller("list watch", "", "namespaces", "knows which namespaces a listener's selector means"),
    _controller(
        "list watch create patch delete", GATEWAY_GROUP, "listenersets httproutes tcproutes udproutes",
        "programs public ports and host names, and removes them",
    ),
    _controller(
        "update", GATEWAY_GROUP,
        "gatewayclasses/status gateways/status listenersets/status httproutes/status tcproutes/status udproutes/status"
        " tlsroutes/status",
        "says what the gateway it drives has accepted and programmed",
    ),
    _controller("list watch create patch delete", "", "services", "gives each public service a backend for routes"),
    _controller(
        "get", "", "services", "reads the ports of the Services that lead to the replica that acts",
        namespace=SYSTEM_NAMESPACE,
    ),
    _controller(
        "list watch create patch delete", _DISCOVERY, "endpointslices",
        "puts the edges' data ports, and the replica that acts, behind Services",
    ),
    _controller(
        "get list create patch delete", "", "events", "tells what happens to objects, counts repetitions, tidies up"
    ),
    _controller("get", "", "namespaces", "looks whether they exist", names=(USER_NAMESPACE, SYSTEM_NAMESPACE)),
    _controller(
        "get list watch create update", _COORDINATION, "leases",
        "elects a leader, and follows the servers' heartbeats", namespace=SYSTEM_NAMESPACE,
    ),
    _controller(
        "create", "", "configmaps secrets", "makes the grant key and publishes its public half, once",
        namespace=SYSTEM_NAMESPACE,
    ),
    _controller(
        "get", "", "secrets", "signs agents' grants", namespace=SYSTEM_NAMESPACE, names=("drtp-grant-signing-key",)
    ),
    _controller(
        "get patch", "", "configmaps", "keeps the public keys and the installation's id",
        namespace=SYSTEM_NAMESPACE, names=("drtp-grant-keys", "drtp-installation"),
    ),
    _controller(
        "get create update", "", "secrets", "makes, rotates, revokes and checks the digests of services' secrets",
        namespace=USER_NAMESPACE,
    ),
)  # fmt: skip


def rights_of(component: Component) -> tuple[Right, ...]:
    """Return what one component may do."""
    return tuple(r for r in RIGHTS if r.component is component)
