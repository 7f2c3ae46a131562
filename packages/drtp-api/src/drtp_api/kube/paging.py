"""Lists everything in pages, so that neither side builds one huge answer.

Rules: the pages come from one snapshot; a snapshot compacted half-way is started over, a bounded number of times.
"""

from __future__ import annotations

from drtp_api.kube.errors import Gone
from drtp_api.kube.protocol import Kube, ObjectList
from drtp_api.kube.resource import Obj, Resource

PAGE_SIZE = 500
"""The page size of kubectl and client-go: large enough to be cheap, small enough to answer quickly."""
_ATTEMPTS = 3


async def list_all(
    kube: Kube,
    resource: Resource,
    namespace: str | None = None,
    *,
    label_selector: str = "",
    field_selector: str = "",
    page_size: int = PAGE_SIZE,
) -> ObjectList:
    """Return all objects of one snapshot with its resource version.

    Raises:
        Gone: three attempts in a row outlived the server's memory; without paging this cannot happen.
    """
    for attempt in range(_ATTEMPTS):
        items: list[Obj] = []
        token = ""
        # the last attempt asks for one page of everything, which no compaction can interrupt
        limit = page_size if attempt < _ATTEMPTS - 1 else 0
        try:
            while True:
                page = await kube.list(
                    resource,
                    namespace,
                    label_selector=label_selector,
                    field_selector=field_selector,
                    limit=limit,
                    continue_token=token,
                )
                items += page.items
                token = page.continue_token
                if not token:
                    return ObjectList(items=items, resource_version=page.resource_version)
        except Gone:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")
