"""The documents every embedded server starts with: our own definitions and the Gateway API's."""

from __future__ import annotations

from drtp_api.crds import crd_documents
from drtp_api.kube import Obj
from drtp_controller.apiserver.gateway_crds import gateway_crd_documents


def preloaded_documents() -> list[Obj]:
    """Return the definitions of our four kinds and of the Gateway API kinds, in a stable order."""
    return [*crd_documents(), *gateway_crd_documents()]
