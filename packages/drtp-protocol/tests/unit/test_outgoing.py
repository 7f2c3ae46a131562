"""What a connection sends."""

import pytest

from drtp_protocol import (
    Address,
    Budget,
    Capability,
    ConnectionState,
    ConnectionTerminated,
    Data,
    DataReceived,
    DialDetail,
    ErrorCode,
    InvalidMetadata,
    Limits,
    LocalProtocolError,
    NoSuchStream,
    Open,
    OpenMetadata,
    Reset,
    SendBufferFull,
    StreamAccepted,
    StreamClosed,
    StreamLimitReached,
    StreamOpened,
    StreamReset,
    StreamState,
    StreamWritable,
    Tuning,
    WrongState,
)
from drtp_protocol.frames import HEADER, parse
from drtp_protocol.limits import LAST_STREAM_ID

SMALL = Limits(base_window=64, max_frame=32, max_streams=4, max_pending_opens=2, max_datagram=32)
LOOSE = Tuning(frame_floor=1, window_floor=1, send_buffer=96, max_window=256, growth_pool=1_000)


@pytest.fixture
def small(make_duo):
    return make_duo(limits=SMALL, tuning=LOOSE).establish()


def received(events):
    """Return the bytes that DataReceived brought, and whether FIN came."""
    data = [event for event in events if isinstance(event, DataReceived)]
    return b"".join(event.data for event in data), any(event.fin for event in data)


# -- opening ---------------------------------------------------------------------------------------------------------


def test_an_opened_stream_is_offered_accepted_and_numbered_evenly(duo, tcp):
    first = duo.edge.open_stream(tcp, now=duo.now)
    second = duo.edge.open_stream(tcp, now=duo.now)
    assert (first, second) == (2, 4)
    duo.pump()
    assert duo.take(duo.agent) == [StreamOpened(2, tcp), StreamOpened(4, tcp)]
    duo.agent.accept_stream(4)
    duo.pump()
    assert duo.take(duo.edge) == [StreamAccepted(4)]


def test_an_agent_opens_with_odd_ids_and_only_by_capability(make_duo, duo, tcp):
    with pytest.raises(WrongState, match="AGENT_OPEN"):
        duo.agent.open_stream(tcp, now=duo.now)
    able = make_duo(capabilities=Capability.AGENT_OPEN).establish()
    assert able.agent.open_stream(tcp, now=able.now) == 1
    assert able.agent.open_stream(tcp, now=able.now) == 3
    able.pump()
    assert able.take(able.edge) == [StreamOpened(1, tcp), StreamOpened(3, tcp)]


def test_nothing_opens_before_welcome_or_after_goaway(make_duo, duo, tcp):
    with pytest.raises(WrongState, match="preface"):
        make_duo().edge.open_stream(tcp, now=duo.now)
    duo.open()
    duo.agent.go_away(drain=5, now=duo.now)
    duo.pump()
    with pytest.raises(WrongState, match="draining"):
        duo.edge.open_stream(tcp, now=duo.now)


def test_pending_opens_and_streams_are_bounded(small, tcp):
    ids = [small.edge.open_stream(tcp, now=small.now) for _ in range(2)]
    with pytest.raises(StreamLimitReached, match="2 streams wait for ACCEPT") as caught:
        small.edge.open_stream(tcp, now=small.now)
    assert caught.value.code is ErrorCode.REFUSED
    small.pump()
    for stream_id in ids:
        small.agent.accept_stream(stream_id)
    small.pump()
    small.open()
    small.open()
    with pytest.raises(StreamLimitReached, match="4 streams are open"):
        small.edge.open_stream(tcp, now=small.now)
    small.edge.reset_stream(2, ErrorCode.CANCEL)
    assert small.edge.open_stream(tcp, now=small.now) == 10


def test_a_service_that_is_not_bound_is_not_opened(duo):
    with pytest.raises(InvalidMetadata, match="not among"):
        duo.edge.open_stream(OpenMetadata(service="other/shop"), now=duo.now)
    assert duo.edge.stream_ids == ()
    assert not duo.edge.wants_write


def test_opening_stops_when_the_carrier_takes_nothing(make_duo, tcp):
    duo = make_duo(edge_tuning=Tuning(control_queue=100)).establish()
    opened = 0
    while len(duo.edge._control) + len(tcp.encode()) <= 100:
        duo.edge.open_stream(tcp, now=duo.now)
        opened += 1
    assert opened > 1
    with pytest.raises(SendBufferFull, match="control frames wait") as caught:
        duo.edge.open_stream(tcp, now=duo.now)
    assert caught.value.code is ErrorCode.OVER_CAPACITY
    duo.pump()
    duo.edge.open_stream(tcp, now=duo.now)


def test_the_budget_of_the_process_bounds_streams(make_duo, tcp):
    budget = Budget(2 * 65_536)
    duo = make_duo(budget=budget).establish()
    first = duo.open()
    duo.open()
    with pytest.raises(StreamLimitReached) as caught:
        duo.edge.open_stream(tcp, now=duo.now)
    assert caught.value.code is ErrorCode.OVER_CAPACITY
    duo.edge.reset_stream(first, ErrorCode.CANCEL)
    assert budget.used == 65_536
    duo.open()
    duo.edge.go_away(drain=0, now=duo.now)
    assert budget.used == 0


def test_ids_that_run_out_start_a_drain(duo, tcp):
    duo.edge._last_local_id = LAST_STREAM_ID - 4
    last = duo.edge.open_stream(tcp, now=duo.now)
    assert duo.edge.state is ConnectionState.OPEN
    last = duo.edge.open_stream(tcp, now=duo.now)
    assert last == LAST_STREAM_ID
    assert duo.edge.state is ConnectionState.DRAINING
    duo.pump()
    assert last in duo.agent.stream_ids
    assert duo.agent.state is ConnectionState.DRAINING


def test_metadata_travels_whole(duo):
    metadata = OpenMetadata(service="default/shop", source=Address.from_host("192.0.2.7", 1234), sni="shop.example")
    duo.edge.open_stream(metadata, now=duo.now)
    duo.pump()
    assert duo.take(duo.agent) == [StreamOpened(2, metadata)]


# -- accepting and resetting -----------------------------------------------------------------------------------------


def test_accepting_twice_or_ones_own_is_misuse(duo, tcp):
    stream_id = duo.open()
    with pytest.raises(WrongState, match="cannot accept"):
        duo.agent.accept_stream(stream_id)
    with pytest.raises(WrongState, match="cannot accept"):
        duo.edge.accept_stream(duo.edge.open_stream(tcp, now=duo.now))
    with pytest.raises(NoSuchStream, match="idle"):
        duo.agent.accept_stream(99)


def test_a_reset_says_why(duo):
    stream_id = duo.open(accept=False)
    duo.agent.reset_stream(stream_id, ErrorCode.DIAL_FAILED, DialDetail.TIMEOUT, "10.0.0.1:80 timed out")
    duo.pump()
    assert duo.take(duo.edge) == [
        StreamReset(stream_id, ErrorCode.DIAL_FAILED, DialDetail.TIMEOUT, "10.0.0.1:80 timed out", remote=True)
    ]
    assert duo.edge.stream_ids == duo.agent.stream_ids == ()


def test_a_long_reason_is_cut_at_a_character(duo):
    stream_id = duo.open()
    duo.agent.reset_stream(stream_id, ErrorCode.INTERNAL, reason="é" * 100)
    duo.pump()
    assert duo.take(duo.edge)[0].reason == "é" * 60


def test_resetting_an_idle_stream_is_misuse_and_a_closed_one_is_not(duo):
    stream_id = duo.open()
    with pytest.raises(NoSuchStream):
        duo.edge.reset_stream(stream_id + 2, ErrorCode.CANCEL)
    duo.edge.reset_stream(stream_id, ErrorCode.CANCEL)
    duo.edge.reset_stream(stream_id, ErrorCode.CANCEL)
    assert [type(frame) for frame in duo.sent(duo.edge)] == [Reset]


def test_a_detail_out_of_range_changes_nothing(duo):
    stream_id = duo.open()
    with pytest.raises(InvalidMetadata):
        duo.edge.reset_stream(stream_id, ErrorCode.CANCEL, 65_536)
    assert duo.edge.stream_ids == (stream_id,)


# -- push ------------------------------------------------------------------------------------------------------------


def test_pushed_bytes_arrive_in_order_and_end_with_fin(small):
    stream_id = small.open()
    sent = bytes(range(90))
    small.edge.send_data(stream_id, sent[:50])
    small.edge.send_data(stream_id, sent[50:], fin=True)
    small.pump()
    got, fin = received(small.take(small.agent))
    assert (got, fin) == (sent[:64], False)
    small.agent.acknowledge(stream_id, 64, now=small.now)
    small.pump()
    assert received(small.take(small.agent)) == (sent[64:], True)


def test_frames_respect_the_limit_in_force(small):
    stream_id = small.open()
    small.edge.send_data(stream_id, bytes(64))
    assert [len(frame.data) for frame in small.sent(small.edge)] == [32, 32]


def test_a_fin_alone_is_an_empty_frame(duo):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, b"", fin=True)
    assert duo.sent(duo.edge) == [Data(stream_id, b"", fin=True)]


def test_a_fin_needs_no_credit(small):
    stream_id = small.open()
    small.edge.send_data(stream_id, bytes(64))
    small.pump()
    small.edge.send_data(stream_id, b"", fin=True)
    small.pump()
    assert received(small.take(small.agent)) == (bytes(64), True)


def test_both_fins_close_a_stream(duo):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, b"x", fin=True)
    duo.pump()
    assert duo.take(duo.agent) == [DataReceived(stream_id, b"x", fin=True)]
    assert duo.agent.stream_info(stream_id).state is StreamState.HALF_CLOSED_REMOTE
    duo.agent.send_data(stream_id, b"y", fin=True)
    duo.pump()
    assert duo.take(duo.agent) == [StreamClosed(stream_id)]
    assert duo.take(duo.edge) == [DataReceived(stream_id, b"y", fin=True), StreamClosed(stream_id)]
    assert duo.agent.stream_ids == duo.edge.stream_ids == ()


def test_an_opener_may_finish_before_accept(duo, tcp):
    stream_id = duo.edge.open_stream(tcp, now=duo.now)
    duo.edge.send_data(stream_id, b"early", fin=True)
    duo.pump()
    assert received(duo.take(duo.agent)) == (b"early", True)
    duo.agent.accept_stream(stream_id)
    duo.agent.send_data(stream_id, b"late", fin=True)
    duo.pump()
    events = duo.take(duo.edge)
    assert events[0] == StreamAccepted(stream_id)
    assert events[-1] == StreamClosed(stream_id)


def test_send_capacity_counts_down_and_streamwritable_follows_zero(small):
    stream_id = small.open()
    assert small.edge.send_capacity(stream_id) == 96
    small.edge.send_data(stream_id, bytes(96))
    assert small.edge.send_capacity(stream_id) == 0
    with pytest.raises(SendBufferFull, match="1 bytes, 0 fit"):
        small.edge.send_data(stream_id, b"x")
    small.pump()
    assert small.take(small.edge) == [StreamWritable(stream_id)]
    assert small.edge.send_capacity(stream_id) == 64


def test_streamwritable_is_not_owed_to_who_never_met_zero(small):
    stream_id = small.open()
    small.edge.send_data(stream_id, bytes(60))
    small.pump()
    assert small.take(small.edge) == []


def test_streamwritable_is_not_owed_after_fin(small):
    stream_id = small.open()
    small.edge.send_data(stream_id, bytes(50))
    small.edge.send_data(stream_id, bytes(46), fin=True)
    small.pump()
    assert small.take(small.edge) == []


def test_capacity_is_zero_where_nothing_can_be_sent(duo, udp):
    stream_id = duo.open()
    assert duo.edge.send_capacity(99) == 0
    duo.edge.send_data(stream_id, b"", fin=True)
    assert duo.edge.send_capacity(stream_id) == 0
    assert duo.edge.send_capacity(duo.open(udp)) == 0


def test_sending_where_nothing_can_be_sent_is_misuse(duo, tcp, udp):
    stream_id = duo.open()
    with pytest.raises(LocalProtocolError, match="no bytes and no FIN"):
        duo.edge.send_data(stream_id, b"")
    duo.edge.send_data(stream_id, b"", fin=True)
    with pytest.raises(WrongState):
        duo.edge.send_data(stream_id, b"x")
    with pytest.raises(WrongState):
        duo.edge.send_data(duo.open(udp), b"x")
    with pytest.raises(NoSuchStream, match="idle"):
        duo.edge.send_data(99, b"x")
    offered = duo.open(tcp, accept=False)
    with pytest.raises(WrongState, match="offered"):
        duo.agent.send_data(offered, b"x")


def test_pushed_bytes_are_the_connections_own(duo):
    stream_id = duo.open()
    data = bytearray(b"abc")
    duo.edge.send_data(stream_id, data)
    data[:] = b"xyz"
    duo.pump()
    assert received(duo.take(duo.agent))[0] == b"abc"


def test_a_stalled_reader_does_not_stop_its_neighbours(small):
    stalled, lively = small.open(), small.open()
    small.edge.send_data(stalled, bytes(96))
    total = 0
    for _ in range(50):
        small.edge.send_data(lively, bytes(48))
        small.pump()
        for event in small.take(small.agent):
            if event.stream_id == lively:
                total += len(event.data)
                small.agent.acknowledge(lively, len(event.data), now=small.now)
        small.pump()
    assert total == 50 * 48


def test_greedy_streams_share_in_turn(duo):
    ids = [duo.open() for _ in range(3)]
    for stream_id in ids:
        duo.edge.send_data(stream_id, bytes(65_536))
    frames = duo.sent(duo.edge)
    assert [frame.stream_id for frame in frames[:3]] == ids
    while more := duo.sent(duo.edge):
        frames += more
    by_stream = dict.fromkeys(ids, 0)
    for frame in frames:
        by_stream[frame.stream_id] += len(frame.data)
        assert max(by_stream.values()) - min(by_stream.values()) <= 2 * 16_384
    assert set(by_stream.values()) == {65_536}


def test_a_turn_that_the_end_of_a_call_cuts_goes_on_in_the_next(duo):
    first, second = duo.open(), duo.open()
    for stream_id in (first, second):
        duo.edge.send_data(stream_id, bytes(100_000))
    sizes = []
    for _ in range(4):
        data = duo.edge.data_to_send(16_384 + 8 + 8 + 84, now=duo.now)
        while data:
            size = HEADER.unpack_from(data)[0] & 0xFFFFFF
            sizes.append((HEADER.unpack_from(data)[1], size))
            data = data[8 + size :]
    assert sizes[:4] == [(first, 16_384), (second, 84), (second, 16_300), (first, 168)]
    assert sizes[4:6] == [(first, 16_216), (second, 252)]


def test_a_stream_that_is_reset_in_its_turn_does_not_stop_the_ring(duo):
    first, second = duo.open(), duo.open()
    for stream_id in (first, second):
        duo.edge.send_data(stream_id, bytes(1_000))
    assert len(duo.edge.data_to_send(100, now=duo.now)) == 100
    duo.edge.reset_stream(first, ErrorCode.CANCEL)
    assert [type(frame) for frame in duo.sent(duo.edge)] == [Reset, Data]
    assert not duo.edge.wants_write


def test_control_frames_go_before_data_and_are_never_cut(duo, tcp):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, bytes(1_000))
    for _ in range(3):
        duo.edge.open_stream(tcp, now=duo.now)
    data = duo.edge.data_to_send(10, now=duo.now)
    assert len(data) > 10
    rest = data
    while rest:
        size = 8 + (HEADER.unpack_from(rest)[0] & 0xFFFFFF)
        assert isinstance(parse(rest[:size]), Open)
        rest = rest[size:]
    assert duo.edge.wants_write


@pytest.mark.parametrize("max_bytes", [0, 1, 8, 9, 10, 100, 16_392, 65_536])
def test_data_keeps_to_max_bytes_and_always_makes_progress(duo, max_bytes):
    stream_id = duo.open()
    sent = bytes(range(250)) * 4
    duo.edge.send_data(stream_id, sent, fin=True)
    while duo.edge.wants_write:
        data = duo.edge.data_to_send(max_bytes, now=duo.now)
        assert 0 < len(data) <= max(max_bytes, 9)
        duo.agent.receive_data(data, now=duo.now)
        duo.drain(duo.agent)
    assert received(duo.take(duo.agent)) == (sent, True)


def test_data_that_does_not_fit_behind_control_frames_goes_with_the_next_call(duo, tcp):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, b"abc")
    duo.edge.open_stream(tcp, now=duo.now)
    size = len(duo.edge._control)
    assert len(duo.edge.data_to_send(size + 8, now=duo.now)) == size
    assert len(duo.edge.data_to_send(size + 8, now=duo.now)) == 11


def test_the_last_fin_of_a_drain_leaves_with_the_goodbye(duo):
    stream_id = duo.open()
    duo.agent.send_data(stream_id, b"", fin=True)
    duo.pump()
    duo.edge.go_away(drain=60, now=duo.now)
    duo.pump()
    duo.edge.send_data(stream_id, b"bye", fin=True)
    duo.pump()
    assert received(duo.seen[duo.agent]) == (b"bye", True)
    assert duo.edge.state is duo.agent.state is ConnectionState.CLOSED
    assert isinstance(duo.take(duo.agent)[-1], ConnectionTerminated)
    assert [type(event) for event in duo.take(duo.edge)[-2:]] == [StreamClosed, ConnectionTerminated]


# -- after the end ---------------------------------------------------------------------------------------------------


def test_after_the_end_nothing_can_be_sent_and_late_calls_pass(duo, tcp):
    stream_id = duo.open()
    duo.edge.want_send(stream_id)
    duo.edge.go_away(drain=0, now=duo.now)
    assert duo.edge.next_send(duo.now) is None or duo.edge.wants_write
    duo.edge.data_to_send(now=duo.now)
    assert duo.edge.next_send(duo.now) is None
    duo.edge.acknowledge(stream_id, 1, now=duo.now)
    duo.edge.reset_stream(stream_id, ErrorCode.CANCEL)
    duo.edge.want_send(stream_id, False)
    with pytest.raises(WrongState):
        duo.edge.open_stream(tcp, now=duo.now)
    with pytest.raises(NoSuchStream, match="closed"):
        duo.edge.send_data(stream_id, b"x")
    assert not duo.edge.wants_write
