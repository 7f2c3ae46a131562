"""The edge: a DaemonSet, and the port of each node that its agents dial.

Rules:
- No host network and no host port: Pod Security ``restricted`` admits neither. A NodePort Service with
  ``externalTrafficPolicy: Local`` gives each node's address to the edge on that node alone, with the agent's own
  source address.
- Data ports are on the pod's address and in no Service: gateways dial what the EndpointSlices say.
"""

from __future__ import annotations

from typing import Final

from drtp_api.kube import Obj
from drtp_controller.manifests.common import (
    ADMIN_PORT,
    DATA_PORTS,
    TUNNEL_NODE_PORT,
    TUNNEL_PORT,
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

__all__ = ["AFTER_DRAIN", "TLS_SECRET", "edge_documents"]

AFTER_DRAIN: Final = 10
"""Seconds that an edge has after its drain for its last words to the control plane, before it is killed."""
TLS_SECRET: Final = "drtp-edge-tls"  # noqa: S105 - the name of an object

_TLS: Final = "/etc/drtp/tls"
_NAME: Final = Component.EDGE.value


def edge_documents(install: Install) -> list[Obj]:
    """Return the DaemonSet and the agents' Service."""
    return [_tunnel_service(), _daemon_set(install)]


def _tunnel_service() -> Obj:
    port = {"name": "tunnel", "port": TUNNEL_PORT, "targetPort": "tunnel", "protocol": "TCP"}
    return make(
        "v1", "Service", "drtp-edge-tunnel",
        spec={
            "type": "NodePort",
            "externalTrafficPolicy": "Local",
            "selector": selector(Component.EDGE),
            "ports": [{**port, "nodePort": TUNNEL_NODE_PORT}],
        },
    )  # fmt: skip


def _daemon_set(install: Install) -> Obj:
    return make(
        "apps/v1", "DaemonSet", _NAME,
        spec={
            "selector": {"matchLabels": selector(Component.EDGE)},
            # One at a time, and no sooner than agents had time to come back: each agent has two servers.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "minReadySeconds": 15,
            "template": {"metadata": {"labels": labels(Component.EDGE)}, "spec": _pod(install)},
        },
    )  # fmt: skip


def _pod(install: Install) -> Obj:
    return {
        "serviceAccountName": _NAME,
        "automountServiceAccountToken": True,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": install.drain + AFTER_DRAIN,
        "nodeSelector": {"kubernetes.io/os": "linux", **install.edge_nodes},
        "containers": [_container(install)],
        "volumes": [
            {"name": "tls", "secret": {"secretName": TLS_SECRET, "defaultMode": 0o440}},
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
    }


def _container(install: Install) -> Obj:
    first, last = DATA_PORTS
    arguments = [
        "--name=$(NODE_NAME)",
        f"--tunnel-listen=$(POD_IP):{TUNNEL_PORT}",
        f"--advertise={install.advertise}:{TUNNEL_NODE_PORT}",
        f"--tls-cert={_TLS}/tls.crt",
        f"--tls-key={_TLS}/tls.key",
        *([f"--ca-bundle={_TLS}/ca.crt"] if install.private_ca else []),
        "--data-host=$(POD_IP)",
        f"--data-ports={first}-{last}",
        f"--admin=$(POD_IP):{ADMIN_PORT}",
        "--log-format=json",
    ]
    settings = {"DRTP_EDGE_COORDINATES": install.coordinates, "DRTP_EDGE_DRAIN": str(install.drain)}
    if install.city:
        settings["DRTP_EDGE_CITY"] = install.city
    return {
        "name": "edge",
        "image": image(Component.EDGE, install),
        "args": arguments,
        "env": [
            field_env("NODE_NAME", "spec.nodeName"),
            field_env("POD_IP", "status.podIP"),
            field_env("HOST_IP", "status.hostIP"),
            *({"name": name, "value": value} for name, value in settings.items()),
        ],
        "ports": [
            {"name": "tunnel", "containerPort": TUNNEL_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"},
        ],
        # Without the control plane an edge is not ready, and lives: restarting it would cut tunnels that work.
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "admin"}, "periodSeconds": 2, "failureThreshold": 1},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "admin"},
            "initialDelaySeconds": 10, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
        },
        "resources": resources(install.edge_size),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "tls", "mountPath": _TLS, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount of its own
        ],
    }  # fmt: skip
