from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.kube import Unavailable
from drtp_api.kube.framing import LineFramer


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.lists(st.integers(1, 9)))
def test_lines_come_out_whole_however_the_stream_is_cut(lines: list[bytes], cuts: list[int]):
    stream = b"".join(line + b"\n" for line in lines)
    framer, found, at = LineFramer(), [], 0
    for size in cuts:
        found += framer.receive_data(stream[at : at + size])
        at += size
    found += framer.receive_data(stream[at:])
    assert found == [line for line in lines if line.strip()]
    assert framer.pending_bytes == 0


def test_an_unfinished_line_waits_for_the_rest():
    framer = LineFramer()
    assert framer.receive_data(b'{"a":') == []
    assert framer.pending_bytes == 5
    assert framer.receive_data(b'1}\n{"b"') == [b'{"a":1}']
    assert framer.pending_bytes == 4


def test_a_line_beyond_the_limit_is_refused_instead_of_collected():
    framer = LineFramer(max_line_bytes=10)
    framer.receive_data(b"0123456789")
    with pytest.raises(Unavailable, match="10 bytes"):
        framer.receive_data(b"x")
