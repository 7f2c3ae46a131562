"""All documents of an installation, by the file that they are written to.

Rules: the order is the order of application: a namespace before what is in it, rights before who needs them.
"""

from __future__ import annotations

from drtp_api.crds import crd_documents
from drtp_api.kube import Obj
from drtp_controller.manifests.common import SYSTEM_NAMESPACE, make
from drtp_controller.manifests.controller import controller_documents
from drtp_controller.manifests.edge import edge_documents
from drtp_controller.manifests.network import network_documents
from drtp_controller.manifests.ownership import ownership_documents
from drtp_controller.manifests.roles import role_documents
from drtp_controller.manifests.settings import Install

__all__ = ["by_file", "documents"]


def documents(install: Install) -> list[Obj]:
    """Return every document of an installation, in the order of application."""
    return [document for found in by_file(install).values() for document in found]


def by_file(install: Install) -> dict[str, list[Obj]]:
    """Return the documents of an installation, by file name."""
    return {
        "namespace.yaml": [_namespace()],
        "crds.yaml": _definitions(),
        "rbac.yaml": role_documents(),
        "ownership.yaml": ownership_documents(),
        "network.yaml": network_documents(install),
        "controller.yaml": controller_documents(install),
        "edge.yaml": edge_documents(install),
    }


def _definitions() -> list[Obj]:
    """Return the definitions; kustomize drops annotations that are none."""
    found = crd_documents()
    for document in found:
        if not document["metadata"].get("annotations", True):
            del document["metadata"]["annotations"]
    return found


def _namespace() -> Obj:
    namespace = make("v1", "Namespace", SYSTEM_NAMESPACE, namespace=None)
    for mode in ("enforce", "audit", "warn"):
        namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] = "restricted"
    return namespace
