"""The brain of a reflector: what to do next, and what changed. No I/O, no clock, no randomness of its own.

Rules:
- `next_action` says list, watch or wait; the shell does it and reports back with exactly one `*_received`,
  `watch_ended` or `failed` call (events may be reported many times during one watch).
- The cache changes only here, and every change is returned once, with the old and the new object.
- 410 means list again at once; any other failure means wait with full jitter and resume from the last version.
- A relist that finds nothing new reports nothing: silence is the contract with the planners.
What must not enter: asyncio, aiohttp, time, random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import assert_never

import attrs

from drtp_api.kube.backoff import Backoff
from drtp_api.kube.errors import Gone
from drtp_api.kube.protocol import ObjectList, WatchEvent, WatchEventType
from drtp_api.kube.resource import Key, Obj, key_of

WATCH_SECONDS_MIN = 240.0
WATCH_SECONDS_MAX = 300.0
"""Watches end after 4 to 5 minutes, at random, so that many clients do not reconnect together."""
SHORT_WATCH_SECONDS = 1.0
"""A watch that ends sooner without an event counts as a failure: a proxy that closes at once must not spin us."""


@attrs.frozen
class ListObjects:
    """List everything, then report `list_received` or `failed`."""


@attrs.frozen
class WatchObjects:
    """Watch from a version for at most `timeout` seconds."""

    resource_version: str
    timeout: float


@attrs.frozen
class Wait:
    """Do nothing for `seconds`."""

    seconds: float


Action = ListObjects | WatchObjects | Wait


@attrs.frozen
class Change:
    """One object appeared (`old` is None), changed or went away (`new` is None)."""

    key: Key
    old: Obj | None
    new: Obj | None


@attrs.define
class ReflectorState:
    """Decides list, watch or wait; owns the cache."""

    random: Callable[[], float]
    backoff: Backoff = attrs.field(factory=Backoff)
    relist_seconds: float | None = None
    """List again after this long even though the watch is healthy; None for never."""
    synced: bool = False
    relists: int = 0
    resumes: int = 0
    last_error: BaseException | None = None
    _cache: dict[Key, Obj] = attrs.field(factory=dict, init=False)
    _resource_version: str | None = attrs.field(default=None, init=False)
    _failures: int = attrs.field(default=0, init=False)
    _retry_at: float | None = attrs.field(default=None, init=False)
    _listed_at: float = attrs.field(default=0.0, init=False)
    _watch_started: float = attrs.field(default=0.0, init=False)
    _watch_was_useful: bool = attrs.field(default=False, init=False)

    @property
    def cache(self) -> Mapping[Key, Obj]:
        """A read-only live view of the objects by key."""
        return MappingProxyType(self._cache)

    @property
    def resource_version(self) -> str | None:
        """The version a watch would resume from; None before the first list and after a 410."""
        return self._resource_version

    def next_action(self, now: float) -> Action:
        """Return what the shell must do now."""
        if self._retry_at is not None:
            if now < self._retry_at:
                return Wait(self._retry_at - now)
            self._retry_at = None
        if self._resource_version is None:
            return ListObjects()
        timeout = WATCH_SECONDS_MIN + (WATCH_SECONDS_MAX - WATCH_SECONDS_MIN) * self.random()
        if self.relist_seconds is not None:
            left = self._listed_at + self.relist_seconds - now
            if left <= 0:
                return ListObjects()
            timeout = min(timeout, left)
        self._watch_started = now
        self._watch_was_useful = False
        return WatchObjects(self._resource_version, timeout)

    def list_received(self, page: ObjectList, now: float) -> list[Change]:
        """Take a full list; return what differs from the cache, deletions first."""
        fresh = {key_of(obj): obj for obj in page.items}
        changes = [Change(key, old, None) for key, old in self._cache.items() if key not in fresh]
        for key, new in fresh.items():
            old = self._cache.get(key)
            if old is None or _version(old) != _version(new):
                changes.append(Change(key, old, new))
        self._cache.clear()
        self._cache.update(fresh)
        self._resource_version = page.resource_version
        self._listed_at = now
        self.relists += 1
        self.synced = True
        self._succeeded()
        return changes

    def event_received(self, event: WatchEvent) -> Change | None:
        """Take one watch event; return the change it makes, None for a bookmark or a repetition."""
        if event.resource_version:
            self._resource_version = event.resource_version
        self._watch_was_useful = True
        self._succeeded()
        match event.type:
            case WatchEventType.BOOKMARK:
                return None
            case WatchEventType.ADDED | WatchEventType.MODIFIED:
                key = key_of(event.object)
                old = self._cache.get(key)
                if old is not None and _version(old) == _version(event.object):
                    return None
                self._cache[key] = event.object
                return Change(key, old, event.object)
            case WatchEventType.DELETED:
                key = key_of(event.object)
                old = self._cache.pop(key, None)
                return None if old is None else Change(key, old, None)
            case _:
                assert_never(event.type)

    def watch_ended(self, now: float) -> None:
        """Note a clean end of the watch: resume from the last version, after a pause if it ended too soon."""
        self.resumes += 1
        if not self._watch_was_useful and now - self._watch_started < SHORT_WATCH_SECONDS:
            self._schedule_retry(now)

    def failed(self, error: BaseException, now: float) -> None:
        """Note a failed list or watch."""
        self.last_error = error
        if isinstance(error, Gone) and self._resource_version is not None:
            self._resource_version = None
            return
        self._schedule_retry(now)

    def _schedule_retry(self, now: float) -> None:
        self._failures += 1
        delay = self.backoff.delay(self._failures, self.random())
        asked = getattr(self.last_error, "retry_after", None)
        if isinstance(asked, float):
            delay = max(delay, min(asked, self.backoff.maximum))
        self._retry_at = now + delay

    def _succeeded(self) -> None:
        self._failures = 0
        self.last_error = None


def _version(obj: Obj) -> tuple[str, str]:
    metadata = obj["metadata"]
    # the uid tells a re-created object of a restored server from the one we knew
    return metadata.get("uid", ""), metadata.get("resourceVersion", "")
