"""PROXY protocol, versions 1 and 2: writing the header, and reading one from the front of a byte stream.

Rules: sans-IO like the rest; strict, because what follows the header is trusted on its word: v1 only in its canonical
form, v2 only with a known command and family, nothing over 536 bytes (what one unfragmented IPv4 segment carries, which
senders keep to so that the header arrives whole). Source: haproxy's proxy-protocol.txt, revision of 2020.
What must not be here: whom to believe. A listener decides which peers may send such a header.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

import attrs

from .errors import InvalidMetadata
from .metadata import Address

__all__ = [
    "MAX_PROXY_HEADER",
    "ProxyHeader",
    "ProxyProtocolError",
    "ProxyTlv",
    "decode_proxy",
    "encode_v1",
    "encode_v2",
]

MAX_PROXY_HEADER: Final = 536
_MAX_V1: Final = 107
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2: Final = struct.Struct(">12sBBH")
_PORTS: Final = struct.Struct(">HH")
_TLV: Final = struct.Struct(">BH")


class ProxyProtocolError(Exception):
    """The bytes are no PROXY header, or a malformed one: close the connection without an answer."""


class ProxyTlv(enum.IntEnum):
    """Types of v2's TLVs that have a use here."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05


@attrs.frozen(kw_only=True)
class ProxyHeader:
    """What a PROXY header says.

    Attributes:
        source: The visitor; None if unknown, or if `local`.
        destination: What it dialled; None exactly if `source` is.
        datagram: UDP (v2 only).
        local: The proxy speaks for itself (v2 LOCAL: a health check).
        tlvs: v2's (type, value), in order.
    """

    source: Address | None = None
    destination: Address | None = None
    datagram: bool = False
    local: bool = False
    tlvs: tuple[tuple[int, bytes], ...] = ()

    def __attrs_post_init__(self) -> None:
        """Refuse what neither version can carry."""
        if (self.source is None) is not (self.destination is None):
            raise InvalidMetadata("PROXY: source and destination come together")
        if self.source is not None and self.destination is not None:
            if self.source.family != self.destination.family or not self.source.family:
                raise InvalidMetadata("PROXY: source and destination must be known and of one family")
            if self.local:
                raise InvalidMetadata("PROXY: LOCAL has no addresses")


def encode_v1(header: ProxyHeader) -> bytes:
    """Return the text form, at most 107 bytes; unknown addresses become UNKNOWN.

    Raises:
        InvalidMetadata: UDP, LOCAL or TLVs, which only v2 can say.
    """
    if header.datagram or header.local or header.tlvs:
        raise InvalidMetadata("PROXY v1 carries neither UDP nor LOCAL nor TLVs")
    source, destination = header.source, header.destination
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    line = f"PROXY TCP{source.family} {source.host} {destination.host} {source.port} {destination.port}\r\n"
    return line.encode()


def encode_v2(header: ProxyHeader) -> bytes:
    """Return the binary form.

    Raises:
        InvalidMetadata: it exceeds 536 bytes.
    """
    body = b""
    family = 0x00
    if header.source is not None and header.destination is not None:
        source, destination = header.source, header.destination
        family = (0x10 if source.family == 4 else 0x20) | (0x02 if header.datagram else 0x01)
        body = source.packed + destination.packed + _PORTS.pack(source.port, destination.port)
    for kind, value in header.tlvs:
        if not 0 <= kind <= 0xFF or len(value) > MAX_PROXY_HEADER:
            raise InvalidMetadata(f"PROXY: TLV {kind} of {len(value)} bytes")
        body += _TLV.pack(kind, len(value)) + value
    if _V2.size + len(body) > MAX_PROXY_HEADER:
        raise InvalidMetadata(f"PROXY: header of {_V2.size + len(body)} bytes exceeds {MAX_PROXY_HEADER}")
    return _V2.pack(_SIGNATURE, 0x20 if header.local else 0x21, family, len(body)) + body


def decode_proxy(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Read a header of either version from the front of `data`.

    Args:
        data: All that was received so far.

    Returns:
        The header and its size, or None if more bytes are needed (never more than 536 in all).

    Raises:
        ProxyProtocolError: it is none, or malformed; known as early as the bytes tell.
    """
    if data[:12] == _SIGNATURE[: len(data)]:
        return _decode_v2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _decode_v1(data)
    raise ProxyProtocolError(f"no PROXY header: {data[:16]!r}")


def _decode_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    end = data.find(b"\r\n", 0, _MAX_V1)
    if end < 0:
        if len(data) >= _MAX_V1 or b"\n" in data:
            raise ProxyProtocolError("PROXY v1: no line within 107 bytes")
        return None
    size = end + 2
    words = data[6:end].split(b" ")
    if words[0] == b"UNKNOWN":  # the rest of such a line is to be ignored
        return ProxyHeader(), size
    if len(words) != 5 or words[0] not in {b"TCP4", b"TCP6"}:
        raise ProxyProtocolError(f"PROXY v1: {data[:end]!r}")
    try:
        source = _v1_address(words[1], words[3])
        destination = _v1_address(words[2], words[4])
        if source.family != int(words[0][3:]):
            raise InvalidMetadata("addresses of another family")  # noqa: TRY301
        return ProxyHeader(source=source, destination=destination), size
    except (InvalidMetadata, UnicodeDecodeError) as error:
        raise ProxyProtocolError(f"PROXY v1: {error}") from None


def _v1_address(host: bytes, port: bytes) -> Address:
    if not port.isdigit() or len(port) > 5 or (port[:1] == b"0" and port != b"0") or b"%" in host:
        raise InvalidMetadata(f"port {port!r} or address {host!r} is not canonical")
    return Address.from_host(host.decode("ascii"), int(port), mapped=False)


def _decode_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    if len(data) >= 13 and data[12] not in {0x20, 0x21}:
        raise ProxyProtocolError(f"PROXY v2: version and command {data[12]:#04x}")
    if len(data) >= 14 and data[13] not in _FAMILIES:
        raise ProxyProtocolError(f"PROXY v2: family and protocol {data[13]:#04x}")
    if len(data) < _V2.size:
        return None
    _, command, family, length = _V2.unpack_from(data)
    size = _V2.size + length
    if size > MAX_PROXY_HEADER:
        raise ProxyProtocolError(f"PROXY v2: header of {size} bytes exceeds {MAX_PROXY_HEADER}")
    if len(data) < size:
        return None
    width = _FAMILIES[family]
    if command == 0x20:  # LOCAL: addresses, if any, are to be ignored
        return ProxyHeader(local=True), size
    body = data[_V2.size : size]
    if not width:
        return ProxyHeader(tlvs=_decode_tlvs(body) if family == 0 else ()), size
    if len(body) < 2 * width + 4:
        raise ProxyProtocolError(f"PROXY v2: {len(body)} bytes are too few for two addresses")
    source_port, destination_port = _PORTS.unpack_from(body, 2 * width)
    header = ProxyHeader(
        source=Address(body[:width], source_port),
        destination=Address(body[width : 2 * width], destination_port),
        datagram=family & 0x0F == 0x02,
        tlvs=_decode_tlvs(body[2 * width + 4 :]),
    )
    return header, size


_FAMILIES: Final = {0x00: 0, 0x11: 4, 0x12: 4, 0x21: 16, 0x22: 16}
"""Family and protocol -> bytes of an address. Unix sockets have no place here."""


def _decode_tlvs(body: bytes) -> tuple[tuple[int, bytes], ...]:
    found = []
    position = 0
    while position < len(body):
        if len(body) - position < _TLV.size:
            raise ProxyProtocolError("PROXY v2: the last TLV is cut short")
        kind, size = _TLV.unpack_from(body, position)
        position += _TLV.size
        if size > len(body) - position:
            raise ProxyProtocolError(f"PROXY v2: TLV {kind:#04x} of {size} bytes, {len(body) - position} left")
        found.append((kind, body[position : position + size]))
        position += size
    return tuple(found)
