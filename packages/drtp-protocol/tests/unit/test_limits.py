"""Limits on the wire and between two ends."""

import pytest

from drtp_protocol import InvalidMetadata, Limits, RemoteProtocolError


def test_limits_are_eighteen_bytes_and_read_back():
    limits = Limits(base_window=1, max_frame=2, max_streams=3, max_pending_opens=4, max_datagram=5, idle_timeout=6)
    assert limits.encode() == bytes.fromhex("00000001 00000002 0003 0004 0005 0006 0000")
    assert Limits.decode(limits.encode()) == limits


@pytest.mark.parametrize(
    "change",
    [
        {"base_window": 0},
        {"base_window": 2**31 + 1},
        {"max_frame": 0},
        {"max_frame": 262_145},
        {"max_streams": 0},
        {"max_streams": 65_536},
        {"max_pending_opens": 0},
        {"max_datagram": 65_508},
        {"max_datagram": -1},
        {"idle_timeout": 65_536},
    ],
)
def test_values_out_of_range_are_refused(change):
    with pytest.raises(InvalidMetadata, match=next(iter(change))):
        Limits(**change)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Limits().encode()[:-1], "17 bytes"),
        (Limits().encode() + b"\0", "19 bytes"),
        (Limits().encode()[:-1] + b"\1", "reserved"),
        (bytes(18), "base_window"),
    ],
)
def test_malformed_limits_are_the_peers_fault(data, message):
    with pytest.raises(RemoteProtocolError, match=message):
        Limits.decode(data)


def test_the_smaller_of_each_is_in_force():
    mine = Limits(base_window=10, max_frame=2_000, max_streams=5, max_pending_opens=9, max_datagram=7)
    theirs = Limits(base_window=20, max_frame=1_000, max_streams=6, max_pending_opens=8, max_datagram=70)
    both = Limits(base_window=10, max_frame=1_000, max_streams=5, max_pending_opens=8, max_datagram=7)
    assert mine.intersect(theirs) == both == theirs.intersect(mine)


@pytest.mark.parametrize(("mine", "theirs", "both"), [(0, 0, 0), (0, 5, 5), (5, 0, 5), (5, 9, 5)])
def test_an_idle_timeout_of_zero_yields(mine, theirs, both):
    assert Limits(idle_timeout=mine).intersect(Limits(idle_timeout=theirs)).idle_timeout == both
