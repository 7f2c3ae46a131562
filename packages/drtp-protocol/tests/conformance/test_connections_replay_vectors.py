"""Either end of every vector is played by a connection: it understands the other end and says what its own end says."""

import contextlib

import pytest

from drtp_protocol import events as ev
from drtp_protocol import frames as wire
from drtp_protocol.connection import Connection
from drtp_protocol.errors import ErrorCode, LocalProtocolError
from drtp_protocol.handshake import PREFACE, Auth, AuthMethod, Challenge, Hello, Welcome, psk_edge_proof
from drtp_protocol.states import ConnectionState
from drtp_protocol.status import Role

ARROWS = {Role.AGENT: ">", Role.EDGE: "<"}
UNASKED = wire.FrameType.PING
"""A connection pings by its own will, with bytes of its own; the vectors do not say when."""


class Player:
    """One connection that plays one end of a vector."""

    def __init__(self, vector, role):
        self.lines, self.role = vector.lines, role
        self.key = bytes.fromhex(vector.notes["psk"])
        greeting = next((raw for _, raw, _ in self.lines if raw[:1] == (b"\1" if role is Role.AGENT else b"\2")), None)
        message = wire.parse(greeting) if greeting else Challenge(edge_id="", methods=(AuthMethod.PSK,))
        who = {"hello": message} if isinstance(message, Hello) else {"challenge": message}
        self.connection = Connection(role, now=0.0, nonce=message.nonce, limits=message.limits, **who)
        self.said = b""
        self.seen = []

    def play(self, chunk_size=None, *, upto=None):
        for arrow, raw, _ in self.lines[:upto]:
            if arrow == ARROWS[self.role]:
                if raw != PREFACE:
                    self.act(wire.parse(raw))
            else:
                self.feed(raw, chunk_size)
            self.said += self.connection.data_to_send(now=0.0)
            self.seen += self.connection.events()

    def feed(self, raw, chunk_size=None):
        step = chunk_size or len(raw)
        for start in range(0, len(raw), step):
            self.connection.receive_data(raw[start : start + step], now=0.0)

    def act(self, frame):
        """Do what makes this end send `frame`."""
        connection = self.connection
        match frame:
            case Auth():
                transcript = next(
                    event for event in reversed(self.seen) if isinstance(event, ev.AuthRequired)
                ).transcript
                expected = None
                if frame.method is AuthMethod.PSK:
                    expected = psk_edge_proof(self.key, transcript.hash(), frame.proof)
                connection.authenticate(frame, expected_edge_proof=expected, now=0.0)
            case Welcome():
                connection.accept(frame, now=0.0)
            case Challenge() if connection.state is ConnectionState.OPEN:
                connection.challenge(frame.nonce, server_time=frame.server_time, now=0.0)
            case wire.Open():
                assert connection.open_stream(frame.metadata, now=0.0) == frame.stream_id
            case wire.Accept():
                connection.accept_stream(frame.stream_id)
            case wire.Data():
                connection.send_data(frame.stream_id, frame.data, fin=frame.fin)
            case wire.Window():
                info = connection.stream_info(frame.stream_id)
                connection.acknowledge(frame.stream_id, info.received - info.consumed, now=0.0)
            case wire.Reset():
                connection.reset_stream(frame.stream_id, ErrorCode(frame.code), frame.detail, frame.reason)
            case wire.Datagram():
                assert connection.send_datagram(frame.stream_id, frame.data, now=0.0)
            case wire.Report():
                self.report(frame)
            case wire.GoAway() if connection.state is ConnectionState.WELCOME:
                connection.reject(now=0.0)
            case wire.GoAway() if frame.code:  # the last one, with NO_ERROR, comes by itself
                connection.go_away(
                    ErrorCode(frame.code),
                    drain=frame.drain_ms / 1000,
                    retry_after=frame.retry_after_ms / 1000,
                    alternates=frame.alternates,
                    reason=frame.reason,
                    now=0.0,
                )
            case _:
                pass  # comes by itself: HELLO, CHALLENGE, the answer to a PING; or is not ours to send: extensions

    def report(self, frame):
        self.now = getattr(self, "now", 0.0) + 2.0
        assert self.connection.report(frame, now=self.now)


def split(data):
    data = data.removeprefix(PREFACE)
    while data:
        size = 8 + int.from_bytes(data[1:4], "big")
        yield data[:size]
        data = data[size:]


def comparable(raw):
    """Leave out what is not determined: PINGs of one's own, extensions, the reason that refuses an OPEN."""
    if 0x40 <= raw[0] <= 0x7F or (raw[0] == UNASKED and not raw[4] >> 7):
        return None
    if raw[0] == wire.FrameType.RESET:
        frame = wire.parse(raw)
        if frame.code in (ErrorCode.REFUSED, ErrorCode.UNSUPPORTED):
            return frame.stream_id, frame.code
    return raw


def own_frames(data):
    return [kept for raw in split(data) if (kept := comparable(raw)) is not None]


LATE = {"resets.hex"}
"""Here one end sends frames for streams whose RESET is still on its way to it."""


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
@pytest.mark.parametrize("role", Role)
def test_a_connection_plays_its_end(valid_vector, role, chunk_size):
    if valid_vector.name in LATE or (valid_vector.name == "refusals.hex" and role is Role.EDGE):
        pytest.skip("this end's calls would be refused: see the tests below")
    player = Player(valid_vector, role)
    player.play(chunk_size)
    expected = b"".join(raw for arrow, raw, _ in valid_vector.lines if arrow == ARROWS[role] and raw != PREFACE)
    assert own_frames(player.said) == own_frames(expected)
    ends = [event for event in player.seen if isinstance(event, ev.ConnectionTerminated)]
    if "ends" in valid_vector.notes:
        assert [event.code for event in ends] == [ErrorCode[valid_vector.notes["ends"]]]
    else:
        assert ends == []
        assert player.connection.established


@pytest.mark.parametrize("role", Role)
def test_late_frames_of_a_recorded_end_are_dropped(every_valid_vector, role):
    (vector,) = [vector for vector in every_valid_vector if vector.name in LATE]
    player = Player(vector, role)
    for arrow, raw, _ in vector.lines:
        if arrow != ARROWS[role]:
            player.feed(raw)
        elif raw != PREFACE:
            with contextlib.suppress(LocalProtocolError):
                player.act(wire.parse(raw))
        player.said += player.connection.data_to_send(now=0.0)
        player.seen += player.connection.events()
    assert player.connection.established
    assert player.connection.stats.late_frames == 2 if role is Role.EDGE else 2
    assert player.connection.stream_ids == ()


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_a_malformed_line_ends_the_connection_with_its_code(malformed_vector, chunk_size):
    arrow, raw, _ = malformed_vector.lines[-1]
    receiver = Role.EDGE if arrow == ">" else Role.AGENT
    player = Player(malformed_vector, receiver)
    player.play(upto=-1)
    assert player.connection.state is not ConnectionState.CLOSED
    player.feed(raw, chunk_size)
    events = list(player.connection.events())
    (ended,) = [event for event in events if isinstance(event, ev.ConnectionTerminated)]
    assert ended is events[-1]
    assert ended.code is ErrorCode[malformed_vector.notes["error"]]
    assert ended.error is not None
    answer = player.connection.data_to_send(now=0.0)
    if malformed_vector.name == "malformed/preface.hex":
        assert answer == player.said == b""
        return
    goaway = wire.parse(list(split(answer))[-1])
    assert goaway.code == ended.code
    player.feed(bytes.fromhex("2000000800000000") + bytes(8))
    assert player.connection.next_event() is None
    assert player.connection.data_to_send(now=0.0) == b""
