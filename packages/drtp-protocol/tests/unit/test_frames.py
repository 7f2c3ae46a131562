"""Frames: headers and the one encoding of each."""

import pytest

from drtp_protocol import (
    Accept,
    Auth,
    AuthMethod,
    Challenge,
    Data,
    Datagram,
    ErrorCode,
    Extension,
    GoAway,
    Hello,
    InvalidMetadata,
    Open,
    OpenMetadata,
    Ping,
    RemoteProtocolError,
    Report,
    Reset,
    Welcome,
    Window,
)
from drtp_protocol.frames import FLAG, HEADER, FrameType, check_header, parse, serialize

FRAMES = [
    Hello(instance_id=bytes(16), epoch=0),
    Challenge(edge_id="e", methods=(1,)),
    Auth(method=AuthMethod.TLS),
    Welcome(session_id=bytes(16)),
    Open(2, OpenMetadata(service="a/b")),
    Accept(2),
    Data(2, b"x"),
    Data(2, b"", fin=True),
    Window(2**31 - 1, 2**64 - 1),
    Reset(2, ErrorCode.DIAL_FAILED, 2, "timed out"),
    Reset(2, 2**32 - 1, 2**16 - 1),
    Datagram(4, b""),
    Ping(b"12345678", ack=True),
    Ping(b"12345678"),
    GoAway(last_id=0, code=0),
    GoAway(
        last_id=2**31 - 1,
        code=18,
        retry_after_ms=1,
        drain_ms=2**32 - 1,
        reason="é" * 128,
        alternates=("a:1", "b:2"),
        extensions=((0x03, b"x"),),
    ),
    Report(),
    Report(origin_rtt_us=1, dial_failures=2, healthy=False, extensions=((0x70, b""),)),
    Extension(0x40, 0, b""),
    Extension(0x7F, 9, b"x", flag=True),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_frames_read_back_and_write_back(frame):
    data = serialize(frame)
    assert parse(data) == frame
    assert serialize(parse(data)) == data


def test_a_header_is_two_words():
    assert serialize(Data(5, b"abc", fin=True)) == bytes.fromhex("12000003 80000005") + b"abc"
    assert serialize(Ping(bytes(8), ack=True)) == bytes.fromhex("20000008 80000000") + bytes(8)


def header(kind, length=0, stream_id=0, flag=False):
    return HEADER.pack(kind << 24 | length, (FLAG if flag else 0) | stream_id)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes are no header"),
        (header(0x12)[:7], "7 bytes are no header"),
        (serialize(Data(2, b"x")) + b"y", "1 declared|1 bytes declared, 2 there"),
        (serialize(Data(2, b"xy"))[:-1], "2 bytes declared, 1 there"),
        (header(0x00), "unknown type 0x00"),
        (header(0x30), "unknown type 0x30"),
        (header(0x3F), "unknown type 0x3f"),
        (header(0x80), "unknown type 0x80"),
        (header(0xFF), "unknown type 0xff"),
        (header(0x12, 0, 2), "empty DATA without FIN"),
        (header(0x11, 0, 0), "ACCEPT on stream 0"),
        (header(0x20, 8, 1) + bytes(8), "PING on stream 1"),
        (header(0x11, 0, 2, flag=True), "ACCEPT on stream 2 with the flag"),
        (header(0x14, 7, 2) + b"\0\0\0\1\0\0\xff", "not UTF-8"),
        (header(0x21, 16) + b"\xff" + bytes(15), "31 bits"),
        (header(0x21, 19) + bytes(16) + b"\x01\0\0", "leaving it out"),
        (header(0x21, 19) + bytes(16) + b"\x02\0\0", "leaving it out"),
        (header(0x21, 20) + bytes(16) + b"\x02\0\1\0", "alternate is empty"),
        (header(0x21, 21) + bytes(16) + b"\x02\0\2\1\xff", "not UTF-8"),
        (header(0x21, 16 + 3 + 257) + bytes(16) + b"\x01\x01\x01" + b"x" * 257, "too long"),
        (header(0x22, 4) + b"\x01\0\1x", "0x01 of 1 bytes"),
        (header(0x22, 4) + b"\x03\0\1\2", "health 2"),
    ],
)
def test_malformed_frames_are_refused(data, message):
    with pytest.raises(RemoteProtocolError, match=message):
        parse(data)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        (FrameType.HELLO, 0, 8_192),
        (FrameType.OPEN, 0, 4_096),
        (FrameType.ACCEPT, 0, 0),
        (FrameType.DATA, 1, 100),
        (FrameType.WINDOW, 8, 8),
        (FrameType.RESET, 6, 126),
        (FrameType.DATAGRAM, 0, 100),
        (FrameType.PING, 8, 8),
        (FrameType.GOAWAY, 16, 2_048),
        (FrameType.REPORT, 0, 2_048),
        (0x40, 0, 2_048),
    ],
)
def test_lengths_are_judged_by_the_header_alone(kind, low, high):
    stream_id = 2 if 0x10 <= kind < 0x20 else 0
    for length in (low, high):
        check_header(kind, length, False, stream_id, 100)
    for length in {high + 1, 2**24 - 1} | ({low - 1} if low > 1 else set()):
        with pytest.raises(RemoteProtocolError, match=f"of {length} bytes") as caught:
            check_header(kind, length, False, stream_id, 100)
        assert caught.value.code is ErrorCode.FRAME_SIZE


@pytest.mark.parametrize(
    "frame",
    [
        Data(2, b""),
        Data(0, b"x"),
        Data(-1, b"x"),
        Data(2**31, b"x"),
        Data(2, bytes(262_145)),
        Window(2, -1),
        Window(2, 2**64),
        Reset(2, -1),
        Reset(2, 1, 65_536),
        Reset(2, 1, 0, "x" * 121),
        Ping(b"1234567"),
        GoAway(last_id=-1, code=0),
        GoAway(last_id=2**31, code=0),
        GoAway(last_id=0, code=0, drain_ms=2**32),
        GoAway(last_id=0, code=0, reason="x" * 257),
        GoAway(last_id=0, code=0, alternates=("",)),
        GoAway(last_id=0, code=0, alternates=("x" * 256,)),
        GoAway(last_id=0, code=0, alternates=("x" * 250,) * 9),
        Report(origin_rtt_us=2**32),
        Extension(0x3F, 0, b""),
        Extension(0x80, 0, b""),
    ],
    ids=repr,
)
def test_frames_that_the_wire_cannot_carry_are_not_written(frame):
    with pytest.raises(InvalidMetadata):
        serialize(frame)


def test_a_reason_with_a_lone_surrogate_is_still_sent():
    assert parse(serialize(Reset(2, 1, 0, "a\ud800b"))) == Reset(2, 1, 0, "a?b")
