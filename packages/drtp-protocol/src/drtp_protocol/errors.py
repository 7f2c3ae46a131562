"""Error codes of the wire and the exceptions of this package.

Rules: a code's number is the wire's and never changes; each code carries one line of advice for the person who meets
it (the CLI, the docs table and a test read it from here); exceptions of the peer's making are never raised by
:meth:`~drtp_protocol.connection.Connection.receive_data`, they are reported in an event.
What must not be here: texts about a particular frame. Whoever finds a fault words it.
"""

from __future__ import annotations

import enum

__all__ = [
    "DialDetail",
    "ErrorCode",
    "InvalidMetadata",
    "LocalProtocolError",
    "NoSuchStream",
    "ProtocolError",
    "RemoteProtocolError",
    "SendBufferFull",
    "StreamLimitReached",
    "WrongState",
]


class ErrorCode(enum.IntEnum):
    """Why a stream was reset or a connection ended, as sent in RESET and GOAWAY."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL = 2
    FRAME_SIZE = 3
    REFUSED = 4
    CANCEL = 5
    INTERNAL = 6
    DIAL_FAILED = 7
    DENIED = 8
    AUTH_FAILED = 9
    AUTH_EXPIRED = 10
    REVOKED = 11
    SUPERSEDED = 12
    ENHANCE_YOUR_CALM = 13
    IDLE_TIMEOUT = 14
    STALLED = 15
    UNSUPPORTED = 16
    VERSION = 17
    DRAINING = 18
    OVER_CAPACITY = 19

    @property
    def advice(self) -> str:
        """One line: what the user should do about it."""
        return _ADVICE[self]

    @classmethod
    def from_wire(cls, number: int) -> ErrorCode:
        """Return the code for a number of the wire; a number of a later version reads as INTERNAL."""
        return _BY_NUMBER.get(number, cls.INTERNAL)


_BY_NUMBER = {int(code): code for code in ErrorCode}

_ADVICE = {
    ErrorCode.NO_ERROR: "Nothing to do: it ended as intended.",
    ErrorCode.PROTOCOL_ERROR: "Update agent and edge to the same release; if it stays, report it with both logs.",
    ErrorCode.FLOW_CONTROL: "Update agent and edge: one of them sent more than it was allowed to.",
    ErrorCode.FRAME_SIZE: "Update agent and edge; something between them may also be changing the bytes.",
    ErrorCode.REFUSED: "Try again: the connection was not processed and may be made elsewhere.",
    ErrorCode.CANCEL: "Nothing to do: the other end closed the connection before it was complete.",
    ErrorCode.INTERNAL: "Look into the log of the end that reported it, and report what you find.",
    ErrorCode.DIAL_FAILED: "Check that the local service runs and listens where the agent dials it.",
    ErrorCode.DENIED: "Ask the service's owner: its access control list does not allow this visitor.",
    ErrorCode.AUTH_FAILED: "Register the agent again, check its credential and clock; the edge's log has the reason.",
    ErrorCode.AUTH_EXPIRED: "Check that the agent reaches the registration API: its grant ran out unrenewed.",
    ErrorCode.REVOKED: "Ask the project's administrator: access of this agent was withdrawn.",
    ErrorCode.SUPERSEDED: "Nothing to do after a restart; else stop the other agent that uses this state directory.",
    ErrorCode.ENHANCE_YOUR_CALM: "Update the agent: it sent too many small control frames in a short time.",
    ErrorCode.IDLE_TIMEOUT: "Check the network path, or let the application send keepalives: the other end was silent.",
    ErrorCode.STALLED: "Check the reader: it took no bytes for too long while more were waiting.",
    ErrorCode.UNSUPPORTED: "Update the older end, or turn the feature off: it does not know what was asked.",
    ErrorCode.VERSION: "Update the older end: agent and edge share no protocol version.",
    ErrorCode.DRAINING: "Nothing to do: the other end is going away and the agent connects to another edge.",
    ErrorCode.OVER_CAPACITY: "Try again later, or give the edge more memory: its budget for streams is used up.",
}


class DialDetail(enum.IntEnum):
    """The `detail` of RESET with DIAL_FAILED: what happened when the agent dialled the local service."""

    UNKNOWN = 0
    CONNECTION_REFUSED = 1
    TIMEOUT = 2
    UNREACHABLE = 3
    DNS = 4
    TLS = 5


class ProtocolError(Exception):
    """Base of all exceptions of this package.

    Attributes:
        code: The wire's error code nearest to it.
    """

    def __init__(self, message: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


class LocalProtocolError(ProtocolError):
    """You misused the API; nothing changed and nothing was sent."""


class SendBufferFull(LocalProtocolError):  # noqa: N818
    """More bytes than :meth:`Connection.send_capacity` allows, or the control queue is full; wait and try again."""


class NoSuchStream(LocalProtocolError):  # noqa: N818
    """The stream was never opened, or is closed."""


class StreamLimitReached(LocalProtocolError):  # noqa: N818
    """No further stream now: the peer's limit, the pending limit, the budget or the identifiers are used up."""


class WrongState(LocalProtocolError):  # noqa: N818
    """The connection or stream is not in a state in which this call makes sense."""


class InvalidMetadata(LocalProtocolError, ValueError):  # noqa: N818
    """A message cannot be encoded: a field is too long, malformed, or missing."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; found in :class:`ConnectionTerminated`, never raised by `receive_data`."""
