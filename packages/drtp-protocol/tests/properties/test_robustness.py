"""Property 3: whatever comes, nothing raises, nothing grows, and after the end nothing is read."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drtp_protocol import events as ev
from drtp_protocol.errors import ErrorCode
from drtp_protocol.frames import FrameType, serialize
from drtp_protocol.limits import HANDSHAKE_FRAME_SIZE, Limits, Tuning
from drtp_protocol.metadata import OpenMetadata, Protocol
from drtp_protocol.states import ConnectionState
from drtp_protocol.status import Role
from drtp_protocol.strategies import chunked, frames, mutated, raw_frames
from drtp_protocol.testing import SERVICE, Pair, other

PLAIN = OpenMetadata(service=SERVICE)
MOST_KEPT = 8 + HANDSHAKE_FRAME_SIZE


def header(kind, stream=0, length=0, flag=0):
    return (kind << 24 | length).to_bytes(4, "big") + (flag << 31 | stream).to_bytes(4, "big")


def attack(connection, chunks):
    """Feed bytes while nobody sends what the connection answers; check its bounds; return events and last words."""
    events = []
    for chunk in chunks:
        given_back = len(connection.stream_ids)  # a GOAWAY ends what the peer has not processed
        connection.receive_data(chunk, now=0.0)
        fresh = list(connection.events())
        assert len(fresh) <= len(chunk) / 8 + 2 + given_back
        events += fresh
        assert len(connection._partial) <= MOST_KEPT
        assert len(connection._control) <= connection.tuning.control_queue + 8 + 2_048
    ends = [event for event in events if isinstance(event, ev.ConnectionTerminated)]
    assert len(ends) <= 1
    assert (connection.state is ConnectionState.CLOSED) == bool(ends)
    farewell = b""
    if ends:
        assert events[-1] is ends[0]
        assert ends[0].remote or ends[0].error is not None
        farewell = connection.data_to_send(now=0.0)
        if farewell and not ends[0].remote:
            assert last_frame(farewell)[0] == FrameType.GOAWAY
        connection.receive_data(header(FrameType.PING, length=8) + bytes(8), now=0.0)
        connection.receive_eof(now=0.0)
        connection.handle_timeout(now=1e9)
        assert connection.next_event() is None
        assert connection.next_timeout() is None
        assert connection.data_to_send(now=0.0) == b""
        assert connection.stream_ids == ()
    return events, farewell


def last_frame(data):
    data = data.removeprefix(b"DRTP/1\r\n")
    while len(data) > (size := 8 + int.from_bytes(data[1:4], "big")):
        data = data[size:]
    assert len(data) == size
    return data


BLOBS = st.lists(raw_frames() | st.binary(max_size=30), max_size=10).map(b"".join)


@pytest.mark.parametrize("receiver", Role)
@given(data=st.data(), blob=BLOBS)
def test_any_bytes_to_an_open_connection(session, receiver, data, blob):
    attack(session.fresh(receiver), data.draw(chunked(blob)))


@pytest.mark.parametrize("receiver", Role)
@given(data=st.data(), drawn=st.lists(frames(), max_size=6))
def test_valid_frames_in_any_order(session, receiver, data, drawn):
    attack(session.fresh(receiver), data.draw(chunked(b"".join(map(serialize, drawn)))))


@pytest.mark.parametrize("receiver", Role)
@given(data=st.data())
def test_a_damaged_session(session, receiver, data):
    blob = data.draw(mutated(session.portions[other(receiver)][-1]))
    attack(session.fresh(receiver), data.draw(chunked(blob)))


@pytest.mark.parametrize("receiver", Role)
@given(data=st.data(), blob=BLOBS)
def test_any_bytes_to_a_handshake(session, receiver, data, blob):
    portions = session.portions[other(receiver)]
    kept = data.draw(st.integers(0, 1))
    begin = b"DRTP/1\r\n" if receiver is Role.EDGE and data.draw(st.booleans()) else b""
    connection = session.make(receiver)
    for portion in portions[:kept]:
        connection.receive_data(portion, now=0.0)
        session.greet(connection)
    attack(connection, data.draw(chunked(begin * (not kept) + blob)))


@given(blob=st.binary(min_size=1, max_size=40), data=st.data())
@example(blob=b"GET / HTTP/1.1\r\n\r\n", data=None)
@example(blob=b"DRTP/1\n\n", data=None)
@example(blob=b"\x16\x03\x01\x02\x00", data=None)
def test_a_stranger_gets_no_byte(session, blob, data):
    if b"DRTP/1\r\n".startswith(blob[:8]):
        return
    edge = session.make(Role.EDGE)
    chunks = data.draw(chunked(blob)) if data else [blob]
    events, farewell = attack(edge, chunks)
    assert [type(event) for event in events] == [ev.ConnectionTerminated]
    assert farewell == b""


# -- headers: judged before anything is waited for --------------------------------------------------------------------

BOUNDS = {
    FrameType.OPEN: 4_096,
    FrameType.ACCEPT: 0,
    FrameType.DATA: 150,
    FrameType.WINDOW: 8,
    FrameType.RESET: 126,
    FrameType.DATAGRAM: 150,
    FrameType.PING: 8,
    FrameType.GOAWAY: 2_048,
    FrameType.REPORT: 2_048,
    0x40: 2_048,
    0x7F: 2_048,
}


@pytest.mark.parametrize("cut", [[8], [1] * 8, [3, 5]])
@pytest.mark.parametrize("receiver", Role)
@pytest.mark.parametrize("kind", BOUNDS)
def test_a_length_above_the_bound_is_refused_by_the_header_alone(session, kind, receiver, cut):
    stream = 0 if kind in (FrameType.PING, FrameType.GOAWAY, FrameType.REPORT) else 2
    for length in (BOUNDS[kind] + 1, 2**24 - 1):
        connection = session.fresh(receiver)
        raw = header(kind, stream, length)
        for size in cut:
            assert connection.state is ConnectionState.OPEN
            connection.receive_data(raw[:size], now=0.0)
            raw = raw[size:]
        (ended,) = connection.events()
        assert ended.code is ErrorCode.FRAME_SIZE


@pytest.mark.parametrize("receiver", Role)
@pytest.mark.parametrize("kind", BOUNDS)
def test_a_frame_above_the_bound_is_refused_although_it_is_whole(session, kind, receiver):
    stream = 0 if kind in (FrameType.PING, FrameType.GOAWAY, FrameType.REPORT) else 8
    payload = bytes(BOUNDS[kind] + 1)
    if kind == FrameType.OPEN:
        filler = bytes(len(payload) - len(PLAIN.encode()) - 3)
        payload = PLAIN.encode() + b"\x40" + len(filler).to_bytes(2, "big") + filler
    connection = session.fresh(receiver)
    connection.receive_data(header(kind, stream, len(payload)) + payload, now=0.0)
    (ended,) = connection.events()
    assert ended.code is ErrorCode.FRAME_SIZE


@pytest.mark.parametrize("receiver", Role)
@pytest.mark.parametrize("kind", FrameType)
def test_a_stream_where_none_belongs_and_none_where_one_does(session, kind, receiver):
    on_stream = kind in FOR_STREAMS or kind is FrameType.OPEN
    sizes = {FrameType.OPEN: PLAIN.encode(), FrameType.GOAWAY: bytes(16), FrameType.PING: bytes(8)}
    payload = FOR_STREAMS.get(kind, sizes.get(kind, b""))
    connection = session.fresh(receiver)
    connection.receive_data(header(kind, 0 if on_stream else 2, len(payload)) + payload, now=0.0)
    (ended,) = connection.events()
    assert ended.code is ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("receiver", Role)
@pytest.mark.parametrize("kind", set(range(256)) - set(FrameType) - set(range(0x40, 0x80)))
def test_a_type_without_meaning_ends_the_connection(session, kind, receiver):
    connection = session.fresh(receiver)
    connection.receive_data(header(kind), now=0.0)
    (ended,) = connection.events()
    assert ended.code is ErrorCode.PROTOCOL_ERROR


# -- streams that are not there --------------------------------------------------------------------------------------

FOR_STREAMS = {
    FrameType.ACCEPT: b"",
    FrameType.DATA: b"x",
    FrameType.WINDOW: (2**40).to_bytes(8, "big"),
    FrameType.RESET: bytes(6),
    FrameType.DATAGRAM: b"x",
}


def opened_and_reset(role):
    """Return a pair in which streams 1 to 3 and 2 to 4 were used and are closed."""
    pair = Pair(limits=Limits(base_window=2_048))
    pair.establish()
    for opener in Role:
        for protocol in Protocol:
            metadata = OpenMetadata(service=SERVICE, protocol=protocol)
            pair.ends[opener].reset_stream(pair.ends[opener].open_stream(metadata, now=0.0), ErrorCode.CANCEL)
    pair.settle()
    assert pair.agent.stream_ids == pair.edge.stream_ids == ()
    return pair.ends[role]


@pytest.mark.parametrize("receiver", Role)
@pytest.mark.parametrize("stream", [5, 6, 2**31 - 1, 2**31 - 2])
@pytest.mark.parametrize("kind", FOR_STREAMS)
def test_any_frame_for_an_idle_stream_ends_the_connection(kind, stream, receiver):
    connection = opened_and_reset(receiver)
    connection.receive_data(header(kind, stream, len(FOR_STREAMS[kind])) + FOR_STREAMS[kind], now=0.0)
    (ended,) = connection.events()
    assert ended.code is ErrorCode.PROTOCOL_ERROR
    assert "idle" in ended.reason


@pytest.mark.parametrize("receiver", Role)
@pytest.mark.parametrize("stream", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", FOR_STREAMS)
def test_any_frame_for_a_closed_stream_is_dropped_without_an_answer(kind, stream, receiver):
    connection = opened_and_reset(receiver)
    connection.receive_data(header(kind, stream, len(FOR_STREAMS[kind])) + FOR_STREAMS[kind], now=0.0)
    assert connection.next_event() is None
    assert connection.data_to_send(now=0.0) == b""
    assert connection.stats.late_frames >= 1


# -- floods ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("receiver", Role)
def test_replies_that_nobody_reads_are_bounded(session, receiver):
    connection = session.fresh(receiver)
    ping = header(FrameType.PING, length=8) + bytes(8)
    events, _ = attack(connection, [ping * 500] * 20)
    assert events[-1].code is ErrorCode.ENHANCE_YOUR_CALM


def test_an_edge_ends_a_flood_that_it_could_answer(session):
    """Also a peer that reads its answers pays for them; time and useful data give back."""
    edge = session.fresh(Role.EDGE)
    ping = header(FrameType.PING, length=8) + bytes(8)
    for _ in range(1_000):
        edge.receive_data(ping, now=0.0)
        edge.data_to_send(now=0.0)
    assert edge.established
    edge.receive_data(ping, now=0.0)
    assert not edge.established


def test_an_agent_bears_whatever_visitors_cause(session):
    """Opens and resets come from visitors: an agent that minded them would give any visitor a kill switch."""
    agent = session.fresh(Role.AGENT)
    payload = OpenMetadata(service=SERVICE).encode()
    for stream in range(10, 20_010, 2):
        agent.receive_data(header(FrameType.OPEN, stream, len(payload)) + payload, now=0.0)
        agent.receive_data(header(FrameType.RESET, stream, 6) + bytes(6), now=0.0)
        agent.data_to_send(now=0.0)
        list(agent.events())
    assert agent.established


@pytest.mark.parametrize("receiver", Role)
def test_opens_beyond_the_limit_are_refused_and_may_be_tried_elsewhere(session, receiver):
    pair = Pair(limits=Limits(max_streams=3, max_pending_opens=2), tuning=Tuning())
    pair.establish()
    connection = pair.ends[receiver]
    payload = OpenMetadata(service=SERVICE).encode()
    first = 1 + (receiver is Role.AGENT)
    for number in range(4):
        stream = first + 2 * number
        connection.receive_data(header(FrameType.OPEN, stream, len(payload)) + payload, now=0.0)
        if number == 0:
            connection.accept_stream(stream)
            connection.data_to_send(now=0.0)
    assert connection.stream_ids == (first, first + 2, first + 4)
    refused = connection.data_to_send(now=0.0)
    assert refused[0] == FrameType.RESET
    assert int.from_bytes(refused[4:8], "big") == first + 6
    assert int.from_bytes(refused[8:12], "big") == ErrorCode.REFUSED
