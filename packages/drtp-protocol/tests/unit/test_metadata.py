"""OPEN metadata, addresses, trace context."""

import pytest

from drtp_protocol import (
    Address,
    ErrorCode,
    InvalidMetadata,
    OpenMetadata,
    Protocol,
    RemoteProtocolError,
    TraceParent,
)
from drtp_protocol.tlv import encode

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FULL = OpenMetadata(
    service="default/shop",
    protocol=Protocol.UDP,
    source=Address.from_host("192.0.2.1", 40_000),
    destination=Address.from_host("2001:db8::1", 443),
    traceparent=TraceParent.parse(TRACE),
    tracestate="a=b",
    sni="shop.example",
    alpn=(b"h2", b"http/1.1"),
    edge_conn_id=bytes(range(16)),
    initial=b"",
    opened_at=2**64 - 1,
    extensions=((0x0C, b"later"), (0x7F, b"")),
)


@pytest.mark.parametrize("metadata", [FULL, OpenMetadata(service="a/b")])
def test_metadata_reads_back(metadata):
    assert OpenMetadata.decode(metadata.encode()) == metadata


@pytest.mark.parametrize(
    ("host", "text", "family"),
    [
        ("192.0.2.1", "192.0.2.1:80", 4),
        ("2001:db8::1", "[2001:db8::1]:80", 6),
        ("fe80::1%eth0", "[fe80::1]:80", 6),
        ("::ffff:192.0.2.1", "192.0.2.1:80", 4),
    ],
)
def test_addresses_come_from_literals(host, text, family):
    address = Address.from_host(host, 80)
    assert (str(address), address.family) == (text, family)
    assert Address.decode(address.encode()) == address


def test_a_mapped_address_may_be_kept():
    assert Address.from_host("::ffff:192.0.2.1", 80, mapped=False).family == 6


def test_an_unknown_address_has_a_port_only():
    address = Address(b"", 9)
    assert (str(address), address.host, address.family) == ("unknown:9", "", 0)
    assert Address.decode(address.encode()) == address


@pytest.mark.parametrize(("packed", "port"), [(b"abc", 1), (b"", -1), (b"", 65_536)])
def test_impossible_addresses_are_refused(packed, port):
    with pytest.raises(InvalidMetadata):
        Address(packed, port)


def test_a_host_name_is_no_address():
    with pytest.raises(InvalidMetadata, match="localhost"):
        Address.from_host("localhost", 1)


@pytest.mark.parametrize("data", [b"", b"\x05abcd\0\1", b"\x04abc\0\1", b"\x06" + bytes(17), b"\0\0\1\0"])
def test_malformed_addresses_are_the_peers_fault(data):
    with pytest.raises(RemoteProtocolError, match="wrong family or size"):
        Address.decode(data)


def test_a_traceparent_reads_back_as_text_and_as_bytes():
    trace = TraceParent.parse(TRACE)
    assert str(trace) == TRACE
    assert len(trace.encode()) == 26
    assert TraceParent.decode(trace.encode()) == trace


@pytest.mark.parametrize(
    "text", ["", TRACE[:-1], TRACE.replace("0af7", "zzzz"), TRACE.replace("-01", "-  "), TRACE + "-"]
)
def test_other_texts_are_no_traceparent(text):
    with pytest.raises(InvalidMetadata, match="not a traceparent"):
        TraceParent.parse(text)


@pytest.mark.parametrize("change", [{"trace_id": b"x"}, {"span_id": b"x"}, {"flags": 256}, {"version": -1}])
def test_a_traceparent_has_fixed_sizes(change):
    with pytest.raises(InvalidMetadata):
        TraceParent(**{"trace_id": bytes(16), "span_id": bytes(8), **change})


def test_a_traceparent_of_another_size_is_the_peers_fault():
    with pytest.raises(RemoteProtocolError, match="25 bytes"):
        TraceParent.decode(bytes(25))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"service": ""}, "no service"),
        ({"service": "x" * 254}, "service exceeds 253"),
        ({"service": "é" * 127}, "service exceeds 253"),
        ({"service": "\ud800"}, "not encodable"),
        ({"sni": "x" * 254}, "sni exceeds"),
        ({"tracestate": "x" * 513}, "tracestate exceeds"),
        ({"alpn": (b"",)}, "alpn"),
        ({"alpn": (bytes(127), bytes(127))}, "alpn"),
        ({"edge_conn_id": b"x"}, "edge_conn_id of 1"),
        ({"initial": b"x"}, "on a TCP stream"),
        ({"initial": bytes(1025), "protocol": Protocol.UDP}, "1025 bytes"),
        ({"opened_at": -1}, "u64"),
        ({"opened_at": 2**64}, "u64"),
        ({"extensions": ((0x0B, b""),)}, "has a field"),
    ],
)
def test_metadata_that_cannot_be_sent_is_not_built(change, message):
    with pytest.raises(InvalidMetadata, match=message):
        OpenMetadata(**{"service": "a/b", **change})


def test_texts_are_bounded_in_bytes():
    assert OpenMetadata.decode(OpenMetadata(service="é" * 126).encode()).service == "é" * 126


def test_metadata_over_four_kibibytes_is_not_encoded():
    with pytest.raises(InvalidMetadata, match="exceeds 4096"):
        OpenMetadata(service="a/b", extensions=((0x70, bytes(4090)),)).encode()


def entries(**change):
    found = {0x01: b"a/b", 0x02: b"\x01"}
    found.update({int(kind, 16): value for kind, value in change.items()})
    return encode(sorted((kind, value) for kind, value in found.items() if value is not None))


@pytest.mark.parametrize(
    ("payload", "message", "code"),
    [
        (entries(**{"01": None}), "no service", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"01": b""}), "0x01 is empty", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"01": b"\xff"}), "not UTF-8", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"02": None}), "protocol of 0 bytes", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"02": b"\x01\x01"}), "protocol of 2 bytes", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"02": b"\x03"}), "protocol 3", ErrorCode.UNSUPPORTED),
        (entries(**{"07": b""}), "0x07 is empty", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"08": b""}), "alpn is empty", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"08": b"\x00"}), "empty name", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"09": b"x"}), "edge_conn_id", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"0a": b"x"}), "TCP stream", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"0b": b"x"}), "opened_at of 1", ErrorCode.PROTOCOL_ERROR),
        (entries(**{"80": b""}), "must be understood", ErrorCode.UNSUPPORTED),
    ],
)
def test_malformed_metadata_is_the_peers_fault(payload, message, code):
    with pytest.raises(RemoteProtocolError, match=message) as caught:
        OpenMetadata.decode(payload)
    assert caught.value.code is code
