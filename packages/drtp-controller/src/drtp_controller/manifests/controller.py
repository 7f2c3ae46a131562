"""The controller: a Deployment of which one replica acts, and the Services that lead to that one.

Rules:
- All replicas are ready, because all can take over: eviction and updates count them. What leads visitors and agents
  to the one that acts are Services without a selector, whose EndpointSlice that replica writes.
- With the gateway ``envoy``, Envoy runs inside the replica that acts, and the vended ports are the Service's ports.
"""

from __future__ import annotations

from typing import Final

from drtp_api.kube import Obj
from drtp_controller.manifests.common import (
    REGISTRATION_PORT,
    container_security,
    field_env,
    image,
    labels,
    make,
    pod_security,
    resources,
    selector,
)
from drtp_controller.manifests.settings import Install
from drtp_controller.rights import Component

__all__ = ["GATEWAY_SERVICE", "REGISTRATION_SERVICE", "controller_documents", "runs_gateway"]

REGISTRATION_SERVICE: Final = "drtp-registration"
GATEWAY_SERVICE: Final = "drtp-gateway"

_NAME: Final = Component.CONTROLLER.value
_STATE: Final = "/var/lib/drtp"
_NODE_PORTS: Final = range(30000, 32768)
"""What Kubernetes gives to NodePort Services unless it is told otherwise."""


def runs_gateway(install: Install) -> bool:
    """Return whether public ports are opened by the controller's own pod."""
    return install.gateway == "envoy"


def controller_documents(install: Install) -> list[Obj]:
    """Return the Services, the budget and the Deployment."""
    gateway = [_gateway_service(install)] if runs_gateway(install) else []
    return [_registration_service(), *gateway, _budget(), _deployment(install)]


def _registration_service() -> Obj:
    ports = [{"name": "http", "port": 80, "targetPort": REGISTRATION_PORT, "protocol": "TCP"}]
    return make("v1", "Service", REGISTRATION_SERVICE, spec={"type": "ClusterIP", "ports": ports})


def _gateway_service(install: Install) -> Obj:
    first, last = install.ports
    ports = [_public_port("http", install.http_port)]
    ports += [_public_port(f"tcp-{number}", number) for number in range(first, last + 1)]
    # Local keeps the visitors' addresses, which allow-lists are about
    spec = {"type": install.gateway_service, "externalTrafficPolicy": "Local", "ports": ports}
    return make("v1", "Service", GATEWAY_SERVICE, spec=spec)


def _public_port(name: str, number: int) -> Obj:
    """Return a port; visitors are told the gateway's number, so a node that can has the same."""
    port: Obj = {"name": name, "port": number, "targetPort": number, "protocol": "TCP"}
    return port | ({"nodePort": number} if number in _NODE_PORTS else {})


def _budget() -> Obj:
    match_labels = {"matchLabels": selector(Component.CONTROLLER)}
    return make("policy/v1", "PodDisruptionBudget", _NAME, spec={"maxUnavailable": 1, "selector": match_labels})


def _deployment(install: Install) -> Obj:
    return make(
        "apps/v1", "Deployment", _NAME,
        spec={
            "replicas": install.controllers,
            "selector": {"matchLabels": selector(Component.CONTROLLER)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "template": {"metadata": {"labels": labels(Component.CONTROLLER)}, "spec": _pod(install)},
        },
    )  # fmt: skip


def _pod(install: Install) -> Obj:
    security = pod_security()
    if runs_gateway(install) and install.http_port < 1024:
        # a safe sysctl, and all that a process without capabilities needs to listen on port 80
        security["sysctls"] = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
    pod: Obj = {
        "serviceAccountName": _NAME,
        "automountServiceAccountToken": True,
        "securityContext": security,
        "terminationGracePeriodSeconds": 30,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "topologySpreadConstraints": _spread(install),
        "containers": [_container(install)],
        "volumes": [
            {"name": "state", "emptyDir": {"sizeLimit": "256Mi"}},
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
    }
    if install.spread_zones:
        pod["priorityClassName"] = "system-cluster-critical"
    return pod


def _spread(install: Install) -> list[Obj]:
    def over(key: str, otherwise: str) -> Obj:
        return {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": otherwise,
            "labelSelector": {"matchLabels": selector(Component.CONTROLLER)},
        }

    zones = [over("topology.kubernetes.io/zone", "DoNotSchedule")] if install.spread_zones else []
    return [over("kubernetes.io/hostname", "ScheduleAnyway"), *zones]


def _container(install: Install) -> Obj:
    settings = {
        "DRTP_STATE_DIR": _STATE,
        "DRTP_LISTEN": f"0.0.0.0:{REGISTRATION_PORT}",
        "DRTP_GATEWAY": install.gateway,
        "DRTP_GATEWAY_HOST": "0.0.0.0",  # noqa: S104 - the pod's own network
        "DRTP_PUBLIC_HOST": install.public_host,
        "DRTP_HTTP_PORT": str(install.http_port),
        "DRTP_PORT_RANGE": f"{install.ports[0]}-{install.ports[1]}",
        "DRTP_BASE_DOMAIN": install.base_domain,
    }
    services = [REGISTRATION_SERVICE, *([GATEWAY_SERVICE] if runs_gateway(install) else [])]
    leads = [f"--leader-service={name}" for name in services]
    return {
        "name": "controller",
        "image": image(Component.CONTROLLER, install),
        "args": ["controller", "--pod-ip=$(POD_IP)", "--node-name=$(NODE_NAME)", *leads],
        "env": [
            field_env("NODE_NAME", "spec.nodeName"),
            field_env("POD_IP", "status.podIP"),
            *({"name": name, "value": value} for name, value in settings.items()),
        ],
        "ports": [{"name": "registration", "containerPort": REGISTRATION_PORT, "protocol": "TCP"}],
        # /readyz is about acting, which one replica does; a replica that waits is as healthy as that one
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "registration"}, "periodSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "registration"},
            "initialDelaySeconds": 10, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
        },
        "resources": resources(install.controller_size),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "state", "mountPath": _STATE},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount of its own
        ],
    }  # fmt: skip
