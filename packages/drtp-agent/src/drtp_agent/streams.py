"""Who visits right now: the streams of all tunnels, for those who wait for one (the verifier) and for the records.

Rules:
- Watching costs nothing while nobody watches.
- A stream is known by what the edge asserts of it; whether it was served is known from here.

What must not live here: sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from drtp_protocol import OpenMetadata

__all__ = ["SeenStream", "StreamWatch", "StreamWatches"]


@attrs.define(eq=False)
class SeenStream:
    """A stream that came while somebody watched.

    ``accepted``: the local service was reached. ``failed``: why it was not. ``answered()``: bytes that the local
    service has sent so far.
    """

    service: str
    source: tuple[str, int] | None
    server: str
    answered: Callable[[], int]
    accepted: bool = False
    failed: str | None = None


@attrs.define(eq=False)
class StreamWatch:
    """The streams of one service since the watch began."""

    service: str
    streams: list[SeenStream] = attrs.field(factory=list)
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    def find(self, source: tuple[str, int]) -> SeenStream | None:
        """Return the stream of that visitor."""
        return next((s for s in self.streams if s.source == source), None)


@attrs.define
class StreamWatches:
    """The watches of one agent."""

    _watches: list[StreamWatch] = attrs.field(factory=list)

    @contextmanager
    def watch(self, service: str) -> Iterator[StreamWatch]:
        """Watch a service's streams for the length of the block."""
        watch = StreamWatch(service)
        self._watches.append(watch)
        try:
            yield watch
        finally:
            self._watches.remove(watch)

    def opened(self, metadata: OpenMetadata, server: str, answered: Callable[[], int]) -> SeenStream | None:
        """Take note of a stream; ``None`` when nobody watches its service."""
        watching = [w for w in self._watches if w.service == metadata.service]
        if not watching:
            return None
        source = metadata.source
        where = (source.host, source.port) if source is not None and source.family else None
        seen = SeenStream(metadata.service, where, server, answered)
        for watch in watching:
            watch.streams.append(seen)
            watch.changed.set()
        return seen

    def changed(self, seen: SeenStream) -> None:
        """Wake those who watch a stream that was accepted or failed."""
        for watch in self._watches:
            if seen in watch.streams:
                watch.changed.set()
