"""Property 2: how the carrier cuts the bytes changes nothing, neither for good bytes nor for bad ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_protocol import events as ev
from drtp_protocol.status import Role
from drtp_protocol.strategies import chunked, mutated, raw_frames
from drtp_protocol.testing import other


def plain(event):
    """Copy what an event says; it is compared after its buffer is gone."""
    match event:
        case ev.DataReceived():
            return ("data", event.stream_id, bytes(event.data), event.fin)
        case ev.DatagramReceived():
            return ("datagram", event.flow_id, bytes(event.data))
        case ev.ConnectionTerminated():
            return ("end", event.code, event.reason, event.remote, type(event.error))
        case _:
            return (event,)


def joined(items):
    """Make one of several DataReceived of one stream in a row: a frame streams through as it arrives."""
    result = []
    for item in items:
        last = result[-1] if result else (None,)
        if item[0] == last[0] == "data" and item[1] == last[1] and not last[3]:
            result[-1] = ("data", item[1], last[2] + item[2], item[3])
        else:
            result.append(item)
    return result


def feed(connection, chunks, react=None):
    """Hand over the chunks, spoiling each buffer afterwards; return all that can be observed."""
    items = []
    for chunk in chunks:
        buffer = bytearray(chunk)
        connection.receive_data(buffer, now=0.0)
        items += map(plain, react(connection) if react else connection.events())
        buffer[:] = b"\xee" * len(buffer)
    return joined(items), connection.data_to_send(now=0.0), connection.state, connection.stats


@pytest.mark.parametrize("receiver", Role)
@given(data=st.data())
def test_a_session_reads_the_same_however_it_is_cut(session, receiver, data):
    blob = session.portions[other(receiver)][-1]
    whole = feed(session.fresh(receiver), [blob])
    assert "end" not in [item[0] for item in whole[0]]
    assert feed(session.fresh(receiver), data.draw(chunked(blob))) == whole


@pytest.mark.parametrize("receiver", Role)
def test_a_session_reads_the_same_byte_by_byte(session, receiver):
    blob = session.portions[other(receiver)][-1]
    assert feed(session.fresh(receiver), [bytes((byte,)) for byte in blob]) == feed(session.fresh(receiver), [blob])


@pytest.mark.parametrize("receiver", Role)
@given(data=st.data())
def test_a_damaged_session_reads_the_same_however_it_is_cut(session, receiver, data):
    blob = data.draw(mutated(session.portions[other(receiver)][-1]))
    assert feed(session.fresh(receiver), data.draw(chunked(blob))) == feed(session.fresh(receiver), [blob])


@pytest.mark.parametrize("receiver", Role)
@given(data=st.data(), frames=st.lists(raw_frames(), max_size=8))
def test_any_frames_read_the_same_however_they_are_cut(session, receiver, data, frames):
    blob = b"".join(frames)
    assert feed(session.fresh(receiver), data.draw(chunked(blob))) == feed(session.fresh(receiver), [blob])


@pytest.mark.parametrize("receiver", Role)
@given(data=st.data())
def test_a_handshake_reads_the_same_however_it_is_cut(session, receiver, data):
    portions = session.portions[other(receiver)][:2]
    whole = feed(session.make(receiver), portions, session.greet)
    chunks = [chunk for portion in portions for chunk in data.draw(chunked(portion))]
    assert feed(session.make(receiver), chunks, session.greet) == whole


@pytest.mark.parametrize("receiver", Role)
@given(data=st.data())
def test_a_damaged_handshake_reads_the_same_however_it_is_cut(session, receiver, data):
    portion = data.draw(mutated(session.portions[other(receiver)][0]))
    whole = feed(session.make(receiver), [portion])
    assert feed(session.make(receiver), data.draw(chunked(portion))) == whole


def test_a_frame_that_begins_before_the_edge_has_answered_is_read_whole(session):
    """The agent may go away while its proof is examined; the cut may fall into that very frame."""
    edge = session.make(Role.EDGE)
    greeting, proof = session.portions[Role.AGENT][:2]
    edge.receive_data(greeting, now=0.0)
    goaway = bytes.fromhex("2100001000000000") + bytes(7) + b"\x12" + bytes(8)
    edge.receive_data(proof + goaway[:5], now=0.0)
    session.greet(edge)
    edge.receive_data(goaway[5:], now=0.0)
    (ended,) = [event for event in edge.events() if isinstance(event, ev.ConnectionTerminated)]
    assert ended.remote
    assert ended.error is None
