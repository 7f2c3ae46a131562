"""Fuzz the handshake: its messages have one encoding, and nobody without the key gets in.

The first byte of the input chooses: 0-3 a message's parser; else the rest is what a stranger sends to an edge, which
answers every AUTH as it would in earnest.
"""

from __future__ import annotations

import sys

import harness

from drtp_protocol import Auth, AuthReceived, Challenge, Hello, RemoteProtocolError, Welcome
from drtp_protocol.status import Role
from drtp_protocol.testing import Pair

MESSAGES = (Hello, Challenge, Auth, Welcome)


def target(data: bytes) -> None:
    """Run one input."""
    if not data:
        return
    body = data[1:]
    if data[0] < len(MESSAGES):
        try:
            message = MESSAGES[data[0]].decode(body)
        except RemoteProtocolError:
            return
        assert message.encode() == body
        return
    pair = Pair()
    for start in range(0, len(body), 97):
        pair.edge.receive_data(body[start : start + 97], now=0.0)
        for event in pair.edge.events():
            if isinstance(event, AuthReceived):
                pair.answer(Role.EDGE, event)
    assert not pair.edge.established, "a stranger got in"


def corpus() -> list[bytes]:
    """Return the messages of the vectors, and what agents sent up to AUTH (for other nonces, so it must not work)."""
    messages = [bytes((line[0] - 1,)) + line[8:] for line in harness.all_frames() if 1 <= line[0] <= 4]
    return messages + [b"\xff" + b"".join(session[:3]) for session in harness.vector_lines(">")]


if __name__ == "__main__":
    sys.exit(harness.run(target, corpus()))
