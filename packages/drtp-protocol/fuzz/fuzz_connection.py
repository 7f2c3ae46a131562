"""Fuzz the frame parser and the connection: any bytes, cut anywhere, to either end, at any stage.

The first byte of the input chooses role and stage, the second how the rest is cut. Invariants: `receive_data` raises
nothing; what is kept between calls is bounded; one terminal event, and nothing after it; the same events and answers
whether the bytes come whole or cut.
"""

from __future__ import annotations

import sys

import harness

from drtp_protocol import (
    Connection,
    ConnectionTerminated,
    DatagramReceived,
    DataReceived,
    Event,
    Limits,
    OpenMetadata,
    Protocol,
    Role,
    Tuning,
)
from drtp_protocol.testing import SERVICE, Pair, other

LIMITS = Limits(base_window=2_048, max_frame=1_024, max_streams=8)
MOST_KEPT = 8 + 8_192


def prepare(role: Role, *, established: bool) -> Connection:
    """Return a connection; an established one has a stream and a flow in each direction."""
    pair = Pair(limits=LIMITS, tuning=Tuning())
    if established:
        pair.establish()
        for opener in Role:
            for protocol in Protocol:
                stream_id = pair.ends[opener].open_stream(OpenMetadata(service=SERVICE, protocol=protocol), now=0.0)
                pair.settle()
                pair.ends[other(opener)].accept_stream(stream_id)
        pair.settle()
    return pair.ends[role]


def plain(event: Event) -> tuple[object, ...]:
    """Copy an event, so that two runs can be compared."""
    match event:
        case DataReceived():
            return ("data", event.stream_id, bytes(event.data), event.fin)
        case DatagramReceived():
            return ("datagram", event.flow_id, bytes(event.data))
        case ConnectionTerminated():
            return ("end", event.code, event.reason)
        case _:
            return (event,)


def feed(connection: Connection, data: bytes, size: int) -> tuple[list[tuple[object, ...]], bytes]:
    """Hand the bytes over in pieces; return joined events and answers."""
    seen: list[tuple[object, ...]] = []
    for start in range(0, len(data), size):
        connection.receive_data(data[start : start + size], now=0.0)
        assert len(connection._partial) <= MOST_KEPT
        for item in map(plain, connection.events()):
            assert not seen or seen[-1][0] != "end", "an event after the end"
            last = seen[-1] if seen else (None,)
            if item[0] == last[0] == "data" and item[1] == last[1] and not last[3]:
                seen[-1] = ("data", item[1], last[2] + item[2], item[3])  # type: ignore[operator]
            else:
                seen.append(item)
    return seen, connection.data_to_send(now=0.0)


def target(data: bytes) -> None:
    """Run one input."""
    if len(data) < 2:
        return
    role = Role.AGENT if data[0] & 1 else Role.EDGE
    established = bool(data[0] & 2)
    whole = feed(prepare(role, established=established), data[2:], max(1, len(data)))
    assert feed(prepare(role, established=established), data[2:], data[1] % 13 + 1) == whole


def corpus() -> list[bytes]:
    """Return the vectors' sessions for both roles, and what follows their handshakes."""
    inputs = []
    for arrow, role in ((">", 0), ("<", 1)):
        for session in harness.vector_lines(arrow):
            inputs.append(bytes((role, 6)) + b"".join(session))
            inputs.append(bytes((role | 2, 6)) + b"".join(session[3 if role == 0 else 2 :]))
    return inputs


if __name__ == "__main__":
    sys.exit(harness.run(target, corpus()))
