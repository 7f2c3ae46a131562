"""One stream."""

import pytest

from drtp_protocol import Protocol, StreamState
from drtp_protocol.states import STREAM_TRANSITIONS, StreamInput
from drtp_protocol.stream import Stream


def stream(*moves, local=True, protocol=Protocol.TCP):
    made = Stream(2, protocol, 64, local=local, now=1.0)
    for moved in moves:
        assert made.move(moved)
    return made


def test_an_opener_may_send_and_not_receive_before_accept():
    opener = stream()
    assert (opener.state, opener.can_send, opener.can_receive) == (StreamState.OPENING, True, False)
    offered = stream(local=False)
    assert (offered.state, offered.can_send, offered.can_receive) == (StreamState.OFFERED, False, True)


def test_a_move_that_the_table_lacks_changes_nothing():
    opener = stream()
    assert not opener.move(StreamInput.RECV_DATA)
    assert not opener.allows(StreamInput.RECV_DATA)
    assert opener.state is StreamState.OPENING


@pytest.mark.parametrize("state", set(StreamState) - {StreamState.IDLE})
def test_the_booleans_of_the_hot_path_say_what_the_table_says(state):
    made = stream()
    made.state = state
    for before, moved in STREAM_TRANSITIONS:
        if before is state and moved not in {StreamInput.SEND_RESET, StreamInput.RECV_RESET}:
            made.state = before
            assert made.move(moved)
            after = made.state
            assert made.can_send is ((after, StreamInput.SEND_FIN) in STREAM_TRANSITIONS)
            receives = (after, StreamInput.RECV_FIN) in STREAM_TRANSITIONS and after is not StreamState.CLOSED
            assert made.can_receive is receives


def test_a_flow_never_receives_data():
    flow = stream(StreamInput.RECV_ACCEPT, protocol=Protocol.UDP)
    assert flow.can_send
    assert not flow.can_receive


def test_a_stream_is_pending_until_accept():
    assert stream().pending
    assert stream(StreamInput.SEND_FIN).pending
    assert stream(StreamInput.RECV_FIN, local=False).pending
    assert not stream(StreamInput.RECV_ACCEPT).pending


def test_credit_is_due_when_half_of_the_window_is_consumed():
    assert stream().update_at == 32
    assert Stream(2, Protocol.TCP, 1, local=True, now=0.0).update_at == 1


def test_a_snapshot_shows_both_limits():
    info = stream(local=False).info()
    assert (info.stream_id, info.protocol, info.local) == (2, Protocol.TCP, False)
    assert (info.send_limit, info.receive_limit, info.window) == (64, 64, 64)
    assert stream(protocol=Protocol.UDP).info().protocol is Protocol.UDP
