"""The public face."""

import pytest

import drtp_protocol
from drtp_protocol import (
    Budget,
    Capability,
    Challenge,
    Connection,
    ConnectionState,
    ConnectionTerminated,
    DataReceived,
    ErrorCode,
    GoAway,
    GoAwayReceived,
    Hello,
    InvalidMetadata,
    NoSuchStream,
    Report,
    ReportReceived,
    Role,
    StreamOpened,
    StreamReset,
    StreamState,
    WrongState,
)

HELLO = Hello(instance_id=bytes(16), epoch=1)
CHALLENGE = Challenge(edge_id="e", methods=(1,))


@pytest.mark.parametrize(
    ("role", "hello", "challenge"),
    [
        (Role.AGENT, None, None),
        (Role.AGENT, None, CHALLENGE),
        (Role.AGENT, HELLO, CHALLENGE),
        (Role.EDGE, HELLO, None),
        (Role.EDGE, None, None),
    ],
)
def test_each_role_begins_with_its_own_message(role, hello, challenge):
    with pytest.raises(InvalidMetadata, match="an agent begins with"):
        Connection(role, now=0.0, nonce=bytes(32), hello=hello, challenge=challenge)


def test_a_nonce_has_its_size():
    with pytest.raises(InvalidMetadata, match="nonce"):
        Connection(Role.AGENT, now=0.0, nonce=b"short", hello=HELLO)


def test_events_come_one_by_one_or_drained(duo, tcp):
    for _ in range(3):
        duo.edge.open_stream(tcp, now=duo.now)
    duo.agent.receive_data(duo.edge.data_to_send(now=duo.now), now=duo.now)
    assert duo.agent.next_event() == StreamOpened(2, tcp)
    assert list(duo.agent.events()) == [StreamOpened(4, tcp), StreamOpened(6, tcp)]
    assert duo.agent.next_event() is None


def test_events_that_come_while_one_is_handled_are_drained_too(duo, tcp):
    duo.edge.open_stream(tcp, now=duo.now)
    duo.agent.receive_data(duo.edge.data_to_send(now=duo.now), now=duo.now)
    seen = []
    for event in duo.agent.events():
        seen.append(type(event))
        if isinstance(event, StreamOpened):
            duo.agent.go_away(drain=0, now=duo.now)
    assert seen == [StreamOpened, ConnectionTerminated]


# -- going away ------------------------------------------------------------------------------------------------------


def test_a_drain_lets_streams_finish(duo):
    stream_id = duo.open()
    duo.edge.go_away(drain=30, retry_after=1.5, alternates=["b:1"], reason="restart", now=duo.now)
    duo.pump()
    assert duo.take(duo.agent) == [GoAwayReceived(ErrorCode.DRAINING, 30.0, 1.5, ("b:1",), "restart")]
    duo.agent.send_data(stream_id, b"still works", fin=True)
    duo.pump()
    assert [bytes(e.data) for e in duo.take(duo.edge) if isinstance(e, DataReceived)] == [b"still works"]
    duo.edge.send_data(stream_id, b"", fin=True)
    duo.pump()
    assert duo.agent.state is duo.edge.state is ConnectionState.CLOSED
    assert duo.take(duo.edge)[-1].code is ErrorCode.NO_ERROR
    end = duo.take(duo.agent)[-1]
    assert (end.code, end.remote) == (ErrorCode.NO_ERROR, True)


def test_a_drain_without_streams_ends_at_once(duo):
    duo.agent.go_away(drain=30, now=duo.now)
    assert duo.agent.close_after_send
    frames = duo.sent(duo.agent)
    assert [(type(frame), frame.drain_ms) for frame in frames] == [(GoAway, 30_000), (GoAway, 0)]


def test_going_away_at_once_tells_the_peer_why(duo):
    duo.open()
    duo.edge.go_away(ErrorCode.SUPERSEDED, drain=0, reason="a newer agent came", now=duo.now)
    duo.pump()
    end = duo.take(duo.agent)[-1]
    assert (end.code, end.reason, end.remote) == (ErrorCode.SUPERSEDED, "a newer agent came", True)
    assert duo.agent.stream_ids == ()


def test_a_second_goaway_shortens_the_time(duo):
    duo.open()
    duo.edge.go_away(drain=100, now=duo.now)
    duo.edge.go_away(drain=5, now=duo.now)
    duo.pump()
    duo.advance(5.1)
    assert duo.edge.state is ConnectionState.CLOSED
    assert duo.agent.state is ConnectionState.CLOSED


def test_a_second_goaway_does_not_lengthen_the_time(duo):
    duo.open()
    duo.edge.go_away(drain=5, now=duo.now)
    duo.edge.go_away(drain=100, now=duo.now)
    assert duo.edge._drain_deadline == duo.now + 5


def test_an_open_that_crossed_a_goaway_does_not_raise_the_last_id(duo, tcp):
    stream_id = duo.open()
    duo.edge.open_stream(tcp, now=duo.now)
    duo.agent.go_away(drain=30, now=duo.now)
    duo.pump()
    duo.agent.go_away(drain=20, now=duo.now)
    duo.agent.go_away(drain=0, now=duo.now)
    assert {frame.last_id for frame in duo.sent(duo.agent)} == {stream_id}


def test_going_away_is_possible_in_any_state_at_once_and_after_the_end_never():
    agent = Connection(Role.AGENT, now=0.0, nonce=bytes(32), hello=HELLO)
    with pytest.raises(WrongState, match="go away"):
        agent.go_away(drain=5, now=0.0)
    agent.go_away(drain=0, now=0.0)
    with pytest.raises(WrongState, match="closed"):
        agent.go_away(drain=0, now=0.0)


def test_a_goaway_that_cannot_be_sent_changes_nothing(duo):
    duo.open()
    for change in ({"reason": "x" * 257}, {"alternates": [""]}):
        with pytest.raises(InvalidMetadata):
            duo.edge.go_away(drain=5, now=duo.now, **change)
    assert duo.edge.state is ConnectionState.OPEN
    assert not duo.edge.wants_write


def test_a_stream_reset_in_a_drain_counts_as_finished(duo):
    stream_id = duo.open()
    duo.edge.go_away(drain=30, now=duo.now)
    duo.agent.reset_stream(stream_id, ErrorCode.CANCEL)
    duo.pump()
    assert [type(event) for event in duo.take(duo.edge)] == [StreamReset, ConnectionTerminated]


# -- reports ---------------------------------------------------------------------------------------------------------


def test_reports_go_at_most_once_a_second(make_duo):
    duo = make_duo(capabilities=Capability.REPORT).establish()
    report = Report(dial_failures=3)
    assert duo.agent.report(report, now=duo.now)
    assert not duo.agent.report(report, now=duo.now + 0.9)
    assert duo.agent.report(report, now=duo.now + 1.0)
    duo.pump()
    assert duo.take(duo.edge) == [ReportReceived(report), ReportReceived(report)]


def test_reports_need_the_role_and_the_capability(make_duo, duo):
    with pytest.raises(WrongState, match="capability"):
        duo.agent.report(Report(), now=duo.now)
    able = make_duo(capabilities=Capability.REPORT)
    with pytest.raises(WrongState, match="state"):
        able.agent.report(Report(), now=able.now)
    able.establish()
    with pytest.raises(WrongState, match="only an agent"):
        able.edge.report(Report(), now=able.now)
    with pytest.raises(InvalidMetadata):
        able.agent.report(Report(dial_failures=-1), now=able.now)
    assert able.agent.report(Report(), now=able.now)


# -- inspection ------------------------------------------------------------------------------------------------------


def test_who_is_there_is_known_when_it_spoke(make_duo):
    duo = make_duo(capabilities=Capability.REPORT)
    assert duo.edge.peer is None
    assert duo.agent.welcome is None
    duo.establish()
    assert duo.edge.peer.name == "agent/1"
    assert duo.edge.peer.hello.epoch == 7
    assert duo.agent.peer.name == "edge-1"
    assert duo.agent.capabilities is duo.edge.capabilities
    assert duo.agent.capabilities == Capability.REPORT
    assert duo.agent.welcome == duo.edge.welcome


def test_an_agent_knows_no_edge_before_its_challenge():
    agent = Connection(Role.AGENT, now=0.0, nonce=bytes(32), hello=HELLO)
    assert agent.peer is None
    assert agent.rtt is None
    assert agent.capabilities is Capability.NONE


def test_counters_count(duo):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, b"12345")
    duo.pump()
    edge, agent = duo.edge.stats, duo.agent.stats
    assert (edge.data_sent, agent.data_received, edge.streams, agent.streams) == (5, 5, 1, 1)
    assert (edge.streams_opened, agent.streams_offered) == (1, 1)
    assert edge.window_promised == 65_536


def test_a_stream_can_be_looked_at(duo):
    stream_id = duo.open()
    duo.edge.send_data(stream_id, b"12345")
    info = duo.edge.stream_info(stream_id)
    assert (info.state, info.local, info.sent, info.queued) == (StreamState.OPEN, True, 0, 5)
    with pytest.raises(NoSuchStream):
        duo.edge.stream_info(stream_id + 2)


def test_a_shared_budget_is_returned_by_whoever_ends(make_duo):
    budget = Budget(10**9)
    duos = [make_duo(budget=budget).establish() for _ in range(3)]
    for duo in duos:
        duo.open()
    assert budget.used == 3 * 65_536
    duos[0].edge.receive_eof(now=duos[0].now)
    duos[1].edge.go_away(drain=0, now=duos[1].now)
    assert budget.used == 65_536


# -- the package -----------------------------------------------------------------------------------------------------


def test_everything_public_is_exported_once_and_exists():
    names = drtp_protocol.__all__
    assert len(names) == len(set(names))
    assert all(hasattr(drtp_protocol, name) for name in names)


@pytest.mark.parametrize(
    "module", ["connection", "errors", "events", "handshake", "metadata", "states", "status", "proxyproto"]
)
def test_public_modules_are_exported_whole(module):
    found = __import__(f"drtp_protocol.{module}", fromlist=["__all__"])
    assert set(found.__all__) <= set(drtp_protocol.__all__)
