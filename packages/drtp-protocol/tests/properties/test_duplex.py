"""Property 5: two connections, a wire that cuts anywhere, and a model of what is owed.

Rules of the machine: sizes are integers, content is a pattern that knows its position; steps pick among live streams;
limits are tiny so that every boundary is met; a quiet end (`teardown`) checks that nothing is owed.
"""

import attrs
import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drtp_protocol import events as ev
from drtp_protocol.errors import ErrorCode, NoSuchStream, StreamLimitReached
from drtp_protocol.flow import Budget
from drtp_protocol.limits import Limits, Tuning
from drtp_protocol.metadata import OpenMetadata, Protocol
from drtp_protocol.states import StreamState
from drtp_protocol.status import Role
from drtp_protocol.strategies import pattern, tiny_limits
from drtp_protocol.testing import SERVICE, Pair, other

FOREVER = 1e9
QUIET = Tuning(
    frame_floor=1,
    window_floor=1,
    send_buffer=96,
    max_window=256,
    growth_pool=100,
    datagram_queue=150,
    datagram_total=220,
    keepalive=FOREVER,
    dead_after=3 * FOREVER,
    rtt_interval=FOREVER,
    stall=FOREVER,
    linger=FOREVER,
    flow_idle=0.0,
)
ROLES = st.sampled_from(Role)


@attrs.define
class Half:
    """One direction of a stream as its sender and its receiver see it."""

    salt: int
    assigned: int = 0  # bytes given to the sender's connection
    source: int = 0  # bytes that wait in the sender's socket, to be pulled
    eof: bool = False  # no more will come into that socket
    fin: bool = False  # FIN was given to the connection
    received: int = 0
    held: int = 0  # received and not acknowledged
    ended: bool = False  # FIN was received
    datagrams: list = attrs.field(factory=list)  # sent and not received

    def content(self, size, start):
        return pattern(size, start + self.salt)


@attrs.define
class Model:
    """One stream as both ends know it."""

    opener: Role
    flow: bool
    halves: dict
    knows: set  # the ends that have it open
    accepted: bool = False  # by the acceptor
    seen_accepted: bool = False  # by the opener
    reset: bool = False


class Duplex(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.pair = None
        self.models = {}
        self.last = dict.fromkeys(Role, 0)

    @initialize(
        limits=tiny_limits(),
        edge_limits=st.none() | tiny_limits(),
        total=st.sampled_from([2**40, 2**40, 150, 400]),
        opened=st.lists(st.tuples(ROLES, st.booleans()), max_size=4),
    )
    def establish(self, limits, edge_limits, total, opened):
        self.budget = Budget(total)
        self.pair = Pair(limits=limits, edge_limits=edge_limits, tuning=QUIET, budget=self.budget)
        self.pair.establish()
        self.limits = self.pair.agent.limits
        assert self.limits == self.pair.edge.limits == limits.intersect(edge_limits or limits)
        self.measure_a_round_trip()
        for role, flow in opened:
            self.open(role, flow)
            self.transmit(role, 65_536)
            self.deliver(role, None)

    def measure_a_round_trip(self):
        """Windows grow only once both ends know how long a round trip takes."""
        for role, connection in self.pair.ends.items():
            connection.ping(now=self.pair.now)
            self.pair.transmit(role)
            self.pair.now += 0.05
            self.pair.settle()
            assert connection.rtt.latest == pytest.approx(0.05)

    # -- picking ------------------------------------------------------------------------------------------------

    def pick(self, data, role, wanted):
        found = [sid for sid, model in self.models.items() if role in model.knows and wanted(model)]
        return data.draw(st.sampled_from(found)) if found else None

    def may_send(self, role, model):
        return not model.halves[role].fin and (role is model.opener or model.accepted)

    def sendable(self, data, role):
        return self.pick(data, role, lambda model: not model.flow and self.may_send(role, model))

    # -- steps --------------------------------------------------------------------------------------------------

    @rule(role=ROLES, flow=st.sampled_from([False, False, False, True]))
    def open(self, role, flow):
        connection = self.pair.ends[role]
        mine = [sid for sid, model in self.models.items() if model.opener is role and role in model.knows]
        pending = [sid for sid in mine if not self.models[sid].seen_accepted]
        metadata = OpenMetadata(service=SERVICE, protocol=Protocol.UDP if flow else Protocol.TCP)
        used = self.budget.used
        full = len(mine) >= self.limits.max_streams or len(pending) >= self.limits.max_pending_opens
        try:
            sid = connection.open_stream(metadata, now=self.pair.now)
        except StreamLimitReached as refusal:
            if refusal.code is ErrorCode.OVER_CAPACITY:
                assert used + self.limits.base_window > self.budget.total
            else:
                assert full
            return
        assert not full
        assert sid > self.last[role]
        assert sid % 2 == (role is Role.AGENT)
        self.last[role] = sid
        halves = {end: Half(salt=sid * 17 + 5 * (end is Role.EDGE)) for end in Role}
        self.models[sid] = Model(opener=role, flow=flow, halves=halves, knows={role})

    @rule(role=ROLES, data=st.data())
    def accept(self, role, data):
        sid = self.pick(data, role, lambda model: role is not model.opener and not model.accepted)
        if sid is not None:
            self.pair.ends[role].accept_stream(sid)
            self.models[sid].accepted = True

    @rule(role=ROLES, data=st.data(), full=st.booleans(), fin=st.integers(0, 4), fed=st.booleans())
    def push(self, role, data, full, fin, fed):
        sid = self.sendable(data, role)
        if sid is None:
            return
        half, connection = self.models[sid].halves[role], self.pair.ends[role]
        room = connection.send_capacity(sid)
        size = room if full else data.draw(st.integers(0, room))
        if half.source and fin == 0:
            fin = 1  # what the socket holds must still go
        if not size and fin:
            return
        connection.send_data(sid, half.content(size, half.assigned), fin=fin == 0)
        half.assigned += size
        half.fin = fin == 0
        if full:
            assert connection.send_capacity(sid) == 0
        if fed and not half.fin and not half.eof:
            half.source += 40
            connection.want_send(sid)

    @rule(role=ROLES, data=st.data(), size=st.integers(0, 300), eof=st.integers(0, 3))
    def feed(self, role, data, size, eof):
        """The socket behind a pulled stream becomes readable."""
        sid = self.sendable(data, role)
        if sid is None or self.models[sid].halves[role].eof:
            return
        half = self.models[sid].halves[role]
        half.source += size
        half.eof = eof == 0
        if half.source or half.eof:
            self.pair.ends[role].want_send(sid)

    @rule(role=ROLES, times=st.integers(1, 8), data=st.data())
    def pull(self, role, times, data):
        for _ in range(times):
            if not self.pull_one(role, lambda most: data.draw(st.integers(1, most))):
                return

    def pull_one(self, role, choose):
        connection, now = self.pair.ends[role], self.pair.now
        if connection.wants_write:
            self.pair.transmit(role, choose(64))  # pushed bytes may remain
            self.handle_own(role)
        turn = connection.next_send(now)
        if turn is None:
            return False
        assert turn == connection.next_send(now)
        sid, allowance = turn
        half, info = self.models[sid].halves[role], connection.stream_info(sid)
        assert not half.fin
        assert 0 < allowance <= min(self.limits.max_frame, info.send_limit - info.sent)
        if not half.source and not half.eof:
            connection.want_send(sid, False)
            return True
        size = min(half.source, choose(allowance))
        fin = half.eof and size == half.source
        frame = bytearray(8) + half.content(size, half.assigned)
        half.assigned += size
        half.source -= size
        half.fin = fin
        connection.commit(sid, size, frame, fin=fin)
        self.pair.wire[role] += frame
        self.handle_own(role)
        return True

    @rule(role=ROLES, size=st.integers(1, 120) | st.just(65_536))
    def transmit(self, role, size):
        self.pair.transmit(role, size)
        self.handle_own(role)

    @rule(role=ROLES, size=st.integers(1, 60) | st.none())
    def deliver(self, role, size):
        self.handle_own(other(role))
        self.handle(other(role), self.pair.deliver(role, size))

    @rule(role=ROLES, data=st.data(), whole=st.booleans())
    def consume(self, role, data, whole):
        sid = self.pick(data, role, lambda model: model.halves[other(role)].held > 0)
        if sid is not None:
            half = self.models[sid].halves[other(role)]
            size = half.held if whole else data.draw(st.integers(0, half.held))
            self.pair.ends[role].acknowledge(sid, size, now=self.pair.now)
            half.held -= size

    @rule(role=ROLES, data=st.data(), code=st.sampled_from([ErrorCode.CANCEL, ErrorCode.DIAL_FAILED]))
    def reset(self, role, data, code):
        sid = self.pick(data, role, lambda model: True)
        if sid is not None and data.draw(st.integers(0, 2)) == 0:
            self.pair.ends[role].reset_stream(sid, code, 1, "why not")
            self.forget(role, sid)
            self.models[sid].reset = True

    @rule(role=ROLES, size=st.integers(9, 20))
    def reset_in_the_middle_of_a_frame(self, role, size):
        """What follows of the frame belongs to nobody any more."""
        connection = self.pair.ends[role]
        while self.pair.wire[other(role)] and not connection._left:
            self.deliver(other(role), size)
        if connection._left and connection._current is not None:
            sid = connection._current.stream_id
            connection.reset_stream(sid, ErrorCode.CANCEL)
            self.forget(role, sid)
            self.models[sid].reset = True

    @rule(role=ROLES, data=st.data(), size=st.integers(0, 45))
    def datagram(self, role, data, size):
        sid = self.pick(data, role, lambda model: model.flow and self.may_send(role, model))
        if sid is None:
            return
        half = self.models[sid].halves[role]
        payload = pattern(size, half.assigned)
        kept = self.pair.ends[role].send_datagram(sid, payload, now=self.pair.now)
        assert kept == (size <= min(self.limits.max_datagram, self.limits.max_frame))
        if kept:
            half.assigned += 1
            half.datagrams.append(payload)

    @rule(role=ROLES)
    def ping(self, role):
        self.pair.ends[role].ping(now=self.pair.now)

    @rule(seconds=st.sampled_from([0.0001, 0.01, 0.2]))
    def advance(self, seconds):
        self.pair.now += seconds

    # -- the shell's half of events -------------------------------------------------------------------------------

    def forget(self, role, sid):
        self.models[sid].knows.discard(role)

    def handle_own(self, role):
        self.handle(role, list(self.pair.ends[role].events()))

    def handle(self, role, events):
        for event in events:
            model = self.models.get(getattr(event, "stream_id", getattr(event, "flow_id", None)))
            match event:
                case ev.StreamOpened():
                    assert model.opener is other(role)
                    assert event.metadata.protocol is (Protocol.UDP if model.flow else Protocol.TCP)
                    model.knows.add(role)
                case ev.StreamAccepted():
                    assert model.opener is role
                    assert model.accepted
                    assert not model.seen_accepted
                    model.seen_accepted = True
                case ev.DataReceived():
                    half = model.halves[other(role)]
                    assert role in model.knows
                    assert not half.ended
                    assert event.data or event.fin
                    assert bytes(event.data) == half.content(len(event.data), half.received)
                    half.received += len(event.data)
                    half.held += len(event.data)
                    half.ended = event.fin
                    assert half.received <= half.assigned
                    assert not event.fin or (half.fin and half.received == half.assigned)
                case ev.DatagramReceived():
                    waiting = model.halves[other(role)].datagrams
                    payload = bytes(event.data)
                    assert payload in waiting
                    del waiting[: waiting.index(payload) + 1]
                case ev.StreamReset():
                    assert event.remote
                    model.reset = True
                    self.forget(role, event.stream_id)
                case ev.StreamClosed():
                    assert model.halves[role].fin
                    assert model.halves[other(role)].ended
                    self.forget(role, event.stream_id)
                case ev.StreamWritable():
                    assert self.pair.ends[role].send_capacity(event.stream_id) > 0
                case ev.RttMeasured():
                    pass
                case _:
                    raise AssertionError(event)

    # -- what must hold at every step -----------------------------------------------------------------------------

    @invariant()
    @precondition(lambda self: self.pair is not None)
    def nothing_exceeds_its_limit(self):
        promised = 0
        for role, connection in self.pair.ends.items():
            known = {sid for sid, model in self.models.items() if role in model.knows}
            assert set(connection.stream_ids) == known
            bytes_open, width = 0, 0
            for sid in known:
                info = connection.stream_info(sid)
                assert info.sent <= info.send_limit
                assert info.consumed <= info.received <= info.receive_limit
                assert info.receive_limit - info.consumed <= info.window <= QUIET.max_window or (
                    info.window == self.limits.base_window
                )
                assert info.queued <= max(QUIET.send_buffer, QUIET.datagram_queue)
                bytes_open += info.receive_limit - info.consumed
                width += info.window
            grown = width - len(known) * self.limits.base_window
            assert 0 <= grown <= QUIET.growth_pool
            assert bytes_open <= width == connection.stats.window_promised
            promised += width
        assert promised == self.budget.used <= self.budget.total

    @invariant()
    @precondition(lambda self: self.pair is not None)
    def credit_is_never_invented(self):
        agent, edge = self.pair.agent, self.pair.edge
        for sid, model in self.models.items():
            if model.knows == set(Role):
                for sender, receiver in ((agent, edge), (edge, agent)):
                    theirs, ours = sender.stream_info(sid), receiver.stream_info(sid)
                    assert theirs.send_limit <= ours.receive_limit
                    assert ours.received <= theirs.sent
                    assert theirs.sent + theirs.queued >= model.halves[sender.role].assigned or model.flow

    @invariant()
    @precondition(lambda self: self.pair is not None)
    def directions_end_independently(self):
        for role, connection in self.pair.ends.items():
            for sid, model in self.models.items():
                if role not in model.knows or model.flow:
                    continue
                state = connection.stream_info(sid).state
                assert (state in HEARD_FIN) == model.halves[other(role)].ended
                if self.may_send(role, model):
                    room = QUIET.send_buffer - connection.stream_info(sid).queued
                    assert connection.send_capacity(sid) == room
                else:
                    assert connection.send_capacity(sid) == 0

    # -- the quiet end --------------------------------------------------------------------------------------------

    def settle(self):
        """Accept, read and send everything until nothing moves any more."""
        for _ in range(3_000):
            moved = 0
            for role, connection in self.pair.ends.items():
                for sid, model in self.models.items():
                    half = model.halves[other(role)]
                    if role in model.knows and half.held:
                        size = half.held - half.held // 2
                        connection.acknowledge(sid, size, now=self.pair.now)
                        half.held -= size
                        moved += size
                moved += self.pair.transmit(role)
                self.handle_own(role)
                moved += self.pull_one(role, lambda most: most)
                moved += len(self.pair.wire[role])
                self.handle(other(role), self.pair.deliver(role))
            self.nothing_exceeds_its_limit()
            if not moved and not self.accept_one():
                return
        raise AssertionError("livelock: the two never come to rest")

    def accept_one(self):
        """Accept a stream that waits, late: what travelled with OPEN has arrived and was read."""
        for role, connection in self.pair.ends.items():
            for sid, model in self.models.items():
                if role in model.knows and role is not model.opener and not model.accepted:
                    connection.accept_stream(sid)
                    model.accepted = True
                    return True
        return False

    def teardown(self):
        if self.pair is None:
            return
        self.settle()
        for sid, model in self.models.items():
            note(f"{sid}: {model}")
            if model.reset:
                assert not model.knows
                continue
            for sender, half in model.halves.items():
                receiver = self.pair.ends[other(sender)]
                if model.flow:
                    assert not half.datagrams or self.pair.ends[sender].stats.datagrams_dropped
                    continue
                assert half.source == 0
                assert half.received == half.assigned
                assert half.ended == half.fin
                if other(sender) in model.knows and not half.ended:
                    info = receiver.stream_info(sid)
                    assert info.consumed == info.received
                    assert info.receive_limit - info.consumed > info.window // 2
                    assert self.pair.ends[sender].stream_info(sid).send_limit == info.receive_limit
        self.finish_all()
        assert not any(model.knows for model in self.models.values())
        assert self.budget.used == 0
        for connection in self.pair.ends.values():
            assert connection.stats.streams == connection.stats.window_promised == 0
            assert not connection.wants_write
            assert connection.next_send(self.pair.now) is None
            assert connection.established

    def finish_all(self):
        for role, connection in self.pair.ends.items():
            for sid, model in self.models.items():
                if role not in model.knows:
                    continue
                if model.flow:
                    connection.reset_stream(sid, ErrorCode.NO_ERROR)
                    self.forget(role, sid)
                    model.reset = True
                elif not model.halves[role].fin:
                    connection.send_data(sid, b"", fin=True)
                    model.halves[role].fin = True
        self.settle()


HEARD_FIN = {StreamState.HALF_CLOSED_REMOTE, StreamState.OFFERED_FIN, StreamState.CLOSED}

TestDuplex = Duplex.TestCase
TestDuplex.settings = settings(max_examples=max(100, 2 * settings().max_examples), stateful_step_count=50)


def test_the_machine_notices_a_stream_that_no_longer_exists():
    """The model is not blind: an end that lost a stream behind its back is found."""
    machine = Duplex()
    machine.establish(Limits(base_window=64, max_frame=32), None, 2**40, [(Role.EDGE, False)])
    machine.nothing_exceeds_its_limit()
    machine.pair.edge.reset_stream(2, ErrorCode.CANCEL)
    with pytest.raises(AssertionError):
        machine.nothing_exceeds_its_limit()
    with pytest.raises(NoSuchStream):
        machine.pair.edge.stream_info(2)
