"""The frames: their header, their typed values, and the one encoding of each.

Rules: a header alone tells whether a frame may exist (`check_header`), so nothing is waited for or allocated on a bad
one's word; `parse(serialize(frame)) == frame`, and `serialize(parse(data)) == data` or the data is refused.
What must not be here: state. Whether a frame may come *now* is for the tables and the connection.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, TypeAlias, assert_never

import attrs

from . import tlv
from .errors import ErrorCode, InvalidMetadata, RemoteProtocolError
from .handshake import Auth, Challenge, Hello, Welcome
from .limits import HANDSHAKE_FRAME_SIZE, HARD_MAX_FRAME, OPEN_METADATA_SIZE
from .metadata import OpenMetadata

__all__ = [
    "FLAG",
    "HEADER",
    "HEADER_SIZE",
    "MAX_STREAM_ID",
    "Accept",
    "Data",
    "Datagram",
    "Extension",
    "Frame",
    "FrameType",
    "GoAway",
    "Open",
    "Ping",
    "Report",
    "Reset",
    "Window",
    "check_header",
    "parse",
    "parse_payload",
    "reset_payload",
    "serialize",
    "serialize_payload",
]

HEADER: Final = struct.Struct(">II")
"""Type (8) and length (24); flag (1) and stream id (31)."""

HEADER_SIZE: Final = 8
FLAG: Final = 0x80000000
"""FIN on DATA, ACK on PING."""
MAX_STREAM_ID: Final = 0x7FFFFFFF
MAX_REASON: Final = 120
"""Bytes of text in RESET: a sentence for a log, not a channel."""
MAX_GOAWAY_REASON: Final = 256
CONTROL_FRAME_SIZE: Final = 2_048
"""Payload bound of GOAWAY, REPORT and extensions."""

_U64 = struct.Struct(">Q")
_RESET = struct.Struct(">IH")
_GOAWAY = struct.Struct(">IIII")


class FrameType(enum.IntEnum):
    """The first byte of a frame. 0x30-0x3F reserved, 0x40-0x7F ignorable extensions, 0x80-0xFF forbidden."""

    HELLO = 0x01
    CHALLENGE = 0x02
    AUTH = 0x03
    WELCOME = 0x04
    OPEN = 0x10
    ACCEPT = 0x11
    DATA = 0x12
    WINDOW = 0x13
    RESET = 0x14
    DATAGRAM = 0x15
    PING = 0x20
    GOAWAY = 0x21
    REPORT = 0x22


@attrs.frozen
class Open:
    """A new stream or flow."""

    stream_id: int
    metadata: OpenMetadata


@attrs.frozen
class Accept:
    """The stream is served: the origin answered."""

    stream_id: int


@attrs.frozen
class Data:
    """Bytes of a stream; at least one, unless `fin` ends the direction."""

    stream_id: int
    data: bytes
    fin: bool = False


@attrs.frozen
class Window:
    """The stream may send up to this many bytes in total (absolute, u64)."""

    stream_id: int
    limit: int


@attrs.frozen
class Reset:
    """The stream is over in both directions, now. `code` is an :class:`ErrorCode` or a number of a later version."""

    stream_id: int
    code: int
    detail: int = 0
    reason: str = ""


@attrs.frozen
class Datagram:
    """One datagram of a flow; may be empty."""

    stream_id: int
    data: bytes


@attrs.frozen
class Ping:
    """Eight bytes that come back with `ack`."""

    data: bytes
    ack: bool = False


@attrs.frozen(kw_only=True)
class GoAway:
    """The sender goes away: at once if `drain_ms` is 0, else after its streams finished or that time.

    Attributes:
        last_id: Highest peer-opened stream that was or will be processed; later ones may be retried elsewhere.
        code: An :class:`ErrorCode` or a number of a later version.
        retry_after_ms: Do not come back before.
        drain_ms: What open streams have to finish in.
        reason: At most 256 bytes.
        alternates: Edges to dial instead, "host:port", each 1..255 bytes.
        extensions: Entries of unknown type, in wire order.
    """

    last_id: int
    code: int
    retry_after_ms: int = 0
    drain_ms: int = 0
    reason: str = ""
    alternates: tuple[str, ...] = ()
    extensions: tlv.Extensions = ()


@attrs.frozen(kw_only=True)
class Report:
    """What the agent knows about its origins; at most one a second, if the capability is in force.

    Attributes:
        origin_rtt_us: Time that the last dial of the local service took, in microseconds.
        dial_failures: Failed dials since the last report.
        healthy: Whether the local service answers.
        extensions: Entries of unknown type, in wire order.
    """

    origin_rtt_us: int | None = None
    dial_failures: int | None = None
    healthy: bool | None = None
    extensions: tlv.Extensions = ()


@attrs.frozen
class Extension:
    """A frame of a type that a later version may define (0x40-0x7F); ignored."""

    kind: int
    stream_id: int
    data: bytes
    flag: bool = False


Frame: TypeAlias = (
    Hello
    | Challenge
    | Auth
    | Welcome
    | Open
    | Accept
    | Data
    | Window
    | Reset
    | Datagram
    | Ping
    | GoAway
    | Report
    | Extension
)

# type -> (smallest payload, largest payload or None for max_frame, on a stream, flag allowed)
_RULES: Final[dict[int, tuple[int, int | None, bool, bool]]] = {
    FrameType.HELLO: (0, HANDSHAKE_FRAME_SIZE, False, False),
    FrameType.CHALLENGE: (0, HANDSHAKE_FRAME_SIZE, False, False),
    FrameType.AUTH: (0, HANDSHAKE_FRAME_SIZE, False, False),
    FrameType.WELCOME: (0, HANDSHAKE_FRAME_SIZE, False, False),
    FrameType.OPEN: (0, OPEN_METADATA_SIZE, True, False),
    FrameType.ACCEPT: (0, 0, True, False),
    FrameType.DATA: (0, None, True, True),
    FrameType.WINDOW: (8, 8, True, False),
    FrameType.RESET: (6, 6 + MAX_REASON, True, False),
    FrameType.DATAGRAM: (0, None, True, False),
    FrameType.PING: (8, 8, False, True),
    FrameType.GOAWAY: (16, CONTROL_FRAME_SIZE, False, False),
    FrameType.REPORT: (0, CONTROL_FRAME_SIZE, False, False),
}


def check_header(kind: int, length: int, flag: bool, stream_id: int, max_frame: int) -> None:
    """Refuse a header that no frame may have.

    Args:
        kind: The type byte.
        length: Of the payload, in bytes.
        flag: The bit before the stream id.
        stream_id: 0 for the connection.
        max_frame: Bound of DATA and DATAGRAM in force.

    Raises:
        RemoteProtocolError: with code FRAME_SIZE for a wrong length, else PROTOCOL_ERROR.
    """
    rule = _RULES.get(kind)
    if rule is None:
        if not 0x40 <= kind <= 0x7F:
            raise RemoteProtocolError(f"frame of unknown type {kind:#04x} on stream {stream_id}")
        if length > CONTROL_FRAME_SIZE:
            raise _size_error(f"extension {kind:#04x}", stream_id, length, 0, CONTROL_FRAME_SIZE)
        return
    low, high, on_stream, flag_allowed = rule
    if high is None:
        high = max_frame
    if not low <= length <= high:
        raise _size_error(FrameType(kind).name, stream_id, length, low, high)
    if bool(stream_id) is not on_stream:
        raise RemoteProtocolError(f"{FrameType(kind).name} on stream {stream_id}")
    if flag and not flag_allowed:
        raise RemoteProtocolError(f"{FrameType(kind).name} on stream {stream_id} with the flag set")
    if kind == FrameType.DATA and not length and not flag:
        raise RemoteProtocolError(f"stream {stream_id}: empty DATA without FIN")


def _size_error(name: str, stream_id: int, length: int, low: int, high: int) -> RemoteProtocolError:
    message = f"stream {stream_id}: {name} of {length} bytes, expected {low}..{high}"
    return RemoteProtocolError(message, ErrorCode.FRAME_SIZE)


def parse(data: bytes, *, max_frame: int = HARD_MAX_FRAME) -> Frame:
    """Read exactly one frame.

    Raises:
        RemoteProtocolError: it is malformed, cut short, or followed by more.
    """
    if len(data) < HEADER_SIZE:
        raise RemoteProtocolError(f"{len(data)} bytes are no header")
    word, stream_id = HEADER.unpack_from(data)
    kind, length, flag = word >> 24, word & 0xFFFFFF, stream_id >= FLAG
    stream_id &= MAX_STREAM_ID
    check_header(kind, length, flag, stream_id, max_frame)
    if len(data) != HEADER_SIZE + length:
        raise RemoteProtocolError(f"payload of {length} bytes declared, {len(data) - HEADER_SIZE} there")
    return parse_payload(kind, flag, stream_id, data[HEADER_SIZE:])


def parse_payload(kind: int, flag: bool, stream_id: int, payload: bytes) -> Frame:
    """Read the payload of a frame whose header passed :func:`check_header`.

    Raises:
        RemoteProtocolError: it is malformed.
    """
    match kind:
        case FrameType.DATA:
            return Data(stream_id, payload, flag)
        case FrameType.WINDOW:
            return Window(stream_id, _U64.unpack(payload)[0])
        case FrameType.DATAGRAM:
            return Datagram(stream_id, payload)
        case FrameType.OPEN:
            return Open(stream_id, OpenMetadata.decode(payload))
        case FrameType.ACCEPT:
            return Accept(stream_id)
        case FrameType.RESET:
            code, detail = _RESET.unpack_from(payload)
            return Reset(stream_id, code, detail, _decode_text("RESET", payload[6:]))
        case FrameType.PING:
            return Ping(payload, flag)
        case FrameType.GOAWAY:
            return _parse_goaway(payload)
        case FrameType.REPORT:
            return _parse_report(payload)
        case FrameType.HELLO:
            return Hello.decode(payload)
        case FrameType.CHALLENGE:
            return Challenge.decode(payload)
        case FrameType.AUTH:
            return Auth.decode(payload)
        case FrameType.WELCOME:
            return Welcome.decode(payload)
        case _:
            return Extension(kind, stream_id, payload, flag)


def _decode_text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"{name}: the reason is not UTF-8") from None


def _parse_goaway(payload: bytes) -> GoAway:
    last_id, code, retry_after_ms, drain_ms = _GOAWAY.unpack_from(payload)
    if last_id > MAX_STREAM_ID:
        raise RemoteProtocolError(f"GOAWAY: last id {last_id} exceeds 31 bits")
    found = tlv.decode(payload[16:])
    extensions = tlv.split_known(found, {0x01, 0x02})
    reason = found.get(0x01, b"")
    alternates = tlv.unpack_list(found.get(0x02, b""))
    if len(reason) > MAX_GOAWAY_REASON or b"" in alternates:
        raise RemoteProtocolError("GOAWAY: the reason is too long, or an alternate is empty")
    if (0x01 in found and not reason) or (0x02 in found and not alternates):
        raise RemoteProtocolError("GOAWAY: an empty entry is written by leaving it out")
    return GoAway(
        last_id=last_id,
        code=code,
        retry_after_ms=retry_after_ms,
        drain_ms=drain_ms,
        reason=_decode_text("GOAWAY", reason),
        alternates=tuple(_decode_text("GOAWAY", item) for item in alternates),
        extensions=extensions,
    )


def _parse_report(payload: bytes) -> Report:
    found = tlv.decode(payload)
    extensions = tlv.split_known(found, {0x01, 0x02, 0x03})
    numbers: list[int | None] = []
    for kind, size in ((0x01, 4), (0x02, 4), (0x03, 1)):
        value = found.get(kind)
        if value is not None and len(value) != size:
            raise RemoteProtocolError(f"REPORT: TLV {kind:#04x} of {len(value)} bytes, expected {size}")
        numbers.append(None if value is None else int.from_bytes(value, "big"))
    rtt, failures, health = numbers
    if health not in {None, 0, 1}:
        raise RemoteProtocolError(f"REPORT: health {health} is neither 0 nor 1")
    healthy = None if health is None else bool(health)
    return Report(origin_rtt_us=rtt, dial_failures=failures, healthy=healthy, extensions=extensions)


def serialize(frame: Frame) -> bytes:
    """Return the bytes of one frame.

    Raises:
        InvalidMetadata: it has a field that the wire cannot carry.
    """
    kind, flag, stream_id, payload = serialize_payload(frame)
    if not 0 <= stream_id <= MAX_STREAM_ID:
        raise InvalidMetadata(f"stream id {stream_id} is outside 31 bits")
    try:
        check_header(kind, len(payload), flag, stream_id, HARD_MAX_FRAME)
    except RemoteProtocolError as error:
        raise InvalidMetadata(str(error), error.code) from None
    return HEADER.pack(kind << 24 | len(payload), flag << 31 | stream_id) + payload


def serialize_payload(frame: Frame) -> tuple[int, bool, int, bytes]:
    """Return type, flag, stream id and payload of a frame.

    Raises:
        InvalidMetadata: it has a field that the wire cannot carry.
    """
    match frame:
        case Data():
            return FrameType.DATA, frame.fin, frame.stream_id, frame.data
        case Window():
            return FrameType.WINDOW, False, frame.stream_id, _pack(_U64, frame.limit)
        case Datagram():
            return FrameType.DATAGRAM, False, frame.stream_id, frame.data
        case Open():
            return FrameType.OPEN, False, frame.stream_id, frame.metadata.encode()
        case Accept():
            return FrameType.ACCEPT, False, frame.stream_id, b""
        case Reset():
            return FrameType.RESET, False, frame.stream_id, _reset(frame)
        case Ping():
            return FrameType.PING, frame.ack, 0, frame.data
        case GoAway():
            return FrameType.GOAWAY, False, 0, _goaway(frame)
        case Report():
            return FrameType.REPORT, False, 0, _report(frame)
        case Hello():
            return FrameType.HELLO, False, 0, frame.encode()
        case Challenge():
            return FrameType.CHALLENGE, False, 0, frame.encode()
        case Auth():
            return FrameType.AUTH, False, 0, frame.encode()
        case Welcome():
            return FrameType.WELCOME, False, 0, frame.encode()
        case Extension():
            if not 0x40 <= frame.kind <= 0x7F:
                raise InvalidMetadata(f"extension of type {frame.kind:#04x} is outside 0x40..0x7f")
            return frame.kind, frame.flag, frame.stream_id, frame.data
        case _:
            assert_never(frame)


def _pack(layout: struct.Struct, *numbers: int) -> bytes:
    try:
        return layout.pack(*numbers)
    except struct.error as error:
        raise InvalidMetadata(f"{numbers}: {error}") from None


def _encode_text(text: str) -> bytes:
    """Encode a reason; a lone surrogate (from a path or a socket error) must not stop a RESET."""
    return text.encode(errors="replace")


def reset_payload(code: int, detail: int, reason: str) -> bytes:
    """Return the payload of RESET; a reason that is too long is cut at a character.

    Raises:
        InvalidMetadata: code or detail is out of range.
    """
    told = _encode_text(reason)[:MAX_REASON].decode(errors="ignore")
    return _reset(Reset(1, code, detail, told))


def _reset(frame: Reset) -> bytes:
    return _pack(_RESET, frame.code, frame.detail) + _encode_text(frame.reason)


def _goaway(frame: GoAway) -> bytes:
    if not 0 <= frame.last_id <= MAX_STREAM_ID:
        raise InvalidMetadata(f"GOAWAY: last id {frame.last_id} is outside 31 bits")
    reason = _encode_text(frame.reason)
    if len(reason) > MAX_GOAWAY_REASON:
        raise InvalidMetadata(f"GOAWAY: reason of {len(reason)} bytes exceeds {MAX_GOAWAY_REASON}")
    if "" in frame.alternates:
        raise InvalidMetadata("GOAWAY: an alternate is empty")
    items = [(0x01, reason)] if reason else []
    if frame.alternates:
        items.append((0x02, tlv.pack_list(map(_encode_text, frame.alternates))))
    head = _pack(_GOAWAY, frame.last_id, frame.code, frame.retry_after_ms, frame.drain_ms)
    return head + tlv.encode(sorted([*items, *frame.extensions]))


_U32 = struct.Struct(">I")


def _report(frame: Report) -> bytes:
    items = []
    if frame.origin_rtt_us is not None:
        items.append((0x01, _pack(_U32, frame.origin_rtt_us)))
    if frame.dial_failures is not None:
        items.append((0x02, _pack(_U32, frame.dial_failures)))
    if frame.healthy is not None:
        items.append((0x03, bytes((frame.healthy,))))
    return tlv.encode(sorted([*items, *frame.extensions]))
