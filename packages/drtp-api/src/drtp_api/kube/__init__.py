"""One client protocol for every Kubernetes API: a real cluster, or the embedded one on a single machine.

What lives here: `Kube` and its HTTP implementation, the addresses of the kinds we use, typed errors, kubeconfig
files, and the two halves of a controller (`Reflector`, `WorkQueue`). Rules: objects are plain dicts; decisions
are in pure `*_state` modules. What must not enter: resource models, schemas, anything of the embedded server.
"""

from __future__ import annotations

from drtp_api.kube.backoff import Backoff
from drtp_api.kube.config import (
    KubeConfig,
    find_config,
    in_cluster_config,
    kubeconfig_path,
    load_kubeconfig,
    load_kubeconfig_with_helpers,
)
from drtp_api.kube.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    error_from_status,
)
from drtp_api.kube.http import HttpKube
from drtp_api.kube.paging import list_all
from drtp_api.kube.protocol import Kube, ObjectList, PatchType, WatchEvent, WatchEventType
from drtp_api.kube.reflector import Reflector
from drtp_api.kube.reflector_state import Change, ReflectorState
from drtp_api.kube.resource import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DRTP_ACCESS_CONTROL_LISTS,
    DRTP_CONNECTIONS,
    DRTP_GROUP,
    DRTP_SERVERS,
    DRTP_SERVICES,
    ENDPOINT_SLICES,
    EVENTS,
    GATEWAY_CLASSES,
    GATEWAY_GROUP,
    GATEWAYS,
    HTTP_ROUTES,
    LEASES,
    LISTENER_SETS,
    NAMESPACES,
    REFERENCE_GRANTS,
    SECRETS,
    SERVICES,
    TCP_ROUTES,
    TLS_ROUTES,
    UDP_ROUTES,
    Key,
    Obj,
    Resource,
    key_of,
)
from drtp_api.kube.workqueue import WorkQueue
from drtp_api.kube.workqueue_state import WorkQueueState

__all__ = [
    "CONFIG_MAPS",
    "CUSTOM_RESOURCE_DEFINITIONS",
    "DRTP_ACCESS_CONTROL_LISTS",
    "DRTP_CONNECTIONS",
    "DRTP_GROUP",
    "DRTP_SERVERS",
    "DRTP_SERVICES",
    "ENDPOINT_SLICES",
    "EVENTS",
    "GATEWAYS",
    "GATEWAY_CLASSES",
    "GATEWAY_GROUP",
    "HTTP_ROUTES",
    "LEASES",
    "LISTENER_SETS",
    "NAMESPACES",
    "REFERENCE_GRANTS",
    "SECRETS",
    "SERVICES",
    "TCP_ROUTES",
    "TLS_ROUTES",
    "UDP_ROUTES",
    "AlreadyExists",
    "Backoff",
    "BadRequest",
    "Change",
    "Conflict",
    "Forbidden",
    "Gone",
    "HttpKube",
    "Invalid",
    "Key",
    "Kube",
    "KubeConfig",
    "KubeError",
    "MethodNotAllowed",
    "NotFound",
    "Obj",
    "ObjectList",
    "PatchType",
    "Reflector",
    "ReflectorState",
    "Resource",
    "Unauthorized",
    "Unavailable",
    "UnsupportedMediaType",
    "WatchEvent",
    "WatchEventType",
    "WorkQueue",
    "WorkQueueState",
    "error_from_status",
    "find_config",
    "in_cluster_config",
    "key_of",
    "kubeconfig_path",
    "list_all",
    "load_kubeconfig",
    "load_kubeconfig_with_helpers",
]
