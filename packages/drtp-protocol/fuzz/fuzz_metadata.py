"""Fuzz TLV lists, OPEN's metadata and the single frames: one encoding, or refused.

The first byte of the input chooses the parser.
"""

from __future__ import annotations

import sys

import harness

from drtp_protocol import Address, Limits, OpenMetadata, RemoteProtocolError, TraceParent, frames, tlv


def target(data: bytes) -> None:
    """Run one input: what is read is written back as the same bytes."""
    if not data:
        return
    body = data[1:]
    try:
        match data[0] % 6:
            case 0:
                written = tlv.encode(tlv.decode(body).items())
            case 1:
                written = OpenMetadata.decode(body).encode()
            case 2:
                written = Address.decode(body).encode()
            case 3:
                written = TraceParent.decode(body).encode()
            case 4:
                written = Limits.decode(body).encode()
            case _:
                written = frames.serialize(frames.parse(body))
    except RemoteProtocolError:
        return
    assert written == body


def corpus() -> list[bytes]:
    """Return every frame of the vectors, and the payloads of those made of TLVs."""
    lines = harness.all_frames()
    opens = [line[8:] for line in lines if line[:1] == b"\x10"]
    return [b"\x05" + line for line in lines] + [bytes((kind,)) + payload for payload in opens for kind in (0, 1)]


if __name__ == "__main__":
    sys.exit(harness.run(target, corpus()))
