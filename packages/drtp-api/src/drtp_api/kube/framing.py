"""Cuts a byte stream of newline-delimited JSON (the watch format) into documents: pure, no I/O.

Rules: bytes in, whole lines out, at any chunking; a line longer than the limit is an error, not a memory leak.
"""

from __future__ import annotations

from drtp_api.kube.errors import Unavailable

MAX_LINE_BYTES = 16 * 1024 * 1024
"""etcd refuses objects over 1.5 MiB; a Table event of one carries it twice; the rest is head room."""


class LineFramer:
    """Collects chunks and gives back complete lines without their newline."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._parts: list[bytes] = []
        self._pending = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of the unfinished last line."""
        return self._pending

    def receive_data(self, chunk: bytes) -> list[bytes]:
        """Return the lines this chunk completes; blank lines are dropped.

        Raises:
            Unavailable: a line exceeds the limit; the stream cannot be trusted further.
        """
        first, newline, rest = chunk.partition(b"\n")
        lines: list[bytes] = []
        self._parts.append(first)
        self._pending += len(first)
        if newline:
            lines.append(b"".join(self._parts))
            *whole, tail = rest.split(b"\n")
            lines.extend(whole)
            self._parts = [tail] if tail else []
            self._pending = len(tail)
        if self._pending > self._max:
            raise Unavailable(f"a watch event exceeds {self._max} bytes")
        return [line for line in lines if line.strip()]
