"""PROXY protocol, both versions."""

import pytest

from drtp_protocol import Address, InvalidMetadata, ProxyHeader, ProxyProtocolError, ProxyTlv
from drtp_protocol.proxyproto import MAX_PROXY_HEADER, decode_proxy, encode_v1, encode_v2

V4 = ProxyHeader(source=Address.from_host("192.0.2.1", 1), destination=Address.from_host("198.51.100.2", 65_535))
V6 = ProxyHeader(source=Address.from_host("2001:db8::1", 0), destination=Address.from_host("::1", 443))
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command, family, body=b"", length=None):
    return SIGNATURE + bytes((command, family)) + (len(body) if length is None else length).to_bytes(2, "big") + body


def test_version_1_is_the_line_of_the_specification():
    assert encode_v1(V4) == b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65535\r\n"
    assert encode_v1(V6) == b"PROXY TCP6 2001:db8::1 ::1 0 443\r\n"
    assert encode_v1(ProxyHeader()) == b"PROXY UNKNOWN\r\n"


def test_version_2_is_the_layout_of_the_specification():
    assert encode_v2(V4) == v2(0x21, 0x11, bytes.fromhex("c0000201 c6336402 0001 ffff"))
    assert encode_v2(ProxyHeader(local=True)) == v2(0x20, 0x00)


HEADERS = [
    V4,
    V6,
    ProxyHeader(),
    ProxyHeader(local=True),
    ProxyHeader(source=V4.source, destination=V4.destination, datagram=True),
    ProxyHeader(
        source=V6.source,
        destination=V6.destination,
        datagram=True,
        tlvs=((ProxyTlv.AUTHORITY, b"shop.example"), (ProxyTlv.NOOP, b"")),
    ),
    ProxyHeader(tlvs=((ProxyTlv.ALPN, b"h2"),)),
]


@pytest.mark.parametrize("header", HEADERS)
def test_version_2_reads_back_from_any_cut(header):
    data = encode_v2(header)
    assert decode_proxy(data + b"GET /") == (header, len(data))
    for size in range(len(data)):
        assert decode_proxy(data[:size]) is None


@pytest.mark.parametrize("header", HEADERS[:3])
def test_version_1_reads_back_from_any_cut(header):
    data = encode_v1(header)
    assert decode_proxy(data + b"GET /") == (header, len(data))
    for size in range(len(data)):
        assert decode_proxy(data[:size]) is None


def test_what_follows_unknown_and_local_is_ignored():
    assert decode_proxy(b"PROXY UNKNOWN ff::1 whatever\r\n") == (ProxyHeader(), 30)
    data = v2(0x20, 0x11, bytes(12))
    assert decode_proxy(data) == (ProxyHeader(local=True), len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\r\n\r\nX",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        b"PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.1 1 2\r\n",
        b"PROXY TCP6 ::1 fe80::1%lo 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 \xff 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY " + b"x" * 101,
        v2(0x22, 0x11, bytes(12)),
        v2(0x11, 0x11, bytes(12)),
        v2(0x21, 0x31, bytes(216)),
        v2(0x21, 0x13, bytes(12)),
        v2(0x21, 0x11, bytes(11)),
        v2(0x21, 0x21, bytes(35)),
        v2(0x21, 0x11, bytes(12) + b"\1\0"),
        v2(0x21, 0x11, bytes(12) + b"\1\0\2x"),
        v2(0x21, 0x11, length=MAX_PROXY_HEADER - 15),
    ],
)
def test_malformed_headers_are_refused(data):
    with pytest.raises(ProxyProtocolError):
        decode_proxy(data)


def test_a_bad_version_or_family_is_refused_before_the_length():
    with pytest.raises(ProxyProtocolError, match="command"):
        decode_proxy(v2(0x31, 0)[:13])
    with pytest.raises(ProxyProtocolError, match="family"):
        decode_proxy(v2(0x21, 0x99)[:14])


@pytest.mark.parametrize(
    "change",
    [
        {"source": V4.source},
        {"source": V4.source, "destination": V6.source},
        {"source": Address(b"", 1), "destination": Address(b"", 1)},
        {"source": V4.source, "destination": V4.source, "local": True},
    ],
)
def test_contradicting_headers_are_not_built(change):
    with pytest.raises(InvalidMetadata):
        ProxyHeader(**change)


@pytest.mark.parametrize("header", [*HEADERS[3:6], ProxyHeader(tlvs=((1, b""),))])
def test_version_1_refuses_what_only_version_2_can_say(header):
    with pytest.raises(InvalidMetadata, match="v1"):
        encode_v1(header)


@pytest.mark.parametrize("tlvs", [((256, b""),), ((1, bytes(537)),), ((1, bytes(300)), (2, bytes(300)))])
def test_version_2_stays_within_its_bound(tlvs):
    with pytest.raises(InvalidMetadata):
        encode_v2(ProxyHeader(tlvs=tlvs))
