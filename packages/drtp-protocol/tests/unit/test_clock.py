"""Timers, with the clock in the test's hand."""

import pytest

from drtp_protocol import (
    Challenge,
    Connection,
    ConnectionState,
    ConnectionTerminated,
    ErrorCode,
    GoAwayReceived,
    Hello,
    LeaseExpiring,
    Limits,
    Ping,
    Role,
    RttMeasured,
    StreamReset,
    Tuning,
    WrongState,
)
from drtp_protocol.handshake import PREFACE


def ends(events):
    return [event for event in events if isinstance(event, ConnectionTerminated)]


# -- handshake -------------------------------------------------------------------------------------------------------


def test_an_edge_gives_up_on_a_silent_carrier_without_a_word():
    challenge = Challenge(edge_id="e", methods=(1,))
    edge = Connection(Role.EDGE, now=5.0, nonce=bytes(32), challenge=challenge)
    assert edge.next_timeout() == 15.0
    edge.handle_timeout(now=14.9)
    assert edge.next_timeout() == 15.0
    edge.handle_timeout(now=15.0)
    (end,) = edge.events()
    assert end.code is ErrorCode.IDLE_TIMEOUT
    assert edge.data_to_send(now=15.0) == b""
    assert edge.next_timeout() is None
    edge.handle_timeout(now=99.0)
    assert list(edge.events()) == []


def test_who_said_the_preface_is_told_that_time_is_up():
    edge = Connection(Role.EDGE, now=0.0, nonce=bytes(32), challenge=Challenge(edge_id="e", methods=(1,)))
    edge.receive_data(PREFACE, now=9.0)
    edge.handle_timeout(now=10.0)
    assert edge.data_to_send(now=10.0) != b""


def test_an_agent_gives_up_on_a_silent_edge():
    agent = Connection(Role.AGENT, now=0.0, nonce=bytes(32), hello=Hello(instance_id=bytes(16), epoch=1))
    agent.handle_timeout(now=10.0)
    (end,) = agent.events()
    assert "10 s" in end.reason


# -- keepalive -------------------------------------------------------------------------------------------------------


def test_an_idle_connection_lives_on_pings(duo):
    duo.advance(3_600)
    assert duo.agent.established
    assert duo.edge.established
    assert any(isinstance(event, RttMeasured) for event in duo.take(duo.agent))


@pytest.mark.parametrize("nonce", [b"\0" * 32, b"\xff" * 32, b"\x80" * 32])
@pytest.mark.parametrize("end", ["agent", "edge"])
def test_a_dead_path_is_noticed_within_ten_seconds(make_duo, nonce, end):
    duo = make_duo(nonce=nonce).establish()
    alone = getattr(duo, end)
    started = duo.now
    duo.advance(9.9, alone)
    assert alone.established
    duo.advance(0.2, alone)
    (terminated,) = ends(duo.take(alone))
    assert terminated.code is ErrorCode.IDLE_TIMEOUT
    assert not terminated.remote
    assert duo.now - started == pytest.approx(10.1)


@pytest.mark.parametrize(("nonce", "silence"), [(b"\0" * 32, 4.0), (b"\xff" * 32, 6.0)])
def test_the_nonce_spreads_the_pings(make_duo, nonce, silence):
    duo = make_duo(nonce=nonce).establish()
    assert duo.agent.next_timeout() - duo.now == pytest.approx(silence)


def test_a_process_that_hung_asks_before_it_believes_the_path_dead(duo):
    duo.now += 1_000
    duo.agent.handle_timeout(now=duo.now)
    assert duo.agent.established
    duo.pump()
    duo.advance(60)
    assert duo.agent.established


def test_a_busy_connection_measures_too(duo):
    stream_id = duo.open()
    for _ in range(40):
        duo.advance(0.5, duo.agent, duo.edge)
        duo.edge.send_data(stream_id, b"x")
        duo.agent.send_data(stream_id, b"y")
        duo.pump()
    measured = [event for event in duo.take(duo.edge) if isinstance(event, RttMeasured)]
    assert len(measured) == 1


def test_receiving_puts_death_off_without_touching_the_deadline(duo):
    due = duo.agent.next_timeout()
    duo.now += 2.0
    duo.agent.receive_data(b"", now=duo.now)
    assert duo.agent.next_timeout() == due
    duo.agent.handle_timeout(now=due)
    assert not duo.agent.wants_write
    assert duo.agent.next_timeout() == pytest.approx(due + 2.0)


def test_a_timer_that_comes_early_does_nothing(duo):
    duo.agent.ping(now=duo.now)
    duo.sent(duo.agent)
    duo.agent.handle_timeout(now=duo.now + 1)
    assert duo.agent.established
    assert not duo.agent.wants_write
    assert duo.agent.next_timeout() == pytest.approx(duo.now + 10)


def test_one_ping_is_out_at_a_time(duo):
    duo.agent.ping(now=duo.now)
    duo.agent.ping(now=duo.now)
    assert [type(frame) for frame in duo.sent(duo.agent)] == [Ping]


def test_a_round_trip_is_measured_with_the_callers_clock(duo):
    duo.agent.ping(now=duo.now)
    data = duo.agent.data_to_send(now=duo.now)
    duo.now += 0.25
    duo.give(duo.edge, data)
    duo.now += 0.25
    events = duo.give(duo.agent, duo.edge.data_to_send(now=duo.now))
    assert events[0].sample == pytest.approx(0.5)
    assert duo.agent.rtt.latest == pytest.approx(0.5)
    assert duo.agent.rtt.smoothed == events[0].smoothed


def test_ping_needs_an_established_connection():
    agent = Connection(Role.AGENT, now=0.0, nonce=bytes(32), hello=Hello(instance_id=bytes(16), epoch=1))
    with pytest.raises(WrongState, match="ping"):
        agent.ping(now=0.0)


def test_an_edge_under_load_stretches_the_keepalive_of_both(make_duo):
    duo = make_duo(keepalive=(20_000, 40_000)).establish()
    for end in (duo.agent, duo.edge):
        assert end.dead_after == 40.0
    duo.advance(39, duo.agent)
    assert duo.agent.established
    duo.advance(2, duo.agent)
    assert not duo.agent.established


# -- lease -----------------------------------------------------------------------------------------------------------


def test_the_edge_is_warned_at_two_thirds_of_the_lease(make_duo):
    duo = make_duo(lease=60).establish()
    granted = duo.now
    duo.advance(39)
    assert not any(isinstance(event, LeaseExpiring) for event in duo.take(duo.edge))
    duo.advance(2)
    warnings = [event for event in duo.take(duo.edge) if isinstance(event, LeaseExpiring)]
    assert warnings == [LeaseExpiring(granted + 60)]
    duo.advance(10)
    assert not any(isinstance(event, LeaseExpiring) for event in duo.take(duo.edge))


def test_a_renewed_lease_begins_anew(make_duo):
    duo = make_duo(lease=60).establish()
    duo.advance(50)
    duo.edge.challenge(b"f" * 32, now=duo.now)
    duo.pump()
    duo.advance(50)
    assert duo.edge.state is ConnectionState.OPEN
    assert duo.agent.state is ConnectionState.OPEN


def test_the_end_of_a_lease_drains(make_duo):
    duo = make_duo(lease=60).establish()
    stream_id = duo.open()
    duo.advance(61)
    assert duo.edge.state is ConnectionState.DRAINING
    (gone,) = [event for event in duo.take(duo.agent) if isinstance(event, GoAwayReceived)]
    assert (gone.code, gone.drain) == (ErrorCode.AUTH_EXPIRED, 30.0)
    assert stream_id in duo.edge.stream_ids
    duo.advance(30)
    (end,) = ends(duo.take(duo.edge))
    assert end.code is ErrorCode.DRAINING
    assert "1 streams" in end.reason
    (end,) = ends(duo.take(duo.agent))
    assert end.remote


def test_the_end_of_a_lease_without_streams_is_the_end(make_duo):
    duo = make_duo(lease=60).establish()
    duo.advance(61)
    assert duo.edge.state is duo.agent.state is ConnectionState.CLOSED


# -- the reaper ------------------------------------------------------------------------------------------------------


def resets(events):
    return [(event.code, event.remote) for event in events if isinstance(event, StreamReset)]


@pytest.mark.parametrize("how", ["pull", "push"])
def test_bytes_without_credit_for_two_minutes_reset_the_stream(duo, how):
    stream_id = duo.open()
    window = duo.edge.limits.base_window
    if how == "push":
        duo.edge.send_data(stream_id, bytes(window + 1))
        duo.pump()
    else:
        duo.edge.want_send(stream_id)
        buffer = bytearray(100_000)
        while (turn := duo.edge.next_send(duo.now)) is not None:
            duo.edge.commit(turn[0], turn[1], buffer)
            duo.give(duo.agent, bytes(buffer[: 8 + turn[1]]))
    duo.take(duo.agent)
    duo.advance(119)
    assert resets(duo.take(duo.edge)) == []
    duo.advance(7)
    assert resets(duo.take(duo.edge)) == [(ErrorCode.STALLED, False)]
    assert resets(duo.take(duo.agent)) == [(ErrorCode.STALLED, True)]
    assert duo.edge.stream_ids == duo.agent.stream_ids == ()


def test_credit_ends_a_stall(duo):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, bytes(duo.edge.limits.base_window + 1))
    duo.pump()
    duo.advance(100)
    duo.agent.acknowledge(stream_id, duo.edge.limits.base_window, now=duo.now)
    duo.pump()
    duo.advance(100)
    assert resets(duo.take(duo.edge)) == []


def test_a_dry_socket_is_no_stall(duo):
    stream_id = duo.open()
    duo.edge.want_send(stream_id)
    duo.edge.commit(stream_id, 65_536, bytearray(65_544))
    assert duo.edge.next_send(duo.now) is None
    duo.edge.want_send(stream_id, False)
    assert duo.edge._streams[stream_id].stalled_since == -1.0


def test_a_half_closed_stream_without_traffic_is_reset_after_the_linger(duo):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, b"", fin=True)
    duo.pump()
    duo.advance(290)
    assert duo.edge.stream_ids == (stream_id,)
    duo.advance(20)
    assert duo.edge.stream_ids == duo.agent.stream_ids == ()


def test_an_open_stream_may_idle_for_ever(duo):
    stream_id = duo.open()
    duo.advance(10_000)
    assert duo.edge.stream_ids == (stream_id,)


def test_an_idle_timeout_of_the_limits_holds_for_open_streams(make_duo):
    duo = make_duo(limits=Limits(idle_timeout=30)).establish()
    stream_id = duo.open()
    for _ in range(6):
        duo.advance(10)
        duo.edge.send_data(stream_id, b"x")
        duo.pump()
    assert duo.edge.stream_ids == (stream_id,)
    duo.take(duo.edge)
    duo.advance(36)
    ends_of_both = resets(duo.take(duo.edge)) + resets(duo.take(duo.agent))
    assert [code for code, _ in ends_of_both] == [ErrorCode.IDLE_TIMEOUT] * 2
    assert duo.edge.stream_ids == duo.agent.stream_ids == ()


@pytest.mark.parametrize(
    ("flow_idle", "idle_timeout", "lives", "dies"), [(120.0, 0, 119, 10), (120.0, 30, 29, 10), (0.0, 30, 29, 10)]
)
def test_a_flow_without_traffic_is_reset(make_duo, udp, flow_idle, idle_timeout, lives, dies):
    tuning = Tuning(flow_idle=flow_idle)
    duo = make_duo(tuning=tuning, limits=Limits(idle_timeout=idle_timeout)).establish()
    duo.open(udp)
    duo.advance(lives)
    assert len(duo.edge.stream_ids) == 1
    duo.advance(dies)
    assert duo.edge.stream_ids == ()


def test_a_flow_may_idle_for_ever_if_both_say_so(make_duo, udp):
    duo = make_duo(tuning=Tuning(flow_idle=0.0)).establish()
    duo.open(udp)
    duo.advance(1_000)
    assert len(duo.edge.stream_ids) == 1


def test_an_unanswered_open_is_left_to_the_shell(make_duo):
    duo = make_duo(limits=Limits(idle_timeout=10)).establish()
    duo.open(accept=False)
    duo.advance(60)
    assert len(duo.edge.stream_ids) == 1


def test_the_reaper_ends_the_drain_it_empties(make_duo):
    duo = make_duo(limits=Limits(idle_timeout=10)).establish()
    duo.open()
    duo.open()
    duo.edge.go_away(drain=1_000, now=duo.now)
    duo.advance(20)
    assert duo.edge.state is ConnectionState.CLOSED
    (end,) = ends(duo.take(duo.edge))
    assert end.code is ErrorCode.NO_ERROR


def test_the_deadline_follows_the_first_stream(make_duo):
    duo = make_duo(tuning=Tuning(reap_interval=0.5)).establish()
    assert duo.edge.next_timeout() > duo.now + 1
    duo.open()
    assert duo.edge.next_timeout() == pytest.approx(duo.now + 0.5)
    duo.edge.reset_stream(2, ErrorCode.CANCEL)
    duo.advance(1.0, duo.edge)
    assert duo.edge.next_timeout() > duo.now + 1


def test_the_deadline_stays_when_something_is_due_before_the_reaper(make_duo):
    duo = make_duo(nonce=bytes(32)).establish()
    due = duo.edge.next_timeout()
    duo.open()
    assert due < duo.now + 5
    assert duo.edge.next_timeout() == due


def test_a_peer_that_forgets_to_close_is_closed(duo):
    duo.open()
    events = duo.give(duo.agent, *_goaway(duo, drain=5))
    assert events[0].drain == 5.0
    duo.advance(5 + 9, duo.agent, duo.edge)
    assert duo.edge.state is ConnectionState.CLOSED


def _goaway(duo, *, drain):
    duo.edge.go_away(drain=drain, now=duo.now)
    return duo.sent(duo.edge)
