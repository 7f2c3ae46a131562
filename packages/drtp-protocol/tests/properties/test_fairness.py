"""Property 7: nobody is starved, nobody waits behind a neighbour that stopped, control frames overtake data."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drtp_protocol import events as ev
from drtp_protocol.errors import ErrorCode
from drtp_protocol.frames import FrameType
from drtp_protocol.limits import Limits, Tuning
from drtp_protocol.metadata import OpenMetadata, Protocol
from drtp_protocol.scheduler import BULK_EVERY, INTERACTIVE_BYTES
from drtp_protocol.status import Role
from drtp_protocol.testing import SERVICE, Pair

QUANTUM = 1_024
LIMITS = Limits(base_window=2**20, max_frame=QUANTUM, max_datagram=QUANTUM)
QUIET = Tuning(keepalive=1e6, dead_after=2e6, rtt_interval=1e6)
METADATA = OpenMetadata(service=SERVICE)
FLOW = OpenMetadata(service=SERVICE, protocol=Protocol.UDP)


def opened(count, **options):
    """Return an established pair with `count` accepted streams of the edge, and their ids."""
    pair = Pair(**{"limits": LIMITS, "tuning": QUIET, **options})
    pair.establish()
    streams = [pair.edge.open_stream(METADATA, now=pair.now) for _ in range(count)]
    pair.settle()
    for stream_id in streams:
        pair.agent.accept_stream(stream_id)
    pair.settle()
    return pair, streams


def turn(pair, size=QUANTUM):
    """Let the stream whose turn it is send as much as it may, at most `size`."""
    stream_id, sent = pair.pull(Role.EDGE, bytes(size))
    pair.wire[Role.EDGE].clear()
    return stream_id, sent


@given(count=st.integers(2, 8), turns=st.integers(1, 400), step=st.sampled_from([0.0, 1e-5]))
@example(count=2, turns=400, step=0.0)
def test_greedy_streams_differ_by_two_quanta_at_most(count, turns, step):
    pair, streams = opened(count)
    sent = dict.fromkeys(streams, 0)
    for stream_id in streams:
        pair.edge.want_send(stream_id)
    for _ in range(turns):
        stream_id, size = turn(pair)
        sent[stream_id] += size
        pair.now += step
    assert max(sent.values()) - min(sent.values()) <= 2 * QUANTUM


@given(count=st.integers(2, 6), step=st.sampled_from([0.0003, 0.004, 0.03]), turns=st.integers(100, 800))
def test_slow_greedy_streams_differ_by_their_interactive_share_at_most(count, step, turns):
    """Streams near the border between the lanes change it now and then; it may win them that much and no more."""
    pair, streams = opened(count)
    sent = dict.fromkeys(streams, 0)
    for stream_id in streams:
        pair.edge.want_send(stream_id)
    for _ in range(turns):
        stream_id, size = turn(pair)
        sent[stream_id] += size
        pair.now += step
    assert max(sent.values()) - min(sent.values()) <= INTERACTIVE_BYTES + 2 * QUANTUM


@given(count=st.integers(2, 8), portion=st.integers(1, 3_000))
@example(count=2, portion=1_150)
@example(count=2, portion=1_479)
@example(count=2, portion=694)
def test_pushed_streams_take_turns_too(count, portion):
    """A quantum more than pulled ones: streams become bulk one after the other, and the last gets a turn twice."""
    pair, streams = opened(count)
    for stream_id in streams:
        pair.edge.send_data(stream_id, bytes(100_000))
    sent = dict.fromkeys(streams, 0)
    for _ in range(200):
        pair.edge.data_to_send(portion, now=pair.now)
        sent = {stream_id: pair.edge.stream_info(stream_id).sent for stream_id in streams}
        if min(sent.values()) == 100_000:
            break
        assert max(sent.values()) - min(sent.values()) <= 2 * max(QUANTUM, portion) + QUANTUM


@given(
    stalled=st.integers(1, 4),
    live=st.integers(1, 3),
    pulled=st.booleans(),
    flows=st.integers(0, 1),
    order=st.randoms(use_true_random=False),
)
@example(stalled=1, live=1, pulled=True, flows=0, order=None)
@example(stalled=1, live=1, pulled=False, flows=0, order=None)
def test_a_stalled_reader_does_not_stop_its_neighbours(stalled, live, pulled, flows, order):
    pair, streams = opened(stalled + live, limits=Limits(base_window=2_048, max_frame=QUANTUM))
    for _ in range(flows):
        flow = pair.edge.open_stream(FLOW, now=pair.now)
        pair.edge.send_datagram(flow, b"x", now=pair.now)
    if order is not None:
        order.shuffle(streams)
    stuck, moving = streams[:stalled], streams[stalled:]
    received = dict.fromkeys(streams, 0)
    for stream_id in streams:
        if pulled:
            pair.edge.want_send(stream_id)
        else:
            pair.edge.send_data(stream_id, bytes(2_048 * 10))
    for _ in range(300):
        if pulled:
            pair.pull(Role.EDGE, bytes(QUANTUM))
        pair.transmit(Role.EDGE)
        for event in pair.deliver(Role.EDGE):
            if isinstance(event, ev.DataReceived):
                received[event.stream_id] += len(event.data)
                if event.stream_id in moving:
                    pair.agent.acknowledge(event.stream_id, len(event.data), now=pair.now)
        pair.transmit(Role.AGENT)
        pair.deliver(Role.AGENT)
    for stream_id in stuck:
        assert received[stream_id] == 2_048
    for stream_id in moving:
        assert received[stream_id] >= 2_048 * 10
    # And the stuck ones go on as soon as somebody reads.
    for stream_id in stuck:
        pair.agent.acknowledge(stream_id, 2_048, now=pair.now)
    pair.transmit(Role.AGENT)
    pair.deliver(Role.AGENT)
    for _ in range(10 * len(streams)):
        if pulled:
            pair.pull(Role.EDGE, bytes(QUANTUM))
        pair.transmit(Role.EDGE)
    for stream_id in stuck:
        assert pair.edge.stream_info(stream_id).sent >= 4_096


def test_a_keystroke_does_not_wait_behind_a_download():
    pair, (bulk, keys) = opened(2)
    pair.edge.want_send(bulk)
    for _ in range(60):
        assert turn(pair)[0] == bulk
        pair.now += 1e-4
    pair.edge.want_send(keys)
    assert turn(pair, 10)[0] == keys


def test_many_interactive_streams_do_not_starve_a_download():
    pair, streams = opened(60)
    bulk, *interactive = streams
    pair.edge.want_send(bulk)
    for _ in range(60):
        turn(pair)
    for stream_id in interactive:
        pair.edge.want_send(stream_id)
    served = [turn(pair, 8)[0] for _ in range(10 * (BULK_EVERY + 1))]
    assert served.count(bulk) == 10


def test_a_dry_stream_leaves_its_turn_to_the_next():
    pair, (dry, wet) = opened(2)
    pair.edge.want_send(dry)
    pair.edge.want_send(wet)
    assert pair.edge.next_send(pair.now)[0] == dry
    pair.edge.want_send(dry, False)
    assert pair.edge.next_send(pair.now)[0] == wet
    pair.edge.want_send(dry)
    assert turn(pair)[0] == wet
    assert turn(pair)[0] == dry


CONTROL = {
    "ping": lambda pair, stream_id: pair.edge.ping(now=pair.now),
    "reset": lambda pair, stream_id: pair.edge.reset_stream(stream_id, ErrorCode.CANCEL),
    "open": lambda pair, stream_id: pair.edge.open_stream(METADATA, now=pair.now),
    "go away": lambda pair, stream_id: pair.edge.go_away(drain=9.0, now=pair.now),
    "challenge": lambda pair, stream_id: pair.edge.challenge(b"\7" * 32, now=pair.now),
}
KINDS = {
    "ping": FrameType.PING,
    "reset": FrameType.RESET,
    "open": FrameType.OPEN,
    "go away": FrameType.GOAWAY,
    "challenge": FrameType.CHALLENGE,
}


@pytest.mark.parametrize("what", CONTROL)
def test_a_control_frame_overtakes_all_data_that_waits(what):
    pair, (loud, quiet) = opened(2)
    pair.edge.send_data(loud, bytes(250_000))
    pair.edge.data_to_send(3_000, now=pair.now)
    CONTROL[what](pair, quiet)
    assert pair.edge.data_to_send(64, now=pair.now)[0] == KINDS[what]


@pytest.mark.parametrize("what", CONTROL)
def test_no_frame_is_pulled_before_the_control_frames_that_wait(what):
    pair, (loud, quiet) = opened(2)
    pair.edge.want_send(loud)
    assert pair.edge.next_send(pair.now)[0] == loud
    CONTROL[what](pair, quiet)
    assert pair.edge.next_send(pair.now) is None
    assert pair.edge.data_to_send(now=pair.now)[0] == KINDS[what]
    assert pair.edge.next_send(pair.now)[0] == loud


def test_fresh_datagrams_push_out_the_oldest():
    pair, _ = opened(0)
    flows = [pair.edge.open_stream(FLOW, now=pair.now) for _ in range(3)]
    pair.settle()
    payloads = [bytes((index,)) * 1_000 for index in range(250)]
    for flow in flows:
        for payload in payloads:
            assert pair.edge.send_datagram(flow, payload, now=pair.now)
    seen = {flow: [] for flow in flows}
    for event in pair.settle()[Role.AGENT]:
        seen[event.flow_id].append(bytes(event.data))
    for got in seen.values():
        assert got == payloads[-len(got) :]
        assert 60 <= len(got) < 66
    assert pair.edge.stats.datagrams_dropped == 750 - sum(map(len, seen.values()))


def test_all_flows_together_are_bounded_and_the_oldest_go_first():
    tuning = Tuning(datagram_queue=10_000, datagram_total=15_000)
    pair, _ = opened(0, tuning=tuning)
    flows = [pair.edge.open_stream(FLOW, now=pair.now) for _ in range(4)]
    pair.settle()
    for number in range(40):
        assert pair.edge.send_datagram(flows[number % 4], bytes((number,)) * 900, now=pair.now)
        assert pair.edge._datagram_bytes <= 15_000
    numbers = {event.data[0] for event in pair.settle()[Role.AGENT]}
    assert len(numbers) == 15_000 // 932
    assert min(numbers) >= 40 - 2 * len(numbers)
