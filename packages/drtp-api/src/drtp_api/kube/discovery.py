"""Which version of a kind an API server serves.

Rules: the first of the versions that is served wins; a kind that is not served is ``None``, never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from drtp_api.kube.protocol import Kube
from drtp_api.kube.resource import Resource

__all__ = ["served"]


async def served(kube: Kube, resource: Resource, versions: Sequence[str] = ("v1",)) -> Resource | None:
    """Return the resource at the first of these versions that the API serves, ``None`` where it serves none."""
    for version in versions:
        if any(r.plural == resource.plural for r in await kube.served_resources(resource.group, version)):
            return attrs.evolve(resource, version=version)
    return None
