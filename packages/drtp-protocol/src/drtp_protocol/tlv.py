"""TLV lists: u8 type, u16 length, value; types strictly ascending.

Rules: there is exactly one encoding of a list, so `encode(decode(x)) == x` and a transcript is unambiguous; a type may
occur once; a type of 0x80 or more must be understood by the reader.
What must not be here: the meaning of any type. Messages own theirs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

from .errors import ErrorCode, InvalidMetadata, RemoteProtocolError

__all__ = ["MUST_UNDERSTAND", "Extensions", "decode", "encode", "pack_list", "split_known", "unpack_list"]

MUST_UNDERSTAND: Final = 0x80
"""Types from here on are an error for a reader that does not know them; lower unknown types are kept and ignored."""

Extensions: TypeAlias = tuple[tuple[int, bytes], ...]
"""Entries of unknown type, kept so that a message encodes to the bytes it was decoded from."""

_HEAD = struct.Struct(">BH")


def encode(items: Iterable[tuple[int, bytes]]) -> bytes:
    """Encode a list of (type, value).

    Raises:
        InvalidMetadata: a type is outside 0..255 or not above the one before, or a value exceeds 65,535 bytes.
    """
    parts: list[bytes] = []
    last = -1
    for kind, value in items:
        if not last < kind <= 0xFF:
            raise InvalidMetadata(f"TLV type {kind} after {last}: types ascend strictly and end at 255")
        if len(value) > 0xFFFF:
            raise InvalidMetadata(f"TLV {kind:#04x}: {len(value)} bytes exceed 65535")
        parts += (_HEAD.pack(kind, len(value)), value)
        last = kind
    return b"".join(parts)


def decode(data: bytes) -> dict[int, bytes]:
    """Decode a whole list; the result keeps the wire's (ascending) order.

    Raises:
        RemoteProtocolError: it is cut short, a type repeats, or types do not ascend.
    """
    found: dict[int, bytes] = {}
    position, end, last = 0, len(data), -1
    while position < end:
        if end - position < 3:
            raise RemoteProtocolError(f"TLV list ends inside an entry's head at byte {position}")
        kind, size = _HEAD.unpack_from(data, position)
        position += 3
        if kind <= last:
            raise RemoteProtocolError(f"TLV type {kind:#04x} after {last:#04x}: types must ascend strictly")
        if size > end - position:
            raise RemoteProtocolError(f"TLV {kind:#04x}: {size} bytes declared, {end - position} left")
        found[kind] = data[position : position + size]
        position += size
        last = kind
    return found


def split_known(found: dict[int, bytes], known: AbstractSet[int]) -> Extensions:
    """Return the entries whose type is not in `known`, ascending.

    Raises:
        RemoteProtocolError: one of them must be understood (code UNSUPPORTED).
    """
    if found.keys() <= known:
        return ()
    unknown = tuple((kind, value) for kind, value in found.items() if kind not in known)
    for kind, _ in unknown:
        if kind >= MUST_UNDERSTAND:
            raise RemoteProtocolError(f"TLV {kind:#04x} must be understood and is not", ErrorCode.UNSUPPORTED)
    return unknown


def pack_list(items: Iterable[bytes]) -> bytes:
    """Encode byte strings of at most 255 bytes, each behind its u8 length.

    Raises:
        InvalidMetadata: an item is longer.
    """
    parts = []
    for item in items:
        if len(item) > 0xFF:
            raise InvalidMetadata(f"list item of {len(item)} bytes exceeds 255")
        parts.append(bytes((len(item),)) + item)
    return b"".join(parts)


def unpack_list(data: bytes) -> tuple[bytes, ...]:
    """Decode what :func:`pack_list` encodes.

    Raises:
        RemoteProtocolError: the last item is cut short.
    """
    items = []
    position = 0
    while position < len(data):
        end = position + 1 + data[position]
        if end > len(data):
            raise RemoteProtocolError(f"list item at byte {position}: {data[position]} bytes declared, fewer left")
        items.append(data[position + 1 : end])
        position = end
    return tuple(items)
