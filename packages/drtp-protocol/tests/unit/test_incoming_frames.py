"""What a connection receives: the frames of streams and of the connection, and what they cost."""

import pytest

from drtp_protocol import (
    Accept,
    Budget,
    Capability,
    ConnectionState,
    ConnectionTerminated,
    Data,
    Datagram,
    ErrorCode,
    Extension,
    GoAway,
    GoAwayReceived,
    Limits,
    Open,
    OpenMetadata,
    Ping,
    Protocol,
    RemoteProtocolError,
    Report,
    ReportReceived,
    Reset,
    StreamAccepted,
    StreamOpened,
    StreamReset,
    Tuning,
    Window,
)
from drtp_protocol.frames import FLAG, HEADER, serialize

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


# -- OPEN ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stream_id", "text"), [(1, "an id of the agent's"), (2, "must grow"), (4, "must grow")])
def test_an_open_with_a_wrong_id_ends_the_connection(duo, stream_id, text):
    duo.give(duo.agent, Open(4, TCP))
    refused(duo.give(duo.agent, Open(stream_id, TCP)), ErrorCode.PROTOCOL_ERROR, text)


def test_ids_may_skip_and_the_skipped_are_closed(duo):
    assert duo.give(duo.agent, Open(10, TCP)) == [StreamOpened(10, TCP)]
    assert duo.give(duo.agent, Data(8, b"x")) == []


def test_an_agent_opens_only_by_capability(duo, make_duo):
    refused(duo.give(duo.edge, Open(1, TCP)), ErrorCode.PROTOCOL_ERROR, "capability")
    able = make_duo(capabilities=Capability.AGENT_OPEN).establish()
    assert able.give(able.edge, Open(1, TCP)) == [StreamOpened(1, TCP)]


def test_malformed_metadata_ends_the_connection(duo):
    events = duo.give(duo.agent, header(0x10, 1, 2) + b"x")
    refused(events, ErrorCode.PROTOCOL_ERROR, "TLV")


def test_metadata_that_must_be_understood_refuses_the_stream_only(duo):
    payload = TCP.encode() + b"\x80\0\0"
    assert duo.give(duo.agent, header(0x10, len(payload), 2) + payload) == []
    (reset,) = duo.sent(duo.agent)
    assert (reset.stream_id, reset.code) == (2, ErrorCode.UNSUPPORTED)
    assert duo.agent.established
    assert duo.agent.stats.streams_refused == 1
    assert duo.give(duo.agent, Data(2, b"early")) == []


@pytest.mark.parametrize(
    ("opens", "code", "text"),
    [
        ([Open(2, TCP), Open(4, TCP), Open(6, TCP)], ErrorCode.REFUSED, "2 streams wait"),
        ([Open(2, OpenMetadata(service="other/shop"))], ErrorCode.REFUSED, "not bound"),
    ],
)
def test_opens_beyond_what_was_agreed_are_refused(small, opens, code, text):
    small.give(small.agent, *opens)
    (reset,) = small.sent(small.agent)
    assert (reset.stream_id, reset.code) == (opens[-1].stream_id, code)
    assert text in reset.reason


def test_streams_beyond_the_limit_are_refused(small):
    for stream_id in (2, 4, 6):
        small.give(small.agent, Open(stream_id, TCP))
        small.agent.accept_stream(stream_id)
    small.sent(small.agent)
    small.give(small.agent, Open(8, TCP))
    (reset,) = small.sent(small.agent)
    assert (reset.code, reset.reason) == (ErrorCode.REFUSED, "3 streams are open")


def test_streams_beyond_the_budget_are_refused(make_duo):
    duo = make_duo(agent_budget=Budget(65_536)).establish()
    duo.give(duo.agent, Open(2, TCP), Open(4, TCP))
    (reset,) = duo.sent(duo.agent)
    assert (reset.stream_id, reset.code) == (4, ErrorCode.OVER_CAPACITY)


# -- ACCEPT, WINDOW, RESET, DATAGRAM ---------------------------------------------------------------------------------


def test_a_second_accept_ends_the_connection(duo):
    stream_id = duo.edge.open_stream(TCP, now=duo.now)
    assert duo.give(duo.edge, Accept(stream_id)) == [StreamAccepted(stream_id)]
    refused(duo.give(duo.edge, Accept(stream_id)), ErrorCode.PROTOCOL_ERROR, "ACCEPT in state open")


def test_accepting_ones_own_stream_ends_the_connection(duo):
    stream_id = duo.open(accept=False)
    refused(duo.give(duo.agent, Accept(stream_id)), ErrorCode.PROTOCOL_ERROR, "ACCEPT in state offered")


@pytest.mark.parametrize("limit", [0, 65_535, 65_536])
@pytest.mark.parametrize("cut", [16, 12])
def test_a_window_that_does_not_grow_ends_the_connection(duo, limit, cut):
    stream_id = duo.open()
    frame = serialize(Window(stream_id, limit))
    events = duo.give(duo.edge, frame[:cut], frame[cut:])
    refused(events, ErrorCode.PROTOCOL_ERROR, "must grow")


@pytest.mark.parametrize("cut", [16, 8, 3])
def test_a_window_may_be_cut(duo, cut):
    stream_id = duo.open()
    frame = serialize(Window(stream_id, 2**64 - 1))
    assert duo.give(duo.edge, frame[:cut], frame[cut:]) == []
    assert duo.edge.stream_info(stream_id).send_limit == 2**64 - 1


def test_a_window_before_accept_ends_the_connection(duo):
    stream_id = duo.edge.open_stream(TCP, now=duo.now)
    refused(duo.give(duo.edge, Window(stream_id, 10**6)), ErrorCode.PROTOCOL_ERROR, "WINDOW in state opening")


def test_a_window_for_a_flow_ends_the_connection(duo):
    flow = duo.open(UDP)
    refused(duo.give(duo.edge, Window(flow, 10**6)), ErrorCode.PROTOCOL_ERROR, "WINDOW in a flow")


def test_a_reset_ends_a_stream_at_once(duo):
    stream_id = duo.open()
    duo.agent.send_data(stream_id, b"never sent")
    duo.agent.want_send(stream_id)
    assert duo.give(duo.agent, Reset(stream_id, 77, 3, "why")) == [
        StreamReset(stream_id, ErrorCode.INTERNAL, 3, "why", remote=True)
    ]
    assert duo.sent(duo.agent) == []
    assert duo.agent.next_send(duo.now) is None


def test_a_datagram_in_the_wrong_place_ends_the_connection(duo):
    stream_id = duo.open()
    refused(duo.give(duo.agent, Datagram(stream_id, b"x")), ErrorCode.PROTOCOL_ERROR, "a TCP stream")


def test_a_datagram_of_the_acceptor_before_accept_ends_the_connection(duo):
    flow = duo.edge.open_stream(UDP, now=duo.now)
    refused(duo.give(duo.edge, Datagram(flow, b"x")), ErrorCode.PROTOCOL_ERROR, "state opening")


def test_a_datagram_over_the_limit_is_dropped_and_counted(small):
    flow = small.open(UDP)
    assert small.give(small.agent, Datagram(flow, bytes(17))) == []
    assert small.agent.stats.datagrams_dropped == 1


# -- PING, GOAWAY, REPORT, extensions --------------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_bytes(duo):
    duo.give(duo.agent, Ping(b"whatever"))
    assert duo.sent(duo.agent) == [Ping(b"whatever", ack=True)]


def test_an_answer_to_nothing_ends_the_connection(duo):
    refused(duo.give(duo.agent, Ping(bytes(8), ack=True)), ErrorCode.PROTOCOL_ERROR, "nothing that was asked")
    assert duo.agent.rtt.latest == 0.0


def test_an_answer_with_other_bytes_ends_the_connection(duo):
    duo.edge.ping(now=duo.now)
    refused(duo.give(duo.edge, Ping(b"whatever", ack=True)), ErrorCode.PROTOCOL_ERROR, "nothing that was asked")


def test_goaway_gives_back_what_was_not_processed(duo):
    first = duo.open()
    second = duo.edge.open_stream(TCP, now=duo.now)
    events = duo.give(duo.edge, GoAway(last_id=first, code=18, drain_ms=5_000, alternates=("b:1",), reason="bye"))
    assert events[0] == GoAwayReceived(ErrorCode.DRAINING, 5.0, 0.0, ("b:1",), "bye")
    assert (events[1].stream_id, events[1].code, events[1].remote) == (second, ErrorCode.REFUSED, True)
    assert duo.edge.stream_ids == (first,)
    assert duo.edge.state is ConnectionState.DRAINING


def test_an_open_that_crosses_our_goaway_is_dropped(duo):
    duo.open()
    duo.agent.go_away(drain=5, now=duo.now)
    assert duo.give(duo.agent, Open(4, TCP), Data(4, b"x")) == []
    assert duo.agent.stream_ids == (2,)


def test_an_open_after_the_peers_own_goaway_ends_the_connection(duo):
    duo.open()
    events = duo.give(duo.agent, GoAway(last_id=0, code=18, drain_ms=5), Open(4, TCP))
    refused(events, ErrorCode.PROTOCOL_ERROR, "OPEN after GOAWAY")


def test_goaway_without_time_ends_the_connection_now(duo):
    duo.open()
    _, reset, end = duo.give(duo.edge, GoAway(last_id=0, code=12, reason="newer"))
    assert reset.code is ErrorCode.REFUSED
    assert (end.code, end.reason, end.remote, end.error) == (ErrorCode.SUPERSEDED, "newer", True, None)
    assert duo.edge.data_to_send(now=duo.now) == b""


def test_last_ids_that_make_no_sense_end_the_connection(make_duo):
    duo = make_duo().establish()
    duo.open()
    refused(duo.give(duo.edge, GoAway(last_id=4, code=0)), ErrorCode.PROTOCOL_ERROR, "opened up to 2")
    duo = make_duo().establish()
    duo.open()
    duo.open()
    events = duo.give(duo.edge, GoAway(last_id=2, code=0, drain_ms=9), GoAway(last_id=4, code=0))
    refused(events, ErrorCode.PROTOCOL_ERROR, "must not grow")


def test_a_second_goaway_may_shorten_the_time(duo):
    duo.open()
    duo.give(duo.edge, GoAway(last_id=2, code=0, drain_ms=9_000), GoAway(last_id=2, code=0, drain_ms=1_000))
    assert duo.edge._drain_deadline == pytest.approx(duo.now + 1.0 + duo.edge.dead_after)


def test_both_may_go_away_at_once(duo):
    stream_id = duo.open()
    duo.agent.go_away(drain=5, now=duo.now)
    duo.edge.go_away(drain=5, now=duo.now)
    duo.pump()
    assert duo.agent.state is duo.edge.state is ConnectionState.DRAINING
    duo.edge.reset_stream(stream_id, ErrorCode.CANCEL)
    duo.pump()
    assert duo.agent.state is duo.edge.state is ConnectionState.CLOSED


def test_giving_back_the_last_stream_may_end_a_drain(duo):
    duo.edge.open_stream(TCP, now=duo.now)
    duo.edge.go_away(drain=5, now=duo.now)
    events = duo.give(duo.edge, GoAway(last_id=0, code=0, drain_ms=5_000))
    assert isinstance(events[-1], ConnectionTerminated)
    assert duo.edge.next_timeout() is None


def test_reports_need_the_capability(duo, make_duo):
    refused(duo.give(duo.edge, Report()), ErrorCode.PROTOCOL_ERROR, "without the capability")
    able = make_duo(capabilities=Capability.REPORT).establish()
    report = Report(origin_rtt_us=5)
    assert able.give(able.edge, report) == [ReportReceived(report)]


def test_extensions_are_ignored(duo):
    frame = serialize(Extension(0x55, 9, b"later", flag=True))
    assert duo.give(duo.agent, frame[:9], frame[9:], frame) == []
    assert duo.agent.established


# -- calm ------------------------------------------------------------------------------------------------------------


def spend(duo, end, frames):
    """Return how many of the frames an end takes before it ends the connection for them."""
    for count, frame in enumerate(frames):
        events = duo.give(end, frame)
        if end.established:
            duo.sent(end)
        if events and isinstance(events[-1], ConnectionTerminated):
            assert events[-1].code is ErrorCode.ENHANCE_YOUR_CALM
            return count
    return None


def test_an_agent_that_floods_pings_is_told_to_calm_down(make_duo):
    duo = make_duo(tuning=Tuning(calm_burst=10, calm_refill=1)).establish()
    tokens = 10 - 1  # the greeting's
    assert spend(duo, duo.edge, [Ping(bytes(8))] * 20) == tokens


def test_an_edge_may_flood_an_agent(make_duo):
    duo = make_duo(tuning=Tuning(calm_burst=10, calm_refill=1)).establish()
    assert spend(duo, duo.agent, [Ping(bytes(8))] * 100) is None


def test_time_calms(make_duo):
    duo = make_duo(tuning=Tuning(calm_burst=10, calm_refill=1)).establish()
    for _ in range(100):
        duo.now += 1.0
        assert spend(duo, duo.edge, [Ping(bytes(8))]) is None


@pytest.mark.parametrize(
    ("frame", "cost"), [(Extension(0x40, 0, b""), 1), (Window, 2), (Report(), 1), (Reset, 1), (Open, 2)]
)
def test_each_useless_frame_has_its_price(make_duo, frame, cost):
    tuning = Tuning(calm_burst=100, calm_refill=0)
    duo = make_duo(tuning=tuning, capabilities=Capability.REPORT | Capability.AGENT_OPEN).establish()
    tokens = 99
    if frame is Window:
        stream_id = duo.open()
        frames = [Window(stream_id, 65_536 + count) for count in range(1, 200)]
    elif frame is Reset:
        stream_id = duo.open()
        duo.edge.reset_stream(stream_id, ErrorCode.CANCEL)
        duo.edge._late_allowance = 0
        frames = [Reset(stream_id, 0)] * 200
    elif frame is Open:
        frames = [Open(number, OpenMetadata(service="other/shop")) for number in range(1, 400, 2)]
    else:
        tokens += isinstance(frame, Report)  # one a second is free
        frames = [frame] * 200
    assert spend(duo, duo.edge, frames) == tokens // cost


def test_resetting_ones_own_opens_costs_and_answering_ours_does_not(make_duo):
    tuning = Tuning(calm_burst=20, calm_refill=0)
    duo = make_duo(tuning=tuning, capabilities=Capability.AGENT_OPEN).establish()
    for _ in range(100):
        stream_id = duo.open(accept=False)
        duo.agent.reset_stream(stream_id, ErrorCode.DIAL_FAILED)
        duo.pump()
    assert duo.edge.established
    frames = [frame for number in range(1, 100, 2) for frame in (Open(number, TCP), Reset(number, 5))]
    assert spend(duo, duo.edge, frames) == 2 * (19 // 2) + 1


def test_bytes_on_their_way_to_a_stream_that_we_reset_are_free(make_duo):
    duo = make_duo(tuning=Tuning(calm_burst=5, calm_refill=0)).establish()
    for _ in range(50):
        stream_id = duo.open()
        duo.agent.send_data(stream_id, bytes(65_536))
        duo.edge.reset_stream(stream_id, ErrorCode.CANCEL)
        duo.pump()
    assert duo.edge.established
    assert duo.edge.stats.late_frames == 50 * 4


def test_useful_bytes_pay_for_pings(make_duo):
    duo = make_duo(tuning=Tuning(calm_burst=5, calm_refill=0)).establish()
    stream_id = duo.open()
    for _ in range(50):
        duo.give(duo.edge, Data(stream_id, bytes(16_384)), Ping(bytes(8)))
        duo.edge.acknowledge(stream_id, 16_384, now=duo.now)
        duo.sent(duo.edge)
    assert duo.edge.established


def test_a_peer_that_provokes_answers_and_reads_none_is_closed(make_duo):
    duo = make_duo(tuning=Tuning(control_queue=160)).establish()
    for _ in range(10):
        assert duo.give(duo.agent, Ping(bytes(8))) == []
    events = duo.give(duo.agent, Ping(bytes(8)))
    refused(events, ErrorCode.ENHANCE_YOUR_CALM, "wait unread")


def test_answers_that_are_read_count_no_more(make_duo):
    duo = make_duo(tuning=Tuning(control_queue=160)).establish()
    stream_id = duo.open()
    for _ in range(30):
        duo.give(duo.agent, Ping(bytes(8)))
        duo.agent.send_data(stream_id, b"x")
        duo.sent(duo.agent)
    assert duo.agent.established
