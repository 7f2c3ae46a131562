from __future__ import annotations

import itertools
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drtp_edge.httphead import HeadError, HeadReader, answer, host_name

REQUEST = b"GET /path HTTP/1.1\r\nHost: Shop.Prism.localhost:8880\r\nAccept: */*\r\n\r\n"


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("a.example", "a.example"),
        ("A.Example:8880", "a.example"),
        ("a.example.", "a.example"),
        ("[2001:db8::1]:80", "[2001:db8::1]"),
        ("  a.example ", "a.example"),
        ("", ""),
    ],
)
def test_a_host_is_compared_without_port_case_and_final_dot(value, host):
    assert host_name(value) == host


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, len(REQUEST)), max_size=6))
def test_the_host_is_found_wherever_the_head_is_cut_and_the_bytes_stay_as_they_were(cuts):
    reader = HeadReader(16_384)
    edges = [0, *sorted(cuts), len(REQUEST)]
    found = None
    for start, end in itertools.pairwise(edges):
        if start == end:
            continue
        assert found is None
        found = reader.feed(REQUEST[start:end])
    assert found == "shop.prism.localhost"
    assert bytes(reader.raw) == REQUEST


def test_a_body_that_came_with_the_head_is_kept():
    reader = HeadReader(16_384)
    data = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    assert reader.feed(data) == "x"
    assert bytes(reader.raw) == data


def test_a_head_that_is_too_long_is_refused_before_it_is_complete():
    reader = HeadReader(1024)
    reader.feed(b"GET / HTTP/1.1\r\nHost: x\r\nA: ")
    for _ in range(9):
        assert reader.feed(b"y" * 100) is None
    with pytest.raises(HeadError) as caught:
        reader.feed(b"y" * 200)
    assert caught.value.status is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    assert len(reader.raw) < 1300


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"nonsense\r\n\r\n", b"\r\n\r\n\r\n\r\nx\r\n\r\n"]
)
def test_what_is_not_http_is_a_bad_request(sent):
    with pytest.raises(HeadError) as caught:
        HeadReader(16_384).feed(sent)
    assert caught.value.status is HTTPStatus.BAD_REQUEST


def test_a_request_without_a_host_is_a_bad_request():
    with pytest.raises(HeadError) as caught:
        HeadReader(16_384).feed(b"GET / HTTP/1.0\r\n\r\n")
    assert caught.value.status is HTTPStatus.BAD_REQUEST


def test_an_answer_is_whole_and_ends_the_connection():
    text = answer(HTTPStatus.NOT_FOUND, "No.").decode()
    head, _, body = text.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 404 Not Found\r\n")
    assert f"content-length: {len(body)}" in head
    assert "connection: close" in head
