"""What a connection receives."""

import pytest

from drtp_protocol import (
    Accept,
    Auth,
    AuthMethod,
    Binding,
    Capability,
    Challenge,
    Connection,
    ConnectionState,
    ConnectionTerminated,
    Data,
    Datagram,
    DatagramReceived,
    DataReceived,
    ErrorCode,
    Extension,
    GoAway,
    GoAwayReceived,
    Hello,
    Limits,
    Open,
    OpenMetadata,
    Ping,
    Protocol,
    RemoteProtocolError,
    Report,
    Reset,
    Role,
    StreamClosed,
    StreamOpened,
    StreamReset,
    Tuning,
    Welcome,
    Window,
)
from drtp_protocol.frames import FLAG, HEADER, serialize
from drtp_protocol.handshake import PREFACE

TCP = OpenMetadata(service="default/shop")
UDP = OpenMetadata(service="default/shop", protocol=Protocol.UDP)
SMALL = Limits(base_window=64, max_frame=32, max_streams=3, max_pending_opens=2, max_datagram=16)
LOOSE = Tuning(frame_floor=1, window_floor=1)


@pytest.fixture
def small(make_duo):
    return make_duo(limits=SMALL, tuning=LOOSE).establish()


def fault(events):
    """Return code and text of the fault that ended the connection; nothing follows it."""
    end = events[-1]
    assert isinstance(end, ConnectionTerminated)
    assert isinstance(end.error, RemoteProtocolError)
    assert not end.remote
    assert [event for event in events if isinstance(event, ConnectionTerminated)] == [end]
    return end.code, end.reason


def refused(events, code, text):
    found, reason = fault(events)
    assert found is code
    assert text in reason


def header(kind, length, stream_id, *, flag=False):
    return HEADER.pack(kind << 24 | length, (FLAG if flag else 0) | stream_id)


# -- preface and handshake -------------------------------------------------------------------------------------------


def new_edge(**options):
    challenge = Challenge(edge_id="e", methods=(AuthMethod.TLS,))
    return Connection(Role.EDGE, now=0.0, nonce=b"e" * 32, challenge=challenge, **options)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"X", b"DRTP/2\r\n", b"DRTP/1\n", b"\x16\x03\x01"])
def test_a_scanner_gets_nothing(data):
    for cut in (len(data), 1):
        edge = new_edge()
        for start in range(0, len(data), cut):
            edge.receive_data(data[start : start + cut], now=0.0)
        refused(list(edge.events()), ErrorCode.PROTOCOL_ERROR, "preface")
        assert edge.close_after_send
        assert edge.data_to_send(now=0.0) == b""


def test_a_wrong_preface_is_known_by_its_first_byte():
    edge = new_edge()
    edge.receive_data(b"d", now=0.0)
    assert edge.state is ConnectionState.CLOSED


def test_a_preface_may_come_in_pieces():
    edge = new_edge()
    hello = PREFACE + serialize(Hello(instance_id=bytes(16), epoch=1))
    for byte in hello:
        edge.receive_data(bytes((byte,)), now=0.0)
    assert edge.state is ConnectionState.AUTH


@pytest.mark.parametrize(
    "frame",
    [
        Data(2, b"x"),
        Ping(bytes(8)),
        Accept(2),
        Window(2, 9),
        Open(1, TCP),
        Extension(0x40, 0, b""),
        Auth(method=AuthMethod.TLS),
        Welcome(session_id=bytes(16)),
        Challenge(edge_id="e", methods=(1,)),
        Report(),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_only_hello_follows_the_preface(frame):
    edge = new_edge()
    edge.receive_data(PREFACE + serialize(frame), now=0.0)
    refused(list(edge.events()), ErrorCode.PROTOCOL_ERROR, "in state hello")


def test_a_second_hello_is_refused():
    edge = new_edge()
    hello = serialize(Hello(instance_id=bytes(16), epoch=1))
    edge.receive_data(PREFACE + hello + hello, now=0.0)
    refused(list(edge.events()), ErrorCode.PROTOCOL_ERROR, "HELLO in state auth")


def test_nothing_may_follow_auth_before_welcome():
    edge = new_edge()
    hello = serialize(Hello(instance_id=bytes(16), epoch=1))
    edge.receive_data(PREFACE + hello + serialize(Auth(method=AuthMethod.TLS)) + serialize(Ping(bytes(8))), now=0.0)
    refused(list(edge.events()), ErrorCode.PROTOCOL_ERROR, "PING in state welcome")


def test_an_unauthenticated_peer_may_send_little():
    edge = new_edge(tuning=Tuning(handshake_bytes=1_000))
    edge.receive_data(PREFACE + header(0x01, 1_000, 0), now=0.0)
    refused(list(edge.events()), ErrorCode.FRAME_SIZE, "before authentication")


def test_the_default_bound_admits_every_handshake():
    edge = new_edge()
    edge.receive_data(PREFACE + header(0x01, 8_192, 0), now=0.0)
    assert not edge.close_after_send


def test_messages_of_the_wrong_direction_are_refused(duo):
    refused(duo.give(duo.edge, Challenge(edge_id="e", methods=(1,))), ErrorCode.PROTOCOL_ERROR, "at the edge")


def test_an_agent_takes_no_report(make_duo):
    duo = make_duo(capabilities=Capability.REPORT).establish()
    refused(duo.give(duo.agent, Report()), ErrorCode.PROTOCOL_ERROR, "at the agent")


def test_goaway_ends_a_handshake():
    edge = new_edge()
    hello = serialize(Hello(instance_id=bytes(16), epoch=1))
    edge.receive_data(PREFACE + hello + serialize(GoAway(last_id=0, code=17, drain_ms=9_000)), now=0.0)
    gone, end = edge.events()
    assert gone == GoAwayReceived(ErrorCode.VERSION, 0.0, 0.0, (), "")
    assert (end.code, end.remote) == (ErrorCode.VERSION, True)


# -- the parser ------------------------------------------------------------------------------------------------------


def session(duo):
    """Return bytes that the edge sends in a short life of a stream and a flow."""
    first = duo.edge.open_stream(TCP, now=duo.now)
    flow = duo.edge.open_stream(UDP, now=duo.now)
    duo.edge.send_data(first, bytes(range(60)))
    duo.edge.send_datagram(flow, b"datagram", now=duo.now)
    data = duo.edge.data_to_send(now=duo.now)
    duo.edge.send_data(first, b"", fin=True)
    return data + duo.edge.data_to_send(now=duo.now) + serialize(Reset(flow, 5, 0, "over"))


def joined(events):
    """Return events with the pieces of DATA put together."""
    result = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, DataReceived) and isinstance(last, DataReceived) and not last.fin:
            result[-1] = DataReceived(event.stream_id, last.data + event.data, event.fin)
        else:
            result.append(event)
    return result


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 8, 9, 11, 31, 64, 1_000])
def test_the_same_happens_however_the_bytes_are_cut(make_duo, cut):
    whole = make_duo(limits=SMALL, tuning=LOOSE).establish()
    expected = joined(whole.give(whole.agent, session(whole)))
    duo = make_duo(limits=SMALL, tuning=LOOSE).establish()
    data = session(duo)
    events = []
    for start in range(0, len(data), cut):
        events += duo.give(duo.agent, data[start : start + cut])
    assert joined(events) == expected
    assert [type(event) for event in expected] == [
        StreamOpened,
        StreamOpened,
        DataReceived,
        DatagramReceived,
        DataReceived,
        StreamReset,
    ]
    assert not duo.agent._partial


def test_data_is_a_view_of_the_callers_buffer(duo):
    stream_id = duo.open()
    buffer = bytearray(serialize(Data(stream_id, b"abc")))
    duo.agent.receive_data(memoryview(buffer), now=duo.now)
    (event,) = duo.agent.events()
    buffer[8:9] = b"X"
    assert bytes(event.data) == b"Xbc"


def test_part_of_a_frame_is_passed_on_at_once(duo):
    stream_id = duo.open()
    frame = serialize(Data(stream_id, b"abcdef", fin=True))
    assert duo.give(duo.agent, frame[:8]) == []
    assert duo.give(duo.agent, frame[8:11]) == [DataReceived(stream_id, b"abc", fin=False)]
    assert duo.give(duo.agent, frame[11:]) == [DataReceived(stream_id, b"def", fin=True)]


def test_the_header_of_data_may_be_cut(duo):
    stream_id = duo.open()
    frame = serialize(Data(stream_id, b"abc"))
    assert duo.give(duo.agent, frame[:5]) == []
    assert duo.give(duo.agent, frame[5:]) == [DataReceived(stream_id, b"abc", fin=False)]


def test_a_frame_without_fin_that_is_cut_at_its_header_goes_on(duo):
    stream_id = duo.open()
    frame = serialize(Data(stream_id, b"abc"))
    assert duo.give(duo.agent, frame[:8]) == []
    assert duo.give(duo.agent, frame[8:] + serialize(Data(stream_id, b"d"))) == [
        DataReceived(stream_id, b"abc", fin=False),
        DataReceived(stream_id, b"d", fin=False),
    ]


def test_the_rest_of_a_frame_is_dropped_when_its_stream_was_reset_meanwhile(duo):
    stream_id = duo.open()
    for fin in (False, True):
        frame = serialize(Data(stream_id, b"abcdef", fin=fin))
        duo.give(duo.agent, frame[:10])
        duo.agent.reset_stream(stream_id, ErrorCode.CANCEL)
        assert duo.give(duo.agent, frame[10:]) == []
        duo.sent(duo.agent)
        duo.edge.reset_stream(stream_id, ErrorCode.CANCEL)
        stream_id = duo.open()
    assert duo.agent.established


def test_no_bytes_are_no_news(duo):
    assert duo.give(duo.agent, b"") == []


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (header(0x12, 33, 2), ErrorCode.FRAME_SIZE),
        (header(0x12, 2**24 - 1, 2), ErrorCode.FRAME_SIZE),
        (header(0x12, 0, 2), ErrorCode.PROTOCOL_ERROR),
        (header(0x12, 1, 0), ErrorCode.PROTOCOL_ERROR),
        (header(0x15, 33, 2), ErrorCode.FRAME_SIZE),
        (header(0x10, 4_097, 4), ErrorCode.FRAME_SIZE),
        (header(0x13, 9, 2), ErrorCode.FRAME_SIZE),
        (header(0x13, 8, 2, flag=True), ErrorCode.PROTOCOL_ERROR),
        (header(0x30, 10, 2), ErrorCode.PROTOCOL_ERROR),
        (header(0x80, 10, 2), ErrorCode.PROTOCOL_ERROR),
        (header(0x21, 2_049, 0), ErrorCode.FRAME_SIZE),
    ],
)
@pytest.mark.parametrize("cut", [0, 5])
def test_a_wrong_header_is_refused_before_any_payload(small, head, code, cut):
    small.open()
    if cut:
        assert small.give(small.agent, head[:cut]) == []
    assert fault(small.give(small.agent, head[cut:]))[0] is code


def test_what_came_before_a_fault_is_told_and_nothing_after_it(duo):
    stream_id = duo.open()
    events = duo.give(
        duo.agent, serialize(Data(stream_id, b"good")) + header(0x30, 0, 0) + serialize(Data(stream_id, b"bad"))
    )
    assert events[0] == DataReceived(stream_id, b"good", fin=False)
    refused(events, ErrorCode.PROTOCOL_ERROR, "0x30")
    assert duo.give(duo.agent, serialize(Data(stream_id, b"more"))) == []
    goaway = duo.sent(duo.agent)[-1]
    assert (goaway.code, goaway.drain_ms) == (ErrorCode.PROTOCOL_ERROR, 0)
    assert "0x30" in goaway.reason
    assert duo.agent.close_after_send


# -- DATA ------------------------------------------------------------------------------------------------------------


def test_data_beyond_the_window_ends_the_connection(small):
    stream_id = small.open()
    events = small.give(small.agent, Data(stream_id, bytes(32)), Data(stream_id, bytes(31)), Data(stream_id, b"ab"))
    refused(events, ErrorCode.FLOW_CONTROL, "stream 2: DATA of 2 bytes exceeds the window by 1")
    assert len(events) == 3


def test_a_final_frame_beyond_the_window_ends_the_connection_too(small):
    stream_id = small.open()
    events = small.give(
        small.agent, Data(stream_id, bytes(32)), Data(stream_id, bytes(32)), Data(stream_id, b"a", fin=True)
    )
    refused(events, ErrorCode.FLOW_CONTROL, "by 1")


def test_data_after_fin_ends_the_connection(duo):
    stream_id = duo.open()
    events = duo.give(duo.agent, Data(stream_id, b"x", fin=True), Data(stream_id, b"y"))
    refused(events, ErrorCode.PROTOCOL_ERROR, "stream 2: DATA in state half-closed (remote)")


def test_a_second_fin_ends_the_connection(duo):
    stream_id = duo.open()
    events = duo.give(duo.agent, Data(stream_id, b"", fin=True), Data(stream_id, b"", fin=True))
    refused(events, ErrorCode.PROTOCOL_ERROR, "DATA in state")


def test_data_of_the_acceptor_before_accept_ends_the_connection(duo):
    stream_id = duo.edge.open_stream(TCP, now=duo.now)
    refused(duo.give(duo.edge, Data(stream_id, b"x")), ErrorCode.PROTOCOL_ERROR, "DATA in state opening")


def test_data_on_a_flow_ends_the_connection(duo):
    flow = duo.open(UDP)
    refused(duo.give(duo.agent, Data(flow, b"x")), ErrorCode.PROTOCOL_ERROR, "DATA on a flow")


@pytest.mark.parametrize(
    "frame",
    [Data(8, b"x"), Accept(8), Window(8, 99), Reset(8, 0), Datagram(8, b"x"), Data(7, b"x"), Accept(7)],
    ids=repr,
)
def test_any_frame_for_an_idle_stream_ends_the_connection(duo, frame):
    refused(duo.give(duo.agent, frame), ErrorCode.PROTOCOL_ERROR, "idle stream")


def test_frames_for_a_closed_stream_are_dropped_and_counted(duo):
    stream_id = duo.open()
    duo.agent.reset_stream(stream_id, ErrorCode.CANCEL)
    late = (Data(stream_id, b"x"), Data(stream_id, b"", fin=True), Window(stream_id, 10**6), Reset(stream_id, 5))
    assert duo.give(duo.agent, *late) == []
    assert duo.agent.stats.late_frames == 4
    frame = serialize(Data(stream_id, bytes(100)))
    assert duo.give(duo.agent, frame[:50], frame[50:], Ping(bytes(8))) == []
    assert [type(frame) for frame in duo.sent(duo.agent)] == [Reset, Ping]


def test_a_late_accept_and_datagram_are_dropped(duo):
    stream_id = duo.open(accept=False)
    flow = duo.open(UDP)
    duo.edge.reset_stream(stream_id, ErrorCode.CANCEL)
    duo.edge.reset_stream(flow, ErrorCode.NO_ERROR)
    assert duo.give(duo.edge, Accept(stream_id), Datagram(flow, b"x")) == []
    assert duo.edge.established


# -- the carrier's end -----------------------------------------------------------------------------------------------


def test_the_carriers_end_ends_the_connection_once(duo):
    duo.open()
    duo.agent.receive_eof(now=duo.now)
    duo.agent.receive_eof(now=duo.now)
    (end,) = duo.take(duo.agent)
    assert (end.code, end.remote, end.error) == (ErrorCode.CANCEL, True, None)
    assert duo.agent.data_to_send(now=duo.now) == b""


@pytest.mark.parametrize(("streams", "code"), [(1, ErrorCode.DRAINING), (0, ErrorCode.NO_ERROR)])
def test_the_carriers_end_is_expected_in_a_drain(duo, streams, code):
    for _ in range(streams):
        duo.open()
    duo.give(duo.agent, GoAway(last_id=0, code=18, drain_ms=5_000))
    duo.agent.receive_eof(now=duo.now)
    (end,) = duo.take(duo.agent)
    assert end.code is code


def test_a_fin_in_pieces_that_ends_a_drain_stops_the_parser(duo):
    stream_id = duo.open()
    duo.agent.send_data(stream_id, b"", fin=True)
    duo.pump()
    duo.agent.go_away(drain=5, now=duo.now)
    frame = serialize(Data(stream_id, b"abcd", fin=True)) + header(0x30, 0, 0)
    events = duo.give(duo.agent, frame[:10], frame[10:])
    assert [type(event) for event in events[-2:]] == [StreamClosed, ConnectionTerminated]
    assert events[-1].code is ErrorCode.NO_ERROR


def test_a_whole_fin_that_ends_a_drain_stops_the_parser(duo):
    stream_id = duo.open()
    duo.agent.send_data(stream_id, b"", fin=True)
    duo.pump()
    duo.agent.go_away(drain=5, now=duo.now)
    events = duo.give(duo.agent, serialize(Data(stream_id, b"abcd", fin=True)) + header(0x30, 0, 0))
    assert events[-1].code is ErrorCode.NO_ERROR


def test_a_control_frame_in_pieces_that_ends_the_connection_stops_the_parser(duo):
    frame = serialize(GoAway(last_id=0, code=0)) + header(0x30, 0, 0)
    events = duo.give(duo.agent, frame[:10], frame[10:])
    assert [type(event) for event in events] == [GoAwayReceived, ConnectionTerminated]


def test_bindings_of_a_renewal_count_for_later_opens(make_duo):
    duo = make_duo().establish()
    other = OpenMetadata(service="other/shop")
    welcome = Welcome(session_id=b"s" * 16, bindings=(Binding("other/shop"),))
    duo.agent._welcome = welcome
    assert duo.give(duo.agent, Open(2, other)) == [StreamOpened(2, other)]
