"""What a request may say beside its object: options of lists and writes, and what comes back. Plain data."""

from __future__ import annotations

import attrs

from drtp_api.kube import Obj
from drtp_controller.apiserver.selectors import EVERYTHING, Selector
from drtp_controller.apiserver.store import Record


@attrs.frozen
class ListOptions:
    """Which objects, how many, and as of when."""

    selector: Selector = EVERYTHING
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    match: str = ""
    """`resourceVersionMatch`: Exact, NotOlderThan or empty."""


@attrs.frozen
class Page:
    """One page of a list."""

    records: list[Record]
    resource_version: int
    continue_token: str = ""
    remaining: int | None = None


@attrs.frozen
class WriteOptions:
    """How to write."""

    manager: str = "unknown"
    dry_run: bool = False
    validation: str = "Warn"
    """What to do with unknown fields: Ignore, Warn or Strict."""
    force: bool = False
    """A server-side apply takes over fields of other managers."""


@attrs.frozen
class DeleteOptions:
    """How to delete."""

    dry_run: bool = False
    uid: str = ""
    resource_version: str = ""
    propagation: str = "Background"
    """Background, Foreground or Orphan."""


@attrs.frozen
class Outcome:
    """What a write did."""

    obj: Obj
    warnings: tuple[str, ...] = ()
    created: bool = False
    removed: bool = False
    """The object is gone: a deletion without finalizers, or a write that removed the last one."""
