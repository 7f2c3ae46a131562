"""A relay that makes a good network bad: latency, jitter, bandwidth, slicing, silence, resets.

Rules:
- It stands between two ends that know nothing of it; each direction has conditions of its own, changed while it runs.
- :class:`Shaper` decides when which bytes go on, from a seed and the time, and is pure; :class:`ChaosRelay` moves them.
- Bytes are late, in pieces, or lost together with everything after them; never altered, swapped or lost alone.

What must not live here: loss and reordering of packets. A relay above TCP cannot make them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Iterator
from typing import Final, Self

import attrs

__all__ = ["ChaosRelay", "Conditions", "Shaper"]

CHUNK: Final = 65_536
QUEUE: Final = 64
"""Pieces under way in one direction before the relay stops reading, so that back-pressure passes through it."""


@attrs.define(kw_only=True)
class Conditions:
    """The state of one direction. Times are seconds, ``bandwidth`` is bytes a second, ``None`` meaning no limit.

    ``half_open`` keeps the connection and swallows every byte and every end: what a cut cable or a dead NAT does.
    """

    latency: float = 0.0
    jitter: float = 0.0
    bandwidth: float | None = None
    slice_size: int | None = None
    half_open: bool = False


class Shaper:
    """Decides for one direction of one connection when each byte goes on."""

    def __init__(self, conditions: Conditions, seed: int = 0) -> None:
        self.conditions = conditions
        self._chance = random.Random(seed)  # noqa: S311
        self._last = 0.0
        self._free_at = 0.0

    def shape(self, data: bytes, now: float) -> Iterator[tuple[float, bytes]]:
        """Yield the pieces of ``data``, received at ``now``, each with the time it goes on; times never decrease."""
        conditions = self.conditions
        size = conditions.slice_size or len(data) or 1
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            if conditions.bandwidth:
                self._free_at = max(self._free_at, now) + len(piece) / conditions.bandwidth
            yield self._time(max(now, self._free_at) if conditions.bandwidth else now), piece

    def end(self, now: float) -> float:
        """Return the time when an end received at ``now`` goes on: after every byte before it."""
        return self._time(now)

    def _time(self, sent: float) -> float:
        delay = self.conditions.latency + self._chance.uniform(0, self.conditions.jitter)
        self._last = max(self._last, sent + delay)
        return self._last


class ChaosRelay:
    """Relays TCP connections to a target, badly. ``up`` is towards the target, ``down`` back from it."""

    def __init__(self, target: tuple[str, int], *, seed: int = 0) -> None:
        self.target = target
        self.up = Conditions()
        self.down = Conditions()
        self.accepted = 0
        self._seed = seed
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    async def __aenter__(self) -> Self:
        """Listen on loopback."""
        await self.listen()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close everything."""
        await self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect instead of the target."""
        return "127.0.0.1", self._port

    @property
    def connections(self) -> int:
        """How many connections are relayed now."""
        return len(self._writers) // 2

    async def listen(self) -> None:
        """Accept connections, on the same port as before where it was closed."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Stop accepting: who connects now is refused. Connections live on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def half_open(self, silent: bool = True) -> None:
        """Swallow everything in both directions, or stop doing so."""
        self.up.half_open = self.down.half_open = silent

    def reset_all(self) -> None:
        """Reset every connection on both sides."""
        for writer in list(self._writers):
            sock: socket.socket | None = writer.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def close(self) -> None:
        """Stop listening, close every connection, end every task. Idempotent."""
        self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.accepted += 1
        seed = self._seed + 2 * self.accepted
        upstream: asyncio.StreamWriter | None = None
        try:
            upstream_reader, upstream = await asyncio.open_connection(*self.target)
            self._writers.add(upstream)
            async with asyncio.TaskGroup() as group:
                for source, sink, shaper in (
                    (reader, upstream, Shaper(self.up, seed)),
                    (upstream_reader, writer, Shaper(self.down, seed + 1)),
                ):
                    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE)
                    group.create_task(_receive(source, queue, shaper))
                    group.create_task(_send(sink, queue, shaper.conditions))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, upstream):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()
            self._tasks.discard(task)


async def _receive(reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]], shaper: Shaper) -> None:
    clock = asyncio.get_running_loop().time
    while data := await reader.read(CHUNK):
        for piece in shaper.shape(data, clock()):
            await queue.put(piece)
    await queue.put((shaper.end(clock()), b""))


async def _send(
    writer: asyncio.StreamWriter, queue: asyncio.Queue[tuple[float, bytes]], conditions: Conditions
) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due, piece = await queue.get()
        if (delay := due - clock()) > 0:
            await asyncio.sleep(delay)
        if conditions.half_open:
            if not piece:
                # The end is lost as well: this direction stays open and silent until somebody resets it.
                await asyncio.get_running_loop().create_future()
            continue
        if not piece:
            if writer.can_write_eof():
                writer.write_eof()
            return
        writer.write(piece)
        await writer.drain()
