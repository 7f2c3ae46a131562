"""The two lanes."""

from drtp_protocol import Protocol
from drtp_protocol.scheduler import BULK_EVERY, INTERACTIVE_BYTES, LANE_TIME, YIELDING_FRAME, Lanes
from drtp_protocol.stream import Stream


def stream(number):
    return Stream(number, Protocol.TCP, 64, local=True, now=0.0)


def serve(lanes, turns, *, size=10, now=0.0):
    """Let `turns` streams send and return their ids in order."""
    served = []
    for _ in range(turns):
        ring = lanes.head()
        served.append(ring[0].stream_id)
        lanes.rotate(ring, ring[0], size, now)
    return served


def make(*, bulk=0, interactive=0):
    lanes = Lanes()
    for number in range(1, bulk + 1):
        made = stream(number)
        made.burst = INTERACTIVE_BYTES + 1
        lanes.append(made, 0.0)
    for number in range(101, 101 + interactive):
        lanes.append(stream(number), 0.0)
    return lanes


def test_empty_lanes_have_no_head():
    lanes = Lanes()
    assert lanes.head() is None
    assert len(lanes) == 0
    assert not lanes


def test_streams_of_a_lane_take_turns():
    assert serve(make(interactive=3), 7) == [101, 102, 103, 101, 102, 103, 101]


def test_interactive_streams_go_before_bulk():
    assert serve(make(bulk=2, interactive=2), 4) == [101, 102, 101, 102]


def test_bulk_is_not_starved():
    served = serve(make(bulk=2, interactive=1), 3 * (BULK_EVERY + 1))
    assert served.count(1) + served.count(2) == 3
    assert served[BULK_EVERY] == 1


def test_a_stream_that_moves_much_becomes_bulk():
    lanes = make(interactive=2)
    assert serve(lanes, 1, size=INTERACTIVE_BYTES + 1) == [101]
    assert serve(lanes, 3) == [102, 102, 102]


def test_a_steady_bulk_stream_stays_bulk():
    lanes = make(bulk=1, interactive=1)
    now = 0.0
    for _ in range(100):
        now += LANE_TIME / 4
        lanes.rotate(lanes._bulk, lanes._bulk[0], YIELDING_FRAME, now)
        assert [made.stream_id for made in lanes._bulk] == [1]


def test_a_bulk_stream_that_paused_is_interactive_again():
    lanes = Lanes()
    made = stream(1)
    made.burst = INTERACTIVE_BYTES + 1
    lanes.append(made, LANE_TIME * 1.1)
    assert lanes.head() is lanes._interactive
    made.burst = 10 * INTERACTIVE_BYTES
    lanes.rotate(lanes.head(), made, 10, LANE_TIME * 3)
    assert made.burst == 10


def test_bulk_frames_shrink_while_others_are_interactive():
    lanes = make(bulk=1, interactive=1)
    bulk, interactive = lanes._bulk, lanes._interactive
    assert lanes.frame_cap(bulk, 0.0) > YIELDING_FRAME
    serve(lanes, 1, now=5.0)
    assert lanes.frame_cap(bulk, 5.0) == YIELDING_FRAME
    assert lanes.frame_cap(interactive, 5.0) > YIELDING_FRAME
    assert lanes.frame_cap(bulk, 5.0 + 2 * LANE_TIME) > YIELDING_FRAME


def test_lanes_can_be_looked_through_and_cleared():
    lanes = make(bulk=1, interactive=1)
    assert [made.stream_id for made in lanes] == [101, 1]
    assert len(lanes) == 2
    lanes.clear()
    assert list(lanes) == []
