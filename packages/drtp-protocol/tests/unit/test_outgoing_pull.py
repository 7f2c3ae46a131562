"""What a connection sends: pulled frames, credit, datagrams."""

import pytest

from drtp_protocol import (
    Accept,
    Budget,
    Data,
    Datagram,
    DatagramReceived,
    DataReceived,
    ErrorCode,
    Limits,
    LocalProtocolError,
    NoSuchStream,
    StreamClosed,
    StreamReset,
    Tuning,
    Window,
    WrongState,
)
from drtp_protocol.frames import parse

SMALL = Limits(base_window=64, max_frame=32, max_streams=4, max_pending_opens=2, max_datagram=32)
LOOSE = Tuning(frame_floor=1, window_floor=1, send_buffer=96, max_window=256, growth_pool=1_000)


@pytest.fixture
def small(make_duo):
    return make_duo(limits=SMALL, tuning=LOOSE).establish()


# -- pull ------------------------------------------------------------------------------------------------------------


def pull(duo, end, *, fill=b"", fin=False, now=None):
    """Make one frame as a shell does; return (stream id, its frame) or None."""
    turn = end.next_send(duo.now if now is None else now)
    if turn is None:
        return None
    stream_id, allowance = turn
    size = min(allowance, len(fill)) if fill else allowance
    buffer = bytearray(8 + size)
    buffer[8:] = fill[:size] if fill else bytes(size)
    end.commit(stream_id, size, buffer, fin=fin)
    return stream_id, bytes(buffer)


def test_pulled_frames_arrive(duo):
    stream_id = duo.open()
    assert duo.edge.next_send(duo.now) is None
    duo.edge.want_send(stream_id)
    assert duo.edge.next_send(duo.now) == (stream_id, 16_384)
    assert duo.edge.next_send(duo.now) == (stream_id, 16_384)
    _, frame = pull(duo, duo.edge, fill=b"hello", fin=True)
    assert duo.give(duo.agent, frame) == [DataReceived(stream_id, b"hello", fin=True)]
    assert duo.edge.next_send(duo.now) is None
    assert duo.edge.stats.data_sent == 5


def test_a_dry_socket_leaves_the_ring_and_comes_back(duo):
    first, second = duo.open(), duo.open()
    duo.edge.want_send(first)
    duo.edge.want_send(second)
    duo.edge.want_send(first, False)
    assert duo.edge.next_send(duo.now)[0] == second
    duo.edge.want_send(first)
    duo.edge.want_send(first)
    assert [pull(duo, duo.edge)[0] for _ in range(4)] == [second, first, second, first]


def test_a_stream_that_wants_again_before_it_left_the_ring_is_in_it_once(duo):
    stream_id = duo.open()
    duo.edge.want_send(stream_id)
    duo.edge.want_send(stream_id, False)
    duo.edge.want_send(stream_id)
    assert len(duo.edge._pull) == 1


def test_pulled_streams_take_turns(duo):
    ids = [duo.open() for _ in range(3)]
    for stream_id in ids:
        duo.edge.want_send(stream_id)
    assert [pull(duo, duo.edge, fill=b"x")[0] for _ in range(6)] == ids * 2


def test_a_stream_without_credit_waits_for_window_and_the_others_do_not(small):
    stuck, lively = small.open(), small.open()
    small.edge.want_send(stuck)
    while (made := pull(small, small.edge)) is not None:
        small.give(small.agent, made[1])
    small.edge.want_send(lively)
    assert pull(small, small.edge, fill=b"x")[0] == lively
    small.edge.want_send(lively, False)
    assert small.edge.next_send(small.now) is None
    small.agent.acknowledge(stuck, 40, now=small.now)
    small.pump()
    assert small.edge.next_send(small.now) == (stuck, 32)


def test_the_allowance_is_bounded_by_credit(small):
    stream_id = small.open()
    small.edge.want_send(stream_id)
    pull(small, small.edge, fill=bytes(32))
    pull(small, small.edge, fill=bytes(22))
    assert small.edge.next_send(small.now) == (stream_id, 10)


def test_accept_goes_before_the_first_pulled_bytes(duo):
    stream_id = duo.open(accept=False)
    duo.agent.accept_stream(stream_id)
    duo.agent.want_send(stream_id)
    assert duo.agent.wants_write
    assert duo.agent.next_send(duo.now) is None
    assert duo.sent(duo.agent) == [Accept(stream_id)]
    assert duo.agent.next_send(duo.now) == (stream_id, 16_384)


def test_pushed_bytes_go_before_pulled_ones(duo):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, b"pushed")
    duo.edge.want_send(stream_id)
    assert duo.edge.next_send(duo.now) is None
    with pytest.raises(WrongState, match="6 queued"):
        duo.edge.commit(stream_id, 1, bytearray(9))
    assert duo.sent(duo.edge) == [Data(stream_id, b"pushed")]
    assert duo.edge.next_send(duo.now) == (stream_id, 16_384)


def test_pushing_in_between_pulls_keeps_the_order(duo):
    stream_id = duo.open()
    duo.edge.want_send(stream_id)
    duo.edge.send_data(stream_id, b"pushed")
    assert duo.edge.next_send(duo.now) is None
    duo.sent(duo.edge)
    assert duo.edge.next_send(duo.now) == (stream_id, 16_384)


def test_a_pull_and_a_push_stream_share_the_credit_of_each(small):
    stream_id = small.open()
    small.edge.send_data(stream_id, bytes(64))
    small.sent(small.edge)
    small.edge.send_data(stream_id, bytes(10))
    small.edge.want_send(stream_id)
    assert small.sent(small.edge) == []
    assert small.edge.next_send(small.now) is None
    small.give(small.edge, Window(stream_id, 100))
    assert [len(frame.data) for frame in small.sent(small.edge)] == [10]
    assert small.edge.next_send(small.now) == (stream_id, 26)


@pytest.mark.parametrize(("size", "fin"), [(0, False), (-1, False), (65, False), (33, False), (-1, True)])
def test_a_commit_beyond_the_bounds_changes_nothing(small, size, fin):
    stream_id = small.open()
    small.edge.want_send(stream_id)
    buffer = bytearray(100)
    with pytest.raises(LocalProtocolError, match=r"expected 1\.\.32"):
        small.edge.commit(stream_id, size, buffer, fin=fin)
    assert buffer == bytes(100)
    assert small.edge.stream_info(stream_id).sent == 0


def test_a_commit_where_nothing_can_be_sent_is_misuse(duo, udp):
    stream_id, flow = duo.open(), duo.open(udp)
    duo.edge.send_data(stream_id, b"", fin=True)
    for bad in (stream_id, flow):
        with pytest.raises(WrongState):
            duo.edge.commit(bad, 1, bytearray(9))
    with pytest.raises(NoSuchStream):
        duo.edge.commit(99, 1, bytearray(9))


def test_wanting_to_send_where_nothing_can_be_sent_is_misuse(duo, udp):
    stream_id, flow = duo.open(), duo.open(udp)
    duo.edge.send_data(stream_id, b"", fin=True)
    for bad in (stream_id, flow):
        with pytest.raises(WrongState):
            duo.edge.want_send(bad)
        duo.edge.want_send(bad, False)
    with pytest.raises(NoSuchStream):
        duo.edge.want_send(99)
    duo.edge.reset_stream(stream_id, ErrorCode.CANCEL)
    duo.edge.want_send(stream_id)


def test_a_fin_by_commit_closes_the_second_half(duo):
    stream_id = duo.open()
    duo.agent.send_data(stream_id, b"", fin=True)
    duo.pump()
    duo.take(duo.edge)
    duo.edge.want_send(stream_id)
    buffer = bytearray(8)
    duo.edge.commit(stream_id, 0, buffer, fin=True)
    assert duo.take(duo.edge) == [StreamClosed(stream_id)]
    assert parse(bytes(buffer)) == Data(stream_id, b"", fin=True)
    assert duo.edge.next_send(duo.now) is None


def test_a_commit_out_of_turn_is_allowed(duo):
    first, second = duo.open(), duo.open()
    duo.edge.want_send(first)
    duo.edge.want_send(second)
    duo.edge.commit(second, 5, bytearray(13))
    assert duo.edge.next_send(duo.now)[0] == first


def test_a_reset_stream_leaves_the_ring(duo):
    first, second = duo.open(), duo.open()
    duo.edge.want_send(first)
    duo.edge.want_send(second)
    duo.edge.reset_stream(first, ErrorCode.CANCEL)
    duo.sent(duo.edge)
    assert duo.edge.next_send(duo.now)[0] == second


def test_a_dry_socket_does_not_hide_that_pushed_bytes_are_stalled(small):
    stream_id = small.open()
    small.edge.want_send(stream_id)
    small.edge.send_data(stream_id, bytes(70))
    small.sent(small.edge)
    assert small.sent(small.edge) == []
    small.edge.want_send(stream_id, False)
    assert small.edge._streams[stream_id].stalled_since == small.now


def test_frames_grow_on_a_fast_path_and_shrink_on_a_slow_one(duo):
    stream_id = duo.open()
    duo.edge._streams[stream_id].send_limit = 2**40
    duo.edge.want_send(stream_id)
    now = duo.now
    for _ in range(3_000):
        now += 10e-6
        pull(duo, duo.edge, now=now)
    assert duo.edge.next_send(now)[1] == 65_536
    for _ in range(200):
        now += 0.01
        pull(duo, duo.edge, now=now)
    assert duo.edge.next_send(now)[1] == 16_384


def test_bulk_frames_yield_to_interactive_streams(make_duo):
    duo = make_duo(limits=Limits(max_frame=262_144)).establish()
    bulk, quick = duo.open(), duo.open()
    duo.edge._streams[bulk].send_limit = 2**40
    duo.edge._rate.frame = 262_144
    duo.edge.want_send(bulk)
    pull(duo, duo.edge)
    duo.edge._pull.interactive_at = duo.now - 1.0  # the first turn of every stream is an interactive one
    assert duo.edge.next_send(duo.now) == (bulk, 262_144)
    duo.edge.want_send(quick)
    assert pull(duo, duo.edge, fill=b"k")[0] == quick
    duo.edge.want_send(quick, False)
    assert duo.edge.next_send(duo.now) == (bulk, 65_536)


# -- credit ----------------------------------------------------------------------------------------------------------


def test_credit_returns_when_half_was_consumed_and_not_before(small):
    stream_id = small.open()
    small.edge.send_data(stream_id, bytes(64))
    small.pump()
    small.now += 60.0
    small.agent.acknowledge(stream_id, 31, now=small.now)
    assert small.sent(small.agent) == []
    small.agent.acknowledge(stream_id, 1, now=small.now)
    assert small.sent(small.agent) == [Window(stream_id, 96)]


def test_a_window_doubles_when_half_of_it_took_less_than_two_round_trips(small):
    stream_id = small.open()
    limits = []
    for _ in range(8):
        small.edge.send_data(stream_id, bytes(small.edge.send_capacity(stream_id)))
        small.pump()
        got = sum(len(event.data) for event in small.take(small.agent) if isinstance(event, DataReceived))
        small.agent.acknowledge(stream_id, got, now=small.now)
        small.pump()
        limits.append(small.agent.stream_info(stream_id).window)
    assert limits[:3] == [128, 256, 256]


def test_a_slow_stream_does_not_grow(small):
    stream_id = small.open()
    for _ in range(5):
        small.now += 1.0
        small.edge.send_data(stream_id, bytes(40))
        small.pump()
        small.agent.acknowledge(stream_id, 40, now=small.now)
        small.pump()
    assert small.agent.stream_info(stream_id).window == 64


def test_growth_comes_out_of_a_pool_and_of_the_budget(make_duo):
    for options in ({"tuning": Tuning(growth_pool=65_535)}, {"agent_budget": Budget(2 * 65_536 - 1)}):
        duo = make_duo(**options).establish()
        stream_id = duo.open()
        duo.edge.send_data(stream_id, bytes(65_536))
        duo.pump()
        duo.agent.acknowledge(stream_id, 65_536, now=duo.now)
        assert duo.agent.stream_info(stream_id).window == 65_536


def test_what_a_stream_grew_by_returns_when_it_closes(make_duo):
    budget = Budget(10**6)
    duo = make_duo(agent_budget=budget).establish()
    stream_id = duo.open()
    duo.edge.send_data(stream_id, bytes(65_536))
    duo.pump()
    duo.agent.acknowledge(stream_id, 65_536, now=duo.now)
    assert budget.used == 2 * 65_536 == duo.agent.stats.window_promised
    duo.agent.reset_stream(stream_id, ErrorCode.CANCEL)
    assert budget.used == 0 == duo.agent.stats.window_promised


def test_a_window_does_not_grow_before_the_round_trip_is_known(duo):
    stream_id = duo.open()
    duo.agent._rtt = None
    duo.edge.send_data(stream_id, bytes(40_000))
    duo.pump()
    duo.agent.acknowledge(stream_id, 40_000, now=duo.now)
    assert duo.agent.stream_info(stream_id).window == 65_536


def test_credit_for_early_bytes_waits_for_accept(small, tcp):
    stream_id = small.edge.open_stream(tcp, now=small.now)
    small.edge.send_data(stream_id, bytes(64))
    small.pump()
    small.agent.acknowledge(stream_id, 64, now=small.now)
    assert small.sent(small.agent) == []
    small.agent.accept_stream(stream_id)
    accept, window = small.sent(small.agent)
    assert accept == Accept(stream_id)
    assert window.limit >= 128


def test_no_credit_follows_the_peers_fin(duo):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, bytes(60_000), fin=True)
    duo.pump()
    duo.agent.acknowledge(stream_id, 60_000, now=duo.now)
    assert duo.sent(duo.agent) == []


def test_acknowledging_what_was_not_received_is_misuse(duo):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, b"abc")
    duo.pump()
    for size in (4, -1):
        with pytest.raises(LocalProtocolError, match="of 3 received"):
            duo.agent.acknowledge(stream_id, size, now=duo.now)
    with pytest.raises(NoSuchStream):
        duo.agent.acknowledge(98, 1, now=duo.now)
    duo.agent.reset_stream(stream_id, ErrorCode.CANCEL)
    duo.agent.acknowledge(stream_id, 3, now=duo.now)


# -- datagrams -------------------------------------------------------------------------------------------------------


def test_datagrams_go_both_ways_and_keep_their_borders(duo, udp):
    flow = duo.open(udp)
    for data in (b"", b"one", b"two"):
        assert duo.edge.send_datagram(flow, data, now=duo.now)
    assert duo.agent.send_datagram(flow, b"back", now=duo.now)
    duo.pump()
    assert [event.data for event in duo.take(duo.agent)] == [b"", b"one", b"two"]
    assert duo.take(duo.edge) == [DatagramReceived(flow, b"back")]
    assert (duo.edge.stats.datagrams_sent, duo.agent.stats.datagrams_received) == (3, 3)


def test_a_flow_ends_with_reset(duo, udp):
    flow = duo.open(udp)
    duo.edge.send_datagram(flow, b"x", now=duo.now)
    duo.edge.reset_stream(flow, ErrorCode.NO_ERROR)
    assert duo.edge._datagram_bytes == 0
    duo.pump()
    assert [type(event) for event in duo.take(duo.agent)] == [StreamReset]
    with pytest.raises(NoSuchStream):
        duo.edge.send_datagram(flow, b"x", now=duo.now)


def test_an_oversized_datagram_is_dropped_and_counted(small, udp):
    flow = small.open(udp)
    assert not small.edge.send_datagram(flow, bytes(33), now=small.now)
    assert small.edge.send_datagram(flow, bytes(32), now=small.now)
    assert small.edge.stats.datagrams_dropped == 1


def test_a_full_flow_drops_its_oldest(make_duo, udp):
    duo = make_duo(tuning=Tuning(datagram_queue=100)).establish()
    flow = duo.open(udp)
    for number in range(10):
        assert duo.edge.send_datagram(flow, bytes((number,)), now=duo.now)
    duo.pump()
    assert [event.data for event in duo.take(duo.agent)] == [bytes((number,)) for number in (7, 8, 9)]
    assert duo.edge.stats.datagrams_dropped == 7


def test_full_queues_drop_the_oldest_of_all_flows(make_duo, udp):
    duo = make_duo(tuning=Tuning(datagram_total=70)).establish()
    first, second = duo.open(udp), duo.open(udp)
    duo.edge.send_datagram(first, b"a", now=duo.now)
    duo.edge.send_datagram(first, b"b", now=duo.now)
    duo.edge.send_datagram(second, b"c", now=duo.now)
    duo.edge.send_datagram(second, b"d", now=duo.now)
    duo.pump()
    got = [(event.flow_id, event.data) for event in duo.take(duo.agent)]
    assert got == [(first, b"b"), (second, b"d")]


def test_a_datagram_that_does_not_fit_goes_with_the_next_call(duo, udp):
    flow = duo.open(udp)
    duo.edge.send_datagram(flow, bytes(50), now=duo.now)
    duo.edge.send_datagram(flow, bytes(50), now=duo.now)
    assert len(duo.edge.data_to_send(100, now=duo.now)) == 58
    assert len(duo.edge.data_to_send(10, now=duo.now)) == 58
    assert duo.edge.data_to_send(now=duo.now) == b""


def test_a_datagram_waits_behind_control_frames_that_fill_the_call(duo, udp, tcp):
    flow = duo.open(udp)
    duo.edge.send_datagram(flow, bytes(50), now=duo.now)
    duo.edge.open_stream(tcp, now=duo.now)
    size = len(duo.edge._control)
    assert len(duo.edge.data_to_send(size + 57, now=duo.now)) == size
    assert len(duo.edge.data_to_send(58, now=duo.now)) == 58


def test_flows_take_turns(duo, udp):
    first, second = duo.open(udp), duo.open(udp)
    for flow in (first, second):
        for _ in range(3):
            duo.edge.send_datagram(flow, bytes(10_000), now=duo.now)
    order = [frame.stream_id for frame in duo.sent(duo.edge) if isinstance(frame, Datagram)]
    assert order == [first, first, second, second, first, second]


def test_datagrams_need_a_flow_that_is_served(duo, udp):
    stream_id = duo.open()
    with pytest.raises(WrongState, match="flow 2"):
        duo.edge.send_datagram(stream_id, b"x", now=duo.now)
    offered = duo.open(udp, accept=False)
    with pytest.raises(WrongState, match="offered"):
        duo.agent.send_datagram(offered, b"x", now=duo.now)
    assert duo.edge.send_datagram(offered, b"early", now=duo.now)
