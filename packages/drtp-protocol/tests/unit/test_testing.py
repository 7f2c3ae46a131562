"""The pair of connections for tests tells the truth, and says so when two ends do not come to rest."""

import attrs
import pytest

from drtp_protocol.connection import Connection
from drtp_protocol.errors import ErrorCode
from drtp_protocol.events import ConnectionTerminated, DataReceived
from drtp_protocol.limits import Limits
from drtp_protocol.metadata import OpenMetadata
from drtp_protocol.status import Role
from drtp_protocol.testing import SERVICE, Pair


def test_a_pull_sends_the_control_frames_that_wait_first():
    pair = Pair(limits=Limits(base_window=2_048, max_frame=1_024))
    pair.establish()
    stream = pair.edge.open_stream(OpenMetadata(service=SERVICE), now=0.0)
    pair.edge.want_send(stream)
    assert pair.pull(Role.EDGE, bytes(3_000), fin=True) == (stream, 1_024)
    assert pair.wire[Role.EDGE][0] == 0x10
    assert pair.pull(Role.EDGE, bytes(1_024), fin=True) == (stream, 1_024)
    assert pair.pull(Role.EDGE, b"x") is None
    received = [event for event in pair.settle()[Role.AGENT] if isinstance(event, DataReceived)]
    assert [(len(event.data), event.fin) for event in received] == [(1_024, False), (1_024, True)]


def test_events_may_be_kept_although_the_buffer_is_overwritten():
    pair = Pair()
    pair.establish()
    stream = pair.edge.open_stream(OpenMetadata(service=SERVICE), now=0.0)
    pair.edge.send_data(stream, b"kept")
    (event,) = [event for event in pair.settle()[Role.AGENT] if isinstance(event, DataReceived)]
    assert bytes(event.data) == b"kept"


def test_a_wrong_proof_is_rejected():
    pair = Pair()
    pair.transmit(Role.AGENT)
    pair.deliver(Role.AGENT)
    pair.transmit(Role.EDGE)
    (required,) = pair.deliver(Role.EDGE)
    forged = attrs.evolve(required, transcript=attrs.evolve(required.transcript, session_id=b"another"))
    pair.answer(Role.AGENT, forged)
    ends = [event for events in pair.settle().values() for event in events if isinstance(event, ConnectionTerminated)]
    assert [event.code for event in ends] == [ErrorCode.AUTH_FAILED] * 2


def test_two_ends_that_answer_each_other_for_ever_are_an_error(monkeypatch):
    pair = Pair()
    pair.establish()
    monkeypatch.setattr(Connection, "data_to_send", lambda self, max_bytes=0, *, now: b"\x40" + bytes(7))
    with pytest.raises(AssertionError, match="do not come to rest"):
        pair.settle()


def test_a_proof_followed_by_nonsense_needs_no_answer():
    pair = Pair()
    pair.transmit(Role.AGENT)
    pair.deliver(Role.AGENT)
    pair.transmit(Role.EDGE)
    (required,) = pair.deliver(Role.EDGE)
    pair.answer(Role.AGENT, required)
    pair.transmit(Role.AGENT)
    pair.wire[Role.AGENT] += b"\x80" * 8
    received, ended = pair.deliver(Role.AGENT)
    assert isinstance(ended, ConnectionTerminated)
    assert pair.answer(Role.EDGE, received)
    assert not pair.answer(Role.EDGE, ended)
    assert not pair.edge.established
