"""Property 6: time passes, links die, leases end; every deadline is kept and nobody dies who lives."""

import contextlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drtp_protocol import events as ev
from drtp_protocol.errors import ErrorCode, LocalProtocolError
from drtp_protocol.limits import Limits, Tuning
from drtp_protocol.metadata import OpenMetadata, Protocol
from drtp_protocol.states import ConnectionState
from drtp_protocol.status import Role
from drtp_protocol.testing import SERVICE, Pair, other

ROLES = st.sampled_from(Role)
SLACK = 1e-6
LIMITS = Limits(base_window=2_048, max_streams=4, max_pending_opens=4)
METADATA = OpenMetadata(service=SERVICE)


class Time(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.pair = None

    @initialize(
        latency=st.sampled_from([0.0, 0.001, 0.1, 1.5]),
        lease=st.sampled_from([0, 0, 20, 600]),
        renews=st.booleans(),
        keepalive=st.sampled_from([None, (1_000, 5_000), (15_000, 45_000)]),
        start=st.sampled_from([0.0, 12_345.678]),
    )
    def begin(self, latency, lease, renews, keepalive, start):
        self.pair = Pair(limits=LIMITS, lease=lease, now=start)
        self.pair.welcome = type(self.pair.welcome)(
            session_id=self.pair.welcome.session_id,
            lease=lease,
            bindings=self.pair.welcome.bindings,
            keepalive=keepalive,
        )
        self.latency, self.renews, self.lease = latency, renews, lease
        self.link = True
        self.flying = []  # (arrival, sender, bytes)
        self.heard = dict.fromkeys(Role, start)
        self.ended = {}
        self.deadline = {}  # an end must be closed by then
        self.innocent = True  # nobody asked for an end yet
        self.nonce = 1
        self.renewed = 0
        self.slept = False
        for role in Role:
            self.send(role)

    # -- the world ------------------------------------------------------------------------------------------------

    @property
    def now(self):
        return self.pair.now

    def send(self, role):
        while data := self.pair.ends[role].data_to_send(now=self.now):
            if self.link:
                self.flying.append((self.now + self.latency, role, data))

    def step(self, target):
        """Move to the next moment at which anything happens, not beyond `target`."""
        times = [end.next_timeout() for end in self.pair.ends.values()] + [flight[0] for flight in self.flying]
        self.pair.now = max(self.now, min([target, *(time for time in times if time is not None)]))
        for role, end in self.pair.ends.items():
            due = end.next_timeout()
            if due is not None and due <= self.now:
                end.handle_timeout(now=self.now)
                after = end.next_timeout()
                assert after is None or after > self.now, "the deadline was not moved"
            self.attend(role)
        arrived = [flight for flight in self.flying if flight[0] <= self.now]
        self.flying = [flight for flight in self.flying if flight[0] > self.now]
        for _, sender, data in arrived:
            receiver = other(sender)
            if receiver not in self.ended:
                self.heard[receiver] = self.now
            self.pair.ends[receiver].receive_data(data, now=self.now)
            self.attend(receiver)

    def attend(self, role):
        """Be the shell: handle events, answer, send."""
        end = self.pair.ends[role]
        for event in end.events():
            assert role not in self.ended, f"{event} after the end"
            if isinstance(event, ev.ConnectionTerminated):
                self.ended[role] = event
                self.check_end(role, event)
            elif isinstance(event, ev.LeaseExpiring):
                assert self.now < event.deadline
                if self.renews:
                    end.challenge(bytes((self.nonce,)) * 32, now=self.now)
                    self.nonce = self.nonce % 250 + 1
            elif isinstance(event, ev.LeaseRenewed):
                self.renewed += 1
            elif isinstance(event, ev.GoAwayReceived):
                self.innocent = False
            elif isinstance(event, ev.StreamOpened):
                end.accept_stream(event.stream_id)
            elif isinstance(event, ev.DataReceived):
                end.acknowledge(event.stream_id, len(event.data), now=self.now)
            else:
                self.pair.answer(role, event)
        self.send(role)

    def check_end(self, role, event):
        if event.code is ErrorCode.IDLE_TIMEOUT:
            assert not self.link, "a living peer was given up"
        elif self.innocent:
            assert self.lease, event
            assert not self.renews or self.latency or self.slept or not self.link, event
        assert event.error is None, event

    # -- steps ------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.9, 4.0, 11.0, 70.0]))
    def advance(self, seconds):
        target = self.now + seconds
        for _ in range(20_000):
            self.step(target)
            if self.now >= target and not any(flight[0] <= self.now for flight in self.flying):
                return
        raise AssertionError("livelock: time does not pass")

    @rule(seconds=st.sampled_from([3.0, 30.0, 3_000.0]))
    def suspend(self, seconds):
        """Both machines sleep, and what was on its way waits; nobody may die of it but leases and drains.

        (Who sleeps over an unanswered PING cannot tell sleep from a dead path.)
        """
        for end in self.pair.ends.values():
            if not self.link or not end.established or end._ping_outstanding:
                return
        self.pair.now += seconds
        self.slept = True
        self.heard = dict.fromkeys(Role, self.now)
        self.deadline = dict.fromkeys(self.deadline, self.now)
        self.advance(0.0)

    @rule(sure=st.integers(0, 3))
    def lose_link(self, sure):
        if sure == 0:
            self.link = False
            self.flying.clear()

    @rule(role=ROLES, protocol=st.sampled_from(Protocol))
    def open(self, role, protocol):
        with contextlib.suppress(LocalProtocolError):
            self.pair.ends[role].open_stream(OpenMetadata(service=SERVICE, protocol=protocol), now=self.now)
        self.attend(role)

    @rule(role=ROLES, fin=st.booleans(), size=st.integers(1, 3_000))
    def push(self, role, fin, size):
        end = self.pair.ends[role]
        for stream_id in end.stream_ids:
            if end.send_capacity(stream_id) >= size:
                end.send_data(stream_id, bytes(size), fin=fin)
        self.attend(role)

    @rule(role=ROLES)
    def finish(self, role):
        end = self.pair.ends[role]
        for stream_id in end.stream_ids:
            end.reset_stream(stream_id, ErrorCode.CANCEL)
        self.attend(role)

    @precondition(lambda self: self.pair and any(end.established for end in self.pair.ends.values()))
    @rule(role=ROLES, drain=st.sampled_from([0.0, 1.0, 30.0]), sure=st.integers(0, 3))
    def go_away(self, role, drain, sure):
        end = self.pair.ends[role]
        if sure or not end.established:
            return
        self.innocent = False
        end.go_away(drain=drain, now=self.now)
        self.deadline[role] = min(self.deadline.get(role, self.now + drain), self.now + drain)
        self.attend(role)

    # -- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    @precondition(lambda self: self.pair is not None)
    def deadlines_are_kept(self):
        for role, end in self.pair.ends.items():
            closed = end.state is ConnectionState.CLOSED
            assert closed == (role in self.ended)
            if closed:
                assert end.next_timeout() is None
                continue
            assert end.next_timeout() > self.now - SLACK
            silence = self.now - self.heard[role]
            assert silence <= max(end.dead_after, 10.0) + SLACK, "a dead peer was not noticed"
            assert self.now <= self.deadline.get(role, self.now) + SLACK, "the drain was not ended"

    @invariant()
    @precondition(lambda self: self.pair is not None)
    def drained_ends_close(self):
        for role in self.deadline:
            end = self.pair.ends[role]
            assert end.stream_ids or end.state is ConnectionState.CLOSED

    def teardown(self):
        if self.pair is None:
            return
        self.advance(0.0)
        if self.link and self.innocent and self.latency < 1 and not (self.lease and (self.slept or not self.renews)):
            self.advance(max(60.0, 2.0 * self.lease))
            assert not self.ended
            assert bool(self.renewed) == bool(self.lease)
        self.link = False
        self.flying.clear()
        self.advance(46.0)
        assert set(self.ended) == set(Role)


TestTime = Time.TestCase
TestTime.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=25)


def established(**options):
    pair = Pair(**options)
    pair.establish()
    return pair


@pytest.mark.parametrize("role", Role)
def test_a_process_that_slept_asks_before_it_gives_up(role):
    pair = established()
    pair.now = 3_600.0
    pair.ends[role].handle_timeout(now=pair.now)
    assert pair.ends[role].established
    assert pair.ends[role].wants_write
    assert pair.ends[role].next_timeout() >= pair.now + 2.0, "it asked and must wait for the answer"
    pair.now += 1.9
    pair.ends[role].handle_timeout(now=pair.now)
    assert pair.ends[role].established
    pair.settle()
    assert pair.ends[role].established


@pytest.mark.parametrize("nonce", [bytes(32), b"\xff" * 32, b"\x80" * 32])
def test_a_dead_path_is_noticed_within_ten_seconds_whatever_the_jitter(nonce):
    pair = established()
    assert 0.8 * 5.0 <= pair.agent._keepalive <= 1.2 * 5.0
    for end in pair.ends.values():
        end._jitter = 0.8 + 0.4 * int.from_bytes(nonce[:2], "big") / 0xFFFF
        end._keepalive = 5.0 * end._jitter
        end._arm()
    for _ in pair.tick(10.0 + SLACK):
        for role in Role:
            pair.ends[role].data_to_send(now=pair.now)
    assert [end.state for end in pair.ends.values()] == [ConnectionState.CLOSED] * 2


def test_a_stalled_stream_is_reset_and_its_neighbour_is_not():
    pair = established(limits=LIMITS, tuning=Tuning(keepalive=1e6, dead_after=2e6, rtt_interval=1e6))
    stalled = pair.edge.open_stream(METADATA, now=pair.now)
    neighbour = pair.edge.open_stream(METADATA, now=pair.now)
    pair.settle()
    for stream_id in (stalled, neighbour):
        pair.agent.accept_stream(stream_id)
    pair.settle()
    pair.edge.send_data(stalled, bytes(5_000))
    pair.edge.send_data(neighbour, bytes(1_000))
    pair.settle()
    seen = []
    for _ in pair.tick(130.0):
        for events in pair.settle().values():
            seen += events
    resets = [event for event in seen if isinstance(event, ev.StreamReset)]
    assert {(event.stream_id, event.code) for event in resets} == {(stalled, ErrorCode.STALLED)}
    assert sorted(event.remote for event in resets) == [False, True]
    assert pair.edge.stream_ids == pair.agent.stream_ids == (neighbour,)


@pytest.mark.parametrize("acknowledged_at", [119.0, 60.0])
def test_a_slow_reader_that_still_reads_is_not_stalled(acknowledged_at):
    pair = established(limits=LIMITS, tuning=Tuning(keepalive=1e6, dead_after=2e6, rtt_interval=1e6))
    stream_id = pair.edge.open_stream(METADATA, now=pair.now)
    pair.settle()
    pair.agent.accept_stream(stream_id)
    pair.edge.send_data(stream_id, bytes(5_000))
    pair.settle()
    for round_number in (1, 2):
        for _ in pair.tick(acknowledged_at * round_number):
            pass
        pair.agent.acknowledge(stream_id, 1_500, now=pair.now)
        pair.settle()
    assert pair.edge.stream_ids == (stream_id,)


def test_a_crossing_open_does_not_break_the_drain():
    """The opener learns from last_id that its stream was not processed; the id told later must not grow."""
    pair = established(limits=LIMITS)
    kept = pair.edge.open_stream(METADATA, now=pair.now)
    pair.settle()
    pair.agent.accept_stream(kept)
    pair.settle()
    crossing = pair.edge.open_stream(METADATA, now=pair.now)
    pair.agent.go_away(drain=30.0, now=pair.now)
    seen = pair.settle()
    refused = [event for event in seen[Role.EDGE] if isinstance(event, ev.StreamReset)]
    assert [(event.stream_id, event.code) for event in refused] == [(crossing, ErrorCode.REFUSED)]
    pair.agent.go_away(drain=20.0, now=pair.now)
    pair.edge.send_data(kept, b"last words", fin=True)
    pair.agent.send_data(kept, b"yours", fin=True)
    seen = pair.settle()
    ends = [event for events in seen.values() for event in events if isinstance(event, ev.ConnectionTerminated)]
    assert [(event.code, event.error) for event in ends] == [(ErrorCode.NO_ERROR, None)] * 2
