"""Fuzz the PROXY protocol's reader: it needs at most 536 bytes, and what it read it would write the same way.

Invariants: only `ProxyProtocolError` is raised; a verdict about a prefix holds for the whole; what was read and written
again reads the same.
"""

from __future__ import annotations

import sys

import harness

from drtp_protocol.metadata import Address
from drtp_protocol.proxyproto import (
    MAX_PROXY_HEADER,
    ProxyHeader,
    ProxyProtocolError,
    decode_proxy,
    encode_v1,
    encode_v2,
)


def attempt(data: bytes) -> tuple[ProxyHeader, int] | type[ProxyProtocolError] | None:
    """Decode; return the refusal as a value."""
    try:
        return decode_proxy(data)
    except ProxyProtocolError:
        return ProxyProtocolError


def target(data: bytes) -> None:
    """Run one input."""
    whole = attempt(data)
    if whole is None:
        assert len(data) < MAX_PROXY_HEADER, "it waits for more than a header may be"
        return
    for size in range(len(data)):
        early = attempt(data[:size])
        assert early is None or early == whole, (size, early, whole)
    if isinstance(whole, tuple):
        header, size = whole
        assert 0 < size <= min(len(data), MAX_PROXY_HEADER)
        assert attempt(data[:size]) == whole
        if header.source is not None:
            written = encode_v1(header) if data[:1] == b"P" else encode_v2(header)
            assert attempt(written) == (header, len(written))
            assert len(written) <= size or data[:1] == b"P"


def corpus() -> list[bytes]:
    """Return headers of every kind, with bytes of the stream behind them."""
    four = ProxyHeader(source=Address.from_host("192.0.2.1", 1), destination=Address.from_host("203.0.113.9", 443))
    six = ProxyHeader(
        source=Address.from_host("2001:db8::1", 65_535),
        destination=Address.from_host("2001:db8::2", 443),
        tlvs=((0x01, b"h2"), (0x02, b"shop.example"), (0x05, b"i" * 16)),
    )
    written = [
        encode_v1(four),
        encode_v2(four),
        encode_v2(six),
        encode_v2(ProxyHeader(local=True)),
        b"PROXY UNKNOWN\r\n",
    ]
    return [header + tail for header in written for tail in (b"", b"GET / HTTP/1.0\r\n\r\n")]


if __name__ == "__main__":
    sys.exit(harness.run(target, corpus()))
