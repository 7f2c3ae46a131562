"""Property 4: both tables, every cell. Nothing is sampled here."""

import itertools

import pytest

from drtp_protocol.states import (
    CONNECTION_TRANSITIONS,
    STREAM_TRANSITIONS,
    ConnectionInput,
    ConnectionState,
    StreamInput,
    StreamState,
)

TABLES = [
    pytest.param(CONNECTION_TRANSITIONS, ConnectionState, ConnectionInput, ConnectionState.PREFACE, id="connection"),
    pytest.param(STREAM_TRANSITIONS, StreamState, StreamInput, StreamState.IDLE, id="stream"),
]


@pytest.mark.parametrize(("table", "states", "inputs", "first"), TABLES)
def test_cells_hold_states_and_inputs_and_nothing_else(table, states, inputs, first):
    assert set(table) <= set(itertools.product(states, inputs))
    assert set(table.values()) <= set(states)


@pytest.mark.parametrize(("table", "states", "inputs", "first"), TABLES)
def test_every_state_can_be_reached_and_left_for_closed(table, states, inputs, first):
    def reachable(start):
        found, todo = {start}, [start]
        while todo:
            state = todo.pop()
            fresh = {to for (at, _), to in table.items() if at is state} - found
            found |= fresh
            todo += fresh
        return found

    assert reachable(first) == set(states)
    for state in states:
        assert states.CLOSED in reachable(state)


@pytest.mark.parametrize(("table", "states", "inputs", "first"), TABLES)
def test_closed_absorbs(table, states, inputs, first):
    assert {to for (at, _), to in table.items() if at is states.CLOSED} == {states.CLOSED}


@pytest.mark.parametrize(("table", "states", "inputs", "first"), TABLES)
def test_every_input_is_legal_somewhere(table, states, inputs, first):
    assert {moved for _, moved in table} == set(inputs)


_OTHER = {
    moved: type(moved)[("RECV" + moved.name[4:]) if moved.name.startswith("SEND") else ("SEND" + moved.name[4:])]
    for moved in [*ConnectionInput, *StreamInput]
}


def test_the_connection_table_treats_both_roles_alike():
    """What one end may send in a state the other may receive in it, frames that a drain lets lapse excepted."""
    for (at, moved), to in CONNECTION_TRANSITIONS.items():
        if moved.name.startswith("SEND"):
            assert CONNECTION_TRANSITIONS[at, _OTHER[moved]] is to, (at, moved)


_SEEN_FROM_THE_PEER = {
    StreamState.OPENING: StreamState.OFFERED,
    StreamState.OPENING_FIN: StreamState.OFFERED_FIN,
    StreamState.HALF_CLOSED_LOCAL: StreamState.HALF_CLOSED_REMOTE,
}
_SEEN_FROM_THE_PEER |= {theirs: ours for ours, theirs in _SEEN_FROM_THE_PEER.items()}


def test_what_a_stream_may_send_its_peer_may_receive():
    for (at, moved), to in STREAM_TRANSITIONS.items():
        if moved.name.startswith("SEND"):
            theirs = _SEEN_FROM_THE_PEER.get(at, at)
            assert STREAM_TRANSITIONS[theirs, _OTHER[moved]] is _SEEN_FROM_THE_PEER.get(to, to), (at, moved)


LEGAL = {
    StreamState.IDLE: "SEND_OPEN RECV_OPEN",
    StreamState.OPENING: "SEND_DATA SEND_FIN RECV_ACCEPT SEND_RESET RECV_RESET",
    StreamState.OPENING_FIN: "RECV_ACCEPT SEND_RESET RECV_RESET",
    StreamState.OFFERED: "RECV_DATA RECV_FIN SEND_ACCEPT SEND_RESET RECV_RESET",
    StreamState.OFFERED_FIN: "SEND_ACCEPT SEND_RESET RECV_RESET",
    StreamState.OPEN: "SEND_DATA RECV_DATA SEND_FIN RECV_FIN SEND_WINDOW RECV_WINDOW SEND_RESET RECV_RESET",
    StreamState.HALF_CLOSED_LOCAL: "RECV_DATA RECV_FIN SEND_WINDOW RECV_WINDOW SEND_RESET RECV_RESET",
    StreamState.HALF_CLOSED_REMOTE: "SEND_DATA SEND_FIN RECV_WINDOW SEND_RESET RECV_RESET",
    StreamState.CLOSED: "RECV_ACCEPT RECV_DATA RECV_FIN RECV_WINDOW RECV_RESET",
}


@pytest.mark.parametrize("state", StreamState)
@pytest.mark.parametrize("moved", StreamInput)
def test_every_cell_of_the_stream_table_is_as_specified(state, moved):
    assert ((state, moved) in STREAM_TRANSITIONS) == (moved.name in LEGAL[state].split())
