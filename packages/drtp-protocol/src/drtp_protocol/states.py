"""The two state machines, as literal tables.

Rules: every transition there is, is written here; what a table does not list is an error (of whoever caused it); this
file does not know which role we play, so both ends obey the same rules. Who may send which frame is a matter of
direction and is checked where frames arrive.
What must not be here: side effects, timers, flow control.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = [
    "CONNECTION_TRANSITIONS",
    "STREAM_TRANSITIONS",
    "ConnectionInput",
    "ConnectionState",
    "StreamInput",
    "StreamState",
]


class _Identity(enum.Enum):
    """Members are single, so identity is their hash; Enum's own is Python code and costs twice a table's look-up."""

    __hash__ = object.__hash__


class ConnectionState(_Identity):
    """Where a connection is; the first six are named after what comes next."""

    PREFACE = "preface"
    HELLO = "hello"
    CHALLENGE = "challenge"
    AUTH = "auth"
    WELCOME = "welcome"
    OPEN = "open"
    REAUTH = "reauth"
    """A CHALLENGE is unanswered; streams go on."""
    REWELCOME = "rewelcome"
    """The AUTH that answers it is unanswered; streams go on."""
    DRAINING = "draining"
    CLOSED = "closed"


class ConnectionInput(_Identity):
    """What moves a connection."""

    SEND_PREFACE = "send preface"
    RECV_PREFACE = "receive preface"
    SEND_HELLO = "send HELLO"
    RECV_HELLO = "receive HELLO"
    SEND_CHALLENGE = "send CHALLENGE"
    RECV_CHALLENGE = "receive CHALLENGE"
    SEND_AUTH = "send AUTH"
    RECV_AUTH = "receive AUTH"
    SEND_WELCOME = "send WELCOME"
    RECV_WELCOME = "receive WELCOME"
    SEND_STREAM_FRAME = "send a stream's frame"
    RECV_STREAM_FRAME = "receive a stream's frame"
    SEND_PING = "send PING"
    RECV_PING = "receive PING"
    SEND_REPORT = "send REPORT"
    RECV_REPORT = "receive REPORT"
    SEND_GOAWAY = "send GOAWAY with time to drain"
    RECV_GOAWAY = "receive GOAWAY with time to drain"
    SEND_CLOSE = "send GOAWAY without, or nothing more"
    RECV_CLOSE = "receive GOAWAY without, or the carrier's end"


_C = ConnectionState
_I = ConnectionInput

CONNECTION_TRANSITIONS: Final[dict[tuple[ConnectionState, ConnectionInput], ConnectionState]] = {
    (_C.PREFACE, _I.SEND_PREFACE): _C.HELLO,
    (_C.PREFACE, _I.RECV_PREFACE): _C.HELLO,
    (_C.HELLO, _I.SEND_HELLO): _C.CHALLENGE,
    (_C.HELLO, _I.RECV_HELLO): _C.CHALLENGE,
    (_C.CHALLENGE, _I.SEND_CHALLENGE): _C.AUTH,
    (_C.CHALLENGE, _I.RECV_CHALLENGE): _C.AUTH,
    (_C.AUTH, _I.SEND_AUTH): _C.WELCOME,
    (_C.AUTH, _I.RECV_AUTH): _C.WELCOME,
    (_C.WELCOME, _I.SEND_WELCOME): _C.OPEN,
    (_C.WELCOME, _I.RECV_WELCOME): _C.OPEN,
    (_C.OPEN, _I.SEND_CHALLENGE): _C.REAUTH,
    (_C.OPEN, _I.RECV_CHALLENGE): _C.REAUTH,
    (_C.REAUTH, _I.SEND_AUTH): _C.REWELCOME,
    (_C.REAUTH, _I.RECV_AUTH): _C.REWELCOME,
    (_C.REWELCOME, _I.SEND_WELCOME): _C.OPEN,
    (_C.REWELCOME, _I.RECV_WELCOME): _C.OPEN,
    # Frames of a renewal cross a GOAWAY on the wire; who drains ignores them.
    (_C.DRAINING, _I.RECV_CHALLENGE): _C.DRAINING,
    (_C.DRAINING, _I.RECV_AUTH): _C.DRAINING,
    (_C.DRAINING, _I.RECV_WELCOME): _C.DRAINING,
    **{
        (state, moved): state
        for state in (_C.OPEN, _C.REAUTH, _C.REWELCOME, _C.DRAINING)
        for moved in (
            _I.SEND_STREAM_FRAME,
            _I.RECV_STREAM_FRAME,
            _I.SEND_PING,
            _I.RECV_PING,
            _I.SEND_REPORT,
            _I.RECV_REPORT,
        )
    },
    **{
        (state, moved): _C.DRAINING
        for state in (_C.OPEN, _C.REAUTH, _C.REWELCOME, _C.DRAINING)
        for moved in (_I.SEND_GOAWAY, _I.RECV_GOAWAY)
    },
    # Before anything is open there is nothing to drain.
    **{(state, _I.RECV_GOAWAY): _C.CLOSED for state in (_C.PREFACE, _C.HELLO, _C.CHALLENGE, _C.AUTH, _C.WELCOME)},
    **{(state, moved): _C.CLOSED for state in ConnectionState for moved in (_I.SEND_CLOSE, _I.RECV_CLOSE)},
}
"""(state, input) -> state. CLOSED absorbs: it only ever leads to itself."""


class StreamState(_Identity):
    """Where a stream or flow is. Opened streams are seen from both ends: OPENING is ours, OFFERED the peer's."""

    IDLE = "idle"
    OPENING = "opening"
    """We sent OPEN; ACCEPT is awaited."""
    OPENING_FIN = "opening, fin sent"
    OFFERED = "offered"
    """The peer sent OPEN; our ACCEPT is awaited."""
    OFFERED_FIN = "offered, fin received"
    OPEN = "open"
    HALF_CLOSED_LOCAL = "half-closed (local)"
    """We sent FIN and still receive."""
    HALF_CLOSED_REMOTE = "half-closed (remote)"
    """The peer sent FIN and still receives."""
    CLOSED = "closed"


class StreamInput(_Identity):
    """What moves a stream. DATA stands for DATAGRAM too; FIN is DATA with the flag."""

    SEND_OPEN = "send OPEN"
    RECV_OPEN = "receive OPEN"
    SEND_ACCEPT = "send ACCEPT"
    RECV_ACCEPT = "receive ACCEPT"
    SEND_DATA = "send DATA"
    RECV_DATA = "receive DATA"
    SEND_FIN = "send FIN"
    RECV_FIN = "receive FIN"
    SEND_WINDOW = "send WINDOW"
    RECV_WINDOW = "receive WINDOW"
    SEND_RESET = "send RESET"
    RECV_RESET = "receive RESET"


_S = StreamState
_J = StreamInput

STREAM_TRANSITIONS: Final[dict[tuple[StreamState, StreamInput], StreamState]] = {
    (_S.IDLE, _J.SEND_OPEN): _S.OPENING,
    (_S.IDLE, _J.RECV_OPEN): _S.OFFERED,
    # The opener's first bytes travel with OPEN, up to the base window: a ClientHello need not wait for ACCEPT.
    (_S.OPENING, _J.SEND_DATA): _S.OPENING,
    (_S.OPENING, _J.SEND_FIN): _S.OPENING_FIN,
    (_S.OPENING, _J.RECV_ACCEPT): _S.OPEN,
    (_S.OPENING_FIN, _J.RECV_ACCEPT): _S.HALF_CLOSED_LOCAL,
    (_S.OFFERED, _J.RECV_DATA): _S.OFFERED,
    (_S.OFFERED, _J.RECV_FIN): _S.OFFERED_FIN,
    (_S.OFFERED, _J.SEND_ACCEPT): _S.OPEN,
    (_S.OFFERED_FIN, _J.SEND_ACCEPT): _S.HALF_CLOSED_REMOTE,
    (_S.OPEN, _J.SEND_DATA): _S.OPEN,
    (_S.OPEN, _J.RECV_DATA): _S.OPEN,
    (_S.OPEN, _J.SEND_WINDOW): _S.OPEN,
    (_S.OPEN, _J.RECV_WINDOW): _S.OPEN,
    (_S.OPEN, _J.SEND_FIN): _S.HALF_CLOSED_LOCAL,
    (_S.OPEN, _J.RECV_FIN): _S.HALF_CLOSED_REMOTE,
    (_S.HALF_CLOSED_LOCAL, _J.RECV_DATA): _S.HALF_CLOSED_LOCAL,
    (_S.HALF_CLOSED_LOCAL, _J.SEND_WINDOW): _S.HALF_CLOSED_LOCAL,
    # The peer may have sent credit before it saw our FIN.
    (_S.HALF_CLOSED_LOCAL, _J.RECV_WINDOW): _S.HALF_CLOSED_LOCAL,
    (_S.HALF_CLOSED_LOCAL, _J.RECV_FIN): _S.CLOSED,
    (_S.HALF_CLOSED_REMOTE, _J.SEND_DATA): _S.HALF_CLOSED_REMOTE,
    (_S.HALF_CLOSED_REMOTE, _J.RECV_WINDOW): _S.HALF_CLOSED_REMOTE,
    (_S.HALF_CLOSED_REMOTE, _J.SEND_FIN): _S.CLOSED,
    **{
        (state, moved): _S.CLOSED
        for state in StreamState
        if state is not _S.IDLE
        for moved in (_J.SEND_RESET, _J.RECV_RESET)
        if state is not _S.CLOSED or moved is _J.RECV_RESET
    },
    # What crossed our RESET or FIN on the wire is dropped.
    **{(_S.CLOSED, moved): _S.CLOSED for moved in (_J.RECV_ACCEPT, _J.RECV_DATA, _J.RECV_FIN, _J.RECV_WINDOW)},
}
"""(state, input) -> state. CLOSED absorbs: late frames are dropped, a second OPEN is not among them."""
