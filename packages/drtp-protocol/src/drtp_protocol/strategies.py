"""Hypothesis strategies for everything that crosses the wire (install ``drtp-protocol[testing]``).

Rules: sizes are drawn as integers and filled with a pattern that depends on the position, because random bytes are
nearly always short and never tell *which* byte went missing; values are biased to their bounds, where the bugs are; raw
frames may lie about their length.
What must not be here: an assertion. The core imports nothing of this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from . import frames as wire
from .handshake import Auth, AuthMethod, Binding, Capability, Challenge, ChannelBinding, Hello, Welcome
from .limits import Limits
from .metadata import Address, OpenMetadata, Protocol, TraceParent
from .tlv import Extensions

__all__ = [
    "addresses",
    "auths",
    "challenges",
    "chunked",
    "extensions",
    "frames",
    "hellos",
    "limits",
    "mutated",
    "open_metadata",
    "pattern",
    "raw_frames",
    "sizes",
    "tiny_limits",
    "trace_parents",
    "welcomes",
]

_T = TypeVar("_T")

_CYCLE = bytes((7 * index + index // 256) % 251 for index in range(251 * 256))
"""A pattern whose neighbours differ and whose period (64,256) divides no frame size."""


def pattern(size: int, start: int = 0) -> bytes:
    """Return `size` bytes of the pattern from position `start` on: a lost, repeated or moved byte shows."""
    offset = start % len(_CYCLE)
    repeats = (offset + size) // len(_CYCLE) + 1
    return (_CYCLE * repeats)[offset : offset + size]


def sizes(*bounds: int, low: int = 0, high: int | None = None) -> SearchStrategy[int]:
    """Draw a size in `low..high` (default: the largest bound plus one), half of them next to one of `bounds`."""
    top = max(bounds) + 1 if high is None else high
    near = sorted({value for bound in (*bounds, low) for value in (bound - 1, bound, bound + 1) if low <= value <= top})
    return st.sampled_from(near) | st.integers(low, top)


@st.composite
def _patterned(draw: DrawFn, *bounds: int, low: int = 0, high: int | None = None) -> bytes:
    return pattern(draw(sizes(*bounds, low=low, high=high)), draw(st.integers(0, 250)))


def _text(bound: int, *, low: int = 1) -> SearchStrategy[str]:
    """Draw text of at most `bound` bytes of UTF-8, often exactly so many."""
    full = st.sampled_from(["a" * bound, "é" * (bound // 2), "x" + "漢" * ((bound - 1) // 3)])
    return full | st.text(st.characters(exclude_categories=["Cs"]), min_size=low, max_size=bound // 4)


def addresses() -> SearchStrategy[Address]:
    """Draw IPv4, IPv6 and unknown addresses, IPv4-mapped ones and extreme ports included."""
    packed = (
        st.sampled_from([b"", b"\0" * 4, b"\xff" * 4, b"\0" * 15 + b"\1", b"\0" * 10 + b"\xff\xff\x7f\0\0\1"])
        | st.binary(min_size=4, max_size=4)
        | st.binary(min_size=16, max_size=16)
    )
    return st.builds(Address, packed, sizes(0, 0xFFFF, high=0xFFFF))


def trace_parents() -> SearchStrategy[TraceParent]:
    """Draw W3C trace contexts of any version."""
    byte = sizes(0, 0xFF, high=0xFF)
    return st.builds(
        TraceParent,
        trace_id=st.binary(min_size=16, max_size=16),
        span_id=st.binary(min_size=8, max_size=8),
        flags=byte,
        version=byte,
    )


@st.composite
def extensions(draw: DrawFn, *, low: int = 0x40, high: int = 0x7F) -> Extensions:
    """Draw entries of unknown, ignorable types, ascending."""
    kinds = draw(st.lists(st.integers(low, high), unique=True, max_size=3))
    return tuple((kind, draw(_patterned(0, high=20))) for kind in sorted(kinds))


@st.composite
def open_metadata(draw: DrawFn) -> OpenMetadata:
    """Draw metadata: every field absent or present, international names, fields of exactly their bound."""
    protocol = draw(st.sampled_from(Protocol))
    return OpenMetadata(
        service=draw(st.sampled_from(["default/shop", "bücher/日本"]) | _text(253)),
        protocol=protocol,
        source=draw(st.none() | addresses()),
        destination=draw(st.none() | addresses()),
        traceparent=draw(st.none() | trace_parents()),
        tracestate=draw(st.just("") | _text(512)),
        sni=draw(st.sampled_from(["", "shop.example", "xn--bcher-kva.example", "bücher.example"]) | _text(253)),
        alpn=draw(
            st.just(())
            | st.sampled_from([(b"h2", b"http/1.1"), (b"x" * 254,), (b"a",) * 127])
            | st.lists(st.binary(min_size=1, max_size=40), max_size=5).map(tuple)
        ),
        edge_conn_id=draw(st.none() | st.binary(min_size=16, max_size=16)),
        initial=draw(st.none() | _patterned(0, 1_024, high=1_024)) if protocol is Protocol.UDP else None,
        opened_at=draw(st.none() | sizes(0, 2**63, 2**64 - 1, high=2**64 - 1)),
        extensions=draw(extensions()),
    )


def limits() -> SearchStrategy[Limits]:
    """Draw limits that may be sent, biased to their minimum."""
    return st.builds(
        Limits,
        base_window=sizes(1_024, 65_536, low=1_024, high=2**20),
        max_frame=sizes(1_024, 65_536, low=1_024, high=262_144),
        max_streams=sizes(1, 4_096, low=1, high=0xFFFF),
        max_pending_opens=sizes(1, 256, low=1, high=0xFFFF),
        max_datagram=sizes(0, 1_024, high=65_507),
        idle_timeout=sizes(0, 1, high=0xFFFF),
    )


def tiny_limits() -> SearchStrategy[Limits]:
    """Draw limits far below the protocol's floors, so that a short run meets every boundary many times."""
    return st.builds(
        Limits,
        base_window=st.sampled_from([1, 31, 32, 33, 64, 100]),
        max_frame=st.sampled_from([1, 16, 32, 64]),
        max_streams=st.sampled_from([1, 2, 6, 6]),
        max_pending_opens=st.sampled_from([1, 4, 4]),
        max_datagram=st.sampled_from([0, 8, 40, 40]),
        idle_timeout=st.just(0),
    )


def _fixed(size: int) -> SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def _u(bits: int) -> SearchStrategy[int]:
    return sizes(0, 2 ** (bits - 1), 2**bits - 1, high=2**bits - 1)


def _ascending(elements: Sequence[_T], *, least: int = 1) -> SearchStrategy[tuple[_T, ...]]:
    return st.sets(st.sampled_from(elements), min_size=least).map(
        lambda chosen: tuple(element for element in elements if element in chosen)
    )


_SERVICES = st.lists(st.sampled_from(["default/shop", "x" * 253]) | _text(253), max_size=4).map(tuple)
_CAPABILITIES = st.integers(0, 2**32 - 1).map(Capability) | st.sampled_from(Capability)


def hellos() -> SearchStrategy[Hello]:
    """Draw HELLO messages that fit a frame."""
    return st.builds(
        Hello,
        instance_id=_fixed(16),
        epoch=_u(64),
        services=_SERVICES,
        agent=st.just("") | _text(128),
        resume=st.none() | _patterned(1, 512, low=1, high=512),
        capabilities=_CAPABILITIES,
        versions=_ascending(range(256)),
        nonce=_fixed(32),
        limits=limits(),
        extensions=extensions(),
    )


def challenges() -> SearchStrategy[Challenge]:
    """Draw CHALLENGE messages."""
    return st.builds(
        Challenge,
        edge_id=st.just("") | _text(253),
        methods=_ascending(list(AuthMethod)),
        binding_types=_ascending(list(ChannelBinding)),
        capabilities=_CAPABILITIES,
        server_time=_u(64),
        version=st.integers(0, 255),
        nonce=_fixed(32),
        limits=limits(),
        extensions=extensions(),
    )


def auths() -> SearchStrategy[Auth]:
    """Draw AUTH messages, of the method's shape or of any other."""
    return st.builds(
        Auth,
        method=st.sampled_from(AuthMethod),
        binding_type=st.sampled_from(ChannelBinding),
        credential=_patterned(0, 4_096, high=4_096),
        proof=_patterned(0, 32, 64, 128, high=128),
        public_key=st.none() | _fixed(32),
        extensions=extensions(),
    )


@st.composite
def welcomes(draw: DrawFn) -> Welcome:
    """Draw WELCOME messages that fit a frame."""
    before = draw(st.integers(1, 2**32 - 2))
    return Welcome(
        session_id=draw(_fixed(16)),
        lease=draw(_u(32)),
        bindings=tuple(Binding(service, draw(st.just("") | _text(255))) for service in draw(_SERVICES)),
        edge_proof=draw(st.none() | _fixed(32)),
        resume=draw(st.none() | _patterned(1, 512, low=1, high=512)),
        udp_path=draw(st.none() | _patterned(1, 128, low=1, high=128)),
        keepalive=draw(st.none() | st.integers(before + 1, 2**32 - 1).map(lambda death: (before, death))),
        limits=draw(limits()),
        extensions=draw(extensions()),
    )


@st.composite
def _data(draw: DrawFn, stream_id: int) -> wire.Data:
    payload = draw(_patterned(0, 1_024, high=1_500))
    return wire.Data(stream_id, payload, fin=not payload or draw(st.booleans()))


@st.composite
def frames(draw: DrawFn) -> wire.Frame:
    """Draw one valid frame of any type."""
    stream_id = draw(st.integers(1, 9) | st.sampled_from([2**31 - 1, 2**31 - 2**16]))
    reason = st.just("") | _text(120)
    of_connection: list[SearchStrategy[wire.Frame]] = [hellos(), challenges(), auths(), welcomes()]
    of_connection += [
        st.builds(wire.Ping, _fixed(8), st.booleans()),
        st.builds(
            wire.GoAway,
            last_id=sizes(0, 2**31 - 1, high=2**31 - 1),
            code=_u(32),
            retry_after_ms=_u(32),
            drain_ms=_u(32),
            reason=st.just("") | _text(256),
            alternates=st.lists(_text(255), max_size=3).map(tuple),
            extensions=extensions(),
        ),
        st.builds(
            wire.Report,
            origin_rtt_us=st.none() | _u(32),
            dial_failures=st.none() | _u(32),
            healthy=st.none() | st.booleans(),
            extensions=extensions(),
        ),
    ]
    of_stream: list[SearchStrategy[wire.Frame]] = [
        st.builds(wire.Open, st.just(stream_id), open_metadata()),
        st.just(wire.Accept(stream_id)),
        _data(stream_id),
        st.builds(wire.Window, st.just(stream_id), _u(64)),
        st.builds(wire.Reset, st.just(stream_id), _u(32), _u(16), reason),
        st.builds(wire.Datagram, st.just(stream_id), _patterned(0, 1_024, high=1_500)),
        st.builds(wire.Extension, st.integers(0x40, 0x7F), _u(31), _patterned(0, 2_048, high=2_048), st.booleans()),
    ]
    every: SearchStrategy[wire.Frame] = st.one_of(*of_connection, *of_stream)
    return draw(every)


_TYPES = (0x01, 0x02, 0x03, 0x04, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x20, 0x21, 0x22)


@st.composite
def raw_frames(draw: DrawFn, *, max_payload: int = 200) -> bytes:
    """Draw one frame of any type, flag and stream; one in four lies about its length."""
    kind = draw(
        st.sampled_from(_TYPES) | st.sampled_from([0x00, 0x30, 0x3F, 0x40, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
    )
    flag = draw(st.booleans())
    stream = draw(st.integers(0, 9) | st.sampled_from([2**31 - 1, 2**31 - 2, 2**31 - 2**16]))
    exact = {0x11: 0, 0x13: 8, 0x14: 6, 0x20: 8, 0x21: 16}.get(kind, 4)
    payload = draw(_patterned(exact, high=max_payload) | st.binary(max_size=24))
    declared = len(payload)
    if draw(st.integers(0, 3)) == 0:
        declared = draw(sizes(len(payload), 4_096, 8_192, 2**24 - 1, high=2**24 - 1))
    return (kind << 24 | declared).to_bytes(4, "big") + (flag << 31 | stream).to_bytes(4, "big") + payload


@st.composite
def chunked(draw: DrawFn, blob: bytes) -> list[bytes]:
    """Cut `blob` anywhere (inside headers too); sometimes into single bytes."""
    if draw(st.integers(0, 4)) == 0:
        return [blob[index : index + 1] for index in range(len(blob))]
    cuts = sorted(draw(st.lists(st.integers(0, len(blob)), max_size=12)))
    return [blob[start:end] for start, end in zip([0, *cuts], [*cuts, len(blob)], strict=True)]


@st.composite
def mutated(draw: DrawFn, blob: bytes) -> bytes:
    """Damage valid bytes: cut pieces out, splice others in, repeat some, flip a bit."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(blob)))
        end = draw(st.integers(start, min(len(blob), start + 64)))
        piece = blob[start:end]
        match draw(st.sampled_from(["cut", "repeat", "move", "splice", "flip"])):
            case "cut":
                blob = blob[:start] + blob[end:]
            case "repeat":
                blob = blob[:end] + piece + blob[end:]
            case "move":
                rest = blob[:start] + blob[end:]
                to = draw(st.integers(0, len(rest)))
                blob = rest[:to] + piece + rest[to:]
            case "splice":
                blob = blob[:start] + draw(st.binary(max_size=12)) + blob[end:]
            case _ if start < len(blob):
                flipped = blob[start] ^ 1 << draw(st.integers(0, 7))
                blob = blob[:start] + bytes((flipped,)) + blob[start + 1 :]
            case _:
                pass
    return blob
