"""Property 1: one encoding for each frame, and nothing else is read."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drtp_protocol import frames, strategies, tlv
from drtp_protocol.errors import RemoteProtocolError
from drtp_protocol.handshake import Auth, Challenge, Hello, Welcome
from drtp_protocol.limits import Limits
from drtp_protocol.metadata import Address, OpenMetadata, TraceParent


@given(strategies.frames())
def test_a_frame_survives_the_wire(frame):
    assert frames.parse(frames.serialize(frame)) == frame


def canonical_or_refused(raw):
    try:
        frame = frames.parse(raw)
    except RemoteProtocolError:
        return
    assert frames.serialize(frame) == raw


@given(strategies.raw_frames())
@example(bytes.fromhex("100000040000000201000161"))  # OPEN without a protocol
@example(bytes.fromhex("1200000000000002"))  # empty DATA without FIN
@example(bytes.fromhex("1200000080000002"))  # and with
@example(bytes.fromhex("14000005000000020000000000"))  # a short RESET
@example(bytes.fromhex("1400000700000002000000000000ff"))  # a reason that is not UTF-8
@example(bytes.fromhex("2100001380000000" + "00" * 19))  # GOAWAY with F
@example(bytes.fromhex("2100001300000000" + "00" * 16 + "010000"))  # an empty reason
@example(bytes.fromhex("220000040000000003000102"))  # health that is neither 0 nor 1
def test_any_bytes_are_canonical_or_refused(raw):
    canonical_or_refused(raw)


@given(strategies.frames().map(frames.serialize).flatmap(strategies.mutated))
def test_damaged_frames_are_canonical_or_refused(raw):
    canonical_or_refused(raw)


@pytest.mark.parametrize(
    ("message", "whole"),
    [
        (Hello, strategies.hellos()),
        (Challenge, strategies.challenges()),
        (Auth, strategies.auths()),
        (Welcome, strategies.welcomes()),
        (OpenMetadata, strategies.open_metadata()),
        (Limits, strategies.limits()),
        (Address, strategies.addresses()),
        (TraceParent, strategies.trace_parents()),
    ],
)
def test_damaged_messages_are_canonical_or_refused(message, whole):
    @given(st.data())
    def check(data):
        value = data.draw(whole)
        raw = value.encode()
        assert message.decode(raw) == value
        damaged = data.draw(strategies.mutated(raw))
        try:
            read = message.decode(damaged)
        except RemoteProtocolError:
            return
        assert read.encode() == damaged

    check()


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=9)), max_size=6))
def test_only_ascending_lists_are_read(entries):
    raw = b"".join(bytes((kind, 0, len(value))) + value for kind, value in entries)
    kinds = [kind for kind, _ in entries]
    if kinds == sorted(set(kinds)):
        assert list(tlv.decode(raw).items()) == entries
        assert tlv.encode(entries) == raw
    else:
        with pytest.raises(RemoteProtocolError):
            tlv.decode(raw)


@given(strategies.frames().map(frames.serialize), st.data())
def test_a_frame_cut_short_or_continued_is_refused(raw, data):
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(RemoteProtocolError):
        frames.parse(raw[:cut])
    with pytest.raises(RemoteProtocolError):
        frames.parse(raw + b"\0")


@given(strategies.limits(), strategies.limits())
def test_limits_in_force_are_symmetric_and_never_above_either_end(mine, theirs):
    both = mine.intersect(theirs)
    assert both == theirs.intersect(mine)
    assert both.intersect(mine) == both
    for name in ("base_window", "max_frame", "max_streams", "max_pending_opens", "max_datagram"):
        assert getattr(both, name) == min(getattr(mine, name), getattr(theirs, name))
    timeouts = {mine.idle_timeout, theirs.idle_timeout}
    assert both.idle_timeout == (min(timeouts - {0}) if timeouts != {0} else 0)
