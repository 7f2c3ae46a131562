"""Property 9: a call that is refused with LocalProtocolError has changed nothing at all."""

from collections import Counter, deque
from enum import Enum

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_protocol.errors import ErrorCode, LocalProtocolError
from drtp_protocol.frames import Report
from drtp_protocol.handshake import Auth, AuthMethod, Binding, ChannelBinding, Welcome
from drtp_protocol.limits import Limits, Tuning
from drtp_protocol.metadata import OpenMetadata, Protocol
from drtp_protocol.status import Role
from drtp_protocol.testing import SERVICE, Pair, other

NOW = 5.0
TUNING = Tuning(send_buffer=96, datagram_queue=100, control_queue=2_000)
LIMITS = Limits(base_window=1_024, max_frame=1_024, max_streams=6, max_pending_opens=3, max_datagram=40)


def snapshot(thing, seen=None):
    """Turn an object and everything it holds into plain, comparable values."""
    seen = {} if seen is None else seen
    if thing is None or isinstance(thing, (int, float, str, bytes, Enum)):
        return thing
    if isinstance(thing, (bytearray, memoryview)):
        return bytes(thing)
    if id(thing) in seen:
        return ("seen", seen[id(thing)][0])
    seen[id(thing)] = (len(seen), thing)  # keeps it alive, or its id might name another
    if isinstance(thing, dict):
        return {key: snapshot(value, seen) for key, value in thing.items()}
    if isinstance(thing, (list, tuple, deque, set, frozenset)):
        return [snapshot(item, seen) for item in thing]
    names = {name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())}
    names |= set(getattr(thing, "__dict__", ()))
    held = [(name, getattr(thing, name)) for name in sorted(names - {"__weakref__"}) if hasattr(thing, name)]
    return (type(thing).__name__, {name: snapshot(value, seen) for name, value in held})


def stages():
    """Return {name: function that makes a connection at that stage of its life}."""

    def fresh(role):
        return lambda: Pair(limits=LIMITS, tuning=TUNING).ends[role]

    def challenged():
        pair = Pair(limits=LIMITS, tuning=TUNING)
        for role in (Role.AGENT, Role.EDGE):
            pair.transmit(role)
            pair.deliver(role)
        return pair.agent

    def judged():
        pair = Pair(limits=LIMITS, tuning=TUNING)
        for role in (Role.AGENT, Role.EDGE):
            pair.transmit(role)
            for event in pair.deliver(role):
                pair.answer(other(role), event)
        pair.transmit(Role.AGENT)
        pair.deliver(Role.AGENT)
        return pair.edge

    def busy(role, then=lambda connection: None):
        """A stream in every state at either end: open, half-closed, offered, opening, closed; a flow."""

        def make():
            pair = Pair(limits=LIMITS, tuning=TUNING)
            pair.establish()
            for opener in Role:
                end, peer = pair.ends[opener], pair.ends[other(opener)]
                streams = []
                for protocol in (Protocol.TCP, Protocol.TCP, Protocol.TCP, Protocol.UDP):
                    streams.append(end.open_stream(OpenMetadata(service=SERVICE, protocol=protocol), now=0.0))
                    pair.settle()
                    peer.accept_stream(streams[-1])
                    pair.settle()
                open_, half, gone, flow = streams
                end.send_data(open_, bytes(50))
                end.send_data(half, b"x", fin=True)
                peer.reset_stream(gone, ErrorCode.CANCEL)
                pair.settle()
                end.send_data(open_, bytes(30))
                end.send_datagram(flow, b"x", now=0.0)
                end.open_stream(OpenMetadata(service=SERVICE), now=0.0)
                pair.settle()
            connection = pair.ends[role]
            then(connection)
            return connection

        return make

    return {
        "fresh agent": fresh(Role.AGENT),
        "fresh edge": fresh(Role.EDGE),
        "challenged agent": challenged,
        "edge that judges": judged,
        "agent": busy(Role.AGENT),
        "edge": busy(Role.EDGE),
        "renewing edge": busy(Role.EDGE, lambda end: end.challenge(b"\7" * 32, now=NOW)),
        "draining agent": busy(Role.AGENT, lambda end: end.go_away(drain=5.0, now=NOW)),
        "closed edge": busy(Role.EDGE, lambda end: end.go_away(drain=0.0, now=NOW)),
    }


STAGES = stages()
IDS = st.integers(0, 14) | st.sampled_from([2**31 - 1, 2**31, -1])
SIZES = st.sampled_from([-1, 0, 1, 40, 41, 96, 97, 1_024, 1_025])
PAYLOADS = st.sampled_from([b"", b"x", bytes(40), bytes(41), bytes(96), bytes(97)])
TEXTS = st.sampled_from(["", "why", "é" * 200, "x" * 300])
METADATA = st.sampled_from(
    [
        OpenMetadata(service=SERVICE),
        OpenMetadata(service="default/unbound"),
        OpenMetadata(service=SERVICE, extensions=((0x40, bytes(4_200)),)),
        OpenMetadata(service=SERVICE, tracestate="t" * 512, extensions=((0x40, bytes(1_500)),)),
    ]
)
AUTHS = st.builds(
    Auth,
    method=st.sampled_from(AuthMethod),
    binding_type=st.sampled_from(ChannelBinding),
    credential=st.sampled_from([b"", b"id"]),
    proof=st.sampled_from([b"", bytes(32), bytes(64)]),
    public_key=st.sampled_from([None, bytes(32)]),
)
WELCOMES = st.builds(
    Welcome,
    session_id=st.sampled_from([bytes(16), bytes(range(16))]),
    bindings=st.just((Binding(SERVICE),)),
    edge_proof=st.sampled_from([None, bytes(32)]),
)
REPORTS = st.sampled_from([Report(), Report(origin_rtt_us=2**32), Report(dial_failures=-1, healthy=True)])

CALLS = {
    "open_stream": st.tuples(METADATA).map(lambda a: (a, {"now": NOW})),
    "accept_stream": st.tuples(IDS).map(lambda a: (a, {})),
    "reset_stream": st.tuples(IDS, st.sampled_from(ErrorCode), st.sampled_from([0, 5, -1, 2**16]), TEXTS).map(
        lambda a: (a, {})
    ),
    "acknowledge": st.tuples(IDS, SIZES).map(lambda a: (a, {"now": NOW})),
    "want_send": st.tuples(IDS, st.booleans()).map(lambda a: (a, {})),
    "commit": st.tuples(IDS, SIZES, st.just(bytearray(2_000)), st.booleans()).map(lambda a: (a, {})),
    "send_data": st.tuples(IDS, PAYLOADS, st.booleans()).map(lambda a: (a[:2], {"fin": a[2]})),
    "send_datagram": st.tuples(IDS, PAYLOADS).map(lambda a: (a, {"now": NOW})),
    "ping": st.just(((), {"now": NOW})),
    "go_away": st.tuples(
        st.sampled_from([-1.0, 0.0, 3.0, 1e12]), TEXTS, st.sampled_from([(), ("",), ("x" * 300,)])
    ).map(lambda a: ((), {"drain": a[0], "reason": a[1], "alternates": a[2], "now": NOW})),
    "report": st.tuples(REPORTS).map(lambda a: (a, {"now": NOW})),
    "authenticate": st.tuples(AUTHS, st.sampled_from([None, bytes(32)])).map(
        lambda a: (a[:1], {"expected_edge_proof": a[1], "now": NOW})
    ),
    "accept": st.tuples(WELCOMES).map(lambda a: (a, {"now": NOW})),
    "reject": st.just(((), {"now": NOW})),
    "challenge": st.sampled_from([b"", b"\xe0" * 32, b"\7" * 32, bytes(31)]).map(lambda n: ((n,), {"now": NOW})),
    "stream_info": st.tuples(IDS).map(lambda a: (a, {})),
}


@pytest.mark.parametrize("stage", STAGES)
@given(data=st.data())
def test_a_refused_call_changes_nothing(stage, data):
    connection = STAGES[stage]()
    for _ in range(8):
        name = data.draw(st.sampled_from(sorted(CALLS)))
        arguments, options = data.draw(CALLS[name])
        before = snapshot(connection)
        try:
            getattr(connection, name)(*arguments, **options)
        except LocalProtocolError:
            assert snapshot(connection) == before, name


@pytest.mark.parametrize("name", CALLS)
def test_every_call_is_refused_somewhere_and_changes_nothing_there(name):
    """No sampling of the stage here: each call meets each stage, so a call that is never refused would show."""
    refused = Counter()

    @given(data=st.data())
    def check(data):
        for stage, make in STAGES.items():
            arguments, options = data.draw(CALLS[name])
            connection = make()
            before = snapshot(connection)
            try:
                getattr(connection, name)(*arguments, **options)
            except LocalProtocolError:
                refused[stage] += 1
                assert snapshot(connection) == before

    check()
    assert refused


@pytest.mark.parametrize("stage", STAGES)
def test_looking_changes_nothing(stage):
    connection = STAGES[stage]()
    before = snapshot(connection)
    for name in ("state", "role", "peer", "limits", "rtt", "stats", "welcome", "capabilities", "stream_ids"):
        getattr(connection, name)
    assert connection.next_timeout() == connection.next_timeout()
    assert connection.wants_write in (True, False)
    assert connection.close_after_send in (True, False)
    for stream_id in range(-1, 15):
        connection.send_capacity(stream_id)
    for stream_id in connection.stream_ids:
        assert attrs.asdict(connection.stream_info(stream_id))["stream_id"] == stream_id
    assert snapshot(connection) == before


def test_the_snapshot_sees_a_single_byte_move():
    connection = STAGES["edge"]()
    before = snapshot(connection)
    connection.send_data(2, b"x")
    assert snapshot(connection) != before
