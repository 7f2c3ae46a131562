"""Access records: one log line per visitor, joined with the edge's by the connection id.

Rules:
- Nothing is kept or formatted while nobody reads the log.
- Who, for how long, how many bytes, how quickly the local service was reached, who ended it and why; never a byte of
  what was said.

What must not live here: what people are told on their terminal.
"""

from __future__ import annotations

import logging
from typing import Final

import attrs

from drtp_api.dataplane.tunnel import StreamSummary
from drtp_protocol import OpenMetadata

__all__ = ["AccessLog"]

_log: Final = logging.getLogger("drtp_agent.access")


@attrs.define
class AccessLog:
    """Writes the records of one tunnel's streams."""

    server: str
    _open: dict[int, tuple[OpenMetadata, float]] = attrs.field(factory=dict)

    def opened(self, stream_id: int, metadata: OpenMetadata, now: float) -> None:
        """Take note of a visitor."""
        if _log.isEnabledFor(logging.INFO):
            self._open[stream_id] = (metadata, now)

    def failed(self, stream_id: int, outcome: str, now: float) -> None:
        """Write the record of a visitor that was not served."""
        if (entry := self._open.pop(stream_id, None)) is not None:
            metadata, since = entry
            _log.info("%s outcome=%s duration=%.4f", self._who(metadata), outcome, now - since)

    def closed(self, stream_id: int, summary: StreamSummary) -> None:
        """Write the record of a visitor that was served."""
        if (entry := self._open.pop(stream_id, None)) is None:
            return
        metadata, since = entry
        dialled = summary.started if summary.connected is None else summary.connected
        _log.info(
            "%s outcome=served bytes_in=%d bytes_out=%d duration=%.4f dial=%.4f closed_by=%s code=%s",
            self._who(metadata),
            summary.bytes_in,
            summary.bytes_out,
            summary.ended - since,
            dialled - since,
            summary.closed_by,
            summary.code.name,
        )

    def _who(self, metadata: OpenMetadata) -> str:
        connection = metadata.edge_conn_id.hex() if metadata.edge_conn_id is not None else "-"
        trace = f" trace={metadata.traceparent}" if metadata.traceparent is not None else ""
        who = f"connection_id={connection} service={metadata.service} source={metadata.source}"
        return f"{who} server={self.server}{trace}"
