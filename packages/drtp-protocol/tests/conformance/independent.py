"""A second reader of DRTP/1, written from docs/protocol/spec.md alone.

Rules: it imports nothing of `drtp_protocol` and shares no table, constant or helper with the codec; it is slow and
literal, one line per sentence of the specification. Where it and the codec disagree, the specification decides.
It reads frames into plain dictionaries (bytes as hex) and knows no state beyond one frame.
"""

import itertools
import struct

PREFACE = b"DRTP/1\r\n"

# type: name, who may send it, whether a stream is named, whether F may be set, (least, most) payload or None: max_frame
FRAMES = {
    0x01: ("HELLO", "agent", False, False, (0, 8192)),
    0x02: ("CHALLENGE", "edge", False, False, (0, 8192)),
    0x03: ("AUTH", "agent", False, False, (0, 8192)),
    0x04: ("WELCOME", "edge", False, False, (0, 8192)),
    0x10: ("OPEN", "both", True, False, (0, 4096)),
    0x11: ("ACCEPT", "both", True, False, (0, 0)),
    0x12: ("DATA", "both", True, True, None),
    0x13: ("WINDOW", "both", True, False, (8, 8)),
    0x14: ("RESET", "both", True, False, (6, 126)),
    0x15: ("DATAGRAM", "both", True, False, None),
    0x20: ("PING", "both", False, True, (8, 8)),
    0x21: ("GOAWAY", "both", False, False, (16, 2048)),
    0x22: ("REPORT", "agent", False, False, (0, 2048)),
}


class MalformedError(Exception):
    """The bytes break the specification; `code` is the error code's name."""

    def __init__(self, code, why):
        super().__init__(f"{code}: {why}")
        self.code = code


def check(condition, why, code="PROTOCOL_ERROR"):
    if not condition:
        raise MalformedError(code, why)


def number(value, size):
    check(len(value) == size, f"{size} bytes expected")
    return int.from_bytes(value, "big")


def text(value, low, high):
    check(low <= len(value) <= high, f"text of {low} to {high} bytes expected")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("PROTOCOL_ERROR", "not UTF-8") from None


def short_list(value):
    items = []
    while value:
        check(len(value) > value[0], "short list is cut short")
        items.append(value[1 : 1 + value[0]])
        value = value[1 + value[0] :]
    return items


def ascending_bytes(value):
    check(value and all(a < b for a, b in itertools.pairwise(value)), "ascending, at least one")
    return list(value)


def raw(low, high):
    def read(value):
        check(low <= len(value) <= high, f"{low} to {high} bytes expected")
        return value.hex()

    return read


def limits(value):
    check(len(value) == 18, "limits are 18 bytes")
    window, frame, streams, pending, datagram, idle, reserved = struct.unpack(">IIHHHHH", value)
    check(1 <= window <= 2**31 and 1 <= frame <= 262144, "base_window or max_frame out of range")
    check(streams and pending and datagram <= 65507 and not reserved, "a count out of range")
    return [window, frame, streams, pending, datagram, idle]


def address(value):
    check(len(value) >= 3 and value[0] in (0, 4, 6), "unknown family")
    check(len(value) == {0: 3, 4: 7, 6: 19}[value[0]], "wrong size for the family")
    return [value[0], value[1:-2].hex(), int.from_bytes(value[-2:], "big")]


def alpn(value):
    check(1 <= len(value) <= 255, "alpn is 1 to 255 bytes")
    items = short_list(value)
    check(all(items), "an empty protocol name")
    return [item.hex() for item in items]


def protocol(value):
    check(number(value, 1) in (1, 2), "unknown protocol", "UNSUPPORTED")
    return value[0]


def one_of(*allowed):
    def read(value):
        check(number(value, 1) in allowed, f"one of {allowed} expected")
        return value[0]

    return read


def some_of(*allowed):
    def read(value):
        check(set(ascending_bytes(value)) <= set(allowed), f"some of {allowed} expected")
        return list(value)

    return read


def bindings(value):
    items = short_list(value)
    check(len(items) % 2 == 0, "services and addresses come in pairs")
    return [[text(items[i], 1, 253), text(items[i + 1], 0, 255)] for i in range(0, len(items), 2)]


def keepalive(value):
    before, death = number(value, 8) >> 32, number(value, 8) & 0xFFFFFFFF
    check(0 < before < death, "death comes after the PING")
    return [before, death]


def services(value):
    return [text(item, 1, 253) for item in short_list(value)]


def alternates(value):
    check(value, "an empty list is left out")
    return [text(item, 1, 255) for item in short_list(value)]


def u(size):
    return lambda value: number(value, size)


def utf8(low, high):
    return lambda value: text(value, low, high)


# type of the entry: (name, reader, required)
FIELDS = {
    "HELLO": {
        1: ("versions", ascending_bytes, True),
        2: ("nonce", raw(32, 32), True),
        3: ("instance_id", raw(16, 16), True),
        4: ("epoch", u(8), True),
        5: ("limits", limits, True),
        6: ("capabilities", u(4), True),
        7: ("services", services, True),
        8: ("agent", utf8(0, 128), True),
        9: ("resume", raw(1, 512), False),
    },
    "CHALLENGE": {
        1: ("version", u(1), True),
        2: ("nonce", raw(32, 32), True),
        3: ("edge_id", utf8(0, 253), True),
        4: ("methods", some_of(1, 2, 3), True),
        5: ("binding_types", some_of(0, 1), True),
        6: ("limits", limits, True),
        7: ("capabilities", u(4), True),
        8: ("server_time", u(8), True),
    },
    "AUTH": {
        1: ("method", one_of(1, 2, 3), True),
        2: ("binding_type", one_of(0, 1), True),
        3: ("credential", raw(0, 4096), True),
        4: ("proof", raw(0, 128), True),
        5: ("public_key", raw(32, 32), False),
    },
    "WELCOME": {
        1: ("session_id", raw(16, 16), True),
        2: ("lease", u(4), True),
        3: ("limits", limits, True),
        4: ("bindings", bindings, True),
        5: ("edge_proof", raw(32, 32), False),
        6: ("resume", raw(1, 512), False),
        7: ("udp_path", raw(1, 128), False),
        8: ("keepalive", keepalive, False),
    },
    "OPEN": {
        1: ("service", utf8(1, 253), True),
        2: ("protocol", protocol, True),
        3: ("source", address, False),
        4: ("destination", address, False),
        5: ("traceparent", raw(26, 26), False),
        6: ("tracestate", utf8(1, 512), False),
        7: ("sni", utf8(1, 253), False),
        8: ("alpn", alpn, False),
        9: ("edge_conn_id", raw(16, 16), False),
        10: ("initial", raw(0, 1024), False),
        11: ("opened_at", u(8), False),
    },
    "GOAWAY": {1: ("reason", utf8(1, 256), False), 2: ("alternates", alternates, False)},
    "REPORT": {
        1: ("origin_rtt_us", u(4), False),
        2: ("dial_failures", u(4), False),
        3: ("healthy", one_of(0, 1), False),
    },
}


def tlvs(name, value):
    """Read a TLV list into its named fields; entries of unknown type go to "extensions"."""
    entries, last = [], -1
    while value:
        check(len(value) >= 3, "list ends inside an entry")
        kind, size = value[0], value[1] << 8 | value[2]
        check(kind > last, "types ascend strictly")
        check(len(value) >= 3 + size, "entry is cut short")
        entries.append((kind, value[3 : 3 + size]))
        value, last = value[3 + size :], kind
    known, found = FIELDS.get(name, {}), {}
    for kind, _ in entries:
        check(kind in known or kind < 0x80, "must be understood", "UNSUPPORTED")
    for kind, content in entries:
        if kind in known:
            found[known[kind][0]] = known[kind][1](content)
        else:
            found.setdefault("extensions", []).append([kind, content.hex()])
    for field, _, required in known.values():
        check(field in found or not required, f"{field} is missing")
    if name == "OPEN":
        check("initial" not in found or found["protocol"] == 2, "initial datagram on a stream")
    return found


def read_header(header, sender, max_frame=65536):
    """Judge 8 bytes; return name, F, stream identifier and Length. A frame to skip has the name EXTENSION."""
    kind, length = header[0], int.from_bytes(header[1:4], "big")
    flag, stream = header[4] >> 7, int.from_bytes(header[4:8], "big") & 0x7FFFFFFF
    if 0x40 <= kind <= 0x7F:
        check(length <= 2048, "extension too long", "FRAME_SIZE")
        return "EXTENSION", flag, stream, length
    check(kind in FRAMES, f"type {kind:#x}")
    name, role, on_stream, may_flag, bounds = FRAMES[kind]
    check(role in (sender, "both"), f"{name} from the {sender}")
    low, high = bounds or (0, max_frame)
    check(low <= length <= high, f"{name} of {length} bytes", "FRAME_SIZE")
    check(flag == 0 or may_flag, f"F on {name}")
    check((stream != 0) == on_stream, f"{name} on stream {stream}")
    check(name != "DATA" or length or flag, "DATA of no bytes without FIN")
    return name, flag, stream, length


def read_frame(data, sender, max_frame=65536):
    """Read one frame; return (dictionary or None if more bytes are needed, bytes used)."""
    if len(data) < 8:
        return None, 0
    name, flag, stream, length = read_header(data[:8], sender, max_frame)
    if len(data) < 8 + length:
        return None, 0
    payload = data[8 : 8 + length]
    frame = {"frame": name, "stream": stream, "flag": flag}
    match name:
        case "DATA" | "DATAGRAM" | "PING" | "EXTENSION":
            frame["payload"] = payload.hex()
        case "WINDOW":
            frame["limit"] = number(payload, 8)
        case "RESET":
            frame |= {"code": number(payload[:4], 4), "detail": number(payload[4:6], 2)}
            frame["reason"] = text(payload[6:], 0, 120)
        case "GOAWAY":
            for field in ("last_id", "code", "retry_after_ms", "drain_ms"):
                frame[field], payload = number(payload[:4], 4), payload[4:]
            check(frame["last_id"] < 2**31, "last_id is an identifier of 31 bits")
            frame |= tlvs("GOAWAY", payload)
        case _:
            frame |= tlvs(name, payload)
    return frame, 8 + length
