"""OPEN metadata: who visits which service, as typed values and as TLVs.

Rules: metadata is data beside the stream, never bytes inside it; it is checked when built (`InvalidMetadata`) and when
read (`RemoteProtocolError`) by the same code; an address is carried packed, so no resolver and no text parser is near.
What must not be here: what an agent does with it (PROXY headers are in :mod:`drtp_protocol.proxyproto`).
"""

from __future__ import annotations

import enum
import functools
import struct
from typing import Final

import attrs

from . import tlv
from .errors import ErrorCode, InvalidMetadata, RemoteProtocolError
from .limits import OPEN_METADATA_SIZE

__all__ = ["Address", "OpenMetadata", "Protocol", "TraceParent"]

MAX_NAME: Final = 253
"""The longest DNS name; service keys and server names share the bound."""
MAX_TRACESTATE: Final = 512
MAX_ALPN: Final = 255
MAX_INITIAL: Final = 1_024
"""A first datagram that fits here travels with OPEN, so that one-shot UDP (DNS) costs one round trip."""

_PORT = struct.Struct(">H")
_U64 = struct.Struct(">Q")
_FAMILY_SIZES = {0: 0, 4: 4, 6: 16}
_FAMILY_BYTES = {0: b"\x00", 4: b"\x04", 16: b"\x06"}


class Protocol(enum.IntEnum):
    """What a stream carries."""

    TCP = 1
    UDP = 2


@attrs.frozen
class Address:
    """An IP address and port.

    Attributes:
        packed: 4 bytes, 16 bytes, or none if the address is unknown.
        port: 0..65535.
    """

    packed: bytes
    port: int

    def __attrs_post_init__(self) -> None:
        """Refuse what the wire cannot carry."""
        if len(self.packed) not in {0, 4, 16}:
            raise InvalidMetadata(f"address of {len(self.packed)} bytes, expected 4, 16 or none")
        if not 0 <= self.port <= 0xFFFF:
            raise InvalidMetadata(f"port {self.port} is outside 0..65535")

    @classmethod
    def from_host(cls, host: str, port: int, *, mapped: bool = True) -> Address:
        """Return the address for a literal; a scope is dropped.

        Args:
            host: The literal.
            port: 0..65535.
            mapped: Whether an IPv4-mapped IPv6 literal, as dual-stack listeners give them, becomes IPv4.

        Raises:
            InvalidMetadata: `host` is not an IP literal.
        """
        import ipaddress  # 3 ms of start-up that an importer of this package need not pay

        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            raise InvalidMetadata(f"{host!r} is not an IP address") from None
        inner = address.ipv4_mapped if mapped and address.version == 6 else None
        return cls((inner or address).packed, port)

    @property
    def family(self) -> int:
        """4, 6, or 0 for unknown."""
        size = len(self.packed)
        return 4 if size == 4 else 6 if size else 0

    @property
    def host(self) -> str:
        """The address as text, or "" if unknown."""
        import ipaddress

        return str(ipaddress.ip_address(self.packed)) if self.packed else ""

    def __str__(self) -> str:
        match self.family:
            case 0:
                return f"unknown:{self.port}"
            case 6:
                return f"[{self.host}]:{self.port}"
            case _:
                return f"{self.host}:{self.port}"

    def encode(self) -> bytes:
        """Return u8 family, the packed address, u16 port."""
        return _FAMILY_BYTES[len(self.packed)] + self.packed + _PORT.pack(self.port)

    @classmethod
    def decode(cls, data: bytes) -> Address:
        """Read what :meth:`encode` writes.

        Raises:
            RemoteProtocolError: unknown family or wrong size.
        """
        size = _FAMILY_SIZES.get(data[0]) if data else None
        if size is None or len(data) != size + 3:
            raise RemoteProtocolError(f"address {data[:20].hex()} of {len(data)} bytes: wrong family or size")
        return cls(data[1 : size + 1], _PORT.unpack_from(data, size + 1)[0])


@attrs.frozen
class TraceParent:
    """W3C trace context, level 1: the visitor's trace, or the one that the edge began.

    Attributes:
        version: 0..255, 0 today.
        trace_id: 16 bytes.
        span_id: 8 bytes.
        flags: 0..255.
    """

    trace_id: bytes
    span_id: bytes
    flags: int = 0
    version: int = 0

    def __attrs_post_init__(self) -> None:
        """Refuse wrong sizes."""
        if len(self.trace_id) != 16 or len(self.span_id) != 8:
            raise InvalidMetadata("traceparent: a trace id is 16 bytes and a span id 8")
        if not (0 <= self.flags <= 0xFF and 0 <= self.version <= 0xFF):
            raise InvalidMetadata("traceparent: version and flags are bytes")

    @classmethod
    def parse(cls, text: str) -> TraceParent:
        """Read the header form `00-<32 hex>-<16 hex>-<2 hex>`.

        Raises:
            InvalidMetadata: any other form.
        """
        parts = text.split("-")
        if [len(part) for part in parts] == [2, 32, 16, 2]:
            try:
                version, trace_id, span_id, flags = map(bytes.fromhex, parts)
                return cls(trace_id, span_id, flags[0], version[0])
            except (ValueError, IndexError):
                pass
        raise InvalidMetadata(f"not a traceparent: {text[:80]!r}")

    def __str__(self) -> str:
        return f"{self.version:02x}-{self.trace_id.hex()}-{self.span_id.hex()}-{self.flags:02x}"

    def encode(self) -> bytes:
        """Return version, trace id, span id, flags: 26 bytes."""
        return bytes((self.version,)) + self.trace_id + self.span_id + bytes((self.flags,))

    @classmethod
    def decode(cls, data: bytes) -> TraceParent:
        """Read what :meth:`encode` writes.

        Raises:
            RemoteProtocolError: not 26 bytes.
        """
        if len(data) != 26:
            raise RemoteProtocolError(f"traceparent of {len(data)} bytes, expected 26")
        return cls(data[1:17], data[17:25], data[25], data[0])


@attrs.frozen(kw_only=True)
class OpenMetadata:
    """What OPEN says about a stream. The addresses are asserted by the edge and trusted exactly as far as it is.

    Attributes:
        service: Key "namespace/name" of the service, 1..253 bytes of UTF-8; one of WELCOME's bindings.
        protocol: TCP for a stream, UDP for a flow.
        source: The real visitor.
        destination: The gateway address that the visitor dialled.
        traceparent: The visitor's or the edge's trace context.
        tracestate: W3C tracestate, at most 512 bytes.
        sni: The server name of the visitor's TLS, if it was seen.
        alpn: The protocols the visitor's TLS offered; 255 bytes encoded.
        edge_conn_id: 16 bytes that appear in every log line of this connection at both ends.
        initial: First datagram of a flow, at most 1,024 bytes; UDP only.
        opened_at: Microseconds of the edge's clock since the epoch, for dial-latency accounting.
        extensions: Entries of unknown type, in wire order.
    """

    service: str
    protocol: Protocol = Protocol.TCP
    source: Address | None = None
    destination: Address | None = None
    traceparent: TraceParent | None = None
    tracestate: str = ""
    sni: str = ""
    alpn: tuple[bytes, ...] = ()
    edge_conn_id: bytes | None = None
    initial: bytes | None = None
    opened_at: int | None = None
    extensions: tlv.Extensions = ()

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be sent, whoever builds it."""
        if not self.service:
            raise InvalidMetadata("OPEN names no service")
        _check_text("service", self.service, MAX_NAME)
        if self.sni:
            _check_text("sni", self.sni, MAX_NAME)
        if self.tracestate:
            _check_text("tracestate", self.tracestate, MAX_TRACESTATE)
        if self.alpn and (not all(self.alpn) or sum(map(len, self.alpn)) + len(self.alpn) > MAX_ALPN):
            raise InvalidMetadata(f"alpn holds an empty name or exceeds {MAX_ALPN} bytes")
        if self.edge_conn_id is not None and len(self.edge_conn_id) != 16:
            raise InvalidMetadata(f"edge_conn_id of {len(self.edge_conn_id)} bytes, expected 16")
        if self.initial is not None:
            if self.protocol is not Protocol.UDP:
                raise InvalidMetadata("initial datagram on a TCP stream")
            if len(self.initial) > MAX_INITIAL:
                raise InvalidMetadata(f"initial datagram of {len(self.initial)} bytes exceeds {MAX_INITIAL}")
        if self.opened_at is not None and not 0 <= self.opened_at < 2**64:
            raise InvalidMetadata(f"opened_at {self.opened_at} is outside u64")
        if self.extensions and any(kind in _KNOWN for kind, _ in self.extensions):
            raise InvalidMetadata("an extension uses a type that has a field")

    def encode(self) -> bytes:
        """Return the payload of OPEN.

        Raises:
            InvalidMetadata: it exceeds 4,096 bytes.
        """
        items: list[tuple[int, bytes]] = []
        if self.source is not None:
            items.append((_SOURCE, self.source.encode()))
        if self.destination is not None:
            items.append((_DESTINATION, self.destination.encode()))
        if self.traceparent is not None:
            items.append((_TRACEPARENT, self.traceparent.encode()))
        if self.tracestate:
            items.append((_TRACESTATE, self.tracestate.encode()))
        if self.sni:
            items.append((_SNI, self.sni.encode()))
        if self.alpn:
            items.append((_ALPN, tlv.pack_list(self.alpn)))
        if self.edge_conn_id is not None:
            items.append((_EDGE_CONN_ID, self.edge_conn_id))
        if self.initial is not None:
            items.append((_INITIAL, self.initial))
        if self.opened_at is not None:
            items.append((_OPENED_AT, _U64.pack(self.opened_at)))
        if self.extensions:
            # Their types may be anywhere, even before those of the part that is always there.
            named = ((_SERVICE, self.service.encode()), (_PROTOCOL, _PROTOCOL_BYTES[self.protocol]))
            payload = tlv.encode(sorted((*named, *items, *self.extensions)))
        else:
            payload = _encode_named(self.service, self.protocol) + tlv.encode(items)
        if len(payload) > OPEN_METADATA_SIZE:
            raise InvalidMetadata(f"OPEN of {len(payload)} bytes exceeds {OPEN_METADATA_SIZE}")
        return payload

    @classmethod
    def decode(cls, payload: bytes) -> OpenMetadata:
        """Read the payload of OPEN.

        Raises:
            RemoteProtocolError: malformed; code UNSUPPORTED if an unknown entry must be understood.
        """
        found = tlv.decode(payload)
        extensions = tlv.split_known(found, _KNOWN)
        get = found.get
        try:
            return cls(
                service=_text(found, _SERVICE),
                protocol=_protocol(get(_PROTOCOL, b"")),
                source=Address.decode(found[_SOURCE]) if _SOURCE in found else None,
                destination=Address.decode(found[_DESTINATION]) if _DESTINATION in found else None,
                traceparent=TraceParent.decode(found[_TRACEPARENT]) if _TRACEPARENT in found else None,
                tracestate=_text(found, _TRACESTATE),
                sni=_text(found, _SNI),
                alpn=_alpn(found),
                edge_conn_id=get(_EDGE_CONN_ID),
                initial=get(_INITIAL),
                opened_at=_u64(found[_OPENED_AT]) if _OPENED_AT in found else None,
                extensions=extensions,
            )
        except InvalidMetadata as error:
            raise RemoteProtocolError(f"OPEN: {error}") from None


(
    _SERVICE,
    _PROTOCOL,
    _SOURCE,
    _DESTINATION,
    _TRACEPARENT,
    _TRACESTATE,
    _SNI,
    _ALPN,
    _EDGE_CONN_ID,
    _INITIAL,
    _OPENED_AT,
) = range(0x01, 0x0C)
_KNOWN = frozenset(range(0x01, 0x0C))
_PROTOCOL_BYTES = {Protocol.TCP: b"\x01", Protocol.UDP: b"\x02"}


@functools.lru_cache(maxsize=1024)
def _encode_named(service: str, protocol: Protocol) -> bytes:
    """Return the entries that begin every OPEN; a process serves few services and opens many streams."""
    return tlv.encode(((_SERVICE, service.encode()), (_PROTOCOL, _PROTOCOL_BYTES[protocol])))


def _check_text(name: str, text: str, bound: int) -> None:
    if len(text) > bound or (not text.isascii() and len(_utf8(name, text)) > bound):
        raise InvalidMetadata(f"{name} exceeds {bound} bytes")


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidMetadata(f"{name} is not encodable as UTF-8") from None


def _text(found: dict[int, bytes], kind: int) -> str:
    """Return an optional text; an empty one is written by leaving it out, so it is refused here."""
    value = found.get(kind)
    if value is None:
        return ""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"OPEN: TLV {kind:#04x} is not UTF-8") from None
    if not text:
        raise RemoteProtocolError(f"OPEN: TLV {kind:#04x} is empty")
    return text


def _protocol(value: bytes) -> Protocol:
    if value == b"\x01":
        return Protocol.TCP
    if value == b"\x02":
        return Protocol.UDP
    if len(value) == 1:
        raise RemoteProtocolError(f"OPEN: protocol {value[0]} is unknown", ErrorCode.UNSUPPORTED)
    raise RemoteProtocolError(f"OPEN: protocol of {len(value)} bytes, expected 1")


def _alpn(found: dict[int, bytes]) -> tuple[bytes, ...]:
    value = found.get(_ALPN)
    if value is None:
        return ()
    if not value:
        raise RemoteProtocolError("OPEN: alpn is empty")
    return tlv.unpack_list(value)


def _u64(value: bytes) -> int:
    if len(value) != 8:
        raise RemoteProtocolError(f"OPEN: opened_at of {len(value)} bytes, expected 8")
    return int.from_bytes(value, "big")
