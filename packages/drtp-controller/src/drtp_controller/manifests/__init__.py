"""The manifests of an installation: one place in Python, written to ``deploy/`` and printed by ``drtp manifests``.

Rules:
- Pure: an :class:`Install` in, documents out. ``deploy/`` is generated and never edited.
- An overlay is other values of the same settings; its patches are computed, so both ways print the same objects.
- Every flag and variable of a pod exists in the command it is for; every permission is a line of ``rights``.
What must not enter: what a running cluster knows.
"""

from __future__ import annotations

from drtp_controller.manifests.documents import documents
from drtp_controller.manifests.settings import OVERLAYS, Install
from drtp_controller.manifests.tree import files, kustomization

__all__ = ["OVERLAYS", "Install", "documents", "files", "kustomization"]
