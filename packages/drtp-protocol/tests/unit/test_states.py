"""The tables, where a slip would be quiet. Every cell is gone through in the property tests."""

import pytest

from drtp_protocol import (
    CONNECTION_TRANSITIONS,
    STREAM_TRANSITIONS,
    ConnectionInput,
    ConnectionState,
    StreamInput,
    StreamState,
)


@pytest.mark.parametrize("sides", [("SEND", "RECV"), ("RECV", "SEND")])
def test_an_agent_and_an_edge_walk_the_same_path_to_open(sides):
    mine, theirs = sides
    state = ConnectionState.PREFACE
    steps = ((mine, "PREFACE"), (mine, "HELLO"), (theirs, "CHALLENGE"), (mine, "AUTH"), (theirs, "WELCOME"))
    for side, name in steps:
        state = CONNECTION_TRANSITIONS[state, ConnectionInput[f"{side}_{name}"]]
    assert state is ConnectionState.OPEN


@pytest.mark.parametrize("state", ConnectionState)
def test_every_connection_can_end(state):
    for moved in (ConnectionInput.SEND_CLOSE, ConnectionInput.RECV_CLOSE):
        assert CONNECTION_TRANSITIONS[state, moved] is ConnectionState.CLOSED


@pytest.mark.parametrize("table", [CONNECTION_TRANSITIONS, STREAM_TRANSITIONS])
def test_closed_leads_to_closed_only(table):
    after = {state for (before, _), state in table.items() if before.value == "closed"}
    assert {state.value for state in after} == {"closed"}


@pytest.mark.parametrize("state", set(StreamState) - {StreamState.IDLE, StreamState.CLOSED})
def test_every_open_stream_can_be_reset_from_both_ends(state):
    assert STREAM_TRANSITIONS[state, StreamInput.SEND_RESET] is StreamState.CLOSED
    assert STREAM_TRANSITIONS[state, StreamInput.RECV_RESET] is StreamState.CLOSED


def test_nothing_but_open_touches_an_idle_stream():
    inputs = {moved for state, moved in STREAM_TRANSITIONS if state is StreamState.IDLE}
    assert inputs == {StreamInput.SEND_OPEN, StreamInput.RECV_OPEN}


def test_a_closed_id_is_never_opened_again():
    assert (StreamState.CLOSED, StreamInput.RECV_OPEN) not in STREAM_TRANSITIONS


def test_members_are_found_in_tables_by_identity():
    assert hash(StreamState.OPEN) == object.__hash__(StreamState.OPEN)
    assert StreamState.OPEN != ConnectionState.OPEN
